//! The reference reasoner's tokenizer, in the format of `tokenizer.json`.
//!
//! One token a word, with the space before it; one a digit; one for a paragraph's end, with and
//! without the full stop. The words are those of the generated texts; anything else is spelt in bytes,
//! so that any text can be put to the model, though it has not learnt to read it.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use specexit_problems::{Difficulty, Problems, Split, ThoughtRules};

/// Ends a turn.
pub const EOS: &str = "<|im_end|>";
/// Fills a batch.
pub const PAD: &str = "<|endoftext|>";
/// Opens a turn.
const TURN: &str = "<|im_start|>";
/// Opens a thought.
pub const THINK_START: &str = "<think>";
/// Closes a thought.
pub const THINK_END: &str = "</think>";

/// Added tokens in the order of their ids, which begin at 0; those that stay when a text is decoded
/// for a reader are marked false, as in Qwen3.
const ADDED: [(&str, bool); 5] =
    [(PAD, true), (TURN, true), (EOS, true), (THINK_START, false), (THINK_END, false)];

/// The first id after the markers.
pub(super) const FIRST_WORD: u32 = ADDED.len() as u32;

/// The chat template: turns as in Qwen; a thought is open from the beginning, and already closed with
/// `enable_thinking = false`.
pub const CHAT_TEMPLATE: &str = "\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n<think>\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}";

/// How text is split before it is looked up: paragraph ends, numbers of lines (` 3:`), letters of
/// options (` (B)`), names that are given a value (` x=`), words, single digits, signs, white space.
/// What is looked up in a thought stands right behind one token that says what it is, or is one token
/// behind a name: one step of attention finds it, where two steps took a small model too long to learn.
const SPLIT: &str = r"\.?\n\n| [0-9]:| ?\([A-F]\)| ?[a-z]=| ?[A-Za-z]+| ?[0-9]| ?[^\sA-Za-z0-9]|\s";

/// Problems from which the words are taken.
const SAMPLES: usize = 3000;

/// Words of the template, and the roles.
const SCAFFOLD: &str = "user\nassistant\nsystem\n\n.\n\n";

/// Length of the line number, option letter or name with its sign that `text` begins with; `spaced` if
/// a space stands before it.
fn marked(text: &[u8], spaced: bool) -> Option<usize> {
    match text {
        [b'0'..=b'9', b':', ..] if spaced => Some(2),
        [b'(', b'A'..=b'F', b')', ..] => Some(3),
        [b'a'..=b'z', b'=', ..] => Some(2),
        _ => None,
    }
}

/// `text` cut as [`SPLIT`] cuts it. The same rule by hand, so that no regular expression library has
/// to agree with another; a test compares the two.
fn pieces(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let run = |from: usize, what: fn(&u8) -> bool| {
        bytes[from..].iter().take_while(|byte| what(byte)).count()
    };
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let stop = usize::from(rest.starts_with('.'));
        let space = usize::from(rest.starts_with(' '));
        let word = run(at + space, u8::is_ascii_alphabetic);
        let length = if rest[stop..].starts_with("\n\n") {
            stop + 2
        } else if let Some(length) = marked(&bytes[at + space..], space == 1) {
            space + length
        } else if word > 0 {
            space + word
        } else {
            // One character, with the space before it unless it is white space itself.
            let mut after = rest[space..].chars();
            match after.next() {
                Some(c) if !c.is_whitespace() => space + c.len_utf8(),
                _ => rest.chars().next().map_or(1, char::len_utf8),
            }
        };
        pieces.push(&text[at..at + length]);
        at += length;
    }
    pieces
}

/// GPT-2's table: each byte as a character that can be printed.
fn byte_char(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|b| !printable(*b)).count();
    char::from_u32(256 + before as u32).unwrap_or(' ')
}

fn spelt(text: &str) -> String {
    text.bytes().map(byte_char).collect()
}

