//! The draft layer under EAGLE-3's training-time test.
//!
//! One Llama layer with a doubled input (the EAGLE-3 head as AngelSlim and SafeAILab train it). Step 0 pairs the fused states of
//! position t with the embedding of token t+1 and predicts token t+2; step k feeds the output of
//! step k-1 (before the final norm) back, pairs it with token t+1+k and predicts token t+2+k, seeing
//! exactly the keys that a chain drafted from t would see. Rows of all sequences of a batch
//! go through the linear layers together, without padding.
//!
//! It is written twice: on candle's tape ([`tape`], products in f32), and over slices with a backward of its
//! own on the kernels' training operations ([`fast`], products in bf16). The tests hold the two
//! against each other.

mod batch;
mod fast;
mod tape;

#[cfg(test)]
mod twin;

use std::sync::Arc;

use candle_core::Result;
use specexit_kernels::{Kernels, RopeTable};
use specexit_model::head_file;

#[cfg(test)]
pub(crate) use batch::Targets;
pub(crate) use batch::{DraftBatch, DraftSequence};

use self::fast::Fast;
use self::tape::Tape;
use super::params::Param;
use crate::ops::{Gemm, Products};

/// Sizes of the draft layer.
#[derive(Clone, Debug)]
pub(crate) struct DraftShape {
    /// Width H; that of the target, since the embedding is shared.
    pub(crate) hidden: usize,
    /// Width of the fused input, 3 H_t.
    pub(crate) taps: usize,
    /// Width of the MLP.
    pub(crate) intermediate: usize,
    /// Query heads.
    pub(crate) heads: usize,
    /// Key/value heads.
    pub(crate) kv_heads: usize,
    /// Width of a head.
    pub(crate) head_dim: usize,
    /// Draft vocabulary V_d.
    pub(crate) vocab: usize,
    /// Epsilon of the norms.
    pub(crate) eps: f32,
}

/// Names and shapes of the trained tensors, in the order of [`DraftTensor`].
pub(crate) fn tensor_shapes(s: &DraftShape) -> [(&'static str, Vec<usize>); 13] {
    let (q, kv) = (s.heads * s.head_dim, s.kv_heads * s.head_dim);
    head_file::tensor_shapes(s.hidden, s.taps, q, kv, s.intermediate, s.vocab)
}

/// A trained tensor's place in [`tensor_shapes`].
#[derive(Clone, Copy)]
pub(crate) enum DraftTensor {
    Fc,
    InputNorm,
    HiddenNorm,
    Q,
    K,
    V,
    O,
    PostNorm,
    Gate,
    Up,
    Down,
    Norm,
    LmHead,
}

/// What a forward found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drafted {
    /// `sum_k decay^k loss_k`.
    pub(crate) loss: f64,
    /// Mean cross-entropy of each step, in nats per drafted position.
    pub(crate) step_losses: Vec<f64>,
    /// Most probable draft id of each row of each step, sequences in turn.
    pub(crate) picks: Vec<Vec<u32>>,
    /// Logits of each step, `[rows, V_d]`: kept for comparison with inference only.
    #[cfg(test)]
    pub(crate) logits: Vec<Vec<f32>>,
}

/// The draft layer, without its trained tensors: those of [`tensor_shapes`] are passed in.
pub(crate) enum Draft {
    /// With products in f32.
    Tape(Box<Tape>),
    /// With products in bf16.
    Fast(Box<Fast>),
}

impl Draft {
    /// A layer of this shape.
    pub(crate) fn new(
        shape: &DraftShape,
        rope: Arc<RopeTable>,
        products: Products,
        kernels: &Arc<Kernels>,
    ) -> Self {
        match products {
            Products::F32 => Self::Tape(Box::new(Tape::new(shape, rope, Gemm::Candle))),
            Products::Bf16 => Self::Fast(Box::new(Fast::new(shape, rope, kernels))),
        }
    }

    /// Runs `steps` steps of the training-time test, of which each weighs `decay` times as much as
    /// the one before, and puts the gradient of the loss into `grads`, one for each trained tensor.
    pub(crate) fn gradients(
        &mut self,
        params: &[Param],
        batch: &DraftBatch,
        steps: usize,
        decay: f64,
        grads: &mut [Vec<f32>],
    ) -> Result<Drafted> {
        match self {
            Self::Tape(tape) => tape.gradients(params, batch, steps, decay, grads),
            Self::Fast(fast) => {
                fast.prepare(params);
                fast.gradients(batch, steps, decay, grads)
            }
        }
    }

    /// Takes up the weights that [`forward`](Self::forward) uses.
    pub(crate) fn prepare(&mut self, params: &[Param]) -> Result<()> {
        match self {
            Self::Tape(tape) => tape.prepare(params),
            Self::Fast(fast) => {
                fast.prepare(params);
                Ok(())
            }
        }
    }

    /// Runs `steps` steps with the weights last prepared, all of the same weight.
    pub(crate) fn forward(&mut self, batch: &DraftBatch, steps: usize) -> Result<Drafted> {
        match self {
            Self::Tape(tape) => tape.forward(batch, steps),
            Self::Fast(fast) => fast.forward(batch, steps),
        }
    }

    /// Normed outputs of the batch's probed rows, `[probed, H]`, with the weights last prepared. Needs no
    /// targets.
    pub(crate) fn probed(&mut self, batch: &DraftBatch) -> Result<Vec<f32>> {
        match self {
            Self::Tape(tape) => tape.probed(batch),
            Self::Fast(fast) => Ok(fast.probed(batch)),
        }
    }
}

/// What a batch without any row to draft from is answered with.
fn nothing_drafted() -> candle_core::Error {
    candle_core::Error::Msg("a batch without drafted positions".to_owned())
}
