//! Activations brought into the form that the products read.

use half::bf16;

use crate::matrix::BLOCK;
use crate::simd::{LANES, Simd};

/// Rounds to the nearest bf16, ties to even; NaN stays NaN. (`bf16::from_f32` in a form that the
/// compiler vectorises.)
#[inline(always)]
pub(crate) fn round(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet = (bits >> 16) | 0x40;
    (if value.is_nan() { quiet } else { rounded }) as u16
}

/// Rows of `x` `[_, cols]`, `cols > 0`, as bf16, padded with zeros to whole blocks.
#[inline(always)]
pub(super) fn pack_bf16<S: Simd>(_: S, packed: &mut [[bf16; BLOCK]], x: &[f32], cols: usize) {
    let rows = packed.chunks_exact_mut(cols.div_ceil(BLOCK));
    for (packed, x) in rows.zip(x.chunks_exact(cols)) {
        let (whole, rest) = x.as_chunks::<BLOCK>();
        for (block, x) in packed.iter_mut().zip(whole) {
            *block = x.map(|value| bf16::from_bits(round(value)));
        }
        if !rest.is_empty() {
            let block = &mut packed[whole.len()];
            *block = [bf16::ZERO; BLOCK];
            for (to, &value) in block.iter_mut().zip(rest) {
                *to = bf16::from_bits(round(value));
            }
        }
    }
}

/// Rows of `x` `[_, cols]`, `cols > 0`, in blocks of 16 even and 16 odd columns, padded with zeros;
/// rounded to bf16 values if `rounded`.
#[inline(always)]
pub(super) fn pack_widened<S: Simd>(
    _: S,
    packed: &mut [[f32; BLOCK]],
    x: &[f32],
    cols: usize,
    rounded: bool,
) {
    let rows = packed.chunks_exact_mut(cols.div_ceil(BLOCK));
    for (packed, x) in rows.zip(x.chunks_exact(cols)) {
        let (whole, rest) = x.as_chunks::<BLOCK>();
        for (block, x) in packed.iter_mut().zip(whole) {
            deinterleave(block, x, rounded);
        }
        if !rest.is_empty() {
            let mut last = [0.0; BLOCK];
            last[..rest.len()].copy_from_slice(rest);
            deinterleave(&mut packed[whole.len()], &last, rounded);
        }
    }
}

#[inline(always)]
fn deinterleave(block: &mut [f32; BLOCK], x: &[f32; BLOCK], rounded: bool) {
    for i in 0..LANES {
        block[i] = x[2 * i];
        block[LANES + i] = x[2 * i + 1];
    }
    if rounded {
        *block = block.map(|value| f32::from_bits(u32::from(round(value)) << 16));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Scalar;

    #[test]
    fn rounds_as_half_does() {
        let step = if cfg!(miri) { 0x0400_1003 } else { 0x1003 };
        for bits in (0..=u32::MAX).step_by(step) {
            let value = f32::from_bits(bits);
            assert_eq!(round(value), bf16::from_f32(value).to_bits(), "{value} ({bits:#x})");
        }
    }

    #[test]
    fn pads_rows_and_parts_even_from_odd() {
        let x: Vec<f32> = (0..2 * 35).map(|i| i as f32).collect();
        let mut packed = [[7.0; BLOCK]; 4];
        pack_widened(Scalar, &mut packed, &x, 35, false);
        assert_eq!(packed[0][..3], [0.0, 2.0, 4.0]);
        assert_eq!(packed[0][LANES..][..3], [1.0, 3.0, 5.0]);
        assert_eq!(packed[3][..3], [67.0, 69.0, 0.0]);
        assert_eq!(packed[3][LANES..][..2], [68.0, 0.0]);

        let mut packed = [[bf16::ONE; BLOCK]; 4];
        pack_bf16(Scalar, &mut packed, &x, 35);
        assert_eq!(packed[2][0].to_f32(), 35.0);
        assert_eq!(packed[3][..4], [67.0, 68.0, 69.0, 0.0].map(bf16::from_f32));
    }
}
