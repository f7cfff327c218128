//! What several test files share.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod blocks;

use specexit_kernels::{Bf16Rows, Isa, Kernels, Precision};

/// Reproducible numbers, uniform in [-1, 1).
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn take(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.next()).collect()
    }
}

/// Kernels for every available instruction set and both precisions.
pub fn all_kernels(threads: usize) -> Vec<Kernels> {
    let mut all = Vec::new();
    for isa in Isa::available() {
        for precision in [Precision::Bf16, Precision::F32] {
            all.push(Kernels::with_isa(threads, precision, isa));
        }
    }
    all
}

/// The bits, so that -0 and NaN are told apart as well.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Kernels for every available instruction set, in bf16.
pub fn kernels(threads: usize) -> impl Iterator<Item = Kernels> {
    Isa::available().into_iter().map(move |isa| Kernels::with_isa(threads, Precision::Bf16, isa))
}

pub fn widened(rows: &Bf16Rows) -> Vec<f64> {
    (0..rows.rows()).flat_map(|r| rows.row(r).iter().map(|x| x.to_f64())).collect()
}

/// Equal up to `tolerance` of the largest expected value.
pub fn close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-30, |m: f64, x| m.max(x.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= tolerance * largest, "{what}, {i}: {f} instead of {e}");
    }
}

pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}
