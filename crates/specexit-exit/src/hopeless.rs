//! Giving up: ending a thought because more of it will not help.

use serde::{Deserialize, Serialize};

use crate::signals::Signals;

/// Ends a thought that is long and, by its smoothed progress, still far from its end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hopeless {
    /// Thinking tokens before which no thought is given up.
    pub after: usize,
    /// Progress must be below this.
    pub progress: f32,
}

impl Hopeless {
    /// Whether a thought of so many tokens is given up. A missing progress gives nothing up.
    #[must_use]
    pub fn gives_up(&self, thinking_tokens: usize, smoothed: &Signals) -> bool {
        thinking_tokens >= self.after && smoothed.progress < self.progress
    }
}
