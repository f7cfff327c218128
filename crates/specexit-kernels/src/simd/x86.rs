//! AVX2 and AVX-512.
//!
//! Every block below is unsafe only because its intrinsics need an instruction set: an `Avx2` or
//! `Avx512` exists only where the CPU has it (`new`). The methods are inlined into the functions of
//! `dispatch!`, which enable the features, so that no vector crosses a call.

use std::arch::x86_64::*;

use super::{LANES, Lanes, Simd};
use crate::matrix::Block;

/// AVX2, FMA and F16C: sixteen lanes in two registers.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// AVX-512 F, BW, DQ and VL: sixteen lanes in one register.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx2 {
    /// # Safety
    ///
    /// The CPU must have AVX2, FMA and F16C.
    #[inline(always)]
    pub(crate) unsafe fn new() -> Avx2 {
        Avx2(())
    }
}

impl Avx512 {
    /// # Safety
    ///
    /// The CPU must have AVX-512 F, BW, DQ and VL.
    #[inline(always)]
    pub(crate) unsafe fn new() -> Avx512 {
        Avx512(())
    }
}

/// Lanes 0 to 7 and 8 to 15.
#[derive(Clone, Copy)]
pub(crate) struct Pair(pub(super) __m256, pub(super) __m256);

/// One intrinsic on both halves.
macro_rules! both {
    ($intrinsic:ident, $($arg:ident),+) => {
        // SAFETY: a value of `Avx2` exists, so the CPU has AVX2 and FMA.
        unsafe { Pair($intrinsic($($arg.0),+), $intrinsic($($arg.1),+)) }
    };
}

impl Simd for Avx2 {
    type F = Pair;
    const MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> Pair {
        // SAFETY: the CPU has AVX2.
        unsafe { Pair(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
    }

    #[inline(always)]
    fn load(self, from: &Lanes) -> Pair {
        // SAFETY: the CPU has AVX2, and both halves lie within the array.
        unsafe { Pair(_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))) }
    }

    #[inline(always)]
    fn store(self, vector: Pair, to: &mut Lanes) {
        // SAFETY: the CPU has AVX2, and both halves lie within the array.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), vector.0);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), vector.1);
        }
    }

    #[inline(always)]
    fn add(self, a: Pair, b: Pair) -> Pair {
        both!(_mm256_add_ps, a, b)
    }

    #[inline(always)]
    fn sub(self, a: Pair, b: Pair) -> Pair {
        both!(_mm256_sub_ps, a, b)
    }

    #[inline(always)]
    fn mul(self, a: Pair, b: Pair) -> Pair {
        both!(_mm256_mul_ps, a, b)
    }

    #[inline(always)]
    fn div(self, a: Pair, b: Pair) -> Pair {
        both!(_mm256_div_ps, a, b)
    }

    #[inline(always)]
    fn fma(self, a: Pair, b: Pair, c: Pair) -> Pair {
        both!(_mm256_fmadd_ps, a, b, c)
    }

    #[inline(always)]
    fn max(self, a: Pair, b: Pair) -> Pair {
        both!(_mm256_max_ps, a, b)
    }

    #[inline(always)]
    fn min(self, a: Pair, b: Pair) -> Pair {
        both!(_mm256_min_ps, a, b)
    }

    #[inline(always)]
    fn zero_below(self, x: Pair, limit: f32, value: Pair) -> Pair {
        let limit = self.splat(limit);
        // SAFETY: the CPU has AVX2.
        let below = unsafe {
            Pair(
                _mm256_cmp_ps::<_CMP_LT_OQ>(x.0, limit.0),
                _mm256_cmp_ps::<_CMP_LT_OQ>(x.1, limit.1),
            )
        };
        both!(_mm256_andnot_ps, below, value)
    }

    #[inline(always)]
    fn power_of_two(self, magic: Pair) -> Pair {
        #[inline(always)]
        unsafe fn half(magic: __m256) -> __m256 {
            // SAFETY: called below, where the CPU has AVX2.
            unsafe {
                let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(magic));
                let one = _mm256_castps_si256(_mm256_set1_ps(1.0));
                _mm256_castsi256_ps(_mm256_add_epi32(exponent, one))
            }
        }
        both!(half, magic)
    }

    #[inline(always)]
    fn widen(self, block: &Block) -> (Pair, Pair) {
        // SAFETY: the CPU has AVX2, and both halves lie within the block.
        unsafe {
            let start = block.as_ptr().cast::<__m256i>();
            let (low, high) = (_mm256_loadu_si256(start), _mm256_loadu_si256(start.add(1)));
            let odd = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
            (
                Pair(
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
                ),
                Pair(
                    _mm256_castsi256_ps(_mm256_and_si256(low, odd)),
                    _mm256_castsi256_ps(_mm256_and_si256(high, odd)),
                ),
            )
        }
    }

    #[inline(always)]
    fn widen_bytes(self, block: &[i8; 2 * LANES]) -> (Pair, Pair) {
        // SAFETY: the CPU has AVX2, and both halves lie within the block.
        unsafe {
            let start = block.as_ptr().cast::<__m128i>();
            let low = _mm256_cvtepi8_epi16(_mm_loadu_si128(start));
            let high = _mm256_cvtepi8_epi16(_mm_loadu_si128(start.add(1)));
            let even = |words| _mm256_srai_epi32::<16>(_mm256_slli_epi32::<16>(words));
            let odd = |words| _mm256_srai_epi32::<16>(words);
            (
                Pair(_mm256_cvtepi32_ps(even(low)), _mm256_cvtepi32_ps(even(high))),
                Pair(_mm256_cvtepi32_ps(odd(low)), _mm256_cvtepi32_ps(odd(high))),
            )
        }
    }

    #[inline(always)]
    fn sum4(self, v: [Pair; 4]) -> [f32; 4] {
        /// The sums of four neighbouring lanes each: `[a, b, c, d]` of lanes 0..4, then of 4..8.
        #[inline(always)]
        unsafe fn quarters(a: __m256, b: __m256, c: __m256, d: __m256) -> __m256 {
            // SAFETY: called below, where the CPU has AVX2.
            unsafe {
                let ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                let cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
                let (ab, cd) = (_mm256_castps_pd(ab), _mm256_castps_pd(cd));
                _mm256_add_ps(
                    _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)),
                    _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)),
                )
            }
        }
        let mut sums = [0.0; 4];
        // SAFETY: the CPU has AVX2, and `sums` has room for four.
        unsafe {
            let low = quarters(v[0].0, v[1].0, v[2].0, v[3].0);
            let high = quarters(v[0].1, v[1].1, v[2].1, v[3].1);
            let low = _mm_add_ps(_mm256_castps256_ps128(low), _mm256_extractf128_ps::<1>(low));
            let high = _mm_add_ps(_mm256_castps256_ps128(high), _mm256_extractf128_ps::<1>(high));
            _mm_storeu_ps(sums.as_mut_ptr(), _mm_add_ps(low, high));
        }
        sums
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        prefetch::<_MM_HINT_T0>(address);
    }
}

