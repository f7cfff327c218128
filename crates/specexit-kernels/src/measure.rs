//! What memory and multipliers give at best, for judging products and forwards by.
//!
//! Everything here times one pass. Other work on the machine only ever makes a pass longer, so the shortest of
//! several is what the machine can do.

use std::hint::black_box;
use std::time::Instant;

use crate::arena::Buffer;
use crate::kernels::Kernels;
use crate::matrix::Matrix;
use crate::simd::{Lanes, Simd};

/// What a thread takes at a time: enough to make taking cheap, small enough that threads end together.
const CHUNK: usize = 1 << 18;

/// What a pass reads at most: at the rates of today's memory a few milliseconds, so that on a busy machine some passes
/// are not interrupted.
const PIECE: usize = 1 << 26;

/// Places of a chunk that are read in turn: as many as there are independent sums.
const STREAMS: usize = 4;

/// A block of memory, on huge pages where the system grants them, that all threads read together.
#[derive(Debug)]
pub struct ReadProbe {
    block: Buffer,
    bytes: usize,
    /// Where the next pass begins.
    next: usize,
}

impl ReadProbe {
    /// A block of `bytes`, rounded up to what threads take at a time (256 KiB).
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let bytes = bytes.max(1).next_multiple_of(CHUNK);
        let mut block = Buffer::new(bytes);
        // Pages that nobody has written are one page of zeros, which stays in the cache.
        block.slice_mut::<u8>(bytes).fill(1);
        Self { block, bytes, next: 0 }
    }

    /// Reads the next 64 MiB of the block, or all of a smaller one, on all threads of `kernels`; bytes per second.
    pub fn pass(&mut self, kernels: &Kernels) -> f64 {
        let bytes = PIECE.min(self.bytes - self.next);
        let lines: &[Lanes] = self.block.slice(self.bytes / size_of::<Lanes>());
        let lines = &lines[self.next / size_of::<Lanes>()..][..bytes / size_of::<Lanes>()];
        self.next = (self.next + bytes) % self.bytes;
        let per_chunk = CHUNK / size_of::<Lanes>();
        let start = Instant::now();
        kernels.pool().claim(bytes / CHUNK, |chunk| {
            let lines = &lines[chunk * per_chunk..][..per_chunk];
            black_box(dispatch!(kernels.checked_isa(), sum(lines: &[Lanes]) -> f32));
        });
        bytes as f64 / start.elapsed().as_secs_f64()
    }
}

/// The sum of all numbers, so that none may be left unread. It is made of the kernels' vectors: left to the
/// compiler it would be slower than memory.
#[inline(always)]
fn sum<S: Simd>(simd: S, lines: &[Lanes]) -> f32 {
    let stream = lines.len() / STREAMS;
    let zero = simd.splat(0.0);
    let mut sums = [zero; STREAMS];
    for i in 0..stream {
        for s in 0..STREAMS {
            sums[s] = simd.add(sums[s], simd.load(&lines[s * stream + i]));
        }
    }
    let [a, b, c, d] = simd.sum4(sums);
    (a + b) + (c + d)
}

/// A linear layer of random numbers, over one weight or several in turn.
#[derive(Debug)]
pub struct ProductProbe {
    weights: Vec<Matrix>,
    turn: usize,
    x: Vec<f32>,
    y: Vec<f32>,
}

impl ProductProbe {
    /// A layer `[inputs -> outputs]` for up to `rows` rows. With many `copies` of the weight no cache holds
    /// them all; a single one stays where it fits.
    ///
    /// # Panics
    ///
    /// If a number is 0.
    #[must_use]
    pub fn new(rows: usize, inputs: usize, outputs: usize, copies: usize) -> Self {
        assert!(rows * inputs * outputs * copies > 0, "a product of nothing");
        let mut state = 1_u32;
        let mut number = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let values: Vec<f32> = (0..outputs * inputs).map(|_| number() * 0.1).collect();
        let x = (0..rows * inputs).map(|_| number()).collect();
        let weights = (0..copies).map(|_| Matrix::from_f32(outputs, inputs, &values)).collect();
        Self { weights, turn: 0, x, y: vec![0.0; rows * outputs] }
    }

    /// Bytes of one weight.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.weights[0].bytes()
    }

    /// Floating-point operations of a product over `rows` rows: a multiplication and an addition per weight
    /// and row.
    #[must_use]
    pub fn flops(&self, rows: usize) -> f64 {
        2.0 * (rows * self.weights[0].rows() * self.weights[0].cols()) as f64
    }

    /// One product over `rows` rows with the next weight; seconds.
    ///
    /// # Panics
    ///
    /// If there are fewer rows.
    pub fn pass(&mut self, kernels: &Kernels, rows: usize) -> f64 {
        let w = &self.weights[self.turn];
        self.turn = (self.turn + 1) % self.weights.len();
        let (x, y) = (&self.x[..rows * w.cols()], &mut self.y[..rows * w.rows()]);
        let start = Instant::now();
        kernels.linear(y, x, w, None);
        start.elapsed().as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{CheckedIsa, Isa, Precision};
    use crate::simd::LANES;

    #[test]
    fn every_number_of_a_chunk_is_read() {
        let mut numbers = vec![[0.0; LANES]; 8 * STREAMS];
        for (i, number) in numbers.as_flattened_mut().iter_mut().enumerate() {
            *number = i as f32;
        }
        let lines = &numbers[..];
        for isa in Isa::available() {
            let isa = CheckedIsa::new(isa);
            let all = 8 * STREAMS * LANES;
            let found = dispatch!(isa, sum(lines: &[Lanes]) -> f32);
            assert_eq!(found, (all * (all - 1) / 2) as f32, "{}", isa.get());
        }
    }

    #[test]
    fn passes_go_through_the_block_and_begin_again() {
        let kernels = Kernels::new(2, Precision::F32);
        let mut probe = ReadProbe::new(CHUNK + 1);
        assert_eq!(probe.bytes, 2 * CHUNK);
        assert!(probe.pass(&kernels) > 0.0 && probe.next == 0);
        if cfg!(miri) {
            return;
        }
        let mut probe = ReadProbe::new(PIECE + CHUNK);
        assert!(probe.pass(&kernels) > 0.0 && probe.next == PIECE);
        assert!(probe.pass(&kernels) > 0.0 && probe.next == 0);
    }

    #[test]
    fn weights_take_turns_and_rows_are_counted() {
        let mut probe = ProductProbe::new(4, 32, 32, 2);
        assert_eq!((probe.flops(3), probe.weight_bytes()), (6144.0, 2048));
        let kernels = Kernels::new(1, Precision::F32);
        assert!(probe.pass(&kernels, 3) > 0.0);
        assert_eq!(probe.turn, 1);
        assert!(probe.y[..96].iter().all(|y| *y != 0.0) && probe.y[96..] == [0.0; 32]);
        assert!(probe.pass(&kernels, 4) > 0.0);
        assert_eq!(probe.turn, 0);
    }
}
