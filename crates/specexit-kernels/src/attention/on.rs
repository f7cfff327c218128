//! Which code computes a block: by the CPU, by the numbers of the cache, and by the precision.

use super::block::{Block, Job, attend};
use super::cache::CacheNumbers;
use super::products::WidenedBytes;
use crate::disjoint::Disjoint;
use crate::dot::{Singles, Widened};
use crate::isa::{CheckedIsa, Precision};
use crate::simd::Simd;

/// What a call is computed with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct On {
    pub(crate) isa: CheckedIsa,
    /// Under bf16, queries and weights are rounded where they meet keys and values in bf16, as the
    /// activations of linear layers are; and, where the CPU multiplies them so, to 16 bits where they
    /// meet 8 bits.
    pub(crate) precision: Precision,
}

impl On {
    /// Computes `job` of `block` into `out`.
    pub(super) fn attend(self, block: &Block<'_>, job: &Job, out: &Disjoint<'_, f32>) {
        let isa = self.isa;
        let rounded = self.precision == Precision::Bf16;
        match block.sequence.cache.numbers() {
            CacheNumbers::F32 => {
                dispatch!(isa, with_f32(block: &Block<'_>, job: &Job, out: &Disjoint<'_, f32>));
            }
            #[cfg(target_arch = "x86_64")]
            CacheNumbers::Bf16 if rounded && isa.has_pair_products() => {
                with_pairs(isa, block, job, out);
            }
            CacheNumbers::Bf16 => dispatch!(
                isa,
                with_bf16(block: &Block<'_>, job: &Job, out: &Disjoint<'_, f32>, rounded: bool)
            ),
            #[cfg(target_arch = "x86_64")]
            CacheNumbers::Int8 if rounded && isa.has_pair_products() => {
                with_words(isa, block, job, out);
            }
            CacheNumbers::Int8 => {
                dispatch!(isa, with_bytes(block: &Block<'_>, job: &Job, out: &Disjoint<'_, f32>));
            }
        }
    }
}

#[inline(always)]
fn with_f32<S: Simd>(s: S, block: &Block<'_>, job: &Job, out: &Disjoint<'_, f32>) {
    attend(Singles(s), block, job, out);
}

#[inline(always)]
fn with_bf16<S: Simd>(s: S, block: &Block<'_>, job: &Job, out: &Disjoint<'_, f32>, rounded: bool) {
    attend(Widened { s, rounded }, block, job, out);
}

#[inline(always)]
fn with_bytes<S: Simd>(s: S, block: &Block<'_>, job: &Job, out: &Disjoint<'_, f32>) {
    attend(WidenedBytes::new(s), block, job, out);
}

/// With products of bf16 pairs.
#[cfg(target_arch = "x86_64")]
fn with_pairs(isa: CheckedIsa, block: &Block<'_>, job: &Job, out: &Disjoint<'_, f32>) {
    use crate::dot::PairProducts;

    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    fn inner(block: &Block<'_>, job: &Job, out: &Disjoint<'_, f32>) {
        // SAFETY: this function's own features are those of `PairProducts`.
        attend(unsafe { PairProducts::new() }, block, job, out);
    }
    assert!(isa.has_pair_products());
    // SAFETY: a `CheckedIsa` with pair products says that the CPU has these features.
    unsafe { inner(block, job, out) }
}

/// With products of pairs of 16-bit integers.
#[cfg(target_arch = "x86_64")]
fn with_words(isa: CheckedIsa, block: &Block<'_>, job: &Job, out: &Disjoint<'_, f32>) {
    use super::products::WordProducts;

    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    fn inner(block: &Block<'_>, job: &Job, out: &Disjoint<'_, f32>) {
        // SAFETY: this function's own features are those of `WordProducts`.
        attend(unsafe { WordProducts::new() }, block, job, out);
    }
    assert!(isa.has_pair_products());
    // SAFETY: a `CheckedIsa` with pair products says that the CPU has these features.
    unsafe { inner(block, job, out) }
}
