//! RMS norm with a learned scale.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::{rows, slice, tensor, with_numbers};

/// `x / sqrt(mean(x^2) + eps) * weight`, row by row; `x` is `[rows, width]`.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    x.apply_op2(weight, RmsNorm { eps })
}

struct RmsNorm {
    eps: f32,
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
        let mut y = vec![0f32; x.len()];
        rows::norm(&mut y, x, weight, self.eps);
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
    /// Gradients of x and of the weight.
    fn backward(&self, x: &[f32], weight: &[f32], grad: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (mut dx, mut dw) = (vec![0f32; x.len()], vec![0f32; weight.len()]);
        rows::norm_backward(&mut dx, &mut dw, grad, x, weight, self.eps);
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
