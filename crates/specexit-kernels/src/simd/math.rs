//! Functions of vectors and slices that several kernels share.

use super::{LANES, Simd};

/// Below it `exp` is 0: the last results before the subnormal numbers.
const EXP_MIN: f32 = -87.0;

/// Above it `exp` stays at exp(88) = 1.65e38.
const EXP_MAX: f32 = 88.0;

/// Adding it leaves the nearest integer in a float's low bits (for |x| < 2^22).
const MAGIC: f32 = 12_582_912.0;

/// The exponential function lane by lane.
///
/// Relative error at most 2e-7 (measured over all of [-87, 88]: 1.1e-7 fused, 1.8e-7 scalar); 0
/// below -87, exp(88) above 88, NaN for NaN. Range reduction by `n ln 2` in two parts and the
/// degree-6 polynomial of Cephes `expf`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    // NaN is kept because it is the second operand.
    let clamped = s.min(s.splat(EXP_MAX), s.max(s.splat(EXP_MIN), x));
    let magic = s.fma(clamped, s.splat(std::f32::consts::LOG2_E), s.splat(MAGIC));
    let n = s.sub(magic, s.splat(MAGIC));
    let f = s.fma(n, s.splat(-0.693_359_4), clamped);
    let f = s.fma(n, s.splat(2.121_944_4e-4), f);
    let mut p = s.splat(1.987_569_1e-4);
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = s.fma(p, f, s.splat(coefficient));
    }
    let p = s.add(s.fma(p, s.mul(f, f), f), s.splat(1.0));
    s.zero_below(x, EXP_MIN, s.mul(p, s.power_of_two(magic)))
}

/// The largest value; NaN never wins, and -inf is the largest of nothing.
#[inline(always)]
pub(crate) fn max_of<S: Simd>(s: S, row: &[f32]) -> f32 {
    let (vectors, rest) = row.as_chunks::<LANES>();
    let mut largest = s.splat(f32::NEG_INFINITY);
    for vector in vectors {
        largest = s.max(s.load(vector), largest);
    }
    largest = s.max(s.load_part(rest, f32::NEG_INFINITY), largest);
    s.lanes(largest).into_iter().fold(f32::NEG_INFINITY, f32::max)
}

/// The sum of the squares, accumulated lane by lane.
#[inline(always)]
pub(crate) fn sum_of_squares<S: Simd>(s: S, row: &[f32]) -> f32 {
    let (vectors, rest) = row.as_chunks::<LANES>();
    let mut sum = s.splat(0.0);
    for vector in vectors {
        let v = s.load(vector);
        sum = s.fma(v, v, sum);
    }
    let v = s.load_part(rest, 0.0);
    s.sum(s.fma(v, v, sum))
}
