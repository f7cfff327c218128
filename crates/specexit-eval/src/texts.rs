//! What recorded tokens read as, so that a page can show them without the model.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;
use specexit_engine::TokenId;
use specexit_exit::text::Utf8;
use specexit_model::Model;
use specexit_model::head_file::write_atomically;
use specexit_train::{PROGRAM, Question};

use crate::error::{EvalError, Result};
use crate::records_file::serialise;
use crate::replay::Recording;

/// The value of `format` in the header of a texts file.
pub const TEXTS_FORMAT: &str = "specexit-texts";
/// The version of that format.
pub(crate) const TEXTS_VERSION: u32 = 1;

/// A question with the text of its recorded tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// The question's id.
    pub question: String,
    /// The question as asked.
    pub asked: String,
    /// The right answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gold: Option<String>,
    /// What each recorded token adds to the text; empty where nothing was recorded. A character of several
    /// tokens stands at the last of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pieces: Vec<String>,
}

/// Writes the texts of `questions`, and of their tokens where there are `recordings`, to the file `out`.
/// They depend on nothing else, so the file is made anew each time.
///
/// # Errors
/// When the file cannot be written.
pub fn write_texts(
    model: &Model,
    questions: &[Question],
    recordings: &[&Recording],
    out: &Path,
) -> Result<()> {
    let header = json!({
        "format": TEXTS_FORMAT,
        "version": TEXTS_VERSION,
        "program": PROGRAM,
        "tokenizer_hash": model.tokenizer.hash(),
    });
    let bytes = model.tokenizer.token_bytes(model.target.config.vocab_size);
    let mut lines = serialise(&header);
    for question in questions {
        let recording = recordings.iter().find(|r| r.question == question.id);
        let ids = recording.map_or(&[][..], |recording| &recording.token_ids);
        let text = Text {
            question: question.id.clone(),
            asked: question.question.clone(),
            gold: question.gold.clone(),
            pieces: pieces(&bytes, ids),
        };
        lines.push_str(&serialise(&text));
    }
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder).map_err(EvalError::io("create", folder))?;
    }
    write_atomically(out, lines.as_bytes()).map_err(EvalError::io("write", out))
}

/// What each of `ids` adds to the text; `bytes` are those of every token by its id.
fn pieces(bytes: &[Vec<u8>], ids: &[TokenId]) -> Vec<String> {
    let mut utf8 = Utf8::default();
    let read = |&id: &TokenId| utf8.push(bytes.get(id as usize).map_or(&[][..], Vec::as_slice));
    let mut pieces: Vec<String> = ids.iter().map(read).collect();
    if let Some(last) = pieces.last_mut() {
        last.push_str(&utf8.finish());
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_stand_at_their_last_token() {
        let table: Vec<Vec<u8>> =
            [&b"a"[..], "é".as_bytes(), &[0xf0, 0x9f], &[0x98], &[0x80, b'!'], &[0xff], b"<br>"]
                .map(<[u8]>::to_vec)
                .to_vec();
        let read = |ids: &[TokenId]| pieces(&table, ids);
        assert_eq!(read(&[0, 1, 6]), ["a", "é", "<br>"]);
        assert_eq!(read(&[2, 3, 4, 0]), ["", "", "😀!", "a"]);
        // Never finished: at the end, or where something else follows.
        assert_eq!(read(&[0, 2]), ["a", "\u{fffd}"]);
        assert_eq!(read(&[2, 0]), ["", "\u{fffd}a"]);
        assert_eq!(read(&[5, 0, 99]), ["\u{fffd}", "a", ""]);
        assert!(read(&[]).is_empty());
    }
}
