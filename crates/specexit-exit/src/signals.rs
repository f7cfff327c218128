//! The three signals that the signal probe predicts for a token.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What the signal probe says about one position; NaN in a field means missing.
///
/// Two values are equal when their fields are, a missing field being equal to a missing field.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Signals {
    /// How sure the target already is of its answer, 0 to 1.
    #[serde(with = "missing", default = "nan")]
    pub confidence: f32,
    /// How far along the thought is, 0 to 1.
    #[serde(with = "missing", default = "nan")]
    pub progress: f32,
    /// Thinking tokens still needed, 0 upwards.
    #[serde(with = "missing", default = "nan")]
    pub remaining: f32,
}

impl Signals {
    /// No signal at all: what a draft head without a signal probe delivers. Never exits.
    pub const MISSING: Self =
        Self { confidence: f32::NAN, progress: f32::NAN, remaining: f32::NAN };

    /// Activates the three probe rows in the order confidence, progress, remaining: sigmoid,
    /// sigmoid, exp (row order and activations of SpecExit's released code).
    #[must_use]
    pub fn from_logits([confidence, progress, remaining]: [f32; 3]) -> Self {
        Self {
            confidence: sigmoid(confidence),
            progress: sigmoid(progress),
            remaining: remaining.exp(),
        }
    }

    /// True when no field holds a value.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.confidence.is_nan() && self.progress.is_nan() && self.remaining.is_nan()
    }
}

impl Default for Signals {
    fn default() -> Self {
        Self::MISSING
    }
}

impl PartialEq for Signals {
    fn eq(&self, other: &Self) -> bool {
        same(self.confidence, other.confidence)
            && same(self.progress, other.progress)
            && same(self.remaining, other.remaining)
    }
}

fn same(a: f32, b: f32) -> bool {
    a == b || (a.is_nan() && b.is_nan())
}

/// 1 / (1 + e^-x), without overflow at either end.
fn sigmoid(x: f32) -> f32 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

fn nan() -> f32 {
    f32::NAN
}

/// JSON has no NaN: a missing value is written as `null`.
mod missing {
    use super::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
    pub(super) fn serialize<S: Serializer>(value: &f32, serializer: S) -> Result<S::Ok, S::Error> {
        value.is_finite().then_some(*value).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
        Ok(Option::<f32>::deserialize(deserializer)?.unwrap_or(f32::NAN))
    }
}
