//! Which problems are for training, for calibration, for testing.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// What a problem may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// To train model and head on: 80 % of all problems.
    Train,
    /// To choose thresholds on: 10 %.
    Calibration,
    /// To report on: 10 %.
    Test,
}

impl Split {
    /// Every split.
    pub const ALL: [Self; 3] = [Self::Train, Self::Calibration, Self::Test];

    /// The spelling used in files and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Calibration => "calibration",
            Self::Test => "test",
        }
    }

    /// The split of a problem, from what it is about: the hash of its essence decides, so no choice
    /// of seeds can put one problem into two splits.
    pub(crate) fn of(essence: &str) -> Self {
        match Sha256::digest(essence.as_bytes())[0] % 10 {
            0 => Self::Test,
            1 => Self::Calibration,
            _ => Self::Train,
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no split.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown split `{0}` (expected train, calibration or test)")]
pub struct ParseSplitError(pub String);

impl FromStr for Split {
    type Err = ParseSplitError;

    fn from_str(text: &str) -> Result<Self, ParseSplitError> {
        let found = Self::ALL.into_iter().find(|split| split.as_str() == text);
        found.ok_or_else(|| ParseSplitError(text.to_owned()))
    }
}
