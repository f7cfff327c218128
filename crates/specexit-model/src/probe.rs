//! The signal probe of a draft head: from the states of a token to three logits.
//!
//! It comes in three forms. *Rows*: three more rows of `fc.weight` over the target's tapped states, the
//! layout of SpecExit's released code. *MLP*: a small network over the same states. *Draft*: three rows
//! with a bias that read what the draft layer made of the token, as the paper draws it. The last two are
//! tensors of their own beside a plain EAGLE-3 head, so that servers which know nothing of signals read
//! it unchanged. All compute in f32 whatever the kernels' precision: they cost next to nothing, and
//! thresholds compare what they say.

use std::path::Path;

use serde::{Deserialize, Serialize};
use specexit_kernels::Kernels;

use crate::error::{ModelError, Result};
use crate::head_file::{HEAD_WEIGHTS, HeadConfig, HeadFile};
use crate::weights::Weights;

/// Signals of a probe, in row order: confidence, progress, remaining.
pub const PROBE_ROWS: usize = 3;
/// First layer of an MLP probe, `[M, 3 H_t]`.
pub const PROBE_UP: &str = "probe.up.weight";
/// Second layer of an MLP probe, `[3, M]`.
pub const PROBE_DOWN: &str = "probe.down.weight";
/// Bias of the second layer, `[3]`.
pub const PROBE_BIAS: &str = "probe.down.bias";
/// Rows of a probe after the draft layer, `[3, H]`.
pub const PROBE_DRAFT: &str = "probe.weight";
/// Bias of a probe after the draft layer, `[3]`.
pub const PROBE_DRAFT_BIAS: &str = "probe.bias";
/// All tensors that a probe may have beside a plain `fc.weight`; they are kept in f32.
pub(crate) const PROBE_TENSORS: [&str; 5] =
    [PROBE_UP, PROBE_DOWN, PROBE_BIAS, PROBE_DRAFT, PROBE_DRAFT_BIAS];
/// Widest MLP that is read: more is a broken file.
const WIDEST: usize = 1 << 16;

/// At which thinking tokens the signals mean something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Positions {
    /// At every thinking token.
    #[default]
    Dense,
    /// At boundaries only, where exits are decided; elsewhere there are no signals.
    Boundaries,
}

/// A probe ready to run.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// Rows `[3, 3 H_t]`.
    Rows(Vec<f32>),
    /// `down · silu(up · x) + bias`.
    Mlp {
        /// `[M, 3 H_t]`.
        up: Vec<f32>,
        /// `[3, M]`.
        down: Vec<f32>,
        /// `[3]`.
        bias: [f32; PROBE_ROWS],
    },
    /// `weight · x + bias` over normed draft outputs.
    Draft {
        /// `[3, H]`.
        weight: Vec<f32>,
        /// `[3]`.
        bias: [f32; PROBE_ROWS],
    },
}

impl Probe {
    /// The probe that a head has beside its `fc.weight`, if any: an MLP for states of width `width` =
    /// 3 H_t, or rows for a draft layer of width `hidden`.
    ///
    /// # Errors
    /// Tensors that do not fit together, two probes at once, or numbers that are not finite.
    pub(crate) fn load_beside(
        weights: &Weights,
        hidden: usize,
        width: usize,
        dir: &Path,
    ) -> Result<Option<Self>> {
        let mlp = weights.contains(PROBE_UP);
        let draft = weights.contains(PROBE_DRAFT) || weights.contains(PROBE_DRAFT_BIAS);
        if mlp && draft {
            let problem = format!("it holds two signal probes, {PROBE_UP} and {PROBE_DRAFT}");
            return Err(ModelError::BadFile { path: dir.join(HEAD_WEIGHTS), problem });
        }
        if mlp {
            return Self::load_mlp(weights, width, dir).map(Some);
        }
        if !draft {
            return Ok(None);
        }
        let rows = tensor(weights, PROBE_DRAFT, &[PROBE_ROWS, hidden], dir)?;
        Ok(Some(Self::Draft { weight: rows, bias: bias(weights, PROBE_DRAFT_BIAS, dir)? }))
    }

    fn load_mlp(weights: &Weights, width: usize, dir: &Path) -> Result<Self> {
        let shape = weights.shape(PROBE_UP).unwrap_or_default();
        let inner = shape.first().copied().unwrap_or(0).clamp(1, WIDEST);
        let up = tensor(weights, PROBE_UP, &[inner, width], dir)?;
        let down = tensor(weights, PROBE_DOWN, &[PROBE_ROWS, inner], dir)?;
        Ok(Self::Mlp { up, down, bias: bias(weights, PROBE_BIAS, dir)? })
    }

    /// The probe of a head in memory, if it has one.
    pub fn of_head(head: &HeadFile) -> Option<Self> {
        let tensor = |name: &str| head.tensors.get(name);
        if let (Some(up), Some(down), Some(bias)) =
            (tensor(PROBE_UP), tensor(PROBE_DOWN), tensor(PROBE_BIAS))
        {
            let bias = bias.data[..].try_into().ok()?;
            return Some(Self::Mlp { up: up.data.clone(), down: down.data.clone(), bias });
        }
        if let (Some(weight), Some(bias)) = (tensor(PROBE_DRAFT), tensor(PROBE_DRAFT_BIAS)) {
            let bias = bias.data[..].try_into().ok()?;
            return Some(Self::Draft { weight: weight.data.clone(), bias });
        }
        let fc = tensor("fc.weight")?;
        let plain = head.config.hidden_size * 3 * head.config.target_hidden();
        let rows = fc.data.get(plain..).filter(|rows| !rows.is_empty())?;
        Some(Self::Rows(rows.to_vec()))
    }

