//! The identity of weights: a hash that recognises a checkpoint without reading all of it.

use super::{Tensor, Weights};
use crate::hash::Hasher;

/// Pieces sampled from every tensor, spread evenly from its first byte to its last.
const PIECES: usize = 8;
/// Bytes per piece.
const PIECE: usize = 64;

impl Weights {
    /// SHA-256 over names, types, shapes and sampled bytes. Any training step changes nearly every
    /// number, so a sample tells two checkpoints apart; it does not detect a single flipped bit.
    pub(super) fn identity(&self) -> String {
        let mut hasher = Hasher::new();
        hasher.text("specexit weights 1");
        for (name, tensor) in &self.tensors {
            hasher.text(name);
            hasher.text(tensor.dtype.name());
            hasher.number(tensor.shape.len() as u64);
            tensor.shape.iter().for_each(|&size| hasher.number(size as u64));
            self.sample(tensor, &mut hasher);
        }
        hasher.finish()
    }

    fn sample(&self, tensor: &Tensor, hasher: &mut Hasher) {
        let bytes = self.bytes(tensor);
        if bytes.len() <= PIECES * PIECE {
            return hasher.bytes(bytes);
        }
        let last_start = bytes.len() - PIECE;
        for piece in 0..PIECES {
            // In 128 bits, where no tensor is too large for the product.
            let start = (last_start as u128 * piece as u128 / (PIECES - 1) as u128) as usize;
            hasher.bytes(&bytes[start..start + PIECE]);
        }
    }
}