impl Simd for Avx512 {
    type F = __m512;
    const MANY_REGISTERS: bool = true;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        // SAFETY: the CPU has AVX-512 F.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    fn load(self, from: &Lanes) -> __m512 {
        // SAFETY: the CPU has AVX-512 F, and the array has sixteen values.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, vector: __m512, to: &mut Lanes) {
        // SAFETY: the CPU has AVX-512 F, and the array has room for sixteen.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), vector) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the CPU has AVX-512 F.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the CPU has AVX-512 F.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the CPU has AVX-512 F.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the CPU has AVX-512 F.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the CPU has AVX-512 F.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the CPU has AVX-512 F.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the CPU has AVX-512 F.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn zero_below(self, x: __m512, limit: f32, value: __m512) -> __m512 {
        // SAFETY: the CPU has AVX-512 F.
        unsafe {
            let keep = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, _mm512_set1_ps(limit));
            _mm512_maskz_mov_ps(keep, value)
        }
    }

    #[inline(always)]
    fn power_of_two(self, magic: __m512) -> __m512 {
        // SAFETY: the CPU has AVX-512 F.
        unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(magic));
            let one = _mm512_castps_si512(_mm512_set1_ps(1.0));
            _mm512_castsi512_ps(_mm512_add_epi32(exponent, one))
        }
    }

    #[inline(always)]
    fn widen(self, block: &Block) -> (__m512, __m512) {
        // SAFETY: the CPU has AVX-512 F, and a block is 64 bytes.
        unsafe {
            let pairs = _mm512_loadu_si512(block.as_ptr().cast());
            let odd = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
            (
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)),
                _mm512_castsi512_ps(_mm512_and_si512(pairs, odd)),
            )
        }
    }

    #[inline(always)]
    fn widen_bytes(self, block: &[i8; 2 * LANES]) -> (__m512, __m512) {
        // SAFETY: the CPU has AVX-512 F and BW, and a block is 32 bytes.
        unsafe {
            let words = _mm512_cvtepi8_epi16(_mm256_loadu_si256(block.as_ptr().cast()));
            (
                _mm512_cvtepi32_ps(_mm512_srai_epi32::<16>(_mm512_slli_epi32::<16>(words))),
                _mm512_cvtepi32_ps(_mm512_srai_epi32::<16>(words)),
            )
        }
    }

    #[inline(always)]
    fn sum4(self, [a, b, c, d]: [__m512; 4]) -> [f32; 4] {
        let mut sums = [0.0; 4];
        // SAFETY: the CPU has AVX-512 F, and `sums` has room for four.
        unsafe {
            let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
            let quarters = _mm512_add_ps(
                _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)),
                _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)),
            );
            let low =
                _mm_add_ps(_mm512_castps512_ps128(quarters), _mm512_extractf32x4_ps::<1>(quarters));
            let high = _mm_add_ps(
                _mm512_extractf32x4_ps::<2>(quarters),
                _mm512_extractf32x4_ps::<3>(quarters),
            );
            _mm_storeu_ps(sums.as_mut_ptr(), _mm_add_ps(low, high));
        }
        sums
    }

    #[inline(always)]
    fn load_part(self, from: &[f32], fill: f32) -> __m512 {
        assert!(from.len() <= LANES, "more than a vector");
        let mask = (1_u32 << from.len()) - 1;
        // SAFETY: the CPU has AVX-512 F, and only the lanes that `from` has are read.
        unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), mask as __mmask16, from.as_ptr()) }
    }

    #[inline(always)]
    fn store_part(self, vector: __m512, to: &mut [f32]) {
        assert!(to.len() <= LANES, "more than a vector");
        let mask = (1_u32 << to.len()) - 1;
        // SAFETY: the CPU has AVX-512 F, and only the lanes that `to` has are written.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), mask as __mmask16, vector) }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        prefetch::<_MM_HINT_T0>(address);
    }
}

#[inline(always)]
fn prefetch<const HINT: i32>(address: *const u8) {
    // SAFETY: SSE is part of x86-64, and a prefetch of any address has no effect but on caches.
    unsafe { _mm_prefetch::<HINT>(address.cast()) }
}
