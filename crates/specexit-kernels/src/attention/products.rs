//! How queries meet keys, and weights meet values.

use bytemuck::Pod;

use crate::dot::{Dot, Vector, Widened};
use crate::simd::{LANES, Simd};

/// A block of sixteen numbers, or pairs of them, times one number or pair, added up lane by lane.
pub(super) trait Products: Copy {
    type S: Simd;
    /// What stands in memory.
    type Block: Pod;
    /// Neighbouring numbers of a query, or weights at neighbouring positions, packed.
    type X: Pod;
    /// In registers: a block, or one `X` sixteen times.
    type W: Copy;
    /// In registers: sixteen sums.
    type Sum: Copy;
    /// Numbers of an `X`: 2 or 1.
    const GROUP: usize;
    /// Whether the numbers of a cache are multiples of scales.
    const SCALED: bool;

    fn simd(self) -> Self::S;
    fn weights(self, block: &Self::Block) -> Self::W;
    fn splat(self, x: Self::X) -> Self::W;
    fn zero(self) -> Self::Sum;
    /// Adds all products to each lane.
    fn step(self, sum: Self::Sum, x: Self::W, w: Self::W) -> Self::Sum;
    fn to_float(self, sum: Self::Sum) -> <Self::S as Simd>::F;
    /// Only the first number of every pair; the others, whatever they are, become 0.
    fn first_only(self, w: Self::W) -> Self::W;
    /// Packs numbers, the missing ones of the last `X` as 0, and returns what their products are to be
    /// multiplied with: `packed` `[x.len().div_ceil(GROUP)]`.
    fn pack(self, packed: &mut [Self::X], x: &[f32]) -> f32;
}

impl<D: Dot> Products for D {
    type S = D::S;
    type Block = D::Block;
    type X = D::X;
    type W = D::W;
    type Sum = Vector<D>;
    const GROUP: usize = D::GROUP;
    const SCALED: bool = false;

    #[inline(always)]
    fn simd(self) -> D::S {
        Dot::simd(self)
    }

    #[inline(always)]
    fn weights(self, block: &D::Block) -> D::W {
        Dot::weights(self, block)
    }

    #[inline(always)]
    fn splat(self, x: D::X) -> D::W {
        Dot::splat(self, x)
    }

    #[inline(always)]
    fn zero(self) -> Vector<D> {
        Dot::simd(self).splat(0.0)
    }

    #[inline(always)]
    fn step(self, sum: Vector<D>, x: D::W, w: D::W) -> Vector<D> {
        Dot::step(self, sum, x, w)
    }

    #[inline(always)]
    fn to_float(self, sum: Vector<D>) -> Vector<D> {
        sum
    }

    #[inline(always)]
    fn first_only(self, w: D::W) -> D::W {
        Dot::first_only(self, w)
    }

    #[inline(always)]
    fn pack(self, packed: &mut [D::X], x: &[f32]) -> f32 {
        Dot::pack(self, packed, x);
        1.0
    }
}

/// Pairs of bytes.
type Bytes = [i8; 2 * LANES];

/// Blocks of bytes widened to f32; all else is as with blocks of bf16.
#[derive(Clone, Copy)]
pub(super) struct WidenedBytes<S>(Widened<S>);

impl<S> WidenedBytes<S> {
    pub(super) fn new(s: S) -> WidenedBytes<S> {
        WidenedBytes(Widened { s, rounded: false })
    }
}

impl<S: Simd> Products for WidenedBytes<S> {
    type S = S;
    type Block = Bytes;
    type X = [f32; 2];
    type W = (S::F, S::F);
    type Sum = S::F;
    const GROUP: usize = 2;
    const SCALED: bool = true;

    #[inline(always)]
    fn simd(self) -> S {
        self.0.s
    }

    #[inline(always)]
    fn weights(self, block: &Bytes) -> (S::F, S::F) {
        self.0.s.widen_bytes(block)
    }

    #[inline(always)]
    fn splat(self, x: [f32; 2]) -> (S::F, S::F) {
        Dot::splat(self.0, x)
    }

    #[inline(always)]
    fn zero(self) -> S::F {
        Products::zero(self.0)
    }

