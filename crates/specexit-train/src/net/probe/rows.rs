//! The last layer of a probe: one row per signal.

use rayon::prelude::*;

use super::SIGNALS;
use crate::net::params::Param;

/// Logits `[rows][3]` of inputs `[rows, width]`.
pub(super) fn logits(layer: &Param, inputs: &[f32]) -> Vec<[f32; SIGNALS]> {
    let width = layer.shape[1];
    inputs
        .par_chunks(width)
        .map(|x| {
            let mut z = [0f32; SIGNALS];
            for (z, row) in z.iter_mut().zip(layer.value.chunks_exact(width)) {
                let products = row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
                *z = products.sum::<f64>() as f32;
            }
            z
        })
        .collect()
}

/// Gradient `[3, width]` of the layer, from the derivatives by its logits `[rows, 3]`.
pub(super) fn gradient(derivatives: &[f32], inputs: &[f32]) -> Vec<f32> {
    let rows = derivatives.len() / SIGNALS;
    let width = inputs.len() / rows.max(1);
    let mut grad = vec![0f64; SIGNALS * width];
    grad.par_chunks_mut(width.max(1)).enumerate().for_each(|(signal, grad)| {
        let derivatives = derivatives.iter().skip(signal).step_by(SIGNALS);
        for (d, x) in derivatives.zip(inputs.chunks_exact(width.max(1))) {
            if *d != 0.0 {
                let d = f64::from(*d);
                grad.iter_mut().zip(x).for_each(|(g, x)| *g += d * f64::from(*x));
            }
        }
    });
    grad.iter().map(|g| *g as f32).collect()
}
