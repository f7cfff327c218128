//! What a query has seen of one chunk or of several, and how two such parts become one.
//!
//! A part is the largest score, the sum of `exp(score - largest)` and the sum of the values weighted
//! by these; two parts are brought to the larger maximum and added (Milakov and Gimelshein 2018, as
//! in FlashAttention).

use crate::simd::{LANES, Lanes, Simd, exp};

/// The scores of a part; its weighted values are kept elsewhere.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    /// The largest score.
    pub(super) largest: f32,
    /// The sum of `exp(score - largest)`.
    pub(super) total: f32,
}

/// Factors of the weighted values of two parts that are merged.
#[derive(Clone, Copy)]
pub(super) struct Factors {
    old: f32,
    new: f32,
}

impl Seen {
    /// Of no position.
    pub(super) const NOTHING: Seen = Seen { largest: f32::NEG_INFINITY, total: 0.0 };

    /// Both parts together.
    #[inline(always)]
    pub(super) fn and<S: Simd>(self, s: S, new: Seen) -> (Seen, Factors) {
        let largest = if self.largest > new.largest { self.largest } else { new.largest };
        let mut exponents: Lanes = [0.0; LANES];
        exponents[0] = self.largest - largest;
        exponents[1] = new.largest - largest;
        let factors = s.lanes(exp(s, s.load(&exponents)));
        let factors = Factors { old: factors[0], new: factors[1] };
        let total = self.total * factors.old + new.total * factors.new;
        (Seen { largest, total }, factors)
    }
}

impl Factors {
    /// Of a query that sees nothing of a chunk.
    pub(super) const UNUSED: Factors = Factors { old: 0.0, new: 0.0 };

    /// Weighted values of both parts.
    #[inline(always)]
    pub(super) fn merge<S: Simd>(self, s: S, old: S::F, new: S::F) -> S::F {
        s.fma(old, s.splat(self.old), s.mul(new, s.splat(self.new)))
    }
}
