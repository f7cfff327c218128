//! What memory and multipliers give at best, for judging products and forwards by.
//!
//! Everything here times one pass. Other work on the machine only ever makes a pass longer, so the shortest of
//! several is what the machine can do.

use std::hint::black_box;
use std::time::Instant;

use crate::arena::Buffer;
use crate::kernels::Kernels;
use crate::matrix::Matrix;
use crate::simd::Simd;

/// What a thread takes at a time: enough to make taking cheap, small enough that threads end together.
const CHUNK: usize = 1 << 18;

/// Places of a chunk that are read in turn. The linear kernels read several rows of weights at once, and so many
/// streams keep more of the memory busy than one.
const STREAMS: usize = 4;

/// A cache line.
type Line = [u64; 8];

/// A block of memory, on huge pages where the system grants them, that all threads read once a pass.
#[derive(Debug)]
pub struct ReadProbe {
    block: Buffer,
    bytes: usize,
}

impl ReadProbe {
    /// A block of `bytes`, rounded up to what threads take at a time (256 KiB).
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let bytes = bytes.max(1).next_multiple_of(CHUNK);
        Self { block: Buffer::new(bytes), bytes }
    }

    /// Bytes that a pass reads.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Reads the block once, on all threads of `kernels`; seconds.
    pub fn pass(&self, kernels: &Kernels) -> f64 {
        let lines: &[Line] = self.block.slice(self.bytes / size_of::<Line>());
        let per_chunk = CHUNK / size_of::<Line>();
        let start = Instant::now();
        kernels.pool().claim(lines.len() / per_chunk, |chunk| {
            let lines = &lines[chunk * per_chunk..][..per_chunk];
            black_box(dispatch!(kernels.checked_isa(), sum(lines: &[Line]) -> u64));
        });
        start.elapsed().as_secs_f64()
    }
}

/// The sum of all words, so that none may be left unread.
#[inline(always)]
fn sum<S: Simd>(_simd: S, lines: &[Line]) -> u64 {
    let stream = lines.len() / STREAMS;
    let mut sums = [[0_u64; 8]; STREAMS];
    for i in 0..stream {
        for (s, sums) in sums.iter_mut().enumerate() {
            for (sum, word) in sums.iter_mut().zip(&lines[s * stream + i]) {
                *sum = sum.wrapping_add(*word);
            }
        }
    }
    sums.iter().flatten().fold(0, |all, sum| all.wrapping_add(*sum))
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
    use crate::isa::Precision;

    #[test]
    fn every_word_of_a_block_is_read() {
        let mut probe = ReadProbe::new(CHUNK + 1);
        assert_eq!(probe.bytes(), 2 * CHUNK);
        let words = CHUNK / size_of::<u64>();
        for (i, word) in probe.block.slice_mut::<u64>(words).iter_mut().enumerate() {
            *word = i as u64;
        }
        let kernels = Kernels::new(2, Precision::F32);
        let lines: &[Line] = &probe.block.slice(2 * words / 8)[..words / 8];
        let found = dispatch!(kernels.checked_isa(), sum(lines: &[Line]) -> u64);
        assert_eq!(found, (words * (words - 1) / 2) as u64);
        assert!(probe.pass(&kernels) > 0.0);
    }

    #[test]
    fn weights_take_turns_and_rows_are_counted() {
        let mut probe = ProductProbe::new(4, 32, 8, 2);
        assert_eq!((probe.flops(3), probe.weight_bytes()), (1536.0, 512));
        let kernels = Kernels::new(1, Precision::F32);
        assert!(probe.pass(&kernels, 3) > 0.0);
        assert_eq!(probe.turn, 1);
        assert!(probe.y[..24].iter().all(|y| *y != 0.0) && probe.y[24..] == [0.0; 8]);
        assert!(probe.pass(&kernels, 4) > 0.0);
        assert_eq!(probe.turn, 0);
    }
}
