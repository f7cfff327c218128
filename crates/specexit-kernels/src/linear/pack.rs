//! Activations brought into the form that the products read.

use half::bf16;

use crate::dot::{Dot, Widened};
use crate::simd::Simd;

/// Rounds to the nearest bf16, ties to even; NaN stays NaN. (`bf16::from_f32` in a form that the
/// compiler vectorises.)
#[inline(always)]
pub(crate) fn round(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet = (bits >> 16) | 0x40;
    (if value.is_nan() { quiet } else { rounded }) as u16
}

/// Rounds value by value.
#[inline(always)]
pub(crate) fn round_into(to: &mut [bf16], x: &[f32]) {
    for (to, x) in to.iter_mut().zip(x) {
        *to = bf16::from_bits(round(*x));
    }
}

/// Rows of `x` `[_, cols]`, `cols > 0`, as pairs of neighbouring bf16, padded with zero.
#[inline(always)]
pub(super) fn pack_bf16<S: Simd>(_: S, packed: &mut [[bf16; 2]], x: &[f32], cols: usize) {
    let rows = packed.chunks_exact_mut(cols.div_ceil(2));
    for (packed, x) in rows.zip(x.chunks_exact(cols)) {
        let (packed, padding) = packed.as_flattened_mut().split_at_mut(cols);
        round_into(packed, x);
        padding.fill(bf16::ZERO);
    }
}

/// Rows of `x` `[_, cols]`, `cols > 0`, in pairs, padded with zero; rounded to bf16 values if
/// `rounded`.
#[inline(always)]
pub(super) fn pack_widened<S: Simd>(
    s: S,
    packed: &mut [[f32; 2]],
    x: &[f32],
    cols: usize,
    rounded: bool,
) {
    let rows = packed.chunks_exact_mut(cols.div_ceil(2));
    for (packed, x) in rows.zip(x.chunks_exact(cols)) {
        Widened { s, rounded }.pack(packed, x);
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
    fn rows_are_padded_to_whole_pairs() {
        let x: Vec<f32> = (0..2 * 35).map(|i| i as f32 + 1.0 / 1024.0).collect();
        let mut packed = [[7.0; 2]; 36];
        pack_widened(Scalar, &mut packed, &x, 35, false);
        assert_eq!((packed[1], packed[17]), ([x[2], x[3]], [x[34], 0.0]));
        assert_eq!((packed[18], packed[35]), ([x[35], x[36]], [x[69], 0.0]));
        pack_widened(Scalar, &mut packed, &x, 35, true);
        assert_eq!((packed[17], packed[35]), ([34.0, 0.0], [69.0, 0.0]));

        let mut packed = [[bf16::ONE; 2]; 36];
        pack_bf16(Scalar, &mut packed, &x, 35);
        assert_eq!(packed[17], [34.0, 0.0].map(bf16::from_f32));
        assert_eq!(packed[35], [69.0, 0.0].map(bf16::from_f32));
    }
}
