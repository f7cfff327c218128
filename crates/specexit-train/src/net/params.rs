//! Trained tensors with their optimiser state.

use std::borrow::Cow;

use candle_core::{Result, Var};
use specexit_kernels::Kernels;

use crate::ops;

/// One trained tensor: its value and AdamW's two moments, in f32.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Param {
    /// Its name in checkpoints.
    pub(crate) name: Cow<'static, str>,
    /// Dimensions.
    pub(crate) shape: Vec<usize>,
    /// The value, row-major.
    pub(crate) value: Vec<f32>,
    /// First moment: running mean of the gradient.
    pub(crate) m: Vec<f32>,
    /// Second moment: running mean of its square.
    pub(crate) v: Vec<f32>,
    /// Whether weight decay applies: to matrices, not to norm scales.
    pub(crate) decays: bool,
}

/// AdamW's epsilon.
pub(crate) const EPS: f64 = 1e-8;

/// AdamW's constants for one update.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdamW {
    /// Learning rate of this step.
    pub(crate) lr: f64,
    /// Decay of the first moment.
    pub(crate) beta1: f64,
    /// Decay of the second moment.
    pub(crate) beta2: f64,
    /// Added to the root of the second moment.
    pub(crate) eps: f64,
    /// Share of the value taken off per unit of learning rate.
    pub(crate) weight_decay: f64,
    /// Number of this update, from 1.
    pub(crate) update: u64,
}

impl Param {
    /// A tensor without optimiser history.
    pub(crate) fn new(
        name: impl Into<Cow<'static, str>>,
        shape: Vec<usize>,
        value: Vec<f32>,
    ) -> Self {
        let name = name.into();
        let count = value.len();
        debug_assert_eq!(count, shape.iter().product::<usize>());
        let decays = shape.len() > 1;
        Self { name, shape, value, m: vec![0.0; count], v: vec![0.0; count], decays }
    }

    /// A candle variable with this value, for one step's tape.
    pub(crate) fn var(&self) -> Result<Var> {
        Var::from_tensor(&ops::tensor(self.value.clone(), self.shape.as_slice())?)
    }

    /// One AdamW update (Loshchilov & Hutter 2019) with the gradient times `scale`.
    pub(crate) fn update(&mut self, kernels: &Kernels, grad: &[f32], scale: f32, adam: &AdamW) {
        let steps = adam.update.min(i32::MAX as u64) as i32;
        let update = specexit_kernels::AdamW {
            beta1: adam.beta1 as f32,
            beta2: adam.beta2 as f32,
            rate: (adam.lr / (1.0 - adam.beta1.powi(steps))) as f32,
            correction: (1.0 / (1.0 - adam.beta2.powi(steps))) as f32,
            eps: adam.eps as f32,
            keep: if self.decays { (1.0 - adam.lr * adam.weight_decay) as f32 } else { 1.0 },
        };
        kernels.adamw(&mut self.value, &mut self.m, &mut self.v, grad, scale, update);
    }
}

/// One update of all tensors, with their gradients of norm `norm` brought down to at most `limit`.
pub(crate) fn update_all(
    kernels: &Kernels,
    params: &mut [Param],
    grads: &[Vec<f32>],
    (norm, limit): (f64, f64),
    adam: &AdamW,
) {
    let scale = clip_factor(norm, limit);
    for (param, grad) in params.iter_mut().zip(grads) {
        param.update(kernels, grad, scale, adam);
    }
}

/// The factor that brings a gradient of norm `norm` down to at most `limit`.
fn clip_factor(norm: f64, limit: f64) -> f32 {
    if norm > limit { (limit / norm) as f32 } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use specexit_kernels::Precision;

    use super::*;

    fn kernels() -> Kernels {
        Kernels::new(1, Precision::Bf16)
    }

    #[test]
    fn the_first_update_moves_by_the_learning_rate() {
        let mut p = Param::new("w", vec![1, 2], vec![1.0, 1.0]);
        let adam =
            AdamW { lr: 0.1, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0, update: 1 };
        p.update(&kernels(), &[3.0, -0.01], 1.0, &adam);
        assert!((p.value[0] - 0.9).abs() < 1e-4 && (p.value[1] - 1.1).abs() < 1e-4);
    }

    #[test]
    fn decay_spares_norm_scales() {
        let adam =
            AdamW { lr: 0.1, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.5, update: 1 };
        let mut matrix = Param::new("w", vec![1, 1], vec![1.0]);
        let mut scale = Param::new("n", vec![1], vec![1.0]);
        matrix.update(&kernels(), &[0.0], 1.0, &adam);
        scale.update(&kernels(), &[0.0], 1.0, &adam);
        assert_eq!((matrix.value[0], scale.value[0]), (0.95, 1.0));
    }

    #[test]
    fn clipping_shortens_only_long_gradients() {
        assert_eq!(clip_factor(4.0, 1.0), 0.25);
        assert_eq!(clip_factor(0.5, 1.0), 1.0);
        assert_eq!(kernels().sum_of_squares(&[3.0; 9]), 81.0);
    }
}
