//! The hidden layer of an MLP probe: `silu(up · x)` and a constant 1 for the next layer's bias.

use specexit_kernels::{View, small_product};

use super::SIGNALS;
use crate::net::init::Normal;
use crate::net::params::Param;

/// The hidden layer of one batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Hidden {
    /// Before the activation, `[rows, M]`.
    raw: Vec<f32>,
    /// After it, and the constant, `[rows, M + 1]`.
    pub(super) out: Vec<f32>,
}

/// Normally distributed with variance `1 / inputs`, `[hidden, width + 1]`.
pub(super) fn first_layer(width: usize, hidden: usize, seed: u64) -> Param {
    let spread = 1.0 / ((width + 1) as f32).sqrt();
    let value = Normal::new(seed).numbers(hidden * (width + 1), spread);
    Param::new("probe.up", vec![hidden, width + 1], value)
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// The hidden layer over inputs `[rows, width]`.
pub(super) fn forward(up: &Param, inputs: &[f32]) -> Hidden {
    let (hidden, width) = (up.shape[0], up.shape[1]);
    let inputs = View::new(inputs, inputs.len() / width, width);
    let raw = small_product(inputs, View::new(&up.value, hidden, width).transposed());
    let activated =
        |row: &[f32]| row.iter().map(|x| x * sigmoid(*x)).chain([1.0]).collect::<Vec<f32>>();
    let out = raw.chunks_exact(hidden).flat_map(activated).collect();
    Hidden { raw, out }
}

/// Gradient `[M, width]` of the first layer, from the derivatives by the logits `[rows][3]`.
pub(super) fn backward(
    down: &Param,
    derivatives: &[[f64; SIGNALS]],
    hidden: &Hidden,
    inputs: &[f32],
    width: usize,
) -> Vec<f32> {
    let size = down.shape[1] - 1;
    let through = |(raw, d): (&[f32], &[f64; SIGNALS])| -> Vec<f32> {
        (0..size)
            .map(|i| {
                let weights = (0..SIGNALS).map(|s| down.value[s * (size + 1) + i]);
                let back: f32 = weights.zip(d).map(|(w, d)| w * *d as f32).sum();
                let open = sigmoid(raw[i]);
                back * open * (1.0 + raw[i] * (1.0 - open))
            })
            .collect()
    };
    let back: Vec<f32> = hidden.raw.chunks_exact(size).zip(derivatives).flat_map(through).collect();
    let rows = derivatives.len();
    small_product(View::new(&back, rows, size).transposed(), View::new(inputs, rows, width))
}
