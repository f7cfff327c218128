//! Sixteen f32 lanes on every instruction set.
//!
//! Kernels are written once, generic over [`Simd`], and compiled for each instruction set by
//! `dispatch!`. Everything that takes or returns a vector is an `#[inline(always)]` function; closures
//! and the functions that take them (`map`, `array::from_fn`) are not, and one that handles vectors
//! becomes a call for every instruction. The sixteen lanes are one register of AVX-512, two of AVX2 and an array otherwise,
//! and reductions follow one tree, so that the order of additions is the same everywhere.

mod bytes;
mod math;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
mod x86_bytes;

pub(crate) use bytes::ByteSimd;
pub(crate) use math::{exp, max_of, sum_of_squares};
pub(crate) use scalar::Scalar;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

use crate::matrix::Block;

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// Sixteen f32 in memory.
pub(crate) type Lanes = [f32; LANES];

/// Operations on vectors of sixteen f32. A value of the type proves that the CPU has the
/// instruction set, so its methods are safe.
pub(crate) trait Simd: Copy {
    /// A vector.
    type F: Copy;
    /// Whether there are registers for more than a dozen vectors.
    const MANY_REGISTERS: bool;

    fn splat(self, value: f32) -> Self::F;
    fn load(self, from: &Lanes) -> Self::F;
    fn store(self, vector: Self::F, to: &mut Lanes);

    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once where the instruction set can.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Lane by lane `if a > b { a } else { b }`: `b` where either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// Lane by lane `if a < b { a } else { b }`: `b` where either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// Lane by lane `if x < limit { 0 } else { value }`.
    fn zero_below(self, x: Self::F, limit: f32, value: Self::F) -> Self::F;
    /// `2^n`, where `n` in -126..=127 is the integer in the low 9 bits of `magic` (see `exp`).
    fn power_of_two(self, magic: Self::F) -> Self::F;
    /// The even and the odd ones of 32 weights.
    fn widen(self, block: &Block) -> (Self::F, Self::F);

    /// The even and the odd ones of 32 signed bytes.
    fn widen_bytes(self, block: &[i8; 2 * LANES]) -> (Self::F, Self::F);

    /// The sums of the lanes of four vectors, each by the tree
    /// `(q0 + q1) + (q2 + q3)` with `q = (l0 + l2) + (l1 + l3)` over four neighbouring lanes.
    fn sum4(self, vectors: [Self::F; 4]) -> [f32; 4];

    /// Hints that the cache line at `address` will be read. Any address will do.
    fn prefetch(self, address: *const u8);

    /// The sum of the lanes of one vector, by the tree of `sum4`.
    #[inline(always)]
    fn sum(self, vector: Self::F) -> f32 {
        let zero = self.splat(0.0);
        self.sum4([vector, zero, zero, zero])[0]
    }

    /// The lanes in memory.
    #[inline(always)]
    fn lanes(self, vector: Self::F) -> Lanes {
        let mut lanes = [0.0; LANES];
        self.store(vector, &mut lanes);
        lanes
    }

    /// Up to sixteen values, the missing ones replaced by `fill`.
    #[inline(always)]
    fn load_part(self, from: &[f32], fill: f32) -> Self::F {
        // Whole vectors are the rule, and a copy of unknown length is a call.
        if let Ok(lanes) = from.try_into() {
            return self.load(lanes);
        }
        let mut lanes = [fill; LANES];
        lanes[..from.len()].copy_from_slice(from);
        self.load(&lanes)
    }

    /// The first `to.len()` lanes, at most sixteen.
    #[inline(always)]
    fn store_part(self, vector: Self::F, to: &mut [f32]) {
        if let Ok(to) = <&mut Lanes>::try_from(&mut *to) {
            return self.store(vector, to);
        }
        to.copy_from_slice(&self.lanes(vector)[..to.len()]);
    }
}
