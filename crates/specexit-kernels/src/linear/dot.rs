//! One step of the products with bf16 weights: two neighbouring columns of sixteen outputs times two
//! activations of one row.

use crate::matrix::Block;
use crate::simd::Simd;

/// How a block of weights meets a pair of activations.
pub(super) trait Dot: Copy {
    type S: Simd;
    /// Two neighbouring activations of a row, packed.
    type X: Copy;
    /// In registers: a block, or one pair sixteen times.
    type W: Copy;
    /// Rows of a tile, for whose sums registers suffice: 8 or 2.
    const MOST_ROWS: usize;

    fn simd(self) -> Self::S;
    fn weights(self, block: &Block) -> Self::W;
    fn splat(self, x: Self::X) -> Self::W;
    /// Adds both products to each lane.
    fn step(self, sum: Vector<Self>, x: Self::W, w: Self::W) -> Vector<Self>;
}

/// The vector type of a `Dot`.
pub(super) type Vector<D> = <<D as Dot>::S as Simd>::F;

/// f32 activations; weights widened to f32.
#[derive(Clone, Copy)]
pub(super) struct Widened<S>(pub(super) S);

impl<S: Simd> Dot for Widened<S> {
    type S = S;
    type X = [f32; 2];
    type W = (S::F, S::F);
    const MOST_ROWS: usize = if S::MANY_REGISTERS { 8 } else { 2 };

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn weights(self, block: &Block) -> (S::F, S::F) {
        self.0.widen(block)
    }

    #[inline(always)]
    fn splat(self, [first, second]: [f32; 2]) -> (S::F, S::F) {
        (self.0.splat(first), self.0.splat(second))
    }

    #[inline(always)]
    fn step(self, sum: S::F, x: (S::F, S::F), w: (S::F, S::F)) -> S::F {
        self.0.fma(x.1, w.1, self.0.fma(x.0, w.0, sum))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use pairs::PairProducts;

#[cfg(target_arch = "x86_64")]
mod pairs {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32,
    };

    use half::bf16;

    use super::*;
    use crate::simd::Avx512;

    /// Pairs of bf16 activations, the first in the low half; `vdpbf16ps` adds two products to each
    /// lane.
    #[derive(Clone, Copy)]
    pub(in crate::linear) struct PairProducts(Avx512);

    impl PairProducts {
        /// # Safety
        ///
        /// The CPU must have AVX-512 F, BW, DQ, VL and BF16.
        #[inline(always)]
        pub(in crate::linear) unsafe fn new() -> PairProducts {
            // SAFETY: the caller promises it.
            PairProducts(unsafe { Avx512::new() })
        }
    }

    #[inline(always)]
    fn as_pairs(vector: __m512i) -> __m512bh {
        // SAFETY: both types are plain bits of one register.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(vector) }
    }

    impl Dot for PairProducts {
        type S = Avx512;
        type X = [bf16; 2];
        type W = __m512bh;
        const MOST_ROWS: usize = 8;

        #[inline(always)]
        fn simd(self) -> Avx512 {
            self.0
        }

        #[inline(always)]
        fn weights(self, block: &Block) -> __m512bh {
            // SAFETY: the CPU has AVX-512 F (`new`), and a block is 64 bytes.
            as_pairs(unsafe { _mm512_loadu_si512(block.as_ptr().cast()) })
        }

        #[inline(always)]
        fn splat(self, x: [bf16; 2]) -> __m512bh {
            let pair: i32 = bytemuck::cast(x);
            // SAFETY: the CPU has AVX-512 F (`new`).
            as_pairs(unsafe { _mm512_set1_epi32(pair) })
        }

        #[inline(always)]
        fn step(self, sum: __m512, x: __m512bh, w: __m512bh) -> __m512 {
            // SAFETY: the CPU has AVX-512 BF16 (`new`).
            unsafe { _mm512_dpbf16_ps(sum, w, x) }
        }
    }
}
