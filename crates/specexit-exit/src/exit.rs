//! How and where a thought ended.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{error::ParseError, signals::Signals};

/// Why a thought ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExitReason {
    /// The target wrote the end-of-thinking marker by itself.
    Natural,
    /// The signals passed their thresholds at a boundary.
    Signals,
    /// It was long and far from its end: it was given up at a boundary.
    Hopeless,
    /// Its progress had not risen for long: it was ended at a boundary.
    Stalled,
    /// It only repeated itself: it was ended at once.
    Loop,
    /// Chance ended it at a boundary: the baseline that signals have to beat.
    Random,
    /// A trial answer was good enough: a baseline that probes.
    Probe,
    /// The budget of thinking tokens was used up.
    Budget,
    /// Generation reached its length limit while still thinking.
    Length,
    /// A stop token or stop string ended generation while still thinking.
    Stop,
    /// There never was a thinking span.
    NoThinking,
}

impl ExitReason {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 11] = [
        Self::Natural,
        Self::Signals,
        Self::Hopeless,
        Self::Stalled,
        Self::Loop,
        Self::Random,
        Self::Probe,
        Self::Budget,
        Self::Length,
        Self::Stop,
        Self::NoThinking,
    ];

    /// The spelling used in JSON, on the command line and in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Natural => "natural",
            Self::Signals => "signals",
            Self::Hopeless => "hopeless",
            Self::Stalled => "stalled",
            Self::Loop => "loop",
            Self::Random => "random",
            Self::Probe => "probe",
            Self::Budget => "budget",
            Self::Length => "length",
            Self::Stop => "stop",
            Self::NoThinking => "no_thinking",
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ExitReason {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wanted = text.replace('-', "_");
        Self::ALL.into_iter().find(|reason| reason.as_str() == wanted).ok_or_else(|| {
            ParseError::new(
                "exit reason",
                text,
                "natural, signals, hopeless, stalled, loop, random, probe, budget, length, stop or \
                 no_thinking",
            )
        })
    }
}

/// The end of a thought.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// Why it ended.
    pub reason: ExitReason,
    /// Number of generated tokens before what ends the thought: before the target's own
    /// end-of-thinking marker, or before the forced tokens. The index of the last kept token plus 1.
    pub token_index: usize,
    /// The smoothed signals at that moment.
    pub signals: Signals,
}
