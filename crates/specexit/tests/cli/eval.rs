//! Whole tasks on the built-in reasoner.

use std::collections::BTreeMap;
use std::path::Path;

use specexit_code::{Isolation, Limits, Sandbox};
use specexit_eval::Evaluation;
use specexit_testkit::table_rows;

use crate::fixture::Fixture;
use crate::run::{failure, json, stdout};

#[test]
fn two_tasks_by_several_methods_with_their_frontier() {
    let f = Fixture::new();
    let out = f.text("eval");
    let questions = f.text("mine.jsonl");
    let problems = ["problems", "--split", "test", "--family", "logic", "--count", "3"];
    stdout(&[&problems[..], &["--out", &questions]].concat());
    let tasks = format!("algebra,{questions}");
    let methods = "plain,eagle3,specexit,deer:0.995,nothinking";
    let args =
        ["eval", "--model", "reference", "--task", &tasks, "--limit", "5", "--methods", methods];
    let args = [&args[..], &["--out", &out, "--max-new-tokens", "700", "--seed", "4"]].concat();
    let args = [&args[..], &["--concurrency", "3,1"]].concat();
    let text = stdout(&args);
    assert!(text.starts_with("algebra\n") && text.contains("\nmine\n"), "{text}");

    // Again, from the files alone: the same numbers to the last digit.
    let again = json(&[&args[..], &["--json"]].concat());
    let saved = std::fs::read_to_string(f.path("eval/eval.json")).unwrap();
    let evaluation: Evaluation = serde_json::from_str(&saved).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&saved).unwrap(), again);
    assert_eq!(evaluation.tasks.keys().collect::<Vec<_>>(), ["algebra", "mine"]);
    let algebra = &evaluation.tasks["algebra"];
    assert_eq!((algebra["plain"].n, evaluation.tasks["mine"]["plain"].n), (5, 3));
    assert_eq!(algebra["plain"].accuracy, algebra["eagle3"].accuracy);
    assert_eq!(algebra["nothinking"].thinking_tokens_mean, 0.0);
    assert!(algebra["deer:0.995"].probe_tokens_mean > 0.0);
    assert!(algebra["specexit"].thinking_change.unwrap().high < 0.0);
    assert_eq!(evaluation.csv(), std::fs::read_to_string(f.path("eval/eval.csv")).unwrap());
    assert_eq!(evaluation.csv().lines().count(), 1 + 2 * 5);

    // Times of several at a time, for what does not probe.
    assert_eq!(evaluation.concurrencies(), [1, 3]);
    assert!(
        evaluation.csv().starts_with("task,")
            && evaluation.csv().contains(",makespan_1_s,makespan_3_s\n")
    );
    for numbers in evaluation.tasks.values() {
        assert!(
            numbers["eagle3"].makespan(1).unwrap() > 0.0
                && numbers["plain"].makespan(3).unwrap() > 0.0
        );
        assert!(numbers["deer:0.995"].makespans.is_empty());
        assert_eq!(numbers["specexit"].makespan(2), None);
    }
    assert!(text.contains("\n3 at a time: specexit "), "{text}");
    let page = std::fs::read_to_string(f.path("eval/report.html")).unwrap();
    assert_eq!(table_rows(&page, "makespans"), 2 * 4);

    // What was run for real lies on the curve that was replayed.
    let curves: BTreeMap<&str, _> = evaluation.provenance.frontier["algebra"]
        .iter()
        .map(|curve| (curve.method.as_str(), &curve.points))
        .collect();
    let point = curves["deer"].iter().find(|point| point.setting == "deer:0.995").unwrap();
    let run = &algebra["deer:0.995"];
    assert_eq!(point.costs.accuracy.rate, run.accuracy);
    assert_eq!(point.costs.thinking_tokens, run.thinking_tokens_mean);
    assert_eq!(point.costs.probe_tokens, run.probe_tokens_mean);
    for method in ["confidence", "progress", "remaining", "specexit", "random", "dynasor", "eat"] {
        assert!(curves[method].len() >= 7, "{method}");
    }
}

/// Whether this machine can run code apart from all else.
fn sandboxed() -> bool {
    Sandbox::new(Path::new("python3"), Limits::default(), Isolation::Namespaces).is_ok()
}

