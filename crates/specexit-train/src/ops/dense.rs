//! Linear layers over slices, without a tape: for networks with a backward of their own.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use specexit_kernels::{Kernels, Matrix};

use super::linear::{Gemm, round, transposed};
use super::{add_scaled, tensor, with_numbers};

/// The weight `[outputs, inputs]` of a linear layer, ready for the products of one step.
pub(crate) struct Dense {
    outputs: usize,
    inputs: usize,
    products: Products,
}

enum Products {
    F32(Tensor),
    Bf16 { kernels: Arc<Kernels>, forward: Matrix, backward: Matrix },
}

impl Dense {
    /// Prepares a weight for products by `gemm`.
    pub(crate) fn new(weight: &[f32], outputs: usize, inputs: usize, gemm: &Gemm) -> Result<Self> {
        let products = match gemm {
            Gemm::Candle => Products::F32(tensor(weight.to_vec(), (outputs, inputs))?),
            Gemm::Kernels(kernels) => Products::Bf16 {
                kernels: Arc::clone(kernels),
                forward: Matrix::from_f32(outputs, inputs, weight),
                backward: Matrix::from_bf16(
                    inputs,
                    outputs,
                    &transposed(weight, outputs, inputs, round),
                ),
            },
        };
        Ok(Self { outputs, inputs, products })
    }

    /// `y = x W^T`: `x` `[rows, inputs]`, `y` `[rows, outputs]`.
    pub(crate) fn apply(&self, y: &mut [f32], x: &[f32]) -> Result<()> {
        match &self.products {
            Products::F32(w) => {
                let x = tensor(x.to_vec(), (x.len() / self.inputs, self.inputs))?;
                with_numbers(&x.matmul(&w.t()?)?, |p| {
                    y.copy_from_slice(p);
                    Ok(())
                })
            }
            Products::Bf16 { kernels, forward, .. } => {
                kernels.linear(y, x, forward, None);
                Ok(())
            }
        }
    }

    /// `dx = g W` and `dw += g^T x`, given the gradient `g` `[rows, outputs]` of `y`.
    pub(crate) fn backward(
        &self,
        dx: &mut [f32],
        dw: &mut [f32],
        g: &[f32],
        x: &[f32],
    ) -> Result<()> {
        let (inputs, outputs) = (self.inputs, self.outputs);
        let rows = x.len() / inputs;
        match &self.products {
            Products::F32(w) => {
                let g = tensor(g.to_vec(), (rows, outputs))?;
                let x = tensor(x.to_vec(), (rows, inputs))?;
                with_numbers(&g.matmul(w)?, |p| {
                    dx.copy_from_slice(p);
                    Ok(())
                })?;
                with_numbers(&g.t()?.matmul(&x)?, |p| {
                    add_scaled(dw, 1.0, p);
                    Ok(())
                })
            }
            Products::Bf16 { kernels, backward, .. } => {
                kernels.linear(dx, g, backward, None);
                let x = Matrix::from_bf16(inputs, rows, &transposed(x, rows, inputs, round));
                kernels.linear_add(dw, &transposed(g, rows, outputs, |g| g), &x);
                Ok(())
            }
        }
    }
}