    #[inline(always)]
    fn step(self, sum: S::F, x: (S::F, S::F), w: (S::F, S::F)) -> S::F {
        Dot::step(self.0, sum, x, w)
    }

    #[inline(always)]
    fn to_float(self, sum: S::F) -> S::F {
        sum
    }

    #[inline(always)]
    fn first_only(self, w: (S::F, S::F)) -> (S::F, S::F) {
        Dot::first_only(self.0, w)
    }

    #[inline(always)]
    fn pack(self, packed: &mut [[f32; 2]], x: &[f32]) -> f32 {
        Products::pack(self.0, packed, x)
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use words::WordProducts;

#[cfg(target_arch = "x86_64")]
mod words {
    use std::arch::x86_64::{
        __m512, __m512i, _mm256_loadu_si256, _mm512_and_si512, _mm512_cvtepi8_epi16,
        _mm512_cvtepi32_ps, _mm512_dpwssd_epi32, _mm512_set1_epi32, _mm512_setzero_si512,
    };

    use super::{Bytes, Products};
    use crate::elementwise::{SMALLEST, largest, round_words};
    use crate::simd::Avx512;

    /// Pairs of integers of 16 bits, the first in the low half; `vpdpwssd` adds two products to each lane,
    /// exactly.
    ///
    /// Queries and weights are multiples of `max |x|` over the largest integer, 32,767 or less where more
    /// than 512 numbers are multiplied; what they meet is at most 127, so sums stay below 2^31.
    #[derive(Clone, Copy)]
    pub(in crate::attention) struct WordProducts(Avx512);

    impl WordProducts {
        /// # Safety
        ///
        /// The CPU must have AVX-512 F, BW, DQ, VL and VNNI.
        #[inline(always)]
        pub(in crate::attention) unsafe fn new() -> WordProducts {
            // SAFETY: the caller promises it.
            WordProducts(unsafe { Avx512::new() })
        }
    }

    impl Products for WordProducts {
        type S = Avx512;
        type Block = Bytes;
        type X = [i16; 2];
        type W = __m512i;
        type Sum = __m512i;
        const GROUP: usize = 2;
        const SCALED: bool = true;

        #[inline(always)]
        fn simd(self) -> Avx512 {
            self.0
        }

        #[inline(always)]
        fn weights(self, block: &Bytes) -> __m512i {
            // SAFETY: the CPU has AVX-512 F and BW (`new`), and a block is 32 bytes.
            unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(block.as_ptr().cast())) }
        }

        #[inline(always)]
        fn splat(self, x: [i16; 2]) -> __m512i {
            // SAFETY: the CPU has AVX-512 F (`new`).
            unsafe { _mm512_set1_epi32(bytemuck::cast(x)) }
        }

        #[inline(always)]
        fn zero(self) -> __m512i {
            // SAFETY: the CPU has AVX-512 F (`new`).
            unsafe { _mm512_setzero_si512() }
        }

        #[inline(always)]
        fn step(self, sum: __m512i, x: __m512i, w: __m512i) -> __m512i {
            // SAFETY: the CPU has AVX-512 VNNI (`new`).
            unsafe { _mm512_dpwssd_epi32(sum, w, x) }
        }

        #[inline(always)]
        fn to_float(self, sum: __m512i) -> __m512 {
            // SAFETY: the CPU has AVX-512 F (`new`).
            unsafe { _mm512_cvtepi32_ps(sum) }
        }

        #[inline(always)]
        fn first_only(self, w: __m512i) -> __m512i {
            let first: i32 = bytemuck::cast([-1_i16, 0]);
            // SAFETY: the CPU has AVX-512 F (`new`).
            unsafe { _mm512_and_si512(w, _mm512_set1_epi32(first)) }
        }

        #[inline(always)]
        fn pack(self, packed: &mut [[i16; 2]], x: &[f32]) -> f32 {
            let (packed, padding) = packed.as_flattened_mut().split_at_mut(x.len());
            let limit = (i32::MAX as usize / 128 / x.len().max(1)).min(32_767) as f32;
            let largest = largest(self.0, x);
            let factor = if largest < SMALLEST { 0.0 } else { limit / largest };
            round_words(packed, x, factor);
            padding.fill(0);
            largest / limit
        }
    }
}
