//! The whole loop through the program: collect, label, train, compare, each of them resumed.

use serde_json::{Value, json};

use crate::fixture::{CONTEXT, Fixture, THINKING};
use crate::run::{failure, json, specexit, stdout};

#[test]
fn collect_label_train_compare() {
    let f = Fixture::new();
    let model = f.model();
    let questions = f.questions(12);
    let (traces, labels, run) = (f.text("traces.jsonl"), f.text("labels.jsonl"), f.text("run"));

    let collect = ["collect", "--model", &model, "--questions", &questions, "--out", &traces];
    let summary = json(&[&collect[..], &["--json"]].concat());
    let expected = json!({
        "finished": true, "traces": 12, "closed": 12, "cut_short": 0, "graded": 12, "correct": 9,
        "tokens": 12 * 19, "thinking_tokens": 12 * 13, "waits": 0,
    });
    assert_eq!(summary, expected);
    goes_on(&collect, &traces);

    let label = ["label", "--model", &model, "--traces", &traces, "--out", &labels, "--all-cuts"];
    let text = stdout(&label);
    assert!(text.starts_with("12 of 12 traces labelled; "), "{text}");
    goes_on(&label, &labels);

    let train = [
        "train",
        "--model",
        &model,
        "--labels",
        &labels,
        "--out",
        &run,
        "--epochs",
        "8",
        "--lr",
        "0.003",
        "--probe-epochs",
        "2",
        "--ttt-steps",
        "2",
        "--batch-tokens",
        "256",
    ];
    let report = json(&[&train[..], &["--json"]].concat());
    assert_eq!(report["format"], "specexit-train-report");
    // A finished run is only reported again.
    assert_eq!(json(&[&train[..], &["--json"]].concat()), report);
    let text = stdout(&train);
    assert!(text.contains("held-out τ") && text.contains("warning: Only 2 sequences"), "{text}");
    report_pages(&f, &run, &report);

    let head = format!("{run}/head");
    probe_alone(&f, &model, &labels);
    compare(&f, &model, &head, &questions);
    inspect(&traces, &labels, &head);
}

/// A probe for a head of other making, with and without room for states.
fn probe_alone(f: &Fixture, model: &str, labels: &str) {
    let (plain, head) = (f.head(false), |out: &str| format!("{out}/head"));
    let train = |out: &str, cache: &str| {
        let args = [
            "train",
            "--model",
            model,
            "--labels",
            labels,
            "--out",
            out,
            "--signals-only",
            &plain,
            "--probe-epochs",
            "3",
            "--positions",
            "boundaries",
            "--cache-gb",
            cache,
        ];
        stdout(&args)
    };
    let (stored, computed) = (f.text("alone"), f.text("alone-without-room"));
    let text = train(&stored, "1");
    assert!(text.contains("held-out progress") && !text.contains('τ'), "{text}");
    train(&computed, "0");
    let weights = |out: &str| std::fs::read(format!("{out}/head/model.safetensors")).unwrap();
    assert!(weights(&stored) == weights(&computed));
    assert!(!std::fs::exists(format!("{computed}/states.bin")).unwrap());
    assert_eq!(json(&["inspect", "--json", &head(&stored)])["kind"], "SpecExit head");
    let generate = |method: &str, head: &str| {
        let args = ["generate", "--model", model, "--head", head, "--method", method, "--json"];
        let mut output = json(&[&args[..], &["What is 3 + 4?"]].concat());
        let output = output.as_object_mut().unwrap();
        // Whatever is timed differs.
        output
            .retain(|key, _| ["text", "token_ids", "rounds", "tau", "drafted"].contains(&&key[..]));
        assert!(output.len() == 5, "{output:?}");
        Value::Object(output.clone())
    };
    assert_eq!(generate("eagle3", &plain), generate("eagle3", &head(&stored)));
    generate("specexit", &head(&stored));
}

/// The page beside `report.json`, made again, and made of a run that was stopped.
fn report_pages(f: &Fixture, run: &str, report: &Value) {
    let file = |name: &str| std::fs::read_to_string(format!("{run}/{name}")).unwrap();
    let saved: Value = serde_json::from_str(&file("report.json")).unwrap();
    assert_eq!(&saved, report);
    let page = file("report.html");
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("Training report: model"));
    let (out, steps) = (f.text("again.html"), &report["run"]["steps"]);
    let said = stdout(&["report", run, "--out", &out]);
    assert_eq!(said, format!("{steps} steps, finished; report: {out}\n"));
    assert_eq!(std::fs::read_to_string(&out).unwrap(), page);

    let killed = f.text("killed");
    std::fs::create_dir_all(&killed).unwrap();
    std::fs::copy(format!("{run}/run.json"), format!("{killed}/run.json")).unwrap();
    let metrics = file("metrics.jsonl");
    std::fs::write(format!("{killed}/metrics.jsonl"), &metrics[..metrics.len() * 2 / 3]).unwrap();
    let said = stdout(&["report", &killed]);
    assert!(said.contains(" steps, not finished; report: "), "{said}");
    let page = std::fs::read_to_string(format!("{killed}/report.html")).unwrap();
    assert!(page.contains("This run has not finished"));

    let (code, sentence) = failure(&["report", &f.model()]);
    assert_eq!(code, 1);
    assert!(sentence.starts_with("cannot read ") && sentence.contains("run.json"), "{sentence}");
    std::fs::write(
        format!("{killed}/report.json"),
        r#"{"format":"specexit-train-report","version":1}"#,
    )
    .unwrap();
    let (_, sentence) = failure(&["report", &killed]);
    assert!(sentence.contains("it is version 1 of"), "{sentence}");
}

