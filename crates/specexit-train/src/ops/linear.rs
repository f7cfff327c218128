//! Rows times weights, in f32 or on the bf16 kernels that inference uses.

use std::sync::{Arc, OnceLock};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use half::bf16;
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
    #[cfg_attr(not(test), expect(dead_code, reason = "the tests' twin rounds what fast paths do"))]
    Kernels(Arc<Kernels>),
}

/// Kernels on all cores.
pub(crate) fn all_cores() -> Arc<Kernels> {
    Arc::new(Kernels::new(rayon::current_num_threads(), Precision::Bf16))
}

#[cfg(test)]
impl Gemm {
    /// The arithmetic asked for.
    pub(crate) fn new(products: Products, kernels: &Arc<Kernels>) -> Self {
        match products {
            Products::F32 => Self::Candle,
            Products::Bf16 => Self::Kernels(Arc::clone(kernels)),
        }
    }
}

/// The weight of a linear layer, `[outputs, inputs]` as checkpoints store it, ready for many
/// products: training uses each weight once per step of the training-time test.
#[derive(Clone)]
pub(crate) struct Projection {
    weight: Tensor,
    rounded: Option<Arc<Rounded>>,
}

/// A weight in bf16, as it is and transposed.
struct Rounded {
    kernels: Arc<Kernels>,
    forward: Matrix,
    backward: OnceLock<Matrix>,
}

impl Projection {
    /// Prepares `weight` for products by `gemm`.
    pub(crate) fn new(weight: Tensor, gemm: &Gemm) -> Result<Self> {
        let rounded = match gemm {
            Gemm::Candle => None,
            Gemm::Kernels(kernels) => {
                let (outputs, inputs) = weight.dims2()?;
                let forward =
                    with_numbers(&weight, |w| Ok(Matrix::from_bf16(outputs, inputs, &rounded(w))))?;
                let kernels = Arc::clone(kernels);
                Some(Arc::new(Rounded { kernels, forward, backward: OnceLock::new() }))
            }
        };
        Ok(Self { weight, rounded })
    }

    /// `x W^T`: `x` is `[rows, inputs]`.
    ///
    /// candle's own product works as well, but its backward transposes the weight's gradient by
    /// strided copies of one element each.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        x.apply_op2(&self.weight, Linear { rounded: self.rounded.clone() })
    }
}

struct Linear {
    rounded: Option<Arc<Rounded>>,
}

/// Numbers that one task takes.
const TASK: usize = 1 << 14;

/// Side of the square blocks in which matrices are transposed.
const BLOCK: usize = 32;

/// To the nearest bf16, ties to even; like `bf16::from_f32`, but in a form that vectorises.
pub(super) fn round(x: f32) -> bf16 {
    let bits = x.to_bits();
    let nearest = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
    bf16::from_bits(if x.is_nan() { 0x7fc0 } else { nearest })
}

fn rounded(x: &[f32]) -> Vec<bf16> {
    let mut out = vec![bf16::ZERO; x.len()];
    out.par_chunks_mut(TASK).zip(x.par_chunks(TASK)).for_each(|(out, x)| {
        out.iter_mut().zip(x).for_each(|(out, x)| *out = round(*x));
    });
    out
}

/// `[rows, columns]` to `[columns, rows]`, each number passed through `f`.
pub(super) fn transposed<T: Copy + Default + Send>(
    x: &[f32],
    rows: usize,
    columns: usize,
    f: impl Fn(f32) -> T + Sync,
) -> Vec<T> {
    let mut out = vec![T::default(); x.len()];
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
                    out[column * rows + row] = f(*x);
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
        let y = match &self.rounded {
            None => s1.matmul(s2, (1, rows, outputs, inputs), l1, &l2.transpose(0, 1)?)?,
            Some(w) => {
                let mut y = vec![0f32; rows * outputs];
                w.kernels.linear(&mut y, slice(s1, l1)?, &w.forward, None);
                CpuStorage::F32(y)
            }
        };
        Ok((y, (rows, outputs).into()))
    }

    /// `dx = g W`, `dW = g^T x`.
    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dw) = match &self.rounded {
            None => (grad.matmul(&weight.detach())?, grad.t()?.matmul(&x.detach())?),
            Some(w) => w.backward(x, weight, grad)?,
        };
        Ok((Some(dx), Some(dw)))
    }
}

