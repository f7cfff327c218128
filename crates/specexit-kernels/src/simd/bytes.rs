//! Bytes and 32-bit integers beside the sixteen f32 lanes, for quantised weights.
//!
//! Sums are exact on every instruction set, so these differ in speed only.

use super::{Scalar, Simd};
use crate::blocks::Line;

/// Operations on 64 bytes, four to a lane, and on sixteen 32-bit integers.
pub(crate) trait ByteSimd: Simd {
    /// 64 bytes.
    type B: Copy;
    /// Sixteen signed integers.
    type I: Copy;
    /// Rows of activations (1 or 4) that a tile has by `dot`, for which registers suffice.
    const TILE_ROWS: usize;

    fn bytes(self, from: &Line) -> Self::B;
    /// The lower four bits of each byte.
    fn low_nibbles(self, bytes: Self::B) -> Self::B;
    /// The upper four bits of each byte.
    fn high_nibbles(self, bytes: Self::B) -> Self::B;
    /// `nibbles | bits << 4`, where `bits` are the `count` bits (1 or 2) from bit `at` on of each
    /// byte of `plane`.
    fn raise(self, nibbles: Self::B, plane: Self::B, count: u32, at: u32) -> Self::B;
    /// Byte `j` of each lane, as f32.
    fn byte(self, bytes: Self::B, j: usize) -> Self::F;

    fn splat_int(self, value: i32) -> Self::I;
    fn to_float(self, ints: Self::I) -> Self::F;
    /// Adds to each lane the four products of its bytes of `w` (without sign) with the bytes of `x`
    /// (signed). Bytes of `w` are less than 64, unless `wide`.
    fn dot(self, sums: Self::I, w: Self::B, x: i32, wide: bool) -> Self::I;

    /// Sixteen f16.
    fn halves(self, from: &[u8; 32]) -> Self::F;
    /// Sixteen bytes without sign.
    fn unsigned(self, from: &[u8; 16]) -> Self::F;
    /// Sixteen signed bytes.
    fn signed(self, from: &[u8; 16]) -> Self::F;
}

// Calls, not inlined: each vectorises by itself, and a tile with all of them in it would take the
// compiler minutes.
impl ByteSimd for Scalar {
    type B = Line;
    type I = [i32; 16];
    const TILE_ROWS: usize = 1;

    #[inline(always)]
    fn bytes(self, from: &Line) -> Line {
        *from
    }

    #[inline(never)]
    fn low_nibbles(self, bytes: Line) -> Line {
        bytes.map(|byte| byte & 15)
    }

    #[inline(never)]
    fn high_nibbles(self, bytes: Line) -> Line {
        bytes.map(|byte| byte >> 4)
    }

    #[inline(never)]
    fn raise(self, mut nibbles: Line, plane: Line, count: u32, at: u32) -> Line {
        for (nibble, plane) in nibbles.iter_mut().zip(plane) {
            *nibble |= (plane >> at & ((1 << count) - 1)) << 4;
        }
        nibbles
    }

    #[inline(never)]
    fn byte(self, bytes: Line, j: usize) -> [f32; 16] {
        let mut floats = [0.0; 16];
        for (float, four) in floats.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *float = f32::from(four[j]);
        }
        floats
    }

    #[inline(always)]
    fn splat_int(self, value: i32) -> [i32; 16] {
        [value; 16]
    }

    #[inline(never)]
    fn to_float(self, ints: [i32; 16]) -> [f32; 16] {
        ints.map(|int| int as f32)
    }

    #[inline(never)]
    fn dot(self, mut sums: [i32; 16], w: Line, x: i32, _wide: bool) -> [i32; 16] {
        let x = x.to_le_bytes().map(|byte| i32::from(byte.cast_signed()));
        for (sum, w) in sums.iter_mut().zip(w.as_chunks::<4>().0) {
            for (w, x) in w.iter().zip(x) {
                *sum += i32::from(*w) * x;
            }
        }
        sums
    }

    #[inline(never)]
    fn halves(self, from: &[u8; 32]) -> [f32; 16] {
        let mut floats = [0.0; 16];
        for (float, bytes) in floats.iter_mut().zip(from.as_chunks::<2>().0) {
            *float = half::f16::from_le_bytes(*bytes).to_f32();
        }
        floats
    }

    #[inline(always)]
    fn unsigned(self, from: &[u8; 16]) -> [f32; 16] {
        from.map(f32::from)
    }

    #[inline(always)]
    fn signed(self, from: &[u8; 16]) -> [f32; 16] {
        from.map(|byte| f32::from(byte.cast_signed()))
    }
}
