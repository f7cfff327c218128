//! `bench` on the tiny model: only the form of its output can be tested.

use crate::fixture::Fixture;
use crate::run::{failure, json, stdout};

#[test]
fn a_measurement() {
    let f = Fixture::new();
    let args = ["bench", "--model", &f.model(), "--repetitions", "2"];
    let report = json(&[&args[..], &["--json"]].concat());
    assert!(report["machine"]["threads"].as_u64().unwrap() > 0);
    assert!(report["decode_tok_s"].as_f64().unwrap() > 0.0);
    for rows in ["2", "4", "8"] {
        assert!(report["verify_cost"][rows].as_f64().unwrap() > 0.0, "{rows}");
    }
    assert!(report["vs_llama_cpp"].is_null());
    let text = stdout(&args);
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.contains("8 rows "), "{text}");
}

#[test]
fn the_peer_reads_gguf_only() {
    let f = Fixture::new();
    let args = ["bench", "--model", &f.model(), "--vs-llama-cpp", "llama-bench"];
    let expected = (2, "--vs-llama-cpp needs a .gguf file as --model".to_owned());
    assert_eq!(failure(&args), expected);
}
