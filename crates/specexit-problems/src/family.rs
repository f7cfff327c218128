//! The kinds of problems.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A kind of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Word problems of several steps.
    Words,
    /// Linear equations and modular arithmetic.
    Algebra,
    /// What a short program returns.
    Code,
    /// Ordering and elimination puzzles with option letters.
    Logic,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 4] = [Self::Words, Self::Algebra, Self::Code, Self::Logic];

    /// The spelling used in files and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Words => "words",
            Self::Algebra => "algebra",
            Self::Code => "code",
            Self::Logic => "logic",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no family.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown family `{0}` (expected words, algebra, code or logic)")]
pub struct ParseFamilyError(pub String);

impl FromStr for Family {
    type Err = ParseFamilyError;

    fn from_str(text: &str) -> Result<Self, ParseFamilyError> {
        let found = Self::ALL.into_iter().find(|family| family.as_str() == text);
        found.ok_or_else(|| ParseFamilyError(text.to_owned()))
    }
}
