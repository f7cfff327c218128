//! The thresholds that the smoothed signals must pass for an exit.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    error::{ParseError, SettingError},
    signals::Signals,
};

/// Limits on the smoothed signals. All that are set must hold, each strictly; none set: no exit.
///
/// Written `CONFIDENCE,PROGRESS,REMAINING` on the command line, `-` for one that is not set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// Confidence must be above this.
    #[serde(default)]
    pub confidence: Option<f32>,
    /// Progress must be above this.
    #[serde(default)]
    pub progress: Option<f32>,
    /// Remaining must be below this, in tokens.
    #[serde(default)]
    pub remaining: Option<f32>,
}

impl Thresholds {
    /// No threshold: signals never end a thought.
    pub const OFF: Self = Self { confidence: None, progress: None, remaining: None };

    /// 0.8, 0.3 and 200 tokens: the constants of SpecExit's released code and of its article.
    pub const PUBLISHED: Self =
        Self { confidence: Some(0.8), progress: Some(0.3), remaining: Some(200.0) };

    /// True when at least one threshold is set and every set one is passed.
    ///
    /// A missing value fails. With `zero_is_missing` a value of exactly 0 fails too: the released
    /// code tests its values for truth, so a remaining length of 0 blocks the exit there.
    #[must_use]
    pub fn pass(&self, signals: &Signals, zero_is_missing: bool) -> bool {
        let present = |value: f32| !(value.is_nan() || (zero_is_missing && value == 0.0));
        let above =
            |limit: Option<f32>, value: f32| limit.is_none_or(|l| present(value) && value > l);
        let below =
            |limit: Option<f32>, value: f32| limit.is_none_or(|l| present(value) && value < l);
        *self != Self::OFF
            && above(self.confidence, signals.confidence)
            && above(self.progress, signals.progress)
            && below(self.remaining, signals.remaining)
    }

    /// A threshold that is NaN is a mistake: it would silently switch the exit off.
    pub fn validate(&self) -> Result<(), SettingError> {
        let named = [
            ("confidence", self.confidence),
            ("progress", self.progress),
            ("remaining", self.remaining),
        ];
        match named.into_iter().find(|(_, limit)| limit.is_some_and(f32::is_nan)) {
            Some((name, _)) => Err(SettingError::Threshold(name)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Thresholds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, limit) in [self.confidence, self.progress, self.remaining].into_iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match limit {
                Some(limit) => write!(f, "{limit}")?,
                None => f.write_str("-")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Thresholds {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let unknown = || {
            let expected = "CONFIDENCE,PROGRESS,REMAINING with - for one that is not used; \
                            for example 0.8,0.3,200 or 0.9,-,-";
            ParseError::new("thresholds", text, expected)
        };
        let limits = text
            .split(',')
            .map(|part| match part.trim() {
                "-" => Ok(None),
                number => match number.parse::<f32>() {
                    Ok(limit) if !limit.is_nan() => Ok(Some(limit)),
                    _ => Err(unknown()),
                },
            })
            .collect::<Result<Vec<_>, _>>()?;
        match limits[..] {
            [confidence, progress, remaining] => Ok(Self { confidence, progress, remaining }),
            _ => Err(unknown()),
        }
    }
}
