//! Rows times weights, in f32 or on the bf16 kernels that inference uses.

use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use specexit_kernels::{Kernels, Matrix, Precision};

use super::{slice, tensor, with_numbers};

/// What the products of linear layers are computed in; sums and everything else are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Products {
    /// Both factors in f32.
    F32,
    /// Both factors rounded to bf16, as inference does.
    #[default]
    Bf16,
}

/// Computes products.
#[derive(Clone)]
pub(crate) enum Gemm {
    /// candle's f32 products.
    Candle,
    /// specexit's kernels.
    Kernels(Arc<Kernels>),
}

impl Gemm {
    /// The arithmetic asked for, on all cores.
    pub(crate) fn new(products: Products) -> Self {
        match products {
            Products::F32 => Self::Candle,
            Products::Bf16 => {
                Self::Kernels(Arc::new(Kernels::new(rayon::current_num_threads(), Precision::Bf16)))
            }
        }
    }
}

/// `x W^T`: `x` is `[rows, inputs]`, `weight` `[outputs, inputs]` as checkpoints store it.
///
/// candle's own product works as well, but its backward transposes the weight's gradient by strided
/// copies of one element each.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, gemm: &Gemm) -> Result<Tensor> {
    x.apply_op2(weight, Linear { gemm: gemm.clone() })
}

struct Linear {
    gemm: Gemm,
}

/// Side of the square blocks in which matrices are transposed.
const BLOCK: usize = 32;

/// `[rows, columns]` to `[columns, rows]`.
pub(crate) fn transposed(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0f32; x.len()];
    if rows == 0 {
        return out;
    }
    out.par_chunks_mut(BLOCK * rows).enumerate().for_each(|(block, out)| {
        let first = block * BLOCK;
        let width = out.len() / rows;
        for start in (0..rows).step_by(BLOCK) {
            for row in start..rows.min(start + BLOCK) {
                let x = &x[row * columns + first..][..width];
                for (column, x) in x.iter().enumerate() {
                    out[column * rows + row] = *x;
                }
            }
        }
    });
    out
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, inputs) = l1.shape().dims2()?;
        let outputs = l2.shape().dims2()?.0;
        let y = match &self.gemm {
            Gemm::Candle => s1.matmul(s2, (1, rows, outputs, inputs), l1, &l2.transpose(0, 1)?)?,
            Gemm::Kernels(kernels) => {
                let weight = Matrix::from_f32(outputs, inputs, slice(s2, l2)?);
                let mut y = vec![0f32; rows * outputs];
                kernels.linear(&mut y, slice(s1, l1)?, &weight, None);
                CpuStorage::F32(y)
            }
        };
        Ok((y, (rows, outputs).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dw) = match &self.gemm {
            Gemm::Candle => (grad.matmul(&weight.detach())?, grad.t()?.matmul(&x.detach())?),
            Gemm::Kernels(kernels) => backward(kernels, x, weight, grad)?,
        };
        Ok((Some(dx), Some(dw)))
    }
}

/// `dx = g W`, `dW = g^T x`, each as rows times a transposed matrix.
fn backward(
    kernels: &Kernels,
    x: &Tensor,
    weight: &Tensor,
    grad: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let (rows, inputs) = x.dims2()?;
    let outputs = weight.dims2()?.0;
    let (mut dx, mut dw) = (vec![0f32; rows * inputs], vec![0f32; outputs * inputs]);
    with_numbers(grad, |g| {
        with_numbers(weight, |w| {
            let w = Matrix::from_f32(inputs, outputs, &transposed(w, outputs, inputs));
            kernels.linear(&mut dx, g, &w, None);
            Ok(())
        })?;
        with_numbers(x, |x| {
            let x = Matrix::from_f32(inputs, rows, &transposed(x, rows, inputs));
            kernels.linear(&mut dw, &transposed(g, rows, outputs), &x, None);
            Ok(())
        })
    })?;
    Ok((tensor(dx, x.shape())?, tensor(dw, weight.shape())?))
}

#[cfg(test)]
mod tests {
    use super::super::check::{gradients, numbers};
    use super::*;

    #[test]
    fn values_and_gradients() {
        let x = tensor(numbers(1, 5 * 7), (5, 7)).unwrap();
        let w = tensor(numbers(2, 3 * 7), (3, 7)).unwrap();
        let y = linear(&x, &w, &Gemm::Candle).unwrap();
        let expected = x.matmul(&w.t().unwrap()).unwrap();
        assert_eq!(y.to_vec2::<f32>().unwrap(), expected.to_vec2::<f32>().unwrap());
        gradients(&[x, w], |x| linear(&x[0], &x[1], &Gemm::Candle));
    }

    #[test]
    fn bf16_products_agree_with_f32_to_their_precision() {
        let (rows, inputs, outputs) = (45, 70, 37);
        let relative = |a: &Tensor, b: &Tensor| {
            let difference = (a - b).unwrap().sqr().unwrap().sum_all().unwrap();
            let size = b.sqr().unwrap().sum_all().unwrap();
            (difference.to_scalar::<f32>().unwrap() / size.to_scalar::<f32>().unwrap()).sqrt()
        };
        let run = |products| {
            let x = candle_core::Var::from_tensor(
                &tensor(numbers(1, rows * inputs), (rows, inputs)).unwrap(),
            );
            let w = candle_core::Var::from_tensor(
                &tensor(numbers(2, outputs * inputs), (outputs, inputs)).unwrap(),
            );
            let (x, w) = (x.unwrap(), w.unwrap());
            let y = linear(&x, &w, &Gemm::new(products)).unwrap();
            let weights = tensor(numbers(3, rows * outputs), (rows, outputs)).unwrap();
            let grads = (&y * weights).unwrap().sum_all().unwrap().backward().unwrap();
            [y.clone(), grads.get(&x).unwrap().clone(), grads.get(&w).unwrap().clone()]
        };
        for (bf16, f32) in run(Products::Bf16).iter().zip(&run(Products::F32)) {
            assert!(relative(bf16, f32) < 0.005, "{}", relative(bf16, f32));
        }
    }

    #[test]
    fn transposing_works_for_any_shape() {
        for (rows, columns) in [(1, 1), (3, 70), (33, 32), (64, 5)] {
            let x = numbers(4, rows * columns);
            let t = transposed(&x, rows, columns);
            for r in 0..rows {
                for c in 0..columns {
                    assert_eq!(t[c * rows + r], x[r * columns + c]);
                }
            }
        }
    }
}
