//! The gate of a SwiGLU MLP.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::rows::sigmoid;
use super::{slice, tensor, with_numbers};

/// `silu(gate) * up`, element by element, with `silu(x) = x / (1 + exp(-x))`.
pub(crate) fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.apply_op2(up, SiluMul)
}

/// Elements that one task takes.
const TASK: usize = 1 << 14;

struct SiluMul;

impl CustomOp2 for SiluMul {
    fn name(&self) -> &'static str {
        "silu-mul"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (gate, up) = (slice(s1, l1)?, slice(s2, l2)?);
        let mut y = vec![0f32; gate.len()];
        let parts = y.par_chunks_mut(TASK).zip(gate.par_chunks(TASK)).zip(up.par_chunks(TASK));
        parts.for_each(|((y, gate), up)| {
            for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
                *y = g * sigmoid(*g) * u;
            }
        });
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dgate, dup) = with_numbers(gate, |gate| {
            with_numbers(up, |up| with_numbers(grad, |grad| Ok(backward(gate, up, grad))))
        })?;
        Ok((Some(tensor(dgate, gate.shape())?), Some(tensor(dup, up.shape())?)))
    }
}

/// With s = sigmoid(g): `dgate = grad u s (1 + g (1 - s))`, `dup = grad g s`.
fn backward(gate: &[f32], up: &[f32], grad: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (mut dgate, mut dup) = (vec![0f32; gate.len()], vec![0f32; gate.len()]);
    let outs = dgate.par_chunks_mut(TASK).zip(dup.par_chunks_mut(TASK));
    let ins = gate.par_chunks(TASK).zip(up.par_chunks(TASK)).zip(grad.par_chunks(TASK));
    outs.zip(ins).for_each(|((dgate, dup), ((gate, up), grad))| {
        for i in 0..dgate.len() {
            let s = sigmoid(gate[i]);
            dgate[i] = grad[i] * up[i] * s * (1.0 + gate[i] * (1.0 - s));
            dup[i] = grad[i] * gate[i] * s;
        }
    });
    (dgate, dup)
}

#[cfg(test)]
mod tests {
    use super::super::check::{gradients, numbers};
    use super::*;

    #[test]
    fn values_and_gradients() {
        let y = silu_mul(&tensor(vec![2.0], 1).unwrap(), &tensor(vec![3.0], 1).unwrap()).unwrap();
        assert!((y.to_vec1::<f32>().unwrap()[0] - 6.0 / (1.0 + (-2f32).exp())).abs() < 1e-6);
        let gate = tensor(numbers(1, 60), (6, 10)).unwrap();
        let up = tensor(numbers(2, 60), (6, 10)).unwrap();
        gradients(&[gate, up], |x| silu_mul(&x[0], &x[1]));
    }
}