impl Rounded {
    /// Both products as rows times a transposed matrix, which is what the kernels multiply.
    fn backward(&self, x: &Tensor, weight: &Tensor, grad: &Tensor) -> Result<(Tensor, Tensor)> {
        let (rows, inputs) = x.dims2()?;
        let outputs = weight.dims2()?.0;
        let (mut dx, mut dw) = (vec![0f32; rows * inputs], vec![0f32; outputs * inputs]);
        with_numbers(grad, |g| {
            with_numbers(weight, |w| {
                let transposed = self.backward.get_or_init(|| {
                    Matrix::from_bf16(inputs, outputs, &transposed(w, outputs, inputs, round))
                });
                self.kernels.linear(&mut dx, g, transposed, None);
                Ok(())
            })?;
            with_numbers(x, |x| {
                let x = Matrix::from_bf16(inputs, rows, &transposed(x, rows, inputs, round));
                self.kernels.linear(&mut dw, &transposed(g, rows, outputs, |g| g), &x, None);
                Ok(())
            })
        })?;
        Ok((tensor(dx, x.shape())?, tensor(dw, weight.shape())?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{gradients, numbers};
    use super::*;

    #[test]
    fn values_and_gradients() {
        let x = tensor(numbers(1, 5 * 7), (5, 7)).unwrap();
        let w = tensor(numbers(2, 3 * 7), (3, 7)).unwrap();
        let linear = |x: &Tensor, w: &Tensor| Projection::new(w.clone(), &Gemm::Candle)?.apply(x);
        let y = linear(&x, &w).unwrap();
        let expected = x.matmul(&w.t().unwrap()).unwrap();
        assert_eq!(y.to_vec2::<f32>().unwrap(), expected.to_vec2::<f32>().unwrap());
        gradients(&[x, w], |x| linear(&x[0], &x[1]));
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
            let var = |seed, shape: (usize, usize)| {
                let numbers = tensor(numbers(seed, shape.0 * shape.1), shape).unwrap();
                candle_core::Var::from_tensor(&numbers).unwrap()
            };
            let (x, w) = (var(1, (rows, inputs)), var(2, (outputs, inputs)));
            let projection =
                Projection::new(w.as_tensor().clone(), &Gemm::new(products, &all_cores())).unwrap();
            let y = projection.apply(&x).unwrap();
            let weights = tensor(numbers(3, rows * outputs), (rows, outputs)).unwrap();
            let grads = (&y * weights).unwrap().sum_all().unwrap().backward().unwrap();
            [y, grads.get(&x).unwrap().clone(), grads.get(&w).unwrap().clone()]
        };
        for (bf16, f32) in run(Products::Bf16).iter().zip(&run(Products::F32)) {
            assert!(relative(bf16, f32) < 0.005, "{}", relative(bf16, f32));
        }
    }

    #[test]
    fn rounding_is_that_of_bf16() {
        let ends =
            [0.0, -0.0, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE, 1e-42];
        let ties = (0..64u32).map(|i| f32::from_bits(0x3f80_0000 + i * 0x4000));
        for x in ends.into_iter().chain(ties).chain(numbers(5, 1000)) {
            assert_eq!(round(x).to_bits(), bf16::from_f32(x).to_bits(), "{x}");
        }
        assert!(round(f32::NAN).is_nan() && round(f32::from_bits(0x7fff_ffff)).is_nan());
    }

    #[test]
    fn transposing_works_for_any_shape() {
        for (rows, columns) in [(1, 1), (3, 70), (33, 32), (64, 5)] {
            let x = numbers(4, rows * columns);
            let t = transposed(&x, rows, columns, |x| x);
            for r in 0..rows {
                for c in 0..columns {
                    assert_eq!(t[c * rows + r], x[r * columns + c]);
                }
            }
        }
    }
}
