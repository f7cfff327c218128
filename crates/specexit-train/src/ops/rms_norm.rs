//! RMS norm with a learned scale.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{ROWS_PER_TASK, dot, slice, tensor, with_numbers};

/// `x / sqrt(mean(x^2) + eps) * weight`, row by row; `x` is `[rows, width]`.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    x.apply_op2(weight, RmsNorm { eps })
}

struct RmsNorm {
    eps: f32,
}

impl RmsNorm {
    /// `1 / sqrt(mean(x^2) + eps)`.
    fn inverse(&self, x: &[f32]) -> f32 {
        1.0 / (dot(x, x) / x.len() as f32 + self.eps).sqrt()
    }
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight) = (slice(s1, l1)?, slice(s2, l2)?);
        let width = weight.len();
        let mut y = vec![0f32; x.len()];
        let task = ROWS_PER_TASK * width;
        y.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                let inverse = self.inverse(x);
                for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                    *y = x * inverse * w;
                }
            }
        });
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dw) = with_numbers(x, |x| {
            with_numbers(weight, |w| with_numbers(grad, |g| Ok(self.backward(x, w, g))))
        })?;
        Ok((Some(tensor(dx, x.shape())?), Some(tensor(dw, weight.shape())?)))
    }
}

impl RmsNorm {
    /// With k the inverse and n the width: `dx = g w k - x k^3 sum(g w x) / n`, `dw = sum_rows g x k`.
    fn backward(&self, x: &[f32], weight: &[f32], grad: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let width = weight.len();
        let mut dx = vec![0f32; x.len()];
        let task = ROWS_PER_TASK * width;
        let tasks = dx.par_chunks_mut(task).zip(x.par_chunks(task)).zip(grad.par_chunks(task));
        let partial: Vec<Vec<f32>> = tasks
            .map(|((dx, x), g)| {
                let mut dw = vec![0f32; width];
                let mut gw = vec![0f32; width];
                let rows = dx.chunks_exact_mut(width).zip(x.chunks_exact(width));
                for ((dx, x), g) in rows.zip(g.chunks_exact(width)) {
                    let k = self.inverse(x);
                    for ((gw, g), w) in gw.iter_mut().zip(g).zip(weight) {
                        *gw = g * w;
                    }
                    let c = dot(&gw, x) * k * k * k / width as f32;
                    for i in 0..width {
                        dx[i] = gw[i] * k - x[i] * c;
                        dw[i] += g[i] * x[i] * k;
                    }
                }
                dw
            })
            .collect();
        let mut dw = vec![0f32; width];
        for part in &partial {
            dw.iter_mut().zip(part).for_each(|(sum, p)| *sum += p);
        }
        (dx, dw)
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{gradients, numbers};
    use super::*;

    #[test]
    fn values_and_gradients() {
        let x = tensor(vec![3.0, 4.0], (1, 2)).unwrap();
        let y = rms_norm(&x, &tensor(vec![1.0, 2.0], 2).unwrap(), 0.0).unwrap();
        let rms = 12.5f32.sqrt();
        for (y, expected) in y.to_vec2::<f32>().unwrap()[0].iter().zip([3.0 / rms, 8.0 / rms]) {
            assert!((y - expected).abs() < 1e-6);
        }
        // More rows than one task takes.
        let x = tensor(numbers(1, 40 * 20), (40, 20)).unwrap();
        let w = tensor(numbers(2, 20), 20).unwrap();
        gradients(&[x, w], |x| rms_norm(&x[0], &x[1], 1e-5));
    }
}
