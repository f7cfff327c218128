//! `generate` on the tiny model.

use serde_json::{Value, json};

use crate::fixture::{CONTEXT, Fixture, THINKING};
use crate::run::{failure, json, specexit, stdout};

#[test]
fn text_streams_whole_and_once() {
    let f = Fixture::new();
    let text = format!("<think>\n{THINKING}</think>\n\nThe answer is 7\n");
    assert_eq!(stdout(&["generate", "--model", &f.model(), "What is 3 + 4?"]), text);
    let opened = ["generate", "--model", &f.model(), "--think-open", "What is 3 + 4?"];
    assert_eq!(stdout(&opened), format!("{THINKING}</think>\n\nThe answer is 7\n"));
    let unthinking = ["generate", "--model", &f.model(), "--no-thinking", "What is 3 + 4?"];
    assert_eq!(stdout(&unthinking), "The answer is 7\n");
}

#[test]
fn the_prompt_comes_from_anywhere() {
    let f = Fixture::new();
    let typed = json(&["generate", "--model", &f.model(), "--json", "What is 3 + 4?"]);
    std::fs::write(f.path("prompt.txt"), "What is 3 + 4?\n").unwrap();
    let file = f.text("prompt.txt");
    let read = json(&["generate", "--model", &f.model(), "--json", "--prompt-file", &file]);
    assert_eq!(read["prompt_tokens"], typed["prompt_tokens"]);
    let mut piped = specexit(&["generate", "--model", &f.model(), "--json"]);
    let output = piped.write_stdin("What is 3 + 4?\n").assert().success().get_output().clone();
    let piped: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(piped["prompt_tokens"], typed["prompt_tokens"]);
    let raw = json(&["generate", "--model", &f.model(), "--json", "--raw", "<|assistant|>"]);
    assert_eq!((&raw["prompt_tokens"], &raw["text"]), (&json!(1), &typed["text"]));
}

#[test]
fn json_says_everything() {
    let f = Fixture::new();
    let mut plain = json(&["generate", "--model", &f.model(), "--json", "What is 3 + 4?"]);
    for time in ["wall_s", "first_answer_s"] {
        assert!(plain[time].take().as_f64().is_some_and(|s| s > 0.0), "{time}");
    }
    let ids = plain["token_ids"].take();
    let tokens = ids.as_array().unwrap().len();
    let expected = json!({
        "model": "model",
        "head": null,
        "method": "plain",
        "text": format!("<think>\n{THINKING}</think>\n\nThe answer is 7"),
        "thinking": THINKING.trim(),
        "answer": "The answer is 7",
        "token_ids": null,
        // <|user|>, 14 bytes, <|end|>, <|assistant|>.
        "prompt_tokens": 17,
        // The newline after <think> counts as thought.
        "thinking_tokens": 13,
        "finish": "stop",
        "exit": {
            "reason": "natural",
            "token_index": 14,
            "signals": {"confidence": null, "progress": null, "remaining": null},
        },
        "tau": 1.0,
        "rounds": tokens - 1,
        "drafted": 0,
        "accepted": 0,
        "wall_s": null,
        "first_answer_s": null,
    });
    assert_eq!(plain, expected);
}

#[test]
fn speculation_changes_no_token() {
    let f = Fixture::new();
    let head = f.head(true);
    let base = ["generate", "--model", &f.model(), "--json", "What is 3 + 4?"];
    let plain = json(&base);
    for k in ["1", "4", "7"] {
        let flags = ["--head", &head, "--method", "eagle3", "--draft-tokens", k];
        let eagle3 = json(&[&base[..], &flags].concat());
        assert_eq!(eagle3["token_ids"], plain["token_ids"], "k = {k}");
        assert_eq!(
            (&eagle3["method"], &eagle3["head"]),
            (&json!("eagle3"), &json!("specexit-head"))
        );
        assert!(eagle3["drafted"].as_u64().unwrap() > 0);
    }
}

