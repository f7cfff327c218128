//! Downloads from the hub (cargo feature `hub`).

#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::process::Command;

use specexit_model::{ModelFiles, ModelSource};

/// Not a test of its own: run by the next one, in a process whose hub is a closed port.
#[test]
#[ignore = "run by an_unreachable_hub_is_a_sentence"]
fn ask_for_a_model() {
    let error = ModelSource::Hub("org/model".to_owned()).resolve().unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    eprintln!("said: {error}");
}

#[test]
fn an_unreachable_hub_is_a_sentence() {
    let cache = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "ask_for_a_model"])
        .env("HF_ENDPOINT", "http://127.0.0.1:1")
        .env("HF_HOME", cache.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("`org/model`") && said.contains("check the network"), "{said}");
}

#[test]
#[ignore = "needs the hub: cargo test -p specexit-model --features hub --test hub -- --ignored a_model"]
fn a_model_is_downloaded_and_loads() {
    let source = ModelSource::parse("HuggingFaceTB/SmolLM2-135M-Instruct").unwrap();
    let files = ModelFiles::load(&source).unwrap();
    assert_eq!(files.config.num_hidden_layers, 30);
    assert!(files.chat_template.is_some());
}
