//! What the networks over slices share: packed weights and buffers that only grow.

use specexit_kernels::{Bf16Rows, Kernels, PairPanels};

/// A weight `[outputs, inputs]` as the factor of the forward and of the backward.
#[derive(Default)]
pub(crate) struct Weight {
    pub(crate) forward: PairPanels,
    pub(crate) backward: PairPanels,
}

impl Weight {
    /// Rounds and packs the value of a step.
    pub(crate) fn set(&mut self, kernels: &Kernels, value: &[f32], outputs: usize, inputs: usize) {
        kernels.pack_transposed(&mut self.forward, value, outputs, inputs);
        kernels.pack(&mut self.backward, value, outputs, inputs);
    }
}

/// The first `len` numbers of a buffer that only ever grows.
pub(crate) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// `dw += g^T x` for the rows `g` and `x`.
pub(crate) fn weight_gradient(
    kernels: &Kernels,
    [a, b]: [&mut PairPanels; 2],
    dw: &mut [f32],
    g: &Bf16Rows,
    x: &Bf16Rows,
) {
    kernels.interleave(a, g);
    kernels.interleave(b, x);
    kernels.multiply_transposed(dw, a, b);
}
