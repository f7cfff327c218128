//! One step of all products whose sums stay in their lanes: a block of sixteen numbers, or of sixteen
//! pairs, times one number, or one pair. Linear layers multiply two neighbouring columns of sixteen
//! outputs by two activations; attention two columns of sixteen keys by a query, and the values at two
//! positions in sixteen columns by two weights.

use bytemuck::Pod;

use crate::linear::round;
use crate::matrix::Block;
use crate::simd::{Lanes, Simd};

/// How a block meets a pair of numbers, or a single one.
pub(crate) trait Dot: Copy {
    type S: Simd;
    /// A cache line of what stands in memory.
    type Block: Pod;
    /// Neighbouring numbers of a row, packed.
    type X: Pod;
    /// In registers: a block, or one `X` sixteen times.
    type W: Copy;
    /// Numbers of an `X`: 2 or 1.
    const GROUP: usize;

    fn simd(self) -> Self::S;
    fn weights(self, block: &Self::Block) -> Self::W;
    fn splat(self, x: Self::X) -> Self::W;
    /// Adds all products to each lane.
    fn step(self, sum: Vector<Self>, x: Self::W, w: Self::W) -> Vector<Self>;
    /// Only the first number of every pair; the others, whatever they are, become 0.
    fn first_only(self, w: Self::W) -> Self::W;
    /// Packs numbers, the missing ones of the last `X` as 0: `packed` `[x.len().div_ceil(GROUP)]`.
    fn pack(self, packed: &mut [Self::X], x: &[f32]);
}

/// Products of bf16 pairs, either factor of which may be broadcast.
pub(crate) trait OfPairs: Dot<Block = Block> {
    /// A pair sixteen times, the first number in the low half.
    fn splat_pair(self, pair: u32) -> Self::W;
    /// As [`step`](Dot::step), the second product first, which is the order of `vdpbf16ps`.
    fn step_back(self, sum: Vector<Self>, x: Self::W, w: Self::W) -> Vector<Self>;
}

/// The vector type of a `Dot`.
pub(crate) type Vector<D> = <<D as Dot>::S as Simd>::F;

/// Blocks of bf16 widened to f32.
#[derive(Clone, Copy)]
pub(crate) struct Widened<S> {
    pub(crate) s: S,
    /// Whether [`pack`](Dot::pack) rounds to bf16.
    pub(crate) rounded: bool,
}

impl<S: Simd> Dot for Widened<S> {
    type S = S;
    type Block = Block;
    type X = [f32; 2];
    type W = (S::F, S::F);
    const GROUP: usize = 2;

    #[inline(always)]
    fn simd(self) -> S {
        self.s
    }

    #[inline(always)]
    fn weights(self, block: &Block) -> (S::F, S::F) {
        self.s.widen(block)
    }

    #[inline(always)]
    fn splat(self, [first, second]: [f32; 2]) -> (S::F, S::F) {
        (self.s.splat(first), self.s.splat(second))
    }

    #[inline(always)]
    fn step(self, sum: S::F, x: (S::F, S::F), w: (S::F, S::F)) -> S::F {
        self.s.fma(x.1, w.1, self.s.fma(x.0, w.0, sum))
    }

    #[inline(always)]
    fn first_only(self, (first, _): (S::F, S::F)) -> (S::F, S::F) {
        (first, self.s.splat(0.0))
    }

    #[inline(always)]
    fn pack(self, packed: &mut [[f32; 2]], x: &[f32]) {
        let (packed, padding) = packed.as_flattened_mut().split_at_mut(x.len());
        if self.rounded {
            for (to, &value) in packed.iter_mut().zip(x) {
                *to = f32::from_bits(u32::from(round(value)) << 16);
            }
        } else {
            packed.copy_from_slice(x);
        }
        padding.fill(0.0);
    }
}

