//! Differentiable operations of the trained layer, on candle's tape but with their own backward.
//!
//! candle's fused `rms_norm`, `softmax_last_dim`, `rope` and `layer_norm` cut the gradient without
//! an error, and its elementwise operations dominate a training step on a CPU. Each operation here
//! has one forward and one hand-written backward; tests compare every gradient with finite
//! differences. All sums run in a fixed order, so that a step has the same bits whenever it is
//! repeated.

mod attention;
mod dense;
mod linear;
mod loss;
mod rms_norm;
pub(crate) mod rows;
mod silu_mul;

use candle_core::{CpuStorage, Device, Layout, Result, Shape, Storage, Tensor};

pub(crate) use attention::{AttentionStep, SequenceRows, attention};
pub(crate) use dense::Dense;
pub use linear::Products;
pub(crate) use linear::{Gemm, Projection, all_cores};
pub(crate) use loss::soft_cross_entropy;
pub(crate) use rms_norm::rms_norm;
pub(crate) use silu_mul::silu_mul;

/// Rows that one task of a parallel loop takes: enough work to be worth a task, and a fixed number,
/// so that partial sums are the same with any number of threads.
const ROWS_PER_TASK: usize = 32;

/// The numbers of a contiguous storage.
fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        return Err(candle_core::Error::Msg("an operand is not contiguous".to_owned()));
    };
    Ok(&storage.as_slice::<f32>()?[start..end])
}

/// Lends the numbers of a tensor.
pub(crate) fn with_numbers<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(slice(storage, layout)?),
        _ => Err(candle_core::Error::Msg("training runs on the CPU".to_owned())),
    }
}

/// A tensor that owns `numbers`.
pub(crate) fn tensor(numbers: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(numbers, shape.into(), &Device::Cpu)
}

/// A dot product in one fixed order: sixteen interleaved sums, then those in turn.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a16, a_tail) = a.as_chunks::<16>();
    let (b16, b_tail) = b.as_chunks::<16>();
    let mut sums = [0f32; 16];
    for (x, y) in a16.iter().zip(b16) {
        for lane in 0..16 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    let tail: f32 = a_tail.iter().zip(b_tail).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + tail
}

/// `to += scale * from`.
fn add_scaled(to: &mut [f32], scale: f32, from: &[f32]) {
    for (t, f) in to.iter_mut().zip(from) {
        *t += scale * f;
    }
}

#[cfg(test)]
pub(crate) mod check {
    //! Gradients against finite differences.

    use candle_core::{Result, Tensor, Var};

    use super::{tensor, with_numbers};

    /// Reproducible numbers in (-1, 1).
    pub(crate) fn numbers(seed: u64, count: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        (0..count)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            })
            .collect()
    }

    /// The relative difference of two gradients.
    pub(crate) fn relative(found: &[f32], expected: &[f32]) -> f64 {
        let (mut difference, mut size) = (0f64, 0f64);
        for (f, e) in found.iter().zip(expected) {
            difference += f64::from(f - e).powi(2);
            size += f64::from(*e).powi(2);
        }
        (difference / size).sqrt()
    }

    /// Checks the gradient of `f`, weighted by fixed random numbers, in every input.
    ///
    /// Central differences along random directions: a wrong backward shows in any of them.
    pub(crate) fn gradients(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
        let weights = |y: &Tensor| tensor(numbers(99, y.elem_count()), y.shape().clone()).unwrap();
        let scalar = |x: &[Tensor]| {
            let y = f(x).unwrap();
            let w = weights(&y);
            // f64 for the sum: the difference of two nearly equal f32 sums would be noise.
            let product = (y.to_dtype(candle_core::DType::F64).unwrap()
                * w.to_dtype(candle_core::DType::F64).unwrap())
            .unwrap();
            product.sum_all().unwrap().to_scalar::<f64>().unwrap()
        };
        let vars: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(x).unwrap()).collect();
        let tracked: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let y = f(&tracked).unwrap();
        let grads = (&y * weights(&y)).unwrap().sum_all().unwrap().backward().unwrap();
        for (i, input) in inputs.iter().enumerate() {
            let grad =
                grads.get(&tracked[i]).unwrap_or_else(|| panic!("input {i} has no gradient"));
            for seed in 0..4 {
                let direction = numbers(1000 + seed, input.elem_count());
                let expected = with_numbers(grad, |g| {
                    Ok(g.iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum())
                });
                let expected: f64 = expected.unwrap();
                let h = 1e-2;
                let moved = |step: f32| {
                    let mut x = inputs.to_vec();
                    let d = tensor(direction.clone(), input.shape().clone()).unwrap();
                    x[i] = (input + (d * f64::from(step)).unwrap()).unwrap();
                    scalar(&x)
                };
                // Richardson: the h^2 error of central differences cancels.
                let central = |h: f32| (moved(h) - moved(-h)) / (2.0 * f64::from(h));
                let found = (4.0 * central(h / 2.0) - central(h)) / 3.0;
                let scale = expected.abs().max(found.abs()).max(0.05);
                assert!(
                    (expected - found).abs() / scale < 1e-2,
                    "input {i}: backward {expected}, differences {found}"
                );
            }
        }
    }
}
