//! What a run reports, one JSON line a step.

use serde::{Deserialize, Serialize};

/// Name of the format in the header.
pub(super) const FORMAT: &str = "specexit-pretrain-metrics";

/// One training step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PretrainStep {
    /// Number of the step, from 1.
    pub step: u64,
    /// Tokens read in this step.
    pub tokens: u64,
    /// Tokens that carried loss.
    pub targets: u64,
    /// Mean cross-entropy of these, in nats.
    pub loss: f64,
    /// Learning rate.
    pub lr: f64,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
}

/// One measurement on the held-out texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PretrainHeldOut {
    /// Steps done before it.
    pub step: u64,
    /// Mean cross-entropy, in nats.
    pub held_out_loss: f64,
    /// Tokens that carried loss.
    pub targets: u64,
}
