//! Which code computes a block: by the CPU, by the numbers of the cache, and by the precision.

use std::ops::Range;

use super::block::{Block, attend, attend_apart};
use super::cache::Kept;
use crate::disjoint::Disjoint;
use crate::dot::{Singles, Widened};
#[cfg(target_arch = "x86_64")]
use crate::isa::Isa;
use crate::isa::{CheckedIsa, Precision};
use crate::simd::Simd;

/// What a call is computed with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct On {
    pub(crate) isa: CheckedIsa,
    /// Under bf16, queries and weights are rounded where they meet keys and values in bf16, as the
    /// activations of linear layers are.
    pub(crate) precision: Precision,
}

impl On {
    pub(super) fn attend(self, block: &Block<'_>, out: &Disjoint<'_, f32>) {
        let isa = self.isa;
        match block.sequence.cache.kept() {
            Kept::F32 => dispatch!(isa, attend_f32(block: &Block<'_>, out: &Disjoint<'_, f32>)),
            #[cfg(target_arch = "x86_64")]
            Kept::Bf16 if self.multiplies_pairs() => pairs::attend(isa, block, out),
            Kept::Bf16 => {
                let rounded = self.precision == Precision::Bf16;
                dispatch!(
                    isa,
                    attend_bf16(block: &Block<'_>, out: &Disjoint<'_, f32>, rounded: bool)
                );
            }
        }
    }

    pub(super) fn attend_apart(
        self,
        block: &Block<'_>,
        chunks: Range<usize>,
        parts: &Disjoint<'_, f32>,
        start: usize,
    ) {
        let isa = self.isa;
        match block.sequence.cache.kept() {
            Kept::F32 => dispatch!(
                isa,
                apart_f32(
                    block: &Block<'_>,
                    chunks: Range<usize>,
                    parts: &Disjoint<'_, f32>,
                    start: usize,
                )
            ),
            #[cfg(target_arch = "x86_64")]
            Kept::Bf16 if self.multiplies_pairs() => {
                pairs::attend_apart(isa, block, chunks, parts, start);
            }
            Kept::Bf16 => {
                let rounded = self.precision == Precision::Bf16;
                dispatch!(
                    isa,
                    apart_bf16(
                        block: &Block<'_>,
                        chunks: Range<usize>,
                        parts: &Disjoint<'_, f32>,
                        start: usize,
                        rounded: bool,
                    )
                );
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn multiplies_pairs(self) -> bool {
        self.precision == Precision::Bf16 && self.isa.get() == Isa::Avx512Bf16
    }
}

#[inline(always)]
fn attend_f32<S: Simd>(s: S, block: &Block<'_>, out: &Disjoint<'_, f32>) {
    attend(Singles(s), block, out);
}

#[inline(always)]
fn attend_bf16<S: Simd>(s: S, block: &Block<'_>, out: &Disjoint<'_, f32>, rounded: bool) {
    attend(Widened { s, rounded }, block, out);
}

#[inline(always)]
fn apart_f32<S: Simd>(
    s: S,
    block: &Block<'_>,
    chunks: Range<usize>,
    parts: &Disjoint<'_, f32>,
    start: usize,
) {
    attend_apart(Singles(s), block, chunks, parts, start);
}

#[inline(always)]
fn apart_bf16<S: Simd>(
    s: S,
    block: &Block<'_>,
    chunks: Range<usize>,
    parts: &Disjoint<'_, f32>,
    start: usize,
    rounded: bool,
) {
    attend_apart(Widened { s, rounded }, block, chunks, parts, start);
}

/// With products of bf16 pairs.
#[cfg(target_arch = "x86_64")]
mod pairs {
    use super::{Block, CheckedIsa, Disjoint, Isa, Range};
    use crate::attention::block;
    use crate::dot::PairProducts;

    pub(super) fn attend(isa: CheckedIsa, block: &Block<'_>, out: &Disjoint<'_, f32>) {
        #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn inner(block: &Block<'_>, out: &Disjoint<'_, f32>) {
            // SAFETY: this function's own features are those of `PairProducts`.
            block::attend(unsafe { PairProducts::new() }, block, out);
        }
        assert_eq!(isa.get(), Isa::Avx512Bf16);
        // SAFETY: a `CheckedIsa` of `Avx512Bf16` says that the CPU has these features.
        unsafe { inner(block, out) }
    }

    pub(super) fn attend_apart(
        isa: CheckedIsa,
        block: &Block<'_>,
        chunks: Range<usize>,
        parts: &Disjoint<'_, f32>,
        start: usize,
    ) {
        #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn inner(block: &Block<'_>, chunks: Range<usize>, parts: &Disjoint<'_, f32>, start: usize) {
            // SAFETY: this function's own features are those of `PairProducts`.
            block::attend_apart(unsafe { PairProducts::new() }, block, chunks, parts, start);
        }
        assert_eq!(isa.get(), Isa::Avx512Bf16);
        // SAFETY: a `CheckedIsa` of `Avx512Bf16` says that the CPU has these features.
        unsafe { inner(block, chunks, parts, start) }
    }
}
