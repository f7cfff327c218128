//! The demonstration on the built-in reasoner.

use serde_json::Value;

use crate::run::{failure, json, stdout};

#[test]
fn numbers_are_measured_on_the_embedded_model() {
    let report = json(&["demo", "--problems", "8", "--seed", "3", "--json"]);
    assert_eq!(report["problems"], 8);
    assert_eq!(report["model"]["name"], "reference");
    assert!(report["machine"].is_object());
    let methods = report["methods"].as_array().unwrap();
    let number = |method: usize, field: &str| methods[method][field].as_f64().unwrap();
    let names: Vec<&str> = methods.iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["plain", "eagle3", "specexit"]);
    // Plain and speculative decoding say the same; an exit only shortens it.
    assert_eq!(number(0, "total_tokens_mean"), number(1, "total_tokens_mean"));
    assert_eq!(number(0, "accuracy"), number(1, "accuracy"));
    assert!(number(2, "thinking_tokens_mean") < 0.7 * number(1, "thinking_tokens_mean"));
    assert_eq!(number(0, "tau"), 1.0);
    assert!(number(1, "tau") > 2.0 && number(1, "wall_s") > 0.0);
    assert!(methods[2]["exits"]["signals"].as_u64().unwrap() >= 4, "{report}");
}

#[test]
fn the_thought_is_shown_without_colours_where_there_is_no_terminal() {
    let text = stdout(&["demo", "--problems", "4", "--family", "words", "--seed", "1"]);
    assert!(!text.contains('\u{1b}'), "{text}");
    for part in ["<think>\n", "SpecExit ends the thought here", "</think>", "specexit", "τ"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(text.contains("Against EAGLE-3 with the same draft head"), "{text}");
}

#[test]
fn the_same_seed_shows_the_same_problems() {
    let question = |seed: &str| {
        let text = stdout(&["problems", "--split", "test", "--count", "3", "--seed", seed]);
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(question("5").len(), 3);
    assert_eq!(question("5"), question("5"));
    assert_ne!(question("5"), question("6"));
}

#[test]
fn the_reference_model_answers_and_brings_its_own_head() {
    let question = "Solve for k: 5k + 3 = 28.";
    let generate = |flags: &[&str]| -> Value {
        let args = [&["generate", "--model", "reference", "--json"], flags, &[question]].concat();
        json(&args)
    };
    let (short, whole) = (generate(&[]), generate(&["--method", "plain"]));
    assert_eq!((&short["method"], &short["head"]), (&"specexit".into(), &"reference".into()));
    assert_eq!(short["exit"]["reason"], "signals");
    assert!(whole["head"].is_null());
    for output in [&short, &whole] {
        assert_eq!(output["answer"], "The answer is 5.", "{output}");
    }
}

#[test]
fn mistakes_are_one_sentence() {
    for (args, sentence) in [
        (&["demo", "--problems", "0"][..], "--problems"),
        (&["demo", "--family", "poems"], "unknown family `poems`"),
        (&["demo", "--threads", "0"], "at least one thread"),
        (&["problems", "--split", "exam", "--count", "1"], "unknown split `exam`"),
        (
            &["problems", "--split", "test", "--count", "1", "--easiest", "3", "--hardest", "2"],
            "--easiest 3 is above --hardest 2",
        ),
        (&["pretrain", "--recipe", "/nowhere", "--out", "run"], "/nowhere"),
    ] {
        let (_, error) = failure(args);
        assert!(error.contains(sentence), "{args:?}: {error}");
    }
}
