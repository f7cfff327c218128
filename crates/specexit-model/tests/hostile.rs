//! Damaged files must give an error, or load if the damage does no harm: never a panic, never memory
//! out of proportion to the file.
//!
//! `SPECEXIT_FUZZ_EFFORT=50 cargo test -p specexit-model --test hostile` tries fifty times as much.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::{Path, PathBuf};

use specexit_model::chat_template::{ChatTemplate, RenderOptions};
use specexit_model::{ModelConfig, Tokenizer, Weights};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A small generator (splitmix64), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

/// Variants of `original`: cut at many places, and with bytes, words and whole stretches overwritten.
/// Most damage goes to the first `header` bytes, where the structure is.
fn damaged(original: &[u8], header: usize, count: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut random = Random(20_261_121);
    (0..count * effort()).map(move |round| {
        let mut bytes = original.to_vec();
        let at = if random.below(8) > 0 { random.below(header) } else { random.below(bytes.len()) };
        match round % 5 {
            0 => bytes.truncate(at),
            1 => bytes[at] = bytes[at].wrapping_add(1 << random.below(8)),
            2 => bytes[at] = random.below(256) as u8,
            3 => {
                // Lengths and counts are 64-bit words: replace one by an extreme value.
                let extreme = [u64::MAX, 1 << 63, u64::from(u32::MAX), 1 << 40, 0];
                let word = extreme[random.below(extreme.len())].to_le_bytes();
                let end = (at + 8).min(bytes.len());
                bytes[at..end].copy_from_slice(&word[..end - at]);
            }
            _ => {
                let end = (at + 1 + random.below(40)).min(bytes.len());
                let from = random.below(bytes.len() - (end - at));
                bytes.copy_within(from..from + (end - at), at);
            }
        }
        bytes
    })
}

/// How many times the usual number of variants to try.
fn effort() -> usize {
    std::env::var("SPECEXIT_FUZZ_EFFORT").map_or(1, |effort| effort.parse().unwrap())
}

/// The error, if there is one, is a single sentence.
fn check<T>(result: Result<T, specexit_model::ModelError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains('\n') && text.len() < 600, "{text}");
            None
        }
    }
}

/// Reads every tensor in every way.
fn read_all(weights: &Weights) {
    for name in weights.names() {
        let shape = weights.shape(&name).unwrap();
        check(weights.f32(&name));
        match shape[..] {
            [rows, cols] => drop(check(weights.matrix(&name, rows, cols))),
            [len] => {
                check(weights.vector(&name, len));
                check(weights.integers(&name, len));
                check(weights.booleans(&name, len));
            }
            _ => {}
        }
    }
    assert_eq!(weights.hash().len(), 64);
}

fn open_gguf(path: &Path) {
    let Some((weights, metadata)) = check(Weights::open_gguf(path)) else { return };
    read_all(&weights);
    check(ModelConfig::from_gguf(&metadata, &weights));
    if let Some(tokenizer) = check(Tokenizer::from_gguf(&metadata)) {
        check(tokenizer.encode("Wait, let me check.\n\n4<|im_end|>", true));
        check(tokenizer.encode_plain("Wait, let me check.\n\n4<|im_end|>"));
        assert_eq!(tokenizer.token_bytes(500).len(), 500);
    }
    if let Some(Some(template)) = check(ChatTemplate::from_gguf(&metadata)) {
        check(template.render(&[], &RenderOptions::default()));
    }
}

#[test]
fn damaged_gguf_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    for (name, header, count) in [
        ("gguf/llama3.gguf", 2500, 500),
        ("gguf/blocks.gguf", 700, 300),
        ("tokenizer/tokenizer.gguf", 8160, 500),
    ] {
        let original = std::fs::read(golden(name)).unwrap();
        for bytes in damaged(&original, header.min(original.len()), count) {
            std::fs::write(&path, bytes).unwrap();
            open_gguf(&path);
        }
    }
}

#[test]
fn gguf_files_cut_anywhere_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let original = std::fs::read(golden("gguf/qwen3.gguf")).unwrap();
    let cuts = (0..original.len()).step_by(97).chain(original.len() - 40..original.len() - 32);
    for cut in cuts {
        std::fs::write(&path, &original[..cut]).unwrap();
        assert!(check(Weights::open_gguf(&path)).is_none(), "cut at {cut}");
    }
}

#[test]
fn damaged_safetensors_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for name in ["qwen3/model.safetensors", "eagle3/model.safetensors"] {
        let original = std::fs::read(golden(name)).unwrap();
        let header = 8 + u64::from_le_bytes(original[..8].try_into().unwrap()) as usize;
        for bytes in damaged(&original, header, 300) {
            std::fs::write(&path, bytes).unwrap();
            if let Some(weights) = check(Weights::open_safetensors(folder.path())) {
                read_all(&weights);
            }
        }
        for cut in (0..original.len()).step_by(211) {
            std::fs::write(&path, &original[..cut]).unwrap();
            assert!(check(Weights::open_safetensors(folder.path())).is_none(), "cut at {cut}");
        }
    }
}

#[test]
fn damaged_texts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let original = std::fs::read(golden("tokenizer/tokenizer.json")).unwrap();
    for bytes in damaged(&original, original.len(), 500) {
        std::fs::write(&path, bytes).unwrap();
        if let Some(tokenizer) = check(Tokenizer::from_file(&path)) {
            check(tokenizer.encode("Wait, let me check.\n\n4<|im_end|>", true));
            assert_eq!(tokenizer.hash().len(), 64);
        }
    }
    let path = folder.path().join("tokenizer_config.json");
    let original = std::fs::read(golden("tokenizer/tokenizer_config.json")).unwrap();
    for bytes in damaged(&original, original.len(), 300) {
        std::fs::write(&path, bytes).unwrap();
        if let Some(Some(template)) = check(ChatTemplate::from_tokenizer_config(folder.path())) {
            check(template.render(&[], &RenderOptions::default()));
        }
    }
    let path = folder.path().join("config.json");
    let original = std::fs::read(golden("llama3/config.json")).unwrap();
    for bytes in damaged(&original, original.len(), 500) {
        std::fs::write(&path, bytes).unwrap();
        if let Some(config) = check(ModelConfig::from_folder(folder.path())) {
            assert_eq!(config.inv_freq().len(), config.head_dim / 2);
        }
    }
}

#[test]
fn a_merge_longer_than_every_token_is_an_error() {
    // The library's builder indexes past its buffer here.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let text = r#"{"version": "1.0", "added_tokens": [], "model": {"type": "BPE",
        "vocab": {"ab": 0, "cd": 1}, "merges": [["ab", "cd"]]}}"#;
    std::fs::write(&path, text).unwrap();
    let error = Tokenizer::from_file(&path).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
}