/// Cutting a finished file anywhere and repeating the command gives the same file.
fn goes_on(command: &[&str], file: &str) {
    let whole = std::fs::read(file).unwrap();
    std::fs::write(file, &whole[..whole.len() * 2 / 3]).unwrap();
    stdout(command);
    assert_eq!(
        String::from_utf8_lossy(&std::fs::read(file).unwrap()),
        String::from_utf8_lossy(&whole)
    );
    // Nothing is left to do.
    stdout(command);
    assert_eq!(std::fs::read(file).unwrap(), whole);
}

fn compare(f: &Fixture, model: &str, head: &str, questions: &str) {
    let out = f.text("compare.jsonl");
    let methods = "plain,eagle3,specexit:confidence=off:progress=off:remaining=1e9,budget:6";
    let command = [
        "compare",
        "--model",
        model,
        "--head",
        head,
        "--questions",
        questions,
        "--offset",
        "2",
        "--limit",
        "8",
        "--methods",
        methods,
        "--out",
        &out,
    ];
    let comparison = json(&[&command[..], &["--json"]].concat());
    assert_eq!((&comparison["questions"], &comparison["resumed"]), (&json!(8), &json!(0)));
    let of = |method: usize| &comparison["methods"][method];
    for method in 0..4 {
        assert_eq!(of(method)["accuracy"]["count"], 6);
        let answers = comparison["records"].as_array().unwrap().iter();
        let mine = answers.filter(|r| r["method"] == of(method)["method"]);
        assert!(mine.into_iter().all(|r| r["answer"] == "7"));
    }
    assert_eq!(of(0)["exits"], json!({"natural": 8}));
    assert_eq!(of(2)["exits"], json!({"signals": 8}));
    assert_eq!(of(3)["exits"], json!({"budget": 8}));
    let mean = |method: usize| of(method)["thinking_tokens"].as_f64().unwrap();
    // The newline after <think> and "Let me see." stay before the first boundary.
    assert_eq!([mean(0), mean(1), mean(2), mean(3)], [13.0, 13.0, 2.0, 6.0]);
    assert_eq!(of(0)["tau"], 1.0);
    assert!(of(1)["tau"].as_f64().unwrap() > 1.0, "the head accepts nothing: {}", of(1));
    assert_eq!(of(2)["lost_correct"]["count"], 0);
    assert_eq!(
        comparison["records"][0]["text"],
        format!("<think>\n{THINKING}</think>\n\nThe answer is 7")
    );

    // Killed in the third question: two are kept, six asked anew, and nothing is asked twice.
    let whole = std::fs::read_to_string(&out).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    assert_eq!(lines.len(), 1 + 8 * 4);
    std::fs::write(&out, format!("{}{}", lines[..1 + 9].concat(), &lines[11][..20])).unwrap();
    let again = json(&[&command[..], &["--json"]].concat());
    assert_eq!((&again["questions"], &again["resumed"]), (&json!(8), &json!(2)));
    assert_eq!(again["records"][7], comparison["records"][7]);
    let table = stdout(&command);
    let heads: Vec<&str> = table.lines().collect();
    assert_eq!(heads.len(), 2 + 4);
    assert!(
        heads[0].contains("model + head") && heads[0].contains("8 questions (8 from an earlier")
    );
    assert!(heads[1].starts_with("method "));

    // Other settings do not go into the same file.
    let other = [&command[..], &["--max-new-tokens", "99"]].concat();
    let output = specexit(&other).assert().code(1).get_output().clone();
    let sentence = String::from_utf8(output.stderr).unwrap();
    assert!(sentence.contains("methods.0.max_new_tokens = 4096, but now it is 99"), "{sentence}");
    let summary = json(&["inspect", "--json", &out]);
    assert_eq!((&summary["kind"], &summary["answers"]), (&json!("comparison"), &json!(32)));
}

fn inspect(traces: &str, labels: &str, head: &str) {
    let look = |path: &str| json(&["inspect", "--json", path]);
    let at = |document: &Value, pointer: &str| document.pointer(pointer).unwrap().clone();
    let document = look(traces);
    assert_eq!((at(&document, "/kind"), at(&document, "/right")), (json!("traces"), json!(9)));
    assert_eq!(at(&document, "/thinking_tokens/mean"), 13.0);
    let document = look(labels);
    assert_eq!((at(&document, "/kind"), at(&document, "/labelled")), (json!("labels"), json!(12)));
    assert_eq!(at(&document, "/sufficient_cut_found"), 12);
    let document = look(head);
    assert_eq!(at(&document, "/kind"), "SpecExit head");
    assert_eq!(at(&document, "/origin/target_name"), "model");
    // As text, every one of them.
    for path in [traces, labels, head] {
        assert!(stdout(&["inspect", path]).starts_with("kind"));
    }
}

/// More waits than the context has room for: the trace says that it was cut short, and the run goes on.
#[test]
fn an_output_that_fills_the_context_is_cut_short() {
    let f = Fixture::new();
    let (model, questions, out) = (f.model(), f.questions(2), f.text("traces.jsonl"));
    let command = ["collect", "--model", &model, "--questions", &questions, "--out", &out];
    let summary = json(&[&command[..], &["--waits", "99", "--json"]].concat());
    assert_eq!((&summary["traces"], &summary["cut_short"]), (&json!(2), &json!(2)));
    let text = std::fs::read_to_string(&out).unwrap();
    let trace: Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    let tokens = |field: &str| trace[field].as_array().unwrap().len();
    assert!(tokens("prompt_ids") + tokens("token_ids") >= CONTEXT);
    assert_eq!(trace["finish"], "length");
}