#[test]
fn questions_say_how_they_are_judged_and_code_is_run() {
    let f = Fixture::new();
    let (questions, out) = (f.text("mixed.jsonl"), f.text("eval"));
    let lines = [
        // The whole program asserts nothing of the answer but that there is code; prose is none.
        r#"{"id": "code", "prompt": "def f():\n", "test": "def check(c): pass", "entry_point": "f"}"#,
        r#"{"id": "boxed", "question": "What is 2 + 2?", "answer": "4", "answer_kind": "boxed"}"#,
    ];
    std::fs::write(&questions, lines.join("\n")).unwrap();
    let args = ["eval", "--model", "reference", "--task", &questions, "--methods", "plain"];
    let args = [&args[..], &["--max-new-tokens", "200", "--out", &out]].concat();
    if !sandboxed() {
        eprintln!("skipped: there is no python3, or no namespace, to run code in");
        return;
    }
    let numbers = &json(&[&args[..], &["--json"]].concat())["mixed"]["plain"];
    assert_eq!(numbers["n"], 2);
    let answers = std::fs::read_to_string(f.path("eval/mixed/answers.jsonl")).unwrap();
    let code = answers.lines().find(|line| line.contains(r#""question":"code""#)).unwrap();
    assert!(code.contains(r#""correct":false"#), "{code}");
    // What is judged otherwise is another evaluation.
    let (_, sentence) = failure(&[&args[..], &["--answer-kind", "number"]].concat());
    assert!(sentence.contains("was begun with tasks.hash"), "{sentence}");
}

#[test]
fn questions_are_repeated_under_several_seeds() {
    let f = Fixture::new();
    let out = f.text("eval");
    let args = [
        "eval",
        "--model",
        "reference",
        "--task",
        "words",
        "--limit",
        "3",
        "--repeats",
        "2",
        "--json",
    ];
    let more = [
        "--temperature",
        "1",
        "--max-new-tokens",
        "700",
        "--methods",
        "plain,specexit",
        "--out",
        &out,
    ];
    let args = [&args[..], &more].concat();
    let found = json(&args);
    assert_eq!(found["words"]["plain"]["n"], 6);
    let answers = std::fs::read_to_string(f.path("eval/words/answers.jsonl")).unwrap();
    let texts = |repeat: bool| -> Vec<&str> {
        let plain = answers.lines().skip(1).filter(|line| line.contains(r#""method":"plain""#));
        plain.filter(|line| line.contains(r#""repeat":1"#) == repeat).collect()
    };
    assert_eq!((texts(false).len(), texts(true).len()), (3, 3));
    // Interrupted in the middle of the second round, the rest is answered and the same comes out.
    let kept: Vec<&str> = answers.lines().take(1 + 2 * 4).collect();
    std::fs::write(f.path("eval/words/answers.jsonl"), kept.join("\n") + "\n").unwrap();
    let again = json(&args);
    assert_eq!(again["words"]["plain"]["accuracy"], found["words"]["plain"]["accuracy"]);
    assert_eq!(
        again["words"]["specexit"]["thinking_tokens_mean"],
        found["words"]["specexit"]["thinking_tokens_mean"]
    );
}

#[test]
fn mistakes_are_one_sentence() {
    let f = Fixture::new();
    let out = f.text("eval");
    let eval = |task: &str, more: &[&str]| {
        failure(&[&["eval", "--model", "reference", "--task", task, "--out", &out], more].concat())
    };
    let (code, sentence) = eval("chess", &[]);
    assert_eq!(code, 2);
    assert!(sentence.starts_with("there is no task chess: neither words"), "{sentence}");
    let (_, sentence) = eval("words,words", &[]);
    assert!(sentence.starts_with("there can be only one task called words"), "{sentence}");
    let (_, sentence) = eval("words", &["--methods", "plain,deer"]);
    assert!(sentence.contains("deer:P"), "{sentence}");
    let code = f.text("code.jsonl");
    std::fs::write(
        &code,
        "{\"prompt\": \"def f():\", \"test\": \"pass\", \"entry_point\": \"f\"}\n",
    )
    .unwrap();
    let (_, sentence) = eval(&code, &["--python", "no-such-python"]);
    assert!(
        sentence
            .starts_with("the questions come with tests to run, but no-such-python does not run: "),
        "{sentence}"
    );
    assert!(sentence.contains("--code-limits-only"), "{sentence}");
    std::fs::write(&code, "{\"question\": \"Why?\"}\n").unwrap();
    let (_, sentence) = eval(&code, &[]);
    assert!(sentence.contains("has neither an answer nor tests"), "{sentence}");
    let (_, sentence) = eval("words", &["--concurrency", "2,0"]);
    assert!(sentence.starts_with("--concurrency 0 answers nothing"), "{sentence}");
    let (_, sentence) = eval("words", &["--repeats", "3"]);
    assert!(sentence.starts_with("--repeats does not apply to temperature 0"), "{sentence}");
    let (_, sentence) = eval("words", &["--limit", "0"]);
    assert_eq!(sentence, "--limit and --batch must be at least 1");
}
