//! One step of a dot product: 32 weights times 32 activations onto 16 lanes.

use half::bf16;

use crate::matrix::{BLOCK, Block};
use crate::simd::{LANES, Lanes, Simd};

/// How a block of weights meets a block of packed activations.
pub(super) trait Dot: Copy {
    type S: Simd;
    /// Packed activations.
    type X: Copy;
    /// Weights in registers.
    type W: Copy;
    /// Whether registers suffice to keep the weights of a tile while its rows pass.
    const MANY_REGISTERS: bool;

    fn simd(self) -> Self::S;
    fn weights(self, block: &Block) -> Self::W;
    fn step(self, sum: Vector<Self>, x: &Self::X, w: Self::W) -> Vector<Self>;
}

/// The vector type of a `Dot`.
pub(super) type Vector<D> = <<D as Dot>::S as Simd>::F;

/// f32 activations, the even columns of a block before the odd ones; weights widened to f32.
#[derive(Clone, Copy)]
pub(super) struct Widened<S>(pub(super) S);

impl<S: Simd> Dot for Widened<S> {
    type S = S;
    type X = [f32; BLOCK];
    type W = (S::F, S::F);
    const MANY_REGISTERS: bool = S::MANY_REGISTERS;

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn weights(self, block: &Block) -> (S::F, S::F) {
        self.0.widen(block)
    }

    #[inline(always)]
    fn step(self, sum: S::F, x: &[f32; BLOCK], (even, odd): (S::F, S::F)) -> S::F {
        let (halves, _): (&[Lanes], _) = x.as_chunks::<LANES>();
        let sum = self.0.fma(self.0.load(&halves[0]), even, sum);
        self.0.fma(self.0.load(&halves[1]), odd, sum)
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use pairs::PairProducts;

#[cfg(target_arch = "x86_64")]
mod pairs {
    use std::arch::x86_64::{__m512, __m512bh, _mm512_dpbf16_ps, _mm512_loadu_si512};

    use super::*;
    use crate::simd::Avx512;

    /// bf16 activations; `vdpbf16ps` adds two products to each lane.
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

    impl Dot for PairProducts {
        type S = Avx512;
        type X = [bf16; BLOCK];
        type W = __m512bh;
        const MANY_REGISTERS: bool = true;

        #[inline(always)]
        fn simd(self) -> Avx512 {
            self.0
        }

        #[inline(always)]
        fn weights(self, block: &Block) -> __m512bh {
            // SAFETY: the CPU has AVX-512 F (`new`), a block is 64 bytes, and both types are plain
            // bits of one register.
            unsafe {
                std::mem::transmute::<std::arch::x86_64::__m512i, __m512bh>(_mm512_loadu_si512(
                    block.as_ptr().cast(),
                ))
            }
        }

        #[inline(always)]
        fn step(self, sum: __m512, x: &[bf16; BLOCK], w: __m512bh) -> __m512 {
            // SAFETY: the CPU has AVX-512 BF16 (`new`).
            unsafe { _mm512_dpbf16_ps(sum, self.weights(x), w) }
        }
    }
}
