//! Stalls: ending a thought that no longer gets further.

use serde::{Deserialize, Serialize};

use crate::error::SettingError;

/// Ends a thought at a boundary when its smoothed progress has not risen for long.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stall {
    /// Thinking tokens over which there must be a rise.
    pub tokens: usize,
    /// What counts as one: so much above the best value before, above 0.
    pub gain: f32,
}

impl Stall {
    /// Whether a thought is ended that has not risen for `flat` thinking tokens.
    #[must_use]
    pub fn gives_up(&self, flat: usize) -> bool {
        flat >= self.tokens
    }

    /// Says what is wrong with the numbers, if anything is.
    pub fn validate(&self) -> Result<(), SettingError> {
        if self.tokens == 0 {
            return Err(SettingError::StallTokens);
        }
        if !(self.gain.is_finite() && self.gain > 0.0) {
            return Err(SettingError::StallGain(self.gain));
        }
        Ok(())
    }
}

/// How far a thought's smoothed progress has risen, and when it last did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Climb {
    stall: Stall,
    /// The value of the last rise and the thinking tokens at it; `None` before any value.
    last: Option<(f32, usize)>,
}

impl Climb {
    pub(crate) fn new(stall: Stall) -> Self {
        Self { stall, last: None }
    }

    /// Takes the smoothed progress after so many thinking tokens. A missing value is none.
    pub(crate) fn see(&mut self, progress: f32, thinking: usize) {
        let rises = match self.last {
            None => progress.is_finite(),
            Some((best, _)) => progress >= best + self.stall.gain,
        };
        if rises {
            self.last = Some((progress, thinking));
        }
    }

    /// Thinking tokens since the last rise; 0 before any value.
    pub(crate) fn flat(&self, thinking: usize) -> usize {
        self.last.map_or(0, |(_, at)| thinking.saturating_sub(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_rise_by_the_gain_counts() {
        let mut climb = Climb::new(Stall { tokens: 10, gain: 0.25 });
        climb.see(f32::NAN, 3);
        assert_eq!(climb.flat(9), 0);
        climb.see(0.5, 10);
        assert_eq!(climb.flat(14), 4);
        for (progress, thinking, flat) in [
            (0.625, 15, 5),
            (0.7, 16, 6),
            (f32::NAN, 17, 7),
            (0.1, 18, 8),
            (0.75, 20, 0),
            (0.99, 23, 3),
        ] {
            climb.see(progress, thinking);
            assert_eq!(climb.flat(thinking), flat, "{progress} at {thinking}");
        }
    }

    #[test]
    fn numbers_without_sense_are_refused() {
        assert!(Stall { tokens: 1, gain: 0.01 }.validate().is_ok());
        assert!(Stall { tokens: 0, gain: 0.1 }.validate().is_err());
        for gain in [0.0, -0.1, f32::NAN, f32::INFINITY] {
            assert!(Stall { tokens: 9, gain }.validate().is_err(), "{gain}");
        }
    }
}
