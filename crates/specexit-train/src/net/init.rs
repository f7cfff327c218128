//! Where training starts.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::draft::{DraftShape, tensor_shapes};
use super::params::Param;

/// How the draft layer's weights begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// From the target: its `lm_head` rows of the draft vocabulary, the size of its final norm, and
    /// an `fc` that passes the highest tap through. Worth much where training data is scarce.
    #[default]
    Target,
    /// Normally distributed numbers only.
    Random,
}

/// What [`Init::Target`] takes from the target.
pub(crate) struct TargetStart<'a> {
    /// Rows of the target's output projection for the draft vocabulary, `[V_d, H_t]`.
    pub(crate) lm_head: &'a [f32],
    /// Root mean square of each dimension of the normed final states, `[H_t]`.
    pub(crate) final_rms: &'a [f32],
    /// 1 / root mean square of each dimension of the tapped states, `[3 H_t]`.
    pub(crate) inverse_rms: &'a [f32],
}

/// Standard deviation of fresh weights, as Llama initialises.
const SPREAD: f32 = 0.02;

/// Fresh tensors, in the order of [`tensor_shapes`]. `fc` reads states divided by their root mean
/// square, dimension by dimension.
pub(crate) fn fresh_params(
    shape: &DraftShape,
    init: Init,
    start: &TargetStart<'_>,
    seed: u64,
) -> Vec<Param> {
    let mut normal = Normal::new(seed);
    let mut params = Vec::new();
    for (name, dims) in tensor_shapes(shape) {
        let count = dims.iter().product();
        let value = match name {
            // Inputs of size 1 in 3 H_t dimensions: outputs of size 1.
            "fc.weight" if init == Init::Random => {
                normal.numbers(count, 1.0 / (shape.taps as f32).sqrt())
            }
            "fc.weight" => pass_high_tap(shape, start.inverse_rms, &mut normal),
            "norm.weight" if init == Init::Target => start.final_rms.to_vec(),
            "lm_head.weight" if init == Init::Target => start.lm_head.to_vec(),
            _ if dims.len() == 1 => vec![1.0; count],
            _ => normal.numbers(count, SPREAD),
        };
        params.push(Param::new(name, dims, value));
    }
    params
}

/// An `fc` whose output is the high tap, scaled so that a typical dimension has size 1 (the norms
/// behind it do not see a common factor), plus a little of everything.
fn pass_high_tap(shape: &DraftShape, inverse_rms: &[f32], normal: &mut Normal) -> Vec<f32> {
    let (h, taps) = (shape.hidden, shape.taps);
    let mut value = normal.numbers(h * taps, 0.1 * SPREAD);
    let high = &inverse_rms[taps - h..];
    let mut sorted = high.to_vec();
    sorted.sort_by(f32::total_cmp);
    let typical = sorted[h / 2];
    for (i, inverse) in high.iter().enumerate() {
        value[i * taps + taps - h + i] += typical / inverse;
    }
    value
}

/// Normally distributed numbers from a seed.
pub(crate) struct Normal(ChaCha8Rng);

impl Normal {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    pub(crate) fn numbers(&mut self, count: usize, spread: f32) -> Vec<f32> {
        let mut uniform = || (f64::from(self.0.next_u32()) + 0.5) / f64::from(u32::MAX);
        (0..count)
            .map(|_| {
                // Box and Muller 1958.
                let radius = (-2.0 * uniform().min(1.0).ln()).sqrt();
                (radius * (std::f64::consts::TAU * uniform()).cos()) as f32 * spread
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_their_spread() {
        let x = Normal::new(1).numbers(20_000, 2.0);
        let mean = x.iter().sum::<f32>() / 2e4;
        let square = x.iter().map(|x| x * x).sum::<f32>() / 2e4;
        assert!(mean.abs() < 0.05 && (square - 4.0).abs() < 0.15, "{mean} {square}");
        assert_eq!(x[..5], Normal::new(1).numbers(5, 2.0)[..]);
    }
}
