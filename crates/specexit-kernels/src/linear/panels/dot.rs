//! How bytes of weights meet bytes of activations.

use crate::simd::{ByteSimd, Simd};

/// Sums of products of bytes.
pub(in crate::linear) trait DotBytes: Copy {
    type S: ByteSimd;
    /// Rows that one tile takes at most: 1, 4 or 8. Every size is code for each format, so there are
    /// more only where the fastest machines run.
    const MOST_ROWS: usize;

    fn simd(self) -> Self::S;
    /// As [`ByteSimd::dot`].
    fn dot(self, sums: Ints<Self>, w: Bytes<Self>, x: i32, wide: bool) -> Ints<Self>;
}

pub(super) type Floats<D> = <<D as DotBytes>::S as Simd>::F;
pub(super) type Bytes<D> = <<D as DotBytes>::S as ByteSimd>::B;
pub(super) type Ints<D> = <<D as DotBytes>::S as ByteSimd>::I;

/// The instruction set's ordinary multiplications.
#[derive(Clone, Copy)]
pub(in crate::linear) struct Multiplied<S>(pub(in crate::linear) S);

impl<S: ByteSimd> DotBytes for Multiplied<S> {
    type S = S;
    const MOST_ROWS: usize = S::TILE_ROWS;

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn dot(self, sums: S::I, w: S::B, x: i32, wide: bool) -> S::I {
        self.0.dot(sums, w, x, wide)
    }
}

#[cfg(target_arch = "x86_64")]
pub(in crate::linear) use vnni::ByteProducts;

#[cfg(target_arch = "x86_64")]
mod vnni {
    use std::arch::x86_64::{__m512i, _mm512_dpbusd_epi32, _mm512_set1_epi32};

    use super::DotBytes;
    use crate::simd::Avx512;

    /// `vpdpbusd` adds four products to each lane.
    #[derive(Clone, Copy)]
    pub(in crate::linear) struct ByteProducts(Avx512);

    impl ByteProducts {
        /// # Safety
        ///
        /// The CPU must have AVX-512 F, BW, DQ, VL and VNNI.
        #[inline(always)]
        pub(in crate::linear) unsafe fn new() -> ByteProducts {
            // SAFETY: the caller promises it.
            ByteProducts(unsafe { Avx512::new() })
        }
    }

    impl DotBytes for ByteProducts {
        type S = Avx512;
        const MOST_ROWS: usize = 8;

        #[inline(always)]
        fn simd(self) -> Avx512 {
            self.0
        }

        #[inline(always)]
        fn dot(self, sums: __m512i, w: __m512i, x: i32, _wide: bool) -> __m512i {
            // SAFETY: the CPU has AVX-512 VNNI (`new`).
            unsafe { _mm512_dpbusd_epi32(sums, w, _mm512_set1_epi32(x)) }
        }
    }
}
