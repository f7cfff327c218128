//! The hidden layer of an MLP probe: `silu(up · x)` and a constant 1 for the next layer's bias.

use rayon::prelude::*;
use specexit_kernels::{View, small_product};

use super::SIGNALS;
use crate::net::init::Normal;
use crate::net::params::Param;

/// Rows that one task takes: sums over rows are made of these parts, in order, on any machine.
const TASK: usize = 128;

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
    let weights = View::new(&up.value, hidden, width).transposed();
    let parts: Vec<Vec<f32>> = inputs
        .par_chunks(TASK * width)
        .map(|x| small_product(View::new(x, x.len() / width, width), weights))
        .collect();
    let raw = parts.concat();
    let with_one =
        |row: &[f32]| -> Vec<f32> { row.iter().map(|x| x * sigmoid(*x)).chain([1.0]).collect() };
    let out = raw.par_chunks(hidden).flat_map_iter(with_one).collect();
    Hidden { raw, out }
}

/// Gradient `[M, width]` of the first layer, from the derivatives by the logits `[rows, 3]`.
pub(super) fn backward(
    down: &Param,
    derivatives: &[f32],
    hidden: &Hidden,
    inputs: &[f32],
) -> Vec<f32> {
    let size = down.shape[1] - 1;
    let rows = derivatives.len() / SIGNALS;
    let width = inputs.len() / rows.max(1);
    let through = |(raw, d): (&[f32], &[f32])| -> Vec<f32> {
        (0..size)
            .map(|i| {
                let back: f32 = (0..SIGNALS).map(|s| d[s] * down.value[s * (size + 1) + i]).sum();
                let open = sigmoid(raw[i]);
                back * open * (1.0 + raw[i] * (1.0 - open))
            })
            .collect()
    };
    let parts: Vec<Vec<f32>> = inputs
        .par_chunks(TASK * width.max(1))
        .zip(hidden.raw.par_chunks(TASK * size).zip(derivatives.par_chunks(TASK * SIGNALS)))
        .map(|(x, (raw, d))| {
            let back: Vec<f32> =
                raw.chunks_exact(size).zip(d.chunks_exact(SIGNALS)).flat_map(through).collect();
            let count = x.len() / width;
            small_product(View::new(&back, count, size).transposed(), View::new(x, count, width))
        })
        .collect();
    let mut parts = parts.into_iter();
    let mut grad = parts.next().unwrap_or_else(|| vec![0.0; size * width]);
    for part in parts {
        grad.iter_mut().zip(part).for_each(|(g, p)| *g += p);
    }
    grad
}
