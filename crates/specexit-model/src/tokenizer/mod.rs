//! Text to token ids and back.
//!
//! The library `tokenizers` does the work; a GGUF file's tokenizer is rebuilt into it.

mod bytes;
mod gguf;
mod pre;
mod spm;

use std::collections::HashSet;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::{
    Model as _, Normalizer as _, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer as _,
};

use crate::error::{ModelError, Result, shown};
use crate::hash::Hasher;
use crate::weights::GgufMetadata;

/// The tokenizer of a model.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Where it came from, for error messages.
    path: PathBuf,
    /// Ids of special tokens (control tokens, not shown to readers).
    special: HashSet<u32>,
    /// One more than the largest id.
    vocab_size: usize,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// When the file is absent or not a tokenizer.
    pub fn from_file(path: &Path) -> Result<Self> {
        if !path.is_file() {
            return Err(ModelError::MissingFile {
                folder: path.parent().unwrap_or(path).to_owned(),
                file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                advice: "save the tokenizer in the fast format \
                         (AutoTokenizer.from_pretrained(…).save_pretrained(…)) beside the weights"
                    .to_owned(),
            });
        }
        let bytes = std::fs::read(path)
            .map_err(|source| ModelError::Io { path: path.to_owned(), source })?;
        Self::from_json(&bytes, path)
    }

    /// Reads the contents of a `tokenizer.json`; `path` is where they came from, for messages.
    ///
    /// # Errors
    /// When they are not a tokenizer.
    pub fn from_json(bytes: &[u8], path: &Path) -> Result<Self> {
        let unreadable = |problem: &dyn std::fmt::Display| ModelError::Tokenizer {
            path: Some(path.to_owned()),
            problem: format!("it cannot be read ({}); fetch or save it again", shown(problem)),
        };
        // The library indexes with lengths from the file in places (merges longer than any token).
        let inner = catch_unwind(|| tokenizers::Tokenizer::from_bytes(bytes))
            .map_err(|_| unreadable(&"its parts contradict each other"))?
            .map_err(|error| unreadable(&error))?;
        Self::wrap(inner, path)
    }

    /// Rebuilds the tokenizer that a GGUF file describes.
    ///
    /// # Errors
    /// When a needed key is absent or inconsistent, or the tokenizer is of an unknown kind (named).
    pub fn from_gguf(metadata: &GgufMetadata) -> Result<Self> {
        Self::wrap(gguf::build(metadata)?, metadata.path())
    }

    fn wrap(mut inner: tokenizers::Tokenizer, path: &Path) -> Result<Self> {
        // Some files carry the cutting and padding of their training runs; prompts must arrive whole.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| ModelError::Tokenizer {
            path: Some(path.to_owned()),
            problem: shown(error),
        })?;
        let special = inner
            .get_added_tokens_decoder()
            .iter()
            .filter(|(_, token)| token.special)
            .map(|(id, _)| *id)
            .collect();
        let largest = inner.get_vocab(true).into_values().max();
        let vocab_size = largest.map_or(0, |id| id as usize + 1);
        Ok(Self { inner, path: path.to_owned(), special, vocab_size })
    }

    /// The ids of `text`. Special tokens written in the text become their ids; `add_special` lets the
    /// tokenizer add its own (a start token, where the model has one).
    ///
    /// # Errors
    /// When the library refuses the text.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, add_special).map_err(|e| self.error(e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of `text` taken literally: no special or added token is recognised in it, so text from
    /// outside cannot close a turn or a thought. Nothing is added at its ends.
    ///
    /// # Errors
    /// When the library refuses the text.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        let mut normalized = tokenizers::NormalizedString::from(text);
        if let Some(normalizer) = self.inner.get_normalizer() {
            normalizer.normalize(&mut normalized).map_err(|e| self.error(e))?;
        }
        let mut pieces = PreTokenizedString::from(normalized);
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces).map_err(|e| self.error(e))?;
        }
        let model = self.inner.get_model();
        pieces.tokenize(|piece| model.tokenize(piece.get())).map_err(|e| self.error(e))?;
        let splits = pieces.get_splits(OffsetReferential::Normalized, OffsetType::None);
        let tokens = splits.into_iter().filter_map(|(_, _, tokens)| tokens.as_ref());
        Ok(tokens.flatten().map(|token| token.id).collect())
    }

    /// The text of `ids`; `skip_special` leaves special tokens out.
    ///
    /// # Errors
    /// When the library refuses the ids.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner.decode(ids, skip_special).map_err(|e| self.error(e))
    }

    /// For each id below `vocab_size`, the exact bytes that it adds to a text: index = id. Ids that
    /// the tokenizer does not know (padding rows of the embedding) add nothing.
    ///
    /// Joined bytes may split a character between tokens. At the very start of a text, tokenizers of
    /// the SentencePiece kind drop one leading space, which these bytes keep.
    #[must_use]
    pub fn token_bytes(&self, vocab_size: usize) -> Vec<Vec<u8>> {
        bytes::table(&self.inner, vocab_size)
    }

    /// The id of a token, given as the vocabulary writes it.
    #[must_use]
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// One more than the largest id, added tokens included.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Whether the id is a special token.
    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// The identity of the tokenizer: a SHA-256 over its vocabulary (added tokens included) and its
    /// merges, in hexadecimal. A GGUF file and the `tokenizer.json` it was made from agree on it.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut hasher = Hasher::new();
        hasher.text("specexit tokenizer 1");
        let mut tokens: Vec<(String, u32)> = self.inner.get_vocab(true).into_iter().collect();
        tokens.sort_unstable_by(|(a, x), (b, y)| x.cmp(y).then_with(|| a.cmp(b)));
        for (token, id) in tokens {
            hasher.number(u64::from(id));
            hasher.text(&token);
        }
        hasher.text("merges");
        for merge in self.merges() {
            hasher.text(&merge);
        }
        hasher.finish()
    }

    /// The merges in their order, each as its two parts with a space between them.
    fn merges(&self) -> Vec<String> {
        // The library shows them only in serialised form: pairs, or texts in older files.
        let model = serde_json::to_value(self.inner.get_model()).unwrap_or_default();
        let Some(Value::Array(merges)) = model.get("merges") else { return Vec::new() };
        merges
            .iter()
            .map(|merge| match merge {
                Value::Array(parts) => {
                    parts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
                }
                other => other.as_str().unwrap_or_default().to_owned(),
            })
            .collect()
    }

    fn error(&self, error: tokenizers::Error) -> ModelError {
        ModelError::Tokenizer { path: Some(self.path.clone()), problem: shown(error) }
    }
}