impl<S: Simd> OfPairs for Widened<S> {
    #[inline(always)]
    fn splat_pair(self, pair: u32) -> (S::F, S::F) {
        self.splat([f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)])
    }

    #[inline(always)]
    fn step_back(self, sum: S::F, x: (S::F, S::F), w: (S::F, S::F)) -> S::F {
        self.s.fma(x.0, w.0, self.s.fma(x.1, w.1, sum))
    }
}

/// Blocks of f32.
#[derive(Clone, Copy)]
pub(crate) struct Singles<S>(pub(crate) S);

impl<S: Simd> Dot for Singles<S> {
    type S = S;
    type Block = Lanes;
    type X = f32;
    type W = S::F;
    const GROUP: usize = 1;

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn weights(self, block: &Lanes) -> S::F {
        self.0.load(block)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> S::F {
        self.0.splat(x)
    }

    #[inline(always)]
    fn step(self, sum: S::F, x: S::F, w: S::F) -> S::F {
        self.0.fma(x, w, sum)
    }

    #[inline(always)]
    fn first_only(self, w: S::F) -> S::F {
        w
    }

    #[inline(always)]
    fn pack(self, packed: &mut [f32], x: &[f32]) {
        packed.copy_from_slice(x);
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use pairs::PairProducts;

#[cfg(target_arch = "x86_64")]
mod pairs {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_and_si512, _mm512_dpbf16_ps, _mm512_loadu_si512,
        _mm512_set1_epi32,
    };

    use half::bf16;

    use super::*;
    use crate::linear::round_into;
    use crate::simd::Avx512;

    /// Pairs of bf16 activations, the first in the low half; `vdpbf16ps` adds two products to each
    /// lane.
    #[derive(Clone, Copy)]
    pub(crate) struct PairProducts(Avx512);

    impl PairProducts {
        /// # Safety
        ///
        /// The CPU must have AVX-512 F, BW, DQ, VL and BF16.
        #[inline(always)]
        pub(crate) unsafe fn new() -> PairProducts {
            // SAFETY: the caller promises it.
            PairProducts(unsafe { Avx512::new() })
        }
    }

    #[inline(always)]
    fn as_pairs(vector: __m512i) -> __m512bh {
        // SAFETY: both types are plain bits of one register.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(vector) }
    }

    impl OfPairs for PairProducts {
        #[inline(always)]
        fn splat_pair(self, pair: u32) -> __m512bh {
            // SAFETY: the CPU has AVX-512 F (`new`).
            as_pairs(unsafe { _mm512_set1_epi32(pair.cast_signed()) })
        }

        #[inline(always)]
        fn step_back(self, sum: __m512, x: __m512bh, w: __m512bh) -> __m512 {
            self.step(sum, x, w)
        }
    }

    impl Dot for PairProducts {
        type S = Avx512;
        type Block = Block;
        type X = [bf16; 2];
        type W = __m512bh;
        const GROUP: usize = 2;

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
            self.splat_pair(bytemuck::cast(x))
        }

        #[inline(always)]
        fn step(self, sum: __m512, x: __m512bh, w: __m512bh) -> __m512 {
            // SAFETY: the CPU has AVX-512 BF16 (`new`).
            unsafe { _mm512_dpbf16_ps(sum, w, x) }
        }

        #[inline(always)]
        fn first_only(self, w: __m512bh) -> __m512bh {
            let first: i32 = bytemuck::cast([u16::MAX, 0]);
            // SAFETY: the CPU has AVX-512 F (`new`), and both types are plain bits of one register.
            as_pairs(unsafe {
                let bits = std::mem::transmute::<__m512bh, __m512i>(w);
                _mm512_and_si512(bits, _mm512_set1_epi32(first))
            })
        }

        #[inline(always)]
        fn pack(self, packed: &mut [[bf16; 2]], x: &[f32]) {
            let (packed, padding) = packed.as_flattened_mut().split_at_mut(x.len());
            round_into(packed, x);
            padding.fill(bf16::ZERO);
        }
    }
}
