//! `inspect` on everything it knows. Traces, labels and comparisons come from the whole loop.

use crate::fixture::Fixture;
use crate::run::{failure, json, stdout};

#[test]
fn a_model() {
    let f = Fixture::new();
    insta::assert_snapshot!("inspect-model", without_hashes(&stdout(&["inspect", &f.model()])));
    let document = json(&["inspect", "--json", &f.model()]);
    assert_eq!(document["architecture"], "llama");
    assert_eq!(document["hash"].as_str().map(str::len), Some(64));
}

#[test]
fn a_gguf_model() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../specexit-model/tests/golden");
    let (_, sentence) = failure(&["inspect", &format!("{golden}/gguf/blocks.gguf")]);
    assert!(sentence.contains("blocks.gguf"), "{sentence}");
}

#[test]
fn heads() {
    let f = Fixture::new();
    let text = stdout(&["inspect", &f.head(false)]);
    insta::assert_snapshot!("inspect-plain-head", without_hashes(&text));
    let document = json(&["inspect", "--json", &f.head(true)]);
    assert_eq!(
        (&document["kind"], &document["signal_probe"], &document["probe_kind"]),
        (&"SpecExit head".into(), &true.into(), &"fc".into())
    );
}

#[test]
fn questions() {
    let f = Fixture::new();
    let document = json(&["inspect", "--json", &f.questions(5)]);
    assert_eq!((&document["kind"], &document["with_answer"]), (&"questions".into(), &5.into()));
}

#[test]
fn what_is_nothing() {
    let f = Fixture::new();
    let (code, sentence) = failure(&["inspect", &f.text("nowhere")]);
    assert_eq!(code, 1);
    assert!(sentence.starts_with("cannot load the model"), "{sentence}");
}

/// Hashes depend on the exact numbers of the fixture, which no reader of the snapshot can check.
fn without_hashes(text: &str) -> String {
    let is_hash = |word: &str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let words = text.split_inclusive(' ').flat_map(|part| part.split_inclusive('\n'));
    words.map(|w| if is_hash(w.trim_end()) { "HASH\n" } else { w }).collect()
}
