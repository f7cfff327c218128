//! Softmax and argmax of one row of logits.

use std::sync::LazyLock;

use crate::isa::{CheckedIsa, Isa};
use crate::simd::{LANES, Simd, exp, max_of};

/// The best instruction set: these functions belong to no [`Kernels`](crate::Kernels).
static BEST: LazyLock<CheckedIsa> = LazyLock::new(|| CheckedIsa::new(Isa::detect()));

/// The index of the first maximum of `row`. NaN never wins; 0 if there is nothing else, or nothing.
pub fn argmax(row: &[f32]) -> usize {
    let largest = dispatch!(*BEST, max_of(row: &[f32]) -> f32);
    row.iter().position(|&value| value == largest).unwrap_or(0)
}

/// `row[i] = exp(row[i] - max) / Σ exp(row - max)` in place: logits to probabilities.
///
/// An entry 87 or more below the maximum gets probability 0, so -inf may mask one. NaN anywhere, or
/// nothing but -inf, makes all of them NaN.
pub fn softmax(row: &mut [f32]) {
    dispatch!(*BEST, softmax_row(row: &mut [f32]));
}

#[inline(always)]
fn softmax_row<S: Simd>(s: S, row: &mut [f32]) {
    let largest = s.splat(max_of(s, row));
    let sum = s.splat(exp_in_place(s, row, largest));
    let (vectors, rest) = row.as_chunks_mut::<LANES>();
    for vector in vectors {
        s.store(s.div(s.load(vector), sum), vector);
    }
    s.store_part(s.div(s.load_part(rest, 0.0), sum), rest);
}

/// Replaces each value by `exp(value - largest)` and returns their sum.
#[inline(always)]
pub(crate) fn exp_in_place<S: Simd>(s: S, row: &mut [f32], largest: S::F) -> f32 {
    let mut sum = s.splat(0.0);
    let (vectors, rest) = row.as_chunks_mut::<LANES>();
    for vector in vectors {
        let e = exp(s, s.sub(s.load(vector), largest));
        s.store(e, vector);
        sum = s.add(sum, e);
    }
    // Missing lanes add exp(-inf) = 0.
    let e = exp(s, s.sub(s.load_part(rest, f32::NEG_INFINITY), largest));
    s.store_part(e, rest);
    s.sum(s.add(sum, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argmax_takes_the_first_maximum() {
        assert_eq!(argmax(&[1.0, 3.0, 2.0, 3.0]), 1);
        let mut row = vec![0.0; 1000];
        row[999] = 0.5;
        assert_eq!(argmax(&row), 999);
        row[17] = 0.5;
        assert_eq!(argmax(&row), 17);
    }

    #[test]
    fn nan_never_wins() {
        assert_eq!(argmax(&[f32::NAN, -1.0, f32::NAN, 2.0, f32::NAN]), 3);
        assert_eq!(argmax(&[f32::NAN, f32::NEG_INFINITY]), 1);
        assert_eq!(argmax(&[f32::NAN; 40]), 0);
        assert_eq!(argmax(&[]), 0);
        for nan_at in 0..40 {
            let mut row: Vec<f32> = (0..40).map(|i| i as f32).collect();
            row[nan_at] = f32::NAN;
            assert_eq!(argmax(&row), if nan_at == 39 { 38 } else { 39 });
        }
    }

    #[test]
    fn softmax_agrees_with_f64() {
        for n in [1, 5, 16, 33, 500] {
            let logits: Vec<f32> = (0..n).map(|i| ((i * 37) % 101) as f32 * 0.3 - 9.0).collect();
            let mut row = logits.clone();
            softmax(&mut row);
            let largest = logits.iter().copied().fold(f32::MIN, f32::max);
            let e: Vec<f64> = logits.iter().map(|&l| f64::from(l - largest).exp()).collect();
            let sum: f64 = e.iter().sum();
            for (p, e) in row.iter().zip(&e) {
                assert!((f64::from(*p) - e / sum).abs() <= 4e-7 * (e / sum), "{p} {}", e / sum);
            }
        }
    }

    #[test]
    fn softmax_masks_and_spreads_nan() {
        let mut row = [0.0, f32::NEG_INFINITY, 0.0];
        softmax(&mut row);
        assert_eq!(row, [0.5, 0.0, 0.5]);
        let mut row = [0.0, f32::NAN, 0.0];
        softmax(&mut row);
        assert!(row.iter().all(|p| p.is_nan()));
        softmax(&mut []);
    }
}
