//! `bench` on tiny models: the form of its output and the sense of its numbers, never speed.

use serde_json::Value;

use crate::fixture::Fixture;
use crate::run::{failure, json, stdout};

/// The number at `path`, which must be finite and positive.
fn positive(report: &Value, path: &str) -> f64 {
    let number = report.pointer(path).and_then(Value::as_f64);
    let number = number.unwrap_or_else(|| panic!("no number at {path} in {report:#}"));
    assert!(number.is_finite() && number > 0.0, "{path} is {number}");
    number
}

#[test]
fn a_measurement_of_the_reference_model_and_its_head() {
    let report = json(&["bench", "--model", "reference", "--repetitions", "1", "--json"]);
    for path in [
        "/machine/cpus",
        "/machine/threads",
        "/machine/bandwidth_gb_s",
        "/machine/weights_gb_s",
        "/machine/peak_gflops",
        "/machine/step_overhead_ms",
        "/decode_tok_s",
        "/floor_share",
        "/batch8_tok_s",
        "/prefill_tok_s/128",
        "/prefill_tok_s/512",
        "/verify_cost/2",
        "/verify_cost/4",
        "/verify_cost/8",
        "/verify_cost/16",
        "/draft4_ms",
        "/draft4_share",
        "/verify5_ms",
        "/signals_ms",
    ] {
        positive(&report, path);
    }
    for field in ["cpu", "isa", "precision"] {
        assert!(report["machine"][field].as_str().is_some_and(|text| !text.is_empty()), "{field}");
    }
    let shapes = report["shapes"].as_object().unwrap();
    for shape in ["decode", "verify2", "verify16", "prefill128", "prefill512", "batch8"] {
        for field in ["tok_s", "forward_ms", "weight_gb_s", "floor_share"] {
            positive(&shapes[shape], &format!("/{field}"));
        }
    }
    assert_eq!(shapes["decode"]["tok_s"], report["decode_tok_s"]);
    assert_eq!(shapes["batch8"]["tok_s"], report["batch8_tok_s"]);
    assert!(positive(&report, "/signals_share") < 1.0);
    let (weights, kv) = (positive(&report, "/weight_bytes"), positive(&report, "/kv_bytes"));
    if cfg!(target_os = "linux") {
        let resident = positive(&report, "/resident_bytes");
        assert!(resident > weights, "{resident} bytes resident with {weights} of weights");
        let ratio = positive(&report, "/resident_ratio");
        assert!((ratio * (weights + kv) / resident - 1.0).abs() < 1e-9, "{ratio}");
        let others = report["others_cpu_share"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&others), "{others}");
    }
    assert!(report["vs_llama_cpp"].is_null());
}

#[test]
fn a_model_without_a_head_and_its_text() {
    let f = Fixture::new();
    let args = ["bench", "--model", &f.model(), "--repetitions", "1"];
    let report = json(&[&args[..], &["--json"]].concat());
    assert!(report["head"].is_null() && report.get("draft4_share").is_none(), "{report:#}");
    let text = stdout(&args);
    for line in ["memory ", "products ", "step ", "decode ", "verify 16 rows ", "prefill 128 "] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line}:\n{text}");
    }
    let left_out = "prefill 512: more than the model's context holds\n";
    assert!(text.contains(left_out) && report["prefill_tok_s"]["512"].is_null(), "{text}");
    assert!(!text.contains("drafting") && text.lines().count() < 25, "{text}");
    let text = stdout(&[&args[..], &["--head", &f.head(true)]].concat());
    assert!(text.contains("drafting ") && text.contains("signals "), "{text}");
}

#[test]
fn the_peer_reads_gguf_only() {
    let f = Fixture::new();
    let args = ["bench", "--model", &f.model(), "--vs-llama-cpp", "llama-bench"];
    let expected = (2, "--vs-llama-cpp needs a .gguf file as --model".to_owned());
    assert_eq!(failure(&args), expected);
}
