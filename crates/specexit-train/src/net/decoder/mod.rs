//! A whole decoder with a backward of its own.
//!
//! A small model trained from nothing has small matrices: tensors that are allocated, copied and taped
//! would cost more than the products. As in [`super::draft`], forward and backward are written out over
//! slices, once plainly ([`plain`]) and once on the kernels' training operations ([`fast`]); the tape
//! version is their twin in the tests.

mod batch;
mod fast;
mod plain;
mod shape;

#[cfg(test)]
mod parity;
#[cfg(test)]
mod speed;
#[cfg(test)]
mod twin;

use std::sync::Arc;

use candle_core::Result;
use specexit_kernels::Kernels;

pub(crate) use batch::TextBatch;
pub use shape::DecoderShape;

use self::fast::Fast;
use self::plain::Plain;
use super::params::Param;
#[cfg(test)]
use crate::ops::all_cores;
use crate::ops::{Gemm, Products};

/// A decoder, without its trained tensors: those of [`DecoderShape::tensors`] are passed in.
pub(crate) enum Decoder {
    /// With products in f32.
    Plain(Box<Plain>),
    /// With products in bf16.
    Fast(Box<Fast>),
}

impl Decoder {
    /// A decoder of this shape.
    pub(crate) fn new(shape: &DecoderShape, products: Products, kernels: &Arc<Kernels>) -> Self {
        match products {
            Products::F32 => Self::Plain(Box::new(Plain::new(shape, Gemm::Candle))),
            Products::Bf16 => Self::Fast(Box::new(Fast::new(shape, kernels))),
        }
    }

    /// Adds `scale` times the gradient of the batches' summed loss to `grads`, which are laid out
    /// like the trained tensors, and returns that sum.
    pub(crate) fn gradients(
        &mut self,
        params: &[Param],
        batches: &[TextBatch],
        scale: f32,
        grads: &mut [Vec<f32>],
    ) -> Result<f64> {
        match self {
            Self::Plain(plain) => {
                let weights = plain.weights(params)?;
                let mut loss = 0.0;
                for batch in batches {
                    let trace = plain.forward(&weights, batch)?;
                    loss += plain.backward(&weights, batch, trace, scale, grads)?;
                }
                Ok(loss)
            }
            Self::Fast(fast) => {
                fast.prepare(params);
                let mut loss = 0.0;
                for batch in batches {
                    fast.forward(params, batch);
                    loss += fast.backward(params, batch, scale, grads);
                }
                Ok(loss)
            }
        }
    }

    /// The batches' summed loss.
    pub(crate) fn loss(&mut self, params: &[Param], batches: &[TextBatch]) -> Result<f64> {
        match self {
            Self::Plain(plain) => {
                let weights = plain.weights(params)?;
                batches.iter().map(|batch| plain.loss(&weights, batch)).sum()
            }
            Self::Fast(fast) => {
                fast.prepare(params);
                Ok(batches.iter().map(|batch| fast.loss(params, batch)).sum())
            }
        }
    }
}
