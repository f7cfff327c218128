//! The signal probe of a draft head: from the target's tapped states to three logits.
//!
//! It comes in two forms. *Rows*: three more rows of `fc.weight`, the layout of SpecExit's released
//! code. *MLP*: a small network of its own beside a plain EAGLE-3 head, so that servers which know
//! nothing of signals read the head unchanged. Both compute in f32 whatever the kernels' precision:
//! they cost next to nothing, and thresholds compare what they say.

use std::path::Path;

use serde::{Deserialize, Serialize};

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
/// The tensors that an MLP probe has to itself, kept in f32.
pub(crate) const PROBE_TENSORS: [&str; 3] = [PROBE_UP, PROBE_DOWN, PROBE_BIAS];
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
}

impl Probe {
    /// The MLP of a head, if it has one, for states of width `width` = 3 H_t.
    ///
    /// # Errors
    /// Tensors that do not fit together, or numbers that are not finite.
    pub(crate) fn load_mlp(weights: &Weights, width: usize, dir: &Path) -> Result<Option<Self>> {
        let Some(shape) = weights.shape(PROBE_UP) else { return Ok(None) };
        let inner = shape.first().copied().unwrap_or(0);
        let wrong = |tensor: &str, expected: Vec<usize>, found: Vec<usize>| {
            let path = dir.join(HEAD_WEIGHTS);
            Err(ModelError::TensorShape { path, tensor: tensor.to_owned(), expected, found })
        };
        if shape != [inner, width] || inner == 0 || inner > WIDEST {
            return wrong(PROBE_UP, vec![inner.clamp(1, WIDEST), width], shape.to_vec());
        }
        let (found, down) = weights.f32(PROBE_DOWN)?;
        if found != [PROBE_ROWS, inner] {
            return wrong(PROBE_DOWN, vec![PROBE_ROWS, inner], found);
        }
        let (found, bias) = weights.f32(PROBE_BIAS)?;
        let Ok(bias) = <[f32; PROBE_ROWS]>::try_from(bias) else {
            return wrong(PROBE_BIAS, vec![PROBE_ROWS], found);
        };
        Ok(Some(Self::Mlp { up: weights.f32(PROBE_UP)?.1, down, bias }))
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
        let fc = tensor("fc.weight")?;
        let plain = head.config.hidden_size * 3 * head.config.target_hidden();
        let rows = fc.data.get(plain..).filter(|rows| !rows.is_empty())?;
        Some(Self::Rows(rows.to_vec()))
    }

    /// Its own tensors with their shapes: the layers of an MLP; none for rows, which lie in `fc.weight`.
    pub fn tensors(&self) -> Vec<(&'static str, Vec<usize>, &[f32])> {
        let Self::Mlp { up, down, bias } = self else { return Vec::new() };
        let inner = down.len() / PROBE_ROWS;
        vec![
            (PROBE_UP, vec![inner, up.len() / inner.max(1)], up),
            (PROBE_DOWN, vec![PROBE_ROWS, inner], down),
            (PROBE_BIAS, vec![PROBE_ROWS], bias),
        ]
    }

    /// Signal logits of one position's tapped states `[3 H_t]`: confidence, progress, remaining.
    pub fn logits(&self, taps: &[f32]) -> [f32; PROBE_ROWS] {
        match self {
            Self::Rows(rows) => each_row(rows, taps),
            Self::Mlp { up, down, bias } => {
                let inner: Vec<f32> =
                    up.chunks_exact(taps.len()).map(|row| silu(dot(row, taps))).collect();
                let logits = each_row(down, &inner);
                std::array::from_fn(|i| logits[i] + bias[i])
            }
        }
    }
}

/// Whether a head predicts signals: by three more rows of `fc.weight`, or by an MLP. `shape` gives the
/// dimensions of its tensors by name.
pub fn has_probe(config: &HeadConfig, shape: impl Fn(&str) -> Option<Vec<usize>>) -> bool {
    let rows = shape("fc.weight").and_then(|shape| shape.first().copied());
    rows == Some(config.hidden_size + PROBE_ROWS) || shape(PROBE_UP).is_some()
}

fn each_row(rows: &[f32], x: &[f32]) -> [f32; PROBE_ROWS] {
    let mut rows = rows.chunks_exact(x.len().max(1));
    std::array::from_fn(|_| rows.next().map_or(f32::NAN, |row| dot(row, x)))
}

/// `x · sigmoid(x)`.
fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

/// A dot product in one fixed order: sixteen interleaved sums, then those in turn.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    let (a16, b16) = (a.chunks_exact(16), b.chunks_exact(16));
    let tail: f32 = a16.remainder().iter().zip(b16.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a16.zip(b16) {
        for lane in 0..16 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.iter().sum::<f32>() + tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_compute_what_their_formulas_say() {
        let taps = [1.0, -2.0];
        let rows = Probe::Rows(vec![1.0, 0.0, 0.0, 1.0, 3.0, 1.0]);
        assert_eq!(rows.logits(&taps), [1.0, -2.0, 1.0]);
        // silu(0) = 0 and silu(100) = 100.
        let mlp = Probe::Mlp {
            up: vec![2.0, 1.0, 100.0, 0.0],
            down: vec![9.0, 1.0, 9.0, 0.0, 9.0, -0.5],
            bias: [0.5, 1.5, 2.5],
        };
        assert_eq!(mlp.logits(&taps), [100.5, 1.5, -47.5]);
    }
}