#[test]
fn signals_end_the_thought_where_the_thresholds_say() {
    let f = Fixture::new();
    let head = f.head(true);
    let base = ["generate", "--model", &f.model(), "--head", &head, "--json", "What is 3 + 4?"];
    let with = |flags: &[&str]| json(&[&base[..], flags].concat());
    // The published thresholds ask for a confidence of 0.8; this probe says 0.5.
    let never = with(&[]);
    assert_eq!(
        (&never["method"], &never["exit"]["reason"]),
        (&json!("specexit"), &json!("natural"))
    );
    let first = with(&["--confidence", "0.4"]);
    assert_eq!(first["exit"]["reason"], "signals");
    assert_eq!(first["thinking"], "Let me see.");
    assert_eq!(first["answer"], "The answer is 7");
    assert_eq!(
        first["exit"]["signals"],
        json!({"confidence": 0.5, "progress": 0.5, "remaining": 1.0})
    );
    let off = with(&["--confidence", "off"]);
    assert_eq!(off["thinking"], "Let me see.");
    let later = with(&["--confidence", "off", "--min-thinking-tokens", "6"]);
    assert_eq!(later["thinking"], "Let me see.\n\nCafé table makes 3 + 4.");
    let closing = with(&["--confidence", "off", "--closing-text", "So be it.\n"]);
    assert_eq!(closing["thinking"], "Let me see.\n\nSo be it.");
    assert_eq!(closing["answer"], "The answer is 7");
}

#[test]
fn the_budget_is_never_passed() {
    let f = Fixture::new();
    let head = f.head(false);
    let base = ["generate", "--model", &f.model(), "--json", "What is 3 + 4?"];
    for budget in 0..=14 {
        let limit = budget.to_string();
        let flags = ["--max-thinking-tokens", limit.as_str()];
        let plain = json(&[&base[..], &flags].concat());
        let drafted = json(&[&base[..], &flags, &["--head", &head]].concat());
        assert_eq!(plain["token_ids"], drafted["token_ids"], "budget {budget}");
        assert_eq!(plain["thinking_tokens"], budget.min(13), "budget {budget}");
        let reason = if budget < 13 { "budget" } else { "natural" };
        assert_eq!(plain["exit"]["reason"], reason, "budget {budget}");
        assert_eq!(drafted["answer"], "The answer is 7", "budget {budget}");
    }
}

#[test]
fn sampling_repeats_with_its_seed() {
    let f = Fixture::new();
    let base = ["generate", "--model", &f.model(), "--json", "--temperature", "9", "Hi"];
    let with = |flags: &[&str]| json(&[&base[..], flags].concat())["token_ids"].take();
    assert_eq!(with(&["--seed", "5"]), with(&["--seed", "5"]));
    assert_ne!(with(&["--seed", "5"]), with(&["--seed", "6"]));
}

#[test]
fn the_length_limit_and_the_context_end_generation() {
    let f = Fixture::new();
    let cut = json(&["generate", "--model", &f.model(), "--json", "--max-new-tokens", "5", "Hi"]);
    assert_eq!((&cut["finish"], &cut["exit"]["reason"]), (&json!("length"), &json!("length")));
    assert_eq!(cut["token_ids"].as_array().unwrap().len(), 5);
    let prompt = "x".repeat(CONTEXT - 10);
    let full = json(&["generate", "--model", &f.model(), "--json", &prompt]);
    assert_eq!(full["finish"], "length");
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let f = Fixture::new();
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_specexit"))
        .args(["generate", "--model", &f.model(), "What is 3 + 4?"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(program.stdout.take());
    let output = program.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn flags_that_do_not_apply_are_refused() {
    let f = Fixture::new();
    let (model, plain, probe) = (f.model(), f.head(false), f.head(true));
    let refused = |flags: &[&str]| {
        let (code, sentence) = failure(&[&["generate", "--model", &model, "Hi"], flags].concat());
        assert_eq!(code, 2, "{flags:?}: {sentence}");
        sentence.replace(&f.text(""), "")
    };
    for (flags, sentence) in [
        (&["--profile", "paper"][..], "--profile does not apply to method plain"),
        (&["--head", &plain, "--remaining", "off"], "--remaining does not apply to method eagle3"),
        (&["--head", &probe, "--method", "plain"], "--head does not apply to method plain"),
        (&["--method", "eagle3"], "method eagle3 needs a draft head; name one with --head"),
        (
            &["--head", &plain, "--method", "specexit"],
            "method specexit needs a head with a signal probe, and the one in plain-head is plain \
             EAGLE-3; use --method eagle3, or train the signals",
        ),
        (&["--top-k", "3"], "--top-k does not apply to temperature 0; set --temperature"),
        (&["--threads", "0"], "--threads is 0; at least one thread is needed"),
        (
            &["--method", "greedy"],
            "invalid value 'greedy' for '--method <NAME>': unknown method 'greedy'; the methods \
             are plain, eagle3 and specexit; see `--help`",
        ),
        (
            &["--raw", "--system", "x"],
            "the argument '--raw' cannot be used with '--system <TEXT>'; see `--help`",
        ),
    ] {
        assert_eq!(refused(flags), sentence);
    }
}
