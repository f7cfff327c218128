//! Operations value by value.

use half::bf16;

use crate::linear::round_into;
use crate::simd::{LANES, Simd, exp};

/// `y = silu(gate) * up` with `silu(g) = g / (1 + exp(-g))`, for rows `gate|up` of `2 * width`
/// values.
#[inline(always)]
pub(crate) fn silu_mul_rows<S: Simd>(s: S, y: &mut [f32], gate_up: &[f32], width: usize) {
    for (y, gate_up) in y.chunks_exact_mut(width).zip(gate_up.chunks_exact(2 * width)) {
        let (gate, up) = gate_up.split_at(width);
        let (y_vectors, y_rest) = y.as_chunks_mut::<LANES>();
        let (gate_vectors, gate_rest) = gate.as_chunks::<LANES>();
        let (up_vectors, up_rest) = up.as_chunks::<LANES>();
        for ((y, gate), up) in y_vectors.iter_mut().zip(gate_vectors).zip(up_vectors) {
            s.store(silu_mul(s, s.load(gate), s.load(up)), y);
        }
        let rest = silu_mul(s, s.load_part(gate_rest, 0.0), s.load_part(up_rest, 0.0));
        s.store_part(rest, y_rest);
    }
}

#[inline(always)]
fn silu_mul<S: Simd>(s: S, gate: S::F, up: S::F) -> S::F {
    let e = exp(s, s.sub(s.splat(0.0), gate));
    s.mul(s.div(gate, s.add(s.splat(1.0), e)), up)
}

/// `y = y + x`.
#[inline(always)]
pub(crate) fn add<S: Simd>(s: S, y: &mut [f32], x: &[f32]) {
    let (y_vectors, y_rest) = y.as_chunks_mut::<LANES>();
    let (x_vectors, x_rest) = x.as_chunks::<LANES>();
    for (y, x) in y_vectors.iter_mut().zip(x_vectors) {
        s.store(s.add(s.load(y), s.load(x)), y);
    }
    for (y, x) in y_rest.iter_mut().zip(x_rest) {
        *y += x;
    }
}

/// The values rounded to the nearest bf16.
#[inline(always)]
pub(crate) fn narrow<S: Simd>(_: S, y: &mut [bf16], x: &[f32]) {
    round_into(y, x);
}

/// The largest of the absolute values; NaN if there is one, 0 of nothing.
#[inline(always)]
pub(crate) fn largest<S: Simd>(_: S, x: &[f32]) -> f32 {
    // As integers, because their maximum has no order of evaluation and the compiler vectorises it;
    // a NaN is larger than any number.
    let mut largest = 0;
    for x in x {
        largest = largest.max(x.to_bits() & 0x7fff_ffff);
    }
    f32::from_bits(largest)
}

/// Added to and taken from a number of less than 2^22 it rounds to the nearest integer, ties to even,
/// and leaves that in the low bits.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// The largest absolute value below which numbers that become integers count as zero: the inverse of their
/// scale would overflow.
pub(crate) const SMALLEST: f32 = 1e-30;

/// The nearest integers to `x * factor`, which are less than 2^15, or anything where one is NaN.
#[inline(always)]
pub(crate) fn round_words(to: &mut [i16], x: &[f32], factor: f32) {
    for (to, x) in to.iter_mut().zip(x) {
        *to = (x * factor + ROUND).to_bits() as i16;
    }
}

/// The same of bytes: the integers are less than 2^7.
#[inline(always)]
pub(crate) fn round_bytes<S: Simd>(_: S, to: &mut [i8], x: &[f32], factor: f32) {
    for (to, x) in to.iter_mut().zip(x) {
        *to = (x * factor + ROUND).to_bits() as i8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Scalar;

    #[test]
    fn the_largest_is_that_of_both_signs_and_nan_wins() {
        assert_eq!(largest(Scalar, &[]), 0.0);
        assert_eq!(largest(Scalar, &[-3.0, 2.0, -0.0]), 3.0);
        assert_eq!(largest(Scalar, &[f32::NEG_INFINITY, 2.0]), f32::INFINITY);
        assert!(largest(Scalar, &[f32::INFINITY, -f32::NAN, 2.0]).is_nan());
    }

    #[test]
    fn integers_are_the_nearest_ties_to_even() {
        let x: Vec<f32> = (-508..=508).map(|i| i as f32 / 4.0).collect();
        let mut bytes = vec![0; x.len()];
        round_bytes(Scalar, &mut bytes, &x, 1.0);
        assert!(bytes.iter().zip(&x).all(|(b, x)| f32::from(*b) == x.round_ties_even()));
        let mut words = vec![0; x.len()];
        round_words(&mut words, &x, 258.0);
        assert!(words.iter().zip(&x).all(|(w, x)| f32::from(*w) == (x * 258.0).round_ties_even()));
    }
}
