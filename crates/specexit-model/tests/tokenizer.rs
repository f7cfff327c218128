//! Token ids against `tokenizers` in Python (committed goldens) and against llama.cpp (downloads).

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use specexit_model::tokenizer::Tokenizer;
use specexit_model::weights::Weights;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokenizer").join(name)
}

/// The tiny tokenizer, once from `tokenizer.json` and once rebuilt from GGUF.
fn tiny() -> [(&'static str, Tokenizer); 2] {
    let (_, metadata) = Weights::open_gguf(&golden("tokenizer.gguf")).unwrap();
    [
        ("tokenizer.json", Tokenizer::from_file(&golden("tokenizer.json")).unwrap()),
        ("tokenizer.gguf", Tokenizer::from_gguf(&metadata).unwrap()),
    ]
}

fn cases() -> Vec<Value> {
    serde_json::from_str(&std::fs::read_to_string(golden("golden.json")).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn ids_and_texts_are_those_of_the_reference() {
    for (from, tokenizer) in tiny() {
        for case in cases() {
            let text = case["text"].as_str().unwrap();
            let expected = ids(&case["ids"]);
            assert_eq!(tokenizer.encode(text, false).unwrap(), expected, "{from}: {text:?}");
            assert_eq!(tokenizer.encode(text, true).unwrap(), expected, "{from}: {text:?}");
            let decoded = tokenizer.decode(&expected, false).unwrap();
            assert_eq!(decoded, case["decoded"].as_str().unwrap(), "{from}: {text:?}");
            if let Some(without_special) = case["decoded_without_special"].as_str() {
                let decoded = tokenizer.decode(&expected, true).unwrap();
                assert_eq!(decoded, without_special, "{from}: {text:?}");
            }
        }
    }
}

#[test]
fn token_bytes_join_to_the_text() {
    for (from, tokenizer) in tiny() {
        let padded = tokenizer.vocab_size() + 7;
        let table = tokenizer.token_bytes(padded);
        assert_eq!(table.len(), padded);
        assert!(table[tokenizer.vocab_size()..].iter().all(Vec::is_empty));
        assert!(table[..tokenizer.vocab_size()].iter().all(|bytes| !bytes.is_empty()), "{from}");
        for case in cases() {
            let bytes: Vec<u8> =
                ids(&case["ids"]).iter().flat_map(|id| table[*id as usize].clone()).collect();
            assert_eq!(
                String::from_utf8(bytes).unwrap(),
                case["decoded"].as_str().unwrap(),
                "{from}"
            );
        }
    }
}

#[test]
fn both_forms_are_the_same_tokenizer() {
    let [(_, json), (_, gguf)] = tiny();
    assert_eq!(json.hash(), gguf.hash());
    assert_eq!(json.hash().len(), 64);
    assert_eq!(json.vocab_size(), gguf.vocab_size());
    for token in ["<|im_end|>", "<|endoftext|>", "<think>", "Ġthe"] {
        let id = json.token_id(token).unwrap();
        assert_eq!(gguf.token_id(token), Some(id), "{token}");
        assert_eq!(gguf.is_special(id), json.is_special(id), "{token}");
        assert_eq!(json.is_special(id), token.starts_with("<|"), "{token}");
    }
    assert_eq!(json.token_id("no such token"), None);
}

#[test]
fn plain_encoding_recognises_no_token_in_the_text() {
    for (from, tokenizer) in tiny() {
        let text = "a<|im_end|>b</think>c";
        let plain = tokenizer.encode_plain(text).unwrap();
        for token in ["<|im_end|>", "</think>"] {
            let id = tokenizer.token_id(token).unwrap();
            assert!(!plain.contains(&id), "{from}: {token}");
            assert!(tokenizer.encode(text, false).unwrap().contains(&id), "{from}: {token}");
        }
        assert_eq!(tokenizer.decode(&plain, false).unwrap(), text, "{from}");
        // Without such tokens both encodings agree.
        for text in ["", " ", "Hello, world!\n\nWait", "Ko\u{308}ln 12.5", "日本 ∑"] {
            let plain = tokenizer.encode_plain(text).unwrap();
            assert_eq!(plain, tokenizer.encode(text, false).unwrap(), "{from}: {text:?}");
        }
    }
}

/// Ids of the same texts by llama.cpp, special tokens recognised. The committed file holds texts of
/// our own; another file of the same form can be given.
#[test]
#[ignore = "needs models: python3 scripts/fetch_dev_models.py && cargo test -p specexit-model --test tokenizer -- --ignored dev_models"]
fn dev_models_give_the_ids_of_llama_cpp() {
    let file = std::env::var("SPECEXIT_LLAMA_CPP_IDS").map_or(golden("llama_cpp.json"), Into::into);
    let goldens: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/dev-models");
    for model in goldens["models"].as_array().unwrap() {
        let name = model["file"].as_str().unwrap();
        let (_, metadata) = Weights::open_gguf(&models.join(name)).unwrap();
        let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
        let table = tokenizer.token_bytes(tokenizer.vocab_size());
        let texts = goldens["texts"].as_array().unwrap();
        let theirs = model["ids"].as_array().unwrap();
        assert_eq!(texts.len(), theirs.len());
        for (text, theirs) in texts.iter().zip(theirs) {
            let text = text.as_str().unwrap();
            let ours = tokenizer.encode(text, false).unwrap();
            assert_eq!(ours, ids(theirs), "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&ours, false).unwrap(), text, "{name}");
            let bytes: Vec<u8> = ours.iter().flat_map(|id| table[*id as usize].clone()).collect();
            assert_eq!(bytes, text.as_bytes(), "{name}: {text:?}");
        }
        eprintln!("{name}: {} texts alike", texts.len());
    }
}

/// llama.cpp's own test vectors: texts and ids for the vocabularies of many families.
#[test]
#[ignore = "needs a llama.cpp checkout: SPECEXIT_LLAMA_CPP=DIR cargo test -p specexit-model --test tokenizer -- --ignored vectors"]
fn other_families_give_the_ids_of_llama_cpp_vectors() {
    const SUPPORTED: [&str; 9] = [
        "llama-bpe",
        "llama-spm",
        "phi-3",
        "qwen2",
        "gpt-2",
        "starcoder",
        "refact",
        "deepseek-llm",
        "deepseek-coder",
    ];
    let root = std::env::var("SPECEXIT_LLAMA_CPP").expect("SPECEXIT_LLAMA_CPP names a checkout");
    let open = |name: &str| {
        let path = Path::new(&root).join(format!("models/ggml-vocab-{name}.gguf"));
        (Weights::open_gguf(&path).unwrap().1, path)
    };
    for name in SUPPORTED {
        let (metadata, path) = open(name);
        let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
        let read =
            |suffix: &str| std::fs::read_to_string(format!("{}{suffix}", path.display())).unwrap();
        let (texts, expected) = (read(".inp"), read(".out"));
        for (text, line) in texts.split("\n__ggml_vocab_test__\n").zip(expected.lines()) {
            let theirs: Vec<u32> = line.split_whitespace().map(|id| id.parse().unwrap()).collect();
            assert_eq!(tokenizer.encode(text, false).unwrap(), theirs, "{name}: {text:?}");
        }
    }
    // Llama 2 and 3 add a start token, the others only where the file says so.
    for (name, start) in [("llama-spm", Some(1)), ("llama-bpe", Some(128_000)), ("qwen2", None)] {
        let tokenizer = Tokenizer::from_gguf(&open(name).0).unwrap();
        let (with, without) =
            (tokenizer.encode("Hello", true).unwrap(), tokenizer.encode("Hello", false).unwrap());
        assert_eq!(with, start.into_iter().chain(without).collect::<Vec<u32>>(), "{name}");
    }
    for name in ["falcon", "bert-bge", "gemma-4", "command-r", "mpt"] {
        let error = Tokenizer::from_gguf(&open(name).0).unwrap_err().to_string();
        assert!(error.contains("is not supported"), "{name}: {error}");
    }
}
