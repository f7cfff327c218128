//! The last layer of a probe: one row per signal.

use specexit_kernels::Kernels;

use super::SIGNALS;
use crate::net::params::Param;

/// Logits `[rows][3]` of inputs `[rows, width]`.
pub(super) fn logits(kernels: &Kernels, layer: &Param, inputs: &[f32]) -> Vec<[f32; SIGNALS]> {
    let width = layer.shape[1];
    let mut z = vec![[0f32; SIGNALS]; inputs.len() / width];
    kernels.few_dots(z.as_flattened_mut(), inputs, &layer.value, width);
    z
}

/// Gradient `[3, width]` of the layer, from the derivatives by its logits `[rows][3]`.
pub(super) fn gradient(
    kernels: &Kernels,
    derivatives: &[[f64; SIGNALS]],
    inputs: &[f32],
    width: usize,
) -> Vec<f32> {
    let mut grad = vec![0f64; SIGNALS * width];
    kernels.few_sums(&mut grad, derivatives.as_flattened(), inputs, width);
    grad.iter().map(|g| *g as f32).collect()
}