    /// Its own tensors with their shapes; none for rows, which lie in `fc.weight`.
    pub fn tensors(&self) -> Vec<(&'static str, Vec<usize>, &[f32])> {
        match self {
            Self::Rows(_) => Vec::new(),
            Self::Mlp { up, down, bias } => {
                let inner = down.len() / PROBE_ROWS;
                vec![
                    (PROBE_UP, vec![inner, up.len() / inner.max(1)], up),
                    (PROBE_DOWN, vec![PROBE_ROWS, inner], down),
                    (PROBE_BIAS, vec![PROBE_ROWS], bias),
                ]
            }
            Self::Draft { weight, bias } => vec![
                (PROBE_DRAFT, vec![PROBE_ROWS, weight.len() / PROBE_ROWS], weight),
                (PROBE_DRAFT_BIAS, vec![PROBE_ROWS], bias),
            ],
        }
    }

    /// Its form as `train --probe` names it: fc, mlp or draft.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Rows(_) => "fc",
            Self::Mlp { .. } => "mlp",
            Self::Draft { .. } => "draft",
        }
    }

    /// Whether it reads normed draft outputs `[H]` instead of tapped states `[3 H_t]`.
    pub fn reads_draft(&self) -> bool {
        matches!(self, Self::Draft { .. })
    }

    /// Signal logits of what one token left behind, tapped states `[3 H_t]` or normed draft output
    /// `[H]`: confidence, progress, remaining.
    pub fn logits(&self, kernels: &Kernels, state: &[f32]) -> [f32; PROBE_ROWS] {
        let mut logits = [0.0; PROBE_ROWS];
        let bias = match self {
            Self::Rows(rows) => {
                kernels.matvec(&mut logits, rows, state);
                return logits;
            }
            Self::Mlp { up, down, bias } => {
                let mut inner = vec![0.0; down.len() / PROBE_ROWS];
                kernels.matvec(&mut inner, up, state);
                inner.iter_mut().for_each(|x| *x = silu(*x));
                kernels.matvec(&mut logits, down, &inner);
                bias
            }
            Self::Draft { weight, bias } => {
                kernels.matvec(&mut logits, weight, state);
                bias
            }
        };
        std::array::from_fn(|i| logits[i] + bias[i])
    }
}

/// Whether a head predicts signals, in whichever form. `shape` gives the dimensions of its tensors by name.
pub fn has_probe(config: &HeadConfig, shape: impl Fn(&str) -> Option<Vec<usize>>) -> bool {
    let rows = shape("fc.weight").and_then(|shape| shape.first().copied());
    rows == Some(config.hidden_size + PROBE_ROWS)
        || shape(PROBE_UP).is_some()
        || shape(PROBE_DRAFT).is_some()
}

/// A tensor that must have the shape `expected`.
fn tensor(weights: &Weights, name: &str, expected: &[usize], dir: &Path) -> Result<Vec<f32>> {
    let (found, data) = weights.f32(name)?;
    if found == expected {
        return Ok(data);
    }
    Err(ModelError::TensorShape {
        path: dir.join(HEAD_WEIGHTS),
        tensor: name.to_owned(),
        expected: expected.to_vec(),
        found,
    })
}

fn bias(weights: &Weights, name: &str, dir: &Path) -> Result<[f32; PROBE_ROWS]> {
    let bias = tensor(weights, name, &[PROBE_ROWS], dir)?;
    Ok(std::array::from_fn(|i| bias[i]))
}

/// `x · sigmoid(x)`.
fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use specexit_kernels::Precision;

    use super::*;

    #[test]
    fn all_forms_compute_what_their_formulas_say() {
        let kernels = Kernels::new(1, Precision::Bf16);
        let taps = [1.0, -2.0];
        let rows = Probe::Rows(vec![1.0, 0.0, 0.0, 1.0, 3.0, 1.0]);
        assert_eq!(rows.logits(&kernels, &taps), [1.0, -2.0, 1.0]);
        // silu(0) = 0 and silu(100) = 100.
        let mlp = Probe::Mlp {
            up: vec![2.0, 1.0, 100.0, 0.0],
            down: vec![9.0, 1.0, 9.0, 0.0, 9.0, -0.5],
            bias: [0.5, 1.5, 2.5],
        };
        assert_eq!(mlp.logits(&kernels, &taps), [100.5, 1.5, -47.5]);
        let weight = vec![1.0, 0.0, 0.0, 1.0, 3.0, 1.0];
        let draft = Probe::Draft { weight, bias: [0.5, 1.5, 2.5] };
        assert_eq!(draft.logits(&kernels, &taps), [1.5, -0.5, 3.5]);
        assert_eq!([&rows, &mlp, &draft].map(Probe::reads_draft), [false, false, true]);
    }
}
