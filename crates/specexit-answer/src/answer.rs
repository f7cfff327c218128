//! What an answer is.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::latex;

/// What sort of answer is looked for, or was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerKind {
    /// Whatever is there; never the kind of an answer that was found.
    #[default]
    Auto,
    /// A number.
    Number,
    /// An expression or a word, as in `\boxed{…}`.
    Boxed,
    /// The letter of a multiple-choice option.
    Option,
}

impl AnswerKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Number, Self::Boxed, Self::Option];

    /// The spelling used in JSON and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Number => "number",
            Self::Boxed => "boxed",
            Self::Option => "option",
        }
    }
}

impl fmt::Display for AnswerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no kind of answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown kind of answer `{0}` (expected auto, number, boxed or option)")]
pub struct ParseKindError(pub String);

impl FromStr for AnswerKind {
    type Err = ParseKindError;

    fn from_str(text: &str) -> Result<Self, ParseKindError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| ParseKindError(text.to_owned()))
    }
}

/// An answer found in a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What it is; never [`AnswerKind::Auto`].
    pub kind: AnswerKind,
    /// As found, with typographic minus signs and spaces made plain.
    pub text: String,
    /// One spelling for all ways of writing it; what comparisons start from.
    pub normalised: String,
}

impl Answer {
    pub(crate) fn new(kind: AnswerKind, text: &str) -> Self {
        let text = text.trim();
        let normalised = match kind {
            AnswerKind::Option => text.to_ascii_uppercase(),
            _ => latex::normalise(text),
        };
        Self { kind, text: text.to_owned(), normalised }
    }
}
