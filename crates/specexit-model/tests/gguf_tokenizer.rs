//! Tokenizers rebuilt from GGUF metadata that is written here: SentencePiece, flags, and what is said
//! about unusable metadata.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use specexit_model::weights::{GgufMetadata, Weights};
use specexit_model::{ChatTemplate, ModelConfig, ModelError, Tokenizer};

/// One metadata value.
#[derive(Clone)]
enum Value<'a> {
    Text(&'a str),
    Flag(bool),
    Id(u32),
    Texts(Vec<String>),
    Numbers(Vec<i32>),
    Scores(Vec<f32>),
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// A GGUF file without tensors.
fn metadata(entries: &[(&str, Value)]) -> Result<GgufMetadata, ModelError> {
    let mut out = b"GGUF".to_vec();
    out.extend(3_u32.to_le_bytes());
    out.extend(0_u64.to_le_bytes());
    out.extend((entries.len() as u64).to_le_bytes());
    for (key, value) in entries {
        write_text(&mut out, key);
        let mut array = |kind: u32, len: usize| {
            out.extend(9_u32.to_le_bytes());
            out.extend(kind.to_le_bytes());
            out.extend((len as u64).to_le_bytes());
        };
        match value {
            Value::Texts(texts) => {
                array(8, texts.len());
                texts.iter().for_each(|text| write_text(&mut out, text));
            }
            Value::Numbers(numbers) => {
                array(5, numbers.len());
                numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
            }
            Value::Scores(scores) => {
                array(6, scores.len());
                scores.iter().for_each(|score| out.extend(score.to_le_bytes()));
            }
            Value::Text(text) => {
                out.extend(8_u32.to_le_bytes());
                write_text(&mut out, text);
            }
            Value::Flag(flag) => {
                out.extend(7_u32.to_le_bytes());
                out.push(u8::from(*flag));
            }
            Value::Id(id) => {
                out.extend(4_u32.to_le_bytes());
                out.extend(id.to_le_bytes());
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made.gguf");
    std::fs::write(&path, out).unwrap();
    Weights::open_gguf(&path).map(|(_, metadata)| metadata)
}

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";

/// Builds with these entries, where later ones replace earlier ones of the same key.
fn build(entries: Vec<(&'static str, Value)>) -> Result<Tokenizer, String> {
    let mut unique: Vec<(&str, Value)> = Vec::new();
    for (key, value) in entries {
        unique.retain(|(other, _)| *other != key);
        unique.push((key, value));
    }
    let built = metadata(&unique).and_then(|metadata| Tokenizer::from_gguf(&metadata));
    built.map_err(|error| error.to_string())
}

/// A SentencePiece vocabulary: `<unk>`, `<s>`, `</s>`, the 256 bytes, then these pieces.
const PIECES: [(&str, f32); 12] = [
    ("▁a", -1.0),
    ("ab", -2.0),
    ("▁ab", -3.0),
    ("abc", -0.5),
    ("</", -4.0),
    ("s>", -5.0),
    ("▁", -10.0),
    ("a", -11.0),
    ("b", -12.0),
    ("c", -13.0),
    ("s", -14.0),
    (">", -15.0),
];

fn sentence_piece(more: Vec<(&'static str, Value<'static>)>) -> Result<Tokenizer, String> {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    let (mut types, mut scores) = (vec![2, 3, 3], vec![0.0; 3]);
    for byte in 0..256 {
        tokens.push(format!("<0x{byte:02X}>"));
        types.push(6);
        scores.push(0.0);
    }
    for (piece, score) in PIECES {
        tokens.push(piece.to_owned());
        types.push(1);
        scores.push(score);
    }
    // Together with "/": "</" can be made.
    for (piece, score) in [("<", -16.0), ("/", -17.0)] {
        tokens.push(piece.to_owned());
        types.push(1);
        scores.push(score);
    }
    let mut entries = vec![
        (MODEL, Value::Text("llama")),
        (TOKENS, Value::Texts(tokens)),
        (TYPES, Value::Numbers(types)),
        (SCORES, Value::Scores(scores)),
        ("tokenizer.ggml.bos_token_id", Value::Id(1)),
        ("tokenizer.ggml.eos_token_id", Value::Id(2)),
        ("tokenizer.ggml.unknown_token_id", Value::Id(0)),
    ];
    entries.extend(more);
    build(entries)
}

fn spelled(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let table = tokenizer.token_bytes(tokenizer.vocab_size());
    ids.iter().map(|id| String::from_utf8_lossy(&table[*id as usize]).into_owned()).collect()
}

#[test]
fn sentence_piece_merges_by_score() {
    let tokenizer = sentence_piece(Vec::new()).unwrap();
    // ▁a is merged before ab, and then ▁a+b.
    let ids = tokenizer.encode("ab", true).unwrap();
    assert_eq!(ids[0], 1, "the start token is added");
    assert_eq!(spelled(&tokenizer, &ids[1..]), [" ab"]);
    assert_eq!(tokenizer.encode("ab", false).unwrap(), ids[1..]);
    // abc scores best of all, but ▁a is merged before there is an ab to make it from.
    assert_eq!(spelled(&tokenizer, &tokenizer.encode("abc", false).unwrap()), [" ab", "c"]);
    assert_eq!(spelled(&tokenizer, &tokenizer.encode("cabc", false).unwrap()), [" ", "c", "abc"]);
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "ab");
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "<s> ab");
}

#[test]
fn sentence_piece_falls_back_to_bytes() {
    let tokenizer = sentence_piece(Vec::new()).unwrap();
    let ids = tokenizer.encode("é\n", false).unwrap();
    let byte = |byte: u32| 3 + byte;
    assert_eq!(ids[1..], [byte(0xC3), byte(0xA9), byte(0x0A)]);
    assert_eq!(tokenizer.token_bytes(tokenizer.vocab_size())[byte(0xC3) as usize], [0xC3]);
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "é\n");
}

#[test]
fn sentence_piece_flags_are_honoured() {
    let tokenizer = sentence_piece(vec![
        ("tokenizer.ggml.add_bos_token", Value::Flag(false)),
        ("tokenizer.ggml.add_eos_token", Value::Flag(true)),
        ("tokenizer.ggml.add_space_prefix", Value::Flag(false)),
    ])
    .unwrap();
    let ids = tokenizer.encode("abc", true).unwrap();
    assert_eq!(spelled(&tokenizer, &ids), ["abc", "</s>"]);
    assert_eq!(tokenizer.decode(&ids[..1], false).unwrap(), "abc");
}

#[test]
fn control_tokens_are_no_merges() {
    let tokenizer = sentence_piece(Vec::new()).unwrap();
    assert!(tokenizer.encode("a</s>", false).unwrap().contains(&2));
    let plain = tokenizer.encode_plain("a</s>").unwrap();
    assert_eq!(spelled(&tokenizer, &plain), [" a", "</", "s>"]);
    assert!(tokenizer.is_special(2) && tokenizer.is_special(0) && !tokenizer.is_special(3));
}

/// A byte-level vocabulary: the letters a to e, one merge, a control token and padding.
fn byte_level(more: Vec<(&'static str, Value<'static>)>) -> Result<Tokenizer, String> {
    let texts = |texts: &[&str]| Value::Texts(texts.iter().map(|t| (*t).to_owned()).collect());
    let mut entries = vec![
        (MODEL, Value::Text("gpt2")),
        (PRE, Value::Text("qwen2")),
        (TOKENS, texts(&["a", "b", "c", "ab", "Ġ", "<|end|>", "<think>", "[PAD7]"])),
        (TYPES, Value::Numbers(vec![1, 1, 1, 1, 1, 3, 4, 5])),
        (MERGES, texts(&["a b"])),
        ("tokenizer.ggml.bos_token_id", Value::Id(5)),
    ];
    entries.extend(more);
    build(entries)
}

#[test]
fn byte_level_flags_and_types_are_honoured() {
    let tokenizer = byte_level(Vec::new()).unwrap();
    assert_eq!(tokenizer.encode("ab c<|end|><think>", true).unwrap(), [3, 4, 2, 5, 6]);
    assert!(tokenizer.is_special(5) && !tokenizer.is_special(6));
    // Padding is no token.
    assert_eq!((tokenizer.token_id("[PAD7]"), tokenizer.vocab_size()), (None, 7));
    assert_eq!(tokenizer.token_bytes(8)[7], b"");
    let with_bos = byte_level(vec![("tokenizer.ggml.add_bos_token", Value::Flag(true))]).unwrap();
    assert_eq!(with_bos.encode("c", true).unwrap(), [5, 2]);
    assert_eq!(with_bos.encode("c", false).unwrap(), [2]);
    // Llama 3 adds its start token unless told otherwise.
    let llama3 = byte_level(vec![(PRE, Value::Text("llama-bpe"))]).unwrap();
    assert_eq!(llama3.encode("c", true).unwrap(), [5, 2]);
}

#[test]
fn unusable_metadata_is_named() {
    let texts = |texts: &[&str]| Value::Texts(texts.iter().map(|t| (*t).to_owned()).collect());
    for (change, parts) in [
        ((PRE, Value::Text("falcon-9")), ["`falcon-9`", "is not supported"]),
        ((MODEL, Value::Text("bert")), ["`bert`", "is not supported"]),
        ((MODEL, Value::Id(1)), [MODEL, "must be a text"]),
        ((TOKENS, texts(&[])), [TOKENS, "0 tokens"]),
        ((TYPES, Value::Numbers(vec![1])), [TYPES, "1 entries for 8 tokens"]),
        ((MERGES, texts(&["ab"])), [MERGES, "not a pair"]),
        ((MERGES, texts(&["a z"])), [MERGES, "not in the vocabulary"]),
        ((MERGES, texts(&["ab c"])), [MERGES, "not in the vocabulary"]),
        ((MERGES, Value::Flag(true)), [MERGES, "must be an array of texts"]),
        (("tokenizer.ggml.add_bos_token", Value::Id(1)), ["add_bos_token", "true or false"]),
    ] {
        let error = byte_level(vec![change]).unwrap_err();
        assert!(error.contains("made.gguf") && parts.iter().all(|p| error.contains(p)), "{error}");
    }
    let error = byte_level(vec![
        ("tokenizer.ggml.bos_token_id", Value::Id(99)),
        ("tokenizer.ggml.add_bos_token", Value::Flag(true)),
    ]);
    assert!(error.unwrap_err().contains("outside the vocabulary of 8 tokens"));
    let error = sentence_piece(vec![(SCORES, Value::Scores(vec![0.0]))]).unwrap_err();
    assert!(error.contains("1 entries for 273 tokens"), "{error}");
    for missing in [vec![], vec![(MODEL, Value::Text("gpt2"))]] {
        let error = build(missing).unwrap_err();
        assert!(error.contains("is missing from the metadata"), "{error}");
    }
}

#[test]
fn other_metadata_is_checked_too() {
    let say = |entries: &[(&str, Value)]| {
        let metadata = metadata(entries).unwrap();
        assert!(ChatTemplate::from_gguf(&metadata).unwrap().is_none());
        let weights = Weights::open_gguf(
            &std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/golden/tokenizer/tokenizer.gguf"),
        );
        ModelConfig::from_gguf(&metadata, &weights.unwrap().0).unwrap_err().to_string()
    };
    const ARCHITECTURE: &str = "general.architecture";
    assert!(say(&[]).contains("`general.architecture` is missing"));
    assert!(say(&[(ARCHITECTURE, Value::Text("mamba"))]).contains("`mamba` is not supported"));
    let error = say(&[(ARCHITECTURE, Value::Text("qwen3"))]);
    assert!(error.contains("`qwen3.embedding_length` is missing"), "{error}");
    let error = say(&[
        (ARCHITECTURE, Value::Text("llama")),
        ("llama.embedding_length", Value::Id(64)),
        ("llama.attention.head_count", Value::Id(4)),
        ("llama.expert_count", Value::Id(8)),
    ]);
    assert!(error.contains("a mixture of 8 experts is not supported"), "{error}");
    let error = metadata(&[("split.count", Value::Id(3))]).unwrap_err().to_string();
    assert!(error.contains("split into 3 files"), "{error}");
    let error = metadata(&[("a", Value::Id(3)), ("a", Value::Id(3))]).unwrap_err().to_string();
    assert!(error.contains("appears twice"), "{error}");
    for alignment in [0, 7, 24, 1 << 30] {
        let entries = [("general.alignment", Value::Id(alignment))];
        assert!(metadata(&entries).unwrap_err().to_string().contains("power of two"));
    }
}
