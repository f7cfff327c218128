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
/// Relative error at most 1e-7 in [-87, 88] (measured over every seventh float: 8.4e-8 fused, 8.1e-8
/// scalar); 0 below, exp(88) above, NaN for NaN. Range reduction by `n ln 2` in two parts and the
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
    // No lane is NaN: pairwise, because one chain of sixteen takes as long as eighty values.
    let mut lanes = s.lanes(largest);
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            let (a, b) = (lanes[i], lanes[i + width]);
            lanes[i] = if a > b { a } else { b };
        }
    }
    lanes[0]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{CheckedIsa, Isa};

    #[inline(always)]
    fn exp_all<S: Simd>(s: S, values: &mut [f32]) {
        for values in values.chunks_mut(LANES) {
            let e = exp(s, s.load_part(values, 0.0));
            s.store_part(e, values);
        }
    }

    fn exp_on(isa: Isa, values: &[f32]) -> Vec<f32> {
        let mut e = values.to_vec();
        let values: &mut [f32] = &mut e;
        dispatch!(CheckedIsa::new(isa), exp_all(values: &mut [f32]));
        e
    }

    #[test]
    fn exp_is_as_exact_as_it_says() {
        let step = if cfg!(miri) { 1_000_003 } else { 211 };
        let positive = (0..=EXP_MAX.to_bits()).step_by(step).map(f32::from_bits);
        let negative = (0..=EXP_MIN.abs().to_bits()).step_by(step).map(|b| -f32::from_bits(b));
        let values: Vec<f32> = positive.chain(negative).collect();
        for isa in Isa::available() {
            let error = |(x, e): (&f32, f32)| (f64::from(e) / f64::from(*x).exp() - 1.0).abs();
            let worst = values.iter().zip(exp_on(isa, &values)).map(error).fold(0.0, f64::max);
            assert!(worst < 1e-7, "{isa}: {worst:e}");
        }
    }

    #[test]
    fn exp_at_and_beyond_its_ends() {
        for isa in Isa::available() {
            let payload = f32::from_bits(0x7fc1_2345);
            let infinity = f32::INFINITY;
            let e = exp_on(isa, &[0.0, -0.0, -87.1, -infinity, 89.0, infinity, payload, -payload]);
            assert_eq!(e[..4], [1.0, 1.0, 0.0, 0.0], "{isa}");
            assert!(e[4] == e[5] && e[4].is_finite() && e[4] > 1.6e38, "{isa}");
            assert!(e[6].is_nan() && e[7].is_nan(), "{isa}");
        }
    }

    #[test]
    fn sums_follow_one_tree() {
        #[inline(always)]
        fn sum_all<S: Simd>(s: S, values: &[f32]) -> f32 {
            s.sum(s.load_part(values, 0.0))
        }
        let values: Vec<f32> =
            (0..16).map(|i| (i as f32 * 1.37).sin() * 10_f32.powi(i % 5)).collect();
        let values: &[f32] = &values;
        let sums: Vec<u32> = Isa::available()
            .into_iter()
            .map(|isa| dispatch!(CheckedIsa::new(isa), sum_all(values: &[f32]) -> f32).to_bits())
            .collect();
        assert!(sums.iter().all(|&sum| sum == sums[0]));
    }
}