/// Every piece of the generated texts.
fn words() -> BTreeSet<String> {
    let problems = Problems::new(&[], Difficulty::MIN..=Difficulty::MAX, Split::Train, 0);
    let rules = ThoughtRules { careless: 0.5, stray: 0.1, ..ThoughtRules::default() };
    let mut words = BTreeSet::new();
    let mut take = |text: &str| words.extend(pieces(text).into_iter().map(spelt));
    take(SCAFFOLD);
    for (seed, problem) in problems.take(SAMPLES).enumerate() {
        take(&problem.question);
        take(&problem.thought(&rules, seed as u64));
        take(&problem.stated_answer());
    }
    words
}

/// `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja`: name and contents.
#[must_use]
pub fn tokenizer_files() -> Vec<(String, Vec<u8>)> {
    let mut vocab = Map::new();
    let mut added = Vec::new();
    for (id, (token, special)) in ADDED.iter().enumerate() {
        vocab.insert((*token).to_owned(), id.into());
        added.push(json!({
            "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special,
        }));
    }
    let single = (0..=255u8).map(|byte| byte_char(byte).to_string());
    for token in single.chain(words()) {
        let id = vocab.len();
        vocab.entry(token).or_insert_with(|| id.into());
    }
    let split = json!({
        "type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": false,
    });
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false,
    });
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            // A piece that is in the vocabulary is a token; any other falls into bytes.
            "ignore_merges": true, "vocab": vocab, "merges": [],
        },
    });
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": EOS,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": false,
        "model_max_length": 2048,
        "chat_template": CHAT_TEMPLATE,
    });
    let text = |value: &Value| format!("{value:#}\n").into_bytes();
    vec![
        ("tokenizer.json".to_owned(), text(&tokenizer)),
        ("tokenizer_config.json".to_owned(), text(&config)),
        ("chat_template.jinja".to_owned(), CHAT_TEMPLATE.as_bytes().to_vec()),
    ]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use specexit_model::Tokenizer;

    use super::*;

    fn tokenizer() -> Tokenizer {
        Tokenizer::from_json(&tokenizer_files()[0].1, Path::new("tokenizer.json")).unwrap()
    }

    #[test]
    fn generated_texts_have_one_token_a_piece() {
        let tokenizer = tokenizer();
        for split in Split::ALL {
            let problems = Problems::new(&[], Difficulty::MIN..=Difficulty::MAX, split, 11);
            for (seed, problem) in problems.take(400).enumerate() {
                let thought = problem.thought(&ThoughtRules::default(), seed as u64);
                let text = format!("{}\n{thought}{}", problem.question, problem.stated_answer());
                let ids = tokenizer.encode_plain(&text).unwrap();
                assert_eq!(ids.len(), pieces(&text).len(), "{text}");
                assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
            }
        }
    }

    #[test]
    fn any_text_comes_back() {
        let tokenizer = tokenizer();
        for text in [
            "",
            "Übung macht den Meister…",
            "a  b\t\n c",
            "x\n\n\ny.\n\n",
            "12.5 %",
            "'é",
            " 3:",
            "(A) x=",
        ] {
            let ids = tokenizer.encode_plain(text).unwrap();
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
            assert_eq!(pieces(text).concat(), text);
        }
    }

    #[test]
    fn markers_and_paragraph_ends_are_single_tokens() {
        let tokenizer = tokenizer();
        for text in [
            EOS,
            PAD,
            TURN,
            THINK_START,
            THINK_END,
            "\n\n",
            ".\n\n",
            "7",
            " 7",
            " 7:",
            " (B)",
            " x=",
        ] {
            assert_eq!(tokenizer.encode(text, false).unwrap().len(), 1, "{text:?}");
        }
        assert_eq!(tokenizer.encode("42", false).unwrap().len(), 2);
        assert_eq!(tokenizer.token_id(PAD), Some(0));
        assert!(tokenizer.is_special(2) && !tokenizer.is_special(4));
        assert!(tokenizer.vocab_size() < 560, "{}", tokenizer.vocab_size());
    }
}
