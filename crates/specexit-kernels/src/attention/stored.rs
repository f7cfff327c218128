//! In which numbers a sequence's keys and values are kept.

use half::bf16;

use crate::simd::{LANES, Lanes, Simd};

/// Keys and values of one sequence in one layer, each `[positions, kv_heads * head_dim]`, keys rotated.
#[derive(Debug, Clone, Copy)]
pub enum KeysValues<'a> {
    /// As they were computed.
    F32 {
        /// Keys.
        keys: &'a [f32],
        /// Values.
        values: &'a [f32],
    },
    /// Rounded to bf16, which halves what every further token has to read; scores and sums are f32.
    Bf16 {
        /// Keys.
        keys: &'a [bf16],
        /// Values.
        values: &'a [bf16],
    },
}

impl KeysValues<'_> {
    /// Whether keys and values hold `numbers` each.
    pub(super) fn check(&self, numbers: usize, positions: usize) {
        let (keys, values) = match self {
            KeysValues::F32 { keys, values } => (keys.len(), values.len()),
            KeysValues::Bf16 { keys, values } => (keys.len(), values.len()),
        };
        assert!(keys >= numbers, "keys end before position {positions}");
        assert!(values >= numbers, "values end before position {positions}");
    }
}

/// Keys and values in one kind of number.
#[derive(Clone, Copy)]
pub(super) struct Cache<'a, E> {
    pub(super) keys: &'a [E],
    pub(super) values: &'a [E],
}

/// A number of a cache.
pub(super) trait Stored: Copy {
    fn load<S: Simd>(s: S, from: &[Self; LANES]) -> S::F;
    /// Up to sixteen values, the missing ones 0.
    fn load_part<S: Simd>(s: S, from: &[Self]) -> S::F;
}

impl Stored for f32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &Lanes) -> S::F {
        s.load(from)
    }

    #[inline(always)]
    fn load_part<S: Simd>(s: S, from: &[f32]) -> S::F {
        s.load_part(from, 0.0)
    }
}

impl Stored for bf16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[bf16; LANES]) -> S::F {
        s.widen_half(from)
    }

    #[inline(always)]
    fn load_part<S: Simd>(s: S, from: &[bf16]) -> S::F {
        if let Ok(whole) = from.try_into() {
            return s.widen_half(whole);
        }
        let mut half = [bf16::ZERO; LANES];
        half[..from.len()].copy_from_slice(from);
        s.widen_half(&half)
    }
}
