//! The key-value part of a GGUF file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{ModelError, Result};

/// One value of the metadata, with the many number types of the format folded into four.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufValue {
    /// Any unsigned integer.
    Unsigned(u64),
    /// Any signed integer.
    Signed(i64),
    /// `f32` or `f64`.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A text; bytes that are not UTF-8 are replaced.
    Text(String),
    /// An array of integers.
    Integers(Vec<i64>),
    /// An array of floats.
    Floats(Vec<f32>),
    /// An array of truth values.
    Bools(Vec<bool>),
    /// An array of texts.
    Texts(Vec<String>),
}

impl GgufValue {
    /// What the value is, for error messages.
    fn kind(&self) -> &'static str {
        match self {
            Self::Unsigned(_) | Self::Signed(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a truth value",
            Self::Text(_) => "a text",
            Self::Integers(_) => "an array of integers",
            Self::Floats(_) => "an array of floats",
            Self::Bools(_) => "an array of truth values",
            Self::Texts(_) => "an array of texts",
        }
    }
}

/// The metadata of a GGUF file: config, tokenizer and chat template of the model in it.
#[derive(Clone, Debug)]
pub struct GgufMetadata {
    path: PathBuf,
    values: BTreeMap<String, GgufValue>,
}

impl GgufMetadata {
    /// Wraps values read from the file at `path`.
    pub(super) fn new(path: PathBuf, values: BTreeMap<String, GgufValue>) -> Self {
        Self { path, values }
    }

    /// The file the metadata came from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The keys, in alphabetical order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&GgufValue> {
        self.values.get(key)
    }

    /// The family whose keys the file uses, `general.architecture`.
    ///
    /// # Errors
    /// When the key is absent or not a text.
    pub fn architecture(&self) -> Result<&str> {
        self.need(self.text("general.architecture")?, "general.architecture")
    }

    /// A text, where the key is present.
    ///
    /// # Errors
    /// When the value is of another kind.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a text", |value| match value {
            GgufValue::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A whole number from 0, where the key is present.
    ///
    /// # Errors
    /// When the value is of another kind or negative.
    pub fn integer(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "a whole number", |value| match value {
            GgufValue::Unsigned(number) => Some(*number),
            GgufValue::Signed(number) => u64::try_from(*number).ok(),
            _ => None,
        })
    }

    /// A size, where the key is present.
    ///
    /// # Errors
    /// When the value is of another kind or does not fit the machine's word.
    pub fn size(&self, key: &str) -> Result<Option<usize>> {
        self.integer(key)?
            .map(|number| {
                usize::try_from(number)
                    .map_err(|_| self.bad(key, format!("is {number}, too large")))
            })
            .transpose()
    }

    /// A token id, where the key is present.
    ///
    /// # Errors
    /// When the value is of another kind or does not fit 32 bits.
    pub fn id(&self, key: &str) -> Result<Option<u32>> {
        self.integer(key)?
            .map(|number| {
                u32::try_from(number)
                    .map_err(|_| self.bad(key, format!("is {number}, which is not a token id")))
            })
            .transpose()
    }

    /// A number, where the key is present.
    ///
    /// # Errors
    /// When the value is of another kind.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", |value| match value {
            GgufValue::Float(number) => Some(*number),
            GgufValue::Unsigned(number) => Some(*number as f64),
            GgufValue::Signed(number) => Some(*number as f64),
            _ => None,
        })
    }

    /// A truth value, where the key is present.
    ///
    /// # Errors
    /// When the value is of another kind.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", |value| match value {
            GgufValue::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// An array of texts, where the key is present.
    ///
    /// # Errors
    /// When the value is of another kind.
    pub fn texts(&self, key: &str) -> Result<Option<&[String]>> {
        self.typed(key, "an array of texts", |value| match value {
            GgufValue::Texts(texts) => Some(texts.as_slice()),
            _ => None,
        })
    }

    /// An array of integers, where the key is present.
    ///
    /// # Errors
    /// When the value is of another kind.
    pub fn integers(&self, key: &str) -> Result<Option<&[i64]>> {
        self.typed(key, "an array of integers", |value| match value {
            GgufValue::Integers(numbers) => Some(numbers.as_slice()),
            _ => None,
        })
    }

    /// An array of floats, where the key is present.
    ///
    /// # Errors
    /// When the value is of another kind.
    pub fn floats(&self, key: &str) -> Result<Option<&[f32]>> {
        self.typed(key, "an array of floats", |value| match value {
            GgufValue::Floats(numbers) => Some(numbers.as_slice()),
            _ => None,
        })
    }

    /// The value, or an error that names the absent key.
    pub(crate) fn need<T>(&self, value: Option<T>, key: &str) -> Result<T> {
        value.ok_or_else(|| {
            self.bad(
                key,
                "is missing from the metadata; convert the model again with a current tool",
            )
        })
    }

    /// An error about one key of the metadata.
    pub(crate) fn bad(&self, key: &str, problem: impl Into<String>) -> ModelError {
        ModelError::BadField {
            path: self.path.clone(),
            field: key.to_owned(),
            problem: problem.into(),
        }
    }

    /// An error about a feature that specexit lacks.
    pub(crate) fn unsupported(
        &self,
        what: impl Into<String>,
        supported: impl Into<String>,
    ) -> ModelError {
        ModelError::Unsupported {
            path: self.path.clone(),
            what: what.into(),
            supported: supported.into(),
        }
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        read: impl Fn(&'a GgufValue) -> Option<T>,
    ) -> Result<Option<T>> {
        self.values
            .get(key)
            .map(|value| {
                read(value).ok_or_else(|| {
                    self.bad(key, format!("is {}, but must be {wanted}", value.kind()))
                })
            })
            .transpose()
    }
}
