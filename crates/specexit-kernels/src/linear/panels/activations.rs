//! Activations rounded to 8 bits.

use bytemuck::{AnyBitPattern, NoUninit};

use crate::blocks::BLOCK_COLUMNS;
use crate::elementwise::{ROUND, SMALLEST, largest};
use crate::simd::Simd;

/// 32 activations of a row: `x ≈ scale * codes`, and what all weight formats want to know of them.
/// A cache line.
#[derive(Debug, Clone, Copy, AnyBitPattern, NoUninit)]
#[repr(C, align(64))]
pub(crate) struct QuantisedBlock {
    /// Signed codes, -127 to 127, four to a group.
    codes: [[u8; 4]; BLOCK_COLUMNS / 4],
    /// `max |x| / 127`.
    pub(super) scale: f32,
    /// `scale` times the sum of the codes.
    pub(super) scaled_sum: f32,
    /// What the integer sum of a block starts with, `-zero * sum of the codes`: for zero 0, 8, 16
    /// and 128, and for zero 32 of the first and of the last 16 columns.
    pub(super) starts: [i32; 6],
}

impl QuantisedBlock {
    /// Nothing, as behind the end of a row.
    const ZERO: QuantisedBlock =
        QuantisedBlock { codes: [[0; 4]; 8], scale: 0.0, scaled_sum: 0.0, starts: [0; 6] };

    /// The four codes of group `g`, the first in the low byte.
    #[inline(always)]
    pub(super) fn group(&self, g: usize) -> i32 {
        i32::from_le_bytes(self.codes[g])
    }
}

/// Rows of `x` `[_, cols]`, `cols` a multiple of 32, in `stride` blocks each.
#[inline(always)]
pub(in crate::linear) fn quantise<S: Simd>(
    s: S,
    packed: &mut [QuantisedBlock],
    stride: usize,
    x: &[f32],
    cols: usize,
) {
    for (packed, x) in packed.chunks_exact_mut(stride).zip(x.chunks_exact(cols)) {
        let (blocks, _) = x.as_chunks::<BLOCK_COLUMNS>();
        let (whole, rest) = packed.split_at_mut(blocks.len());
        for (packed, x) in whole.iter_mut().zip(blocks) {
            quantise_block(s, packed, x);
        }
        rest.fill(QuantisedBlock::ZERO);
    }
}

#[inline(always)]
fn quantise_block<S: Simd>(s: S, packed: &mut QuantisedBlock, x: &[f32; BLOCK_COLUMNS]) {
    let largest = largest(s, x);
    let (scale, inverse) = if !largest.is_finite() {
        (f32::NAN, 0.0)
    } else if largest < SMALLEST {
        (0.0, 0.0)
    } else {
        (largest / 127.0, 127.0 / largest)
    };
    let mut codes = [0_i32; BLOCK_COLUMNS];
    for (code, x) in codes.iter_mut().zip(x) {
        *code = (x * inverse + ROUND).to_bits().wrapping_sub(ROUND.to_bits()).cast_signed();
    }
    if scale.is_nan() {
        codes = [0; BLOCK_COLUMNS];
    }
    let (first, second) = codes.split_at(BLOCK_COLUMNS / 2);
    let (first, second) = (first.iter().sum::<i32>(), second.iter().sum::<i32>());
    let sum = first + second;
    for (group, codes) in packed.codes.iter_mut().zip(codes.as_chunks::<4>().0) {
        for (byte, code) in group.iter_mut().zip(codes) {
            *byte = *code as u8;
        }
    }
    packed.scale = scale;
    packed.scaled_sum = scale * sum as f32;
    packed.starts = [0, -8 * sum, -16 * sum, -128 * sum, -32 * first, -32 * second];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Scalar;

    fn quantised(x: &[f32; BLOCK_COLUMNS]) -> (Vec<i8>, QuantisedBlock) {
        let mut packed = [QuantisedBlock::ZERO; 2];
        packed[1].scale = 7.0;
        quantise(Scalar, &mut packed, 2, x, BLOCK_COLUMNS);
        assert_eq!(packed[1].scale, 0.0);
        let codes = packed[0].codes.as_flattened().iter().map(|code| code.cast_signed()).collect();
        (codes, packed[0])
    }

    #[test]
    fn rounds_to_the_nearest_and_ties_to_even() {
        let mut x = [0.0; BLOCK_COLUMNS];
        x[..6].copy_from_slice(&[-127.0, 0.5, 1.5, -2.5, 63.49, 126.6]);
        let (codes, block) = quantised(&x);
        assert_eq!(codes[..7], [-127, 0, 2, -2, 63, 127, 0]);
        assert_eq!((block.scale, block.scaled_sum), (1.0, 63.0));
        assert_eq!(block.starts, [0, -504, -1008, -8064, -2016, 0]);
    }

    #[test]
    fn every_finite_block_stays_within_half_a_step() {
        for exponent in -98..127 {
            let size = 2.0_f32.powi(exponent);
            let x: [f32; BLOCK_COLUMNS] =
                std::array::from_fn(|i| size * ((i * i * 37 % 101) as f32 / 50.0 - 1.0));
            let (codes, block) = quantised(&x);
            for (code, x) in codes.iter().zip(x) {
                let error = (f64::from(*code) * f64::from(block.scale) - f64::from(x)).abs();
                assert!(error <= 0.500_1 * f64::from(block.scale), "{x:e}: {code}");
            }
        }
    }

    #[test]
    fn what_is_no_number_has_no_codes() {
        for value in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; BLOCK_COLUMNS];
            x[17] = value;
            let (codes, block) = quantised(&x);
            assert!(block.scale.is_nan() && block.scaled_sum.is_nan() && block.starts == [0; 6]);
            assert!(codes.iter().all(|&code| code == 0));
        }
        let (codes, block) = quantised(&[f32::from_bits(1); BLOCK_COLUMNS]);
        assert!(block.scale == 0.0 && codes.iter().all(|&code| code == 0));
    }
}
