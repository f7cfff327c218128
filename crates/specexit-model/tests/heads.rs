//! Draft heads on disk, and what is wrong with broken ones.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;

use serde_json::json;
use specexit_model::Probe;
use specexit_model::head_file::{HeadConfig, HeadFile, HeadTensor};
use specexit_model::probe::{PROBE_DRAFT, PROBE_DRAFT_BIAS, PROBE_UP};

const H: usize = 4;

fn tensor(shape: &[usize]) -> HeadTensor {
    // Numbers that bf16 would round.
    let data = (0..shape.iter().product()).map(|i| 1.0 + i as f32 / 4096.0).collect();
    HeadTensor { shape: shape.to_vec(), data }
}

fn head(beside: &[(&str, &[usize])]) -> HeadFile {
    let config: HeadConfig = serde_json::from_value(json!({
        "hidden_size": H, "intermediate_size": 6, "num_attention_heads": 2, "vocab_size": 10,
    }))
    .unwrap();
    let shapes = config.shapes().into_iter();
    let mut tensors: BTreeMap<String, HeadTensor> =
        shapes.map(|(name, shape)| (name.to_owned(), tensor(&shape))).collect();
    tensors.extend(beside.iter().map(|(name, shape)| ((*name).to_owned(), tensor(shape))));
    HeadFile { config, tensors, d2t: None }
}

/// What is read back, or the sentence.
fn written(head: &HeadFile) -> Result<HeadFile, String> {
    let folder = tempfile::tempdir().unwrap();
    head.save(folder.path()).unwrap();
    HeadFile::open(folder.path()).map_err(|e| e.to_string())
}

#[test]
fn a_probe_after_the_draft_layer_comes_back_exactly() {
    let head = head(&[(PROBE_DRAFT, &[3, H]), (PROBE_DRAFT_BIAS, &[3])]);
    let back = written(&head).unwrap();
    assert!(back.has_probe());
    let probe = Probe::of_head(&back).unwrap();
    assert_eq!((probe.kind(), probe.reads_draft()), ("draft", true));
    assert_eq!(Some(probe), Probe::of_head(&head));
    // The head itself is a plain one, which other programs read.
    assert_eq!(back.tensors["fc.weight"].shape, [H, 3 * H]);
    assert!(!written(&self::head(&[])).unwrap().has_probe());
}

#[test]
fn what_is_wrong_with_a_probe_is_named() {
    for (beside, parts) in [
        (
            &[(PROBE_DRAFT, &[3, H + 1][..]), (PROBE_DRAFT_BIAS, &[3])][..],
            ["probe.weight", "[3, 4]"],
        ),
        (&[(PROBE_DRAFT, &[2, H]), (PROBE_DRAFT_BIAS, &[3])], ["probe.weight", "[2, 4]"]),
        (&[(PROBE_DRAFT, &[3, H]), (PROBE_DRAFT_BIAS, &[4])], ["probe.bias", "[4]"]),
        (&[(PROBE_DRAFT, &[3, H])], ["probe.bias", ""]),
        (&[(PROBE_DRAFT_BIAS, &[3])], ["probe.weight", ""]),
        (
            &[(PROBE_DRAFT, &[3, H]), (PROBE_DRAFT_BIAS, &[3]), (PROBE_UP, &[2, 3 * H])],
            ["two signal probes", "probe.up.weight"],
        ),
    ] {
        let error = written(&head(beside)).unwrap_err();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}
