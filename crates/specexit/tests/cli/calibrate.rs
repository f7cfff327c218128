//! Promises about the built-in reasoner's head, kept in a folder of its own.

use std::path::PathBuf;

use crate::fixture::Fixture;
use crate::run::{failure, json, stdout};

/// A folder with the head that the program carries, and a file of questions.
fn head_and_questions(f: &Fixture, count: &str) -> (String, String) {
    let assets = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/head"));
    std::fs::create_dir_all(f.path("own")).unwrap();
    for file in ["config.json", "model.safetensors", "policy.json"] {
        std::fs::copy(assets.join(file), f.path("own").join(file)).unwrap();
    }
    let questions = f.text("calibration.jsonl");
    let problems = ["problems", "--split", "calibration", "--seed", "5", "--count", count];
    stdout(&[&problems[..], &["--out", &questions]].concat());
    (f.text("own"), questions)
}

#[test]
fn a_promise_is_made_used_and_checked() {
    let f = Fixture::new();
    let (head, questions) = head_and_questions(&f, "48");
    let out = f.text("calibration");
    let calibrate = |more: &[&str]| -> Vec<String> {
        let args =
            ["calibrate", "--model", "reference", "--head", &head, "--questions", &questions];
        let args = [&args[..], &["--out", &out, "--max-new-tokens", "900"], more].concat();
        args.into_iter().map(str::to_owned).collect()
    };
    let run = |more: &[&str]| {
        let args = calibrate(more);
        stdout(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let text = run(&["--risk", "0.2,0.1", "--delta", "0.1"]);
    assert!(text.starts_with("48 questions, "), "{text}");
    assert!(text.contains("\nrisk 10 %: ") && text.contains("\nrisk 20 %: "), "{text}");
    assert!(text.contains("of the thinking is left with thresholds"), "{text}");

    // The second time everything is there: the same promises, at once.
    let recorded = std::fs::read(f.path("calibration/recordings.jsonl")).unwrap();
    let args = calibrate(&["--risk", "0.1,0.2", "--delta", "0.1", "--json"]);
    let found = json(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(std::fs::read(f.path("calibration/recordings.jsonl")).unwrap(), recorded);
    let saved = std::fs::read_to_string(f.path("own/calibration.json")).unwrap();
    let saved: serde_json::Value = serde_json::from_str(&saved).unwrap();
    assert_eq!(found["calibration"], saved);
    assert!(found["points"].as_array().unwrap().len() >= 500);
    let promise = &saved["promises"][1];
    assert_eq!(promise["risk"], 0.2);
    assert!(promise["thinking_share"].as_f64().unwrap() < 0.6, "{promise}");

    let checked = run(&["--risk", "0.3", "--delta", "0.2", "--splits", "20"]);
    assert!(
        checked.contains("risk 30 %: broken in ") && checked.contains("of 20 splits"),
        "{checked}"
    );
    assert!(checked.contains("risk 30 % of the other 24: broken in "), "{checked}");

    // About a few questions, less can be promised than about the long run.
    let share = |more: &[&str]| {
        let args = calibrate(&[&["--risk", "0.2", "--delta", "0.1", "--json"], more].concat());
        let found = json(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(
            found["calibration"]["horizon"].as_u64(),
            more.get(1).map(|n| n.parse().unwrap())
        );
        found["calibration"]["promises"][0]["thinking_share"].as_f64().unwrap()
    };
    let (near, far) = (share(&["--horizon", "30"]), share(&[]));
    assert!(near > far, "{near} against {far}");

    let given_up = run(&["--risk", "0.2", "--delta", "0.1", "--hopeless-risk", "0.1"]);
    assert!(given_up.contains("\n  given up after "), "{given_up}");
    let args = calibrate(&["--risk", "0.1,0.2", "--delta", "0.1"]);
    stdout(&args.iter().map(String::as_str).collect::<Vec<_>>());

    // The promised policy decides.
    let thought = ["generate", "--model", "reference", "--head", &head, "--json"];
    let question = "Solve for k: 5k + 3 = 28.";
    let used = json(&[&thought[..], &["--risk", "0.25", question]].concat());
    assert_eq!(used["exit"]["reason"], "signals");
    let (code, sentence) = failure(&[&thought[..], &["--risk", "0.01", question]].concat());
    assert_eq!(code, 1);
    assert!(sentence.contains("only at 0.1, 0.2; calibrate for it"), "{sentence}");

    // In other numbers other signals come out, and other answers.
    let in_8_bits = ["--kv-cache", "int8"];
    let (code, sentence) =
        failure(&[&thought[..], &in_8_bits, &["--risk", "0.25", question]].concat());
    assert_eq!(code, 1);
    assert!(
        sentence.contains("was calibrated in bf16, and this is bf16, int8 keys and values"),
        "{sentence}"
    );
    let answered = json(&[&thought[..], &in_8_bits, &[question]].concat());
    assert_eq!(answered["exit"]["reason"], "signals");
    let args = calibrate(&["--risk", "0.2", "--kv-cache", "int8"]);
    let (_, sentence) = failure(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(sentence.contains("recordings.jsonl") && sentence.contains("arithmetic"), "{sentence}");

    // Another head's weights are another head.
    let mut weights = std::fs::read(f.path("own/model.safetensors")).unwrap();
    *weights.last_mut().unwrap() ^= 1;
    std::fs::write(f.path("own/model.safetensors"), weights).unwrap();
    let (_, sentence) = failure(&[&thought[..], &["--risk", "0.25", question]].concat());
    assert!(sentence.contains("is about another head"), "{sentence}");
}

#[test]
fn what_cannot_be_promised_is_refused() {
    let f = Fixture::new();
    let (head, questions) = head_and_questions(&f, "4");
    let out = f.text("calibration");
    let args = ["calibrate", "--model", "reference", "--head", &head, "--questions", &questions];
    let args = [&args[..], &["--out", &out, "--max-new-tokens", "300"]].concat();
    let (code, sentence) = failure(&args);
    assert_eq!(code, 1);
    assert!(sentence.contains("at least 399 are needed"), "{sentence}");
    let (code, sentence) = failure(&[&args[..], &["--risk", "0.01,2"]].concat());
    assert_eq!((code, sentence.as_str()), (2, "--risk is 2; it must be above 0 and below 1"));

    let plain = f.head(false);
    let args = ["calibrate", "--model", &f.model(), "--head", &plain, "--questions", &questions];
    let (_, sentence) = failure(&[&args[..], &["--out", &out]].concat());
    assert!(sentence.contains("has no signal probe"), "{sentence}");
    let args = ["generate", "--model", &f.model(), "--head", &f.head(true), "--risk", "0.1", "Hi"];
    let (_, sentence) = failure(&args);
    assert!(sentence.contains("run `specexit calibrate`"), "{sentence}");
}
