//! Cross-entropy against a whole distribution.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{slice, tensor, with_numbers};

/// `sum_r weight_r * -sum_v p_r[v] * log softmax(logits_r)[v]`, a scalar.
///
/// `logits` is `[rows, V]`; `targets` holds distributions `[any, V]`, of which row `r` uses number
/// `rows[r]`. The distributions are shared between training-time-test steps, hence the indirection.
pub(crate) fn soft_cross_entropy(
    logits: &Tensor,
    targets: Arc<Vec<f32>>,
    rows: Vec<usize>,
    weights: Vec<f32>,
) -> Result<Tensor> {
    logits.apply_op1(SoftCrossEntropy { targets, rows, weights })
}

struct SoftCrossEntropy {
    targets: Arc<Vec<f32>>,
    rows: Vec<usize>,
    weights: Vec<f32>,
}

/// `log(sum(exp(x)))` without overflow.
fn log_sum_exp(x: &[f32]) -> f32 {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    max + x.iter().map(|v| (v - max).exp()).sum::<f32>().ln()
}

impl SoftCrossEntropy {
    fn target(&self, row: usize, vocab: usize) -> &[f32] {
        &self.targets[self.rows[row] * vocab..][..vocab]
    }
}

impl CustomOp1 for SoftCrossEntropy {
    fn name(&self) -> &'static str {
        "soft-cross-entropy"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let logits = slice(storage, layout)?;
        let (rows, vocab) = layout.shape().dims2()?;
        if rows != self.rows.len() || rows != self.weights.len() {
            return Err(candle_core::Error::Msg("rows without a target".to_owned()));
        }
        let losses: Vec<f64> = logits
            .par_chunks(vocab.max(1))
            .enumerate()
            .map(|(row, x)| {
                if self.weights[row] == 0.0 {
                    return 0.0;
                }
                let lse = log_sum_exp(x);
                let terms = self.target(row, vocab).iter().zip(x).map(|(p, x)| p * (lse - x));
                f64::from(self.weights[row]) * f64::from(terms.sum::<f32>())
            })
            .collect();
        let loss = losses.iter().sum::<f64>() as f32;
        Ok((CpuStorage::F32(vec![loss]), Shape::from(())))
    }

    /// `dlogits = weight (sum(p) softmax(logits) - p)`.
    fn bwd(&self, logits: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let vocab = logits.dims2()?.1;
        let scale = grad.to_scalar::<f32>()?;
        let dx = with_numbers(logits, |logits| {
            let mut dx = vec![0f32; logits.len()];
            let rows = dx.par_chunks_mut(vocab).zip(logits.par_chunks(vocab)).enumerate();
            rows.for_each(|(row, (dx, x))| {
                let weight = scale * self.weights[row];
                if weight == 0.0 {
                    return;
                }
                let target = self.target(row, vocab);
                let mass: f32 = target.iter().sum();
                let lse = log_sum_exp(x);
                for ((dx, x), p) in dx.iter_mut().zip(x).zip(target) {
                    *dx = weight * (mass * (x - lse).exp() - p);
                }
            });
            Ok(dx)
        })?;
        Ok(Some(tensor(dx, logits.shape())?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{gradients, numbers};
    use super::*;

    #[test]
    fn a_uniform_guess_costs_the_log_of_the_vocabulary() {
        let logits = tensor(vec![2.0; 8], (2, 4)).unwrap();
        let targets = Arc::new(vec![0.25, 0.25, 0.25, 0.25, 0.0, 1.0, 0.0, 0.0]);
        let loss = soft_cross_entropy(&logits, targets, vec![1, 0], vec![1.0, 0.5]).unwrap();
        assert!((loss.to_scalar::<f32>().unwrap() - 1.5 * 4f32.ln()).abs() < 1e-6);
    }

    #[test]
    fn gradients_agree_with_differences() {
        let logits = tensor(numbers(1, 5 * 11), (5, 11)).unwrap();
        let targets: Vec<f32> = numbers(2, 3 * 11).iter().map(|x| (x + 1.0) / 11.0).collect();
        let targets = Arc::new(targets);
        gradients(&[logits], |x| {
            let weights = vec![1.0, 0.0, 0.3, 2.0, 1.0];
            soft_cross_entropy(&x[0], Arc::clone(&targets), vec![0, 1, 2, 2, 0], weights)
        });
    }
}
