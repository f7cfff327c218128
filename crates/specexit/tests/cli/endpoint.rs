//! Collecting and labelling from a server, as a user types it.

use std::sync::Arc;

use serde_json::json;
use specexit_engine::{Engine, EngineOptions};
use specexit_kernels::Precision;
use specexit_model::{Model, ModelSource};
use specexit_testkit::{MockServer, SERVED, Script};

use crate::fixture::Fixture;
use crate::run::{failure, json, specexit, stdout};

fn server(f: &Fixture) -> MockServer {
    let source = ModelSource::Folder(f.path("model"));
    let model = Model::load(&source, 1, Precision::Bf16).unwrap();
    let (target, tokenizer) = (Arc::clone(&model.target), Arc::clone(&model.tokenizer));
    let engine = Engine::new(target, tokenizer, None, EngineOptions::default()).unwrap();
    MockServer::start(model, engine, Script::default()).unwrap()
}

/// All lines but the header.
fn records(file: &str) -> String {
    std::fs::read_to_string(file).unwrap().split_once('\n').unwrap().1.to_owned()
}

#[test]
fn a_server_gives_the_same_traces_and_labels() {
    let f = Fixture::new();
    let server = server(&f);
    let (model, questions, url) = (f.model(), f.questions(6), server.url());
    let there = ["--endpoint", &url, "--endpoint-model", SERVED, "--concurrency", "4"];
    let (traces, far_traces) = (f.text("traces.jsonl"), f.text("far-traces.jsonl"));
    let collect = |out: &str, more: &[&str]| {
        let command = ["collect", "--model", &model, "--questions", &questions, "--out", out];
        let waits = ["--waits", "1", "--record-logprobs", "--json"];
        json(&[&command[..], &waits, more].concat())
    };
    assert_eq!(collect(&far_traces, &there), collect(&traces, &[]));
    assert_eq!(records(&far_traces), records(&traces));
    let header = std::fs::read_to_string(&far_traces).unwrap();
    let header: serde_json::Value = serde_json::from_str(header.lines().next().unwrap()).unwrap();
    assert_eq!(header["endpoint"], json!({"model": SERVED, "token_ids": "returned"}));

    for kind in ["C1", "C3"] {
        let (labels, far) =
            (f.text(&format!("{kind}.jsonl")), f.text(&format!("{kind}-far.jsonl")));
        let label = |traces: &str, out: &str, more: &[&str]| {
            let command = ["label", "--model", &model, "--traces", traces, "--out", out];
            stdout(&[&command[..], &["--confidence-kind", kind], more].concat())
        };
        label(&traces, &labels, &[]);
        label(&far_traces, &far, &there);
        assert_eq!(records(&far), records(&labels), "{kind}");
        assert!(stdout(&["inspect", &far]).starts_with("kind"));
    }
    assert!(server.most_in_flight() > 1);
}

#[test]
fn a_server_that_cannot_be_used_is_one_sentence() {
    let f = Fixture::new();
    let server = server(&f);
    let (model, questions, out) = (f.model(), f.questions(2), f.text("traces.jsonl"));
    let command = ["collect", "--model", &model, "--questions", &questions, "--out", &out];
    let url = server.url();
    let other = [&command[..], &["--endpoint", &url, "--endpoint-model", "big"]].concat();
    let expected = format!("{url}/v1/models does not have the model big; it has [tiny]");
    assert_eq!(failure(&other), (1, expected));
    drop(server);
    let nobody = [&command[..], &["--endpoint", &url, "--retries", "0"]].concat();
    let (code, sentence) = failure(&nobody);
    assert_eq!(code, 1);
    assert!(sentence.starts_with(&format!("{url}/v1/models could not be reached (")), "{sentence}");
    assert!(sentence.contains("(the last of 1 try)"), "{sentence}");
    assert!(!f.path("traces.jsonl").exists());
}

#[test]
fn flags_of_servers_are_checked() {
    let there = ["--endpoint", "http://127.0.0.1:9"];
    let refused = |more: &[&str]| {
        let command = ["collect", "--model", "reference", "--questions", "q", "--out", "o"];
        let (code, sentence) = failure(&[&command[..], more].concat());
        assert_eq!(code, 2, "{sentence}");
        sentence
    };
    let server = |more: &[&str]| refused(&[&there[..], more].concat());
    assert_eq!(server(&["--concurrency", "0"]), "--concurrency is 0; at least one is needed");
    assert_eq!(server(&["--timeout", "0"]), "--timeout is 0; give the server at least a second");
    let flags: [&[&str]; 4] =
        [&["--batch", "2"], &["--threads", "2"], &["--f32"], &["--kv-cache", "int8"]];
    for flag in flags {
        let expected =
            format!("{} does not apply to --endpoint, where the server decodes", flag[0]);
        assert_eq!(server(flag), expected);
    }
    let sentence = server(&["--api-key-env", "SPECEXIT_TEST_NO_SUCH_KEY"]);
    assert_eq!(sentence, "--api-key-env names SPECEXIT_TEST_NO_SUCH_KEY, which holds no key");
    let sentence = refused(&["--concurrency", "2"]);
    assert!(sentence.contains("--endpoint <URL>"), "{sentence}");
}

#[test]
fn the_key_comes_from_the_environment() {
    let f = Fixture::new();
    let server = server(&f);
    let (model, questions, out) = (f.model(), f.questions(1), f.text("traces.jsonl"));
    let url = server.url();
    let command = ["collect", "--model", &model, "--questions", &questions, "--out", &out];
    let key = ["--endpoint", &url, "--api-key-env", "SPECEXIT_TEST_KEY"];
    specexit(&[&command[..], &key].concat())
        .env("SPECEXIT_TEST_KEY", "s3cret\n")
        .assert()
        .success();
    assert!(server.keys().iter().all(|key| key.as_deref() == Some("Bearer s3cret")));
    assert!(!std::fs::read_to_string(&out).unwrap().contains("s3cret"));
}
