//! Errors of parsing and of impossible settings.

use thiserror::Error;

/// A word that names nothing known; the message lists what would have been understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown {what} `{given}` (expected {expected})")]
pub struct ParseError {
    /// What was being read, for example `smoothing`.
    pub what: &'static str,
    /// The text as given.
    pub given: String,
    /// The accepted spellings.
    pub expected: &'static str,
}

impl ParseError {
    pub(crate) fn new(what: &'static str, given: &str, expected: &'static str) -> Self {
        Self { what, given: given.to_owned(), expected }
    }
}

/// A setting outside the range in which its formula means anything.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SettingError {
    /// An EWMA factor must be in (0, 1].
    #[error("smoothing factor alpha must be above 0 and at most 1, got {0}")]
    Alpha(f64),
    /// A time constant must be a positive number of tokens.
    #[error("smoothing time constant must be a positive number of tokens, got {0}")]
    TimeConstant(f64),
    /// A window too short for its formula.
    #[error("smoothing window must hold at least {least} values, got {given}")]
    Window {
        /// The smallest window that works.
        least: usize,
        /// The window as given.
        given: usize,
    },
    /// A threshold that is NaN can never be passed.
    #[error("the {0} threshold is not a number")]
    Threshold(&'static str),
    /// A probability outside 0 to 1.
    #[error("the rate of random exits is {0}; give a number from 0 to 1")]
    Rate(f32),
    /// A cycle that cannot be looked for.
    #[error(
        "the longest cycle of a loop must be at least 1 and at most {most} tokens, got {given}"
    )]
    Cycle {
        /// [`crate::Loops::MAX_CYCLE`].
        most: usize,
        /// The length as given.
        given: usize,
    },
    /// Once is no loop.
    #[error("a loop needs at least 2 equal runs, got {0}")]
    Repeats(usize),
    /// Without tokens every thought would stall at once.
    #[error("a stall must last for at least 1 thinking token, got 0")]
    StallTokens,
    /// A rise by nothing is none.
    #[error("the progress that a thought must gain so as not to stall must be above 0, got {0}")]
    StallGain(f32),
    /// A thought that can be ended needs tokens that end it.
    #[error(
        "the end-of-thinking marker `{0}` has no tokens: the tokenizer's encoding of it is needed"
    )]
    NoCloseTokens(String),
    /// A marker without text would be found everywhere.
    #[error("the {0} marker is empty")]
    EmptyMarker(&'static str),
}
