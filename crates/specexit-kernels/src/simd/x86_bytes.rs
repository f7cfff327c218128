//! Bytes on AVX2 and AVX-512.
//!
//! Every block below is unsafe only because its intrinsics need an instruction set, which the value
//! it is called on proves (see `x86`), or reads an array of the register's size.

use std::arch::x86_64::*;

use super::bytes::ByteSimd;
use super::x86::{Avx2, Avx512, Pair};
use crate::blocks::Line;

/// Lanes 0 to 7 and 8 to 15.
#[derive(Clone, Copy)]
pub(crate) struct IntPair(__m256i, __m256i);

/// One expression for both halves.
macro_rules! both {
    (|$($name:ident),+| $body:expr) => {
        // SAFETY: a value of `Avx2` exists, so the CPU has AVX2, FMA and F16C.
        unsafe {
            IntPair(
                { $(let $name = $name.0;)+ $body },
                { $(let $name = $name.1;)+ $body },
            )
        }
    };
}

impl ByteSimd for Avx2 {
    type B = IntPair;
    type I = IntPair;
    const TILE_ROWS: usize = 4;

    #[inline(always)]
    fn bytes(self, from: &Line) -> IntPair {
        let start = from.as_ptr().cast::<__m256i>();
        // SAFETY: the CPU has AVX2, and a line is 64 bytes.
        unsafe { IntPair(_mm256_loadu_si256(start), _mm256_loadu_si256(start.add(1))) }
    }

    #[inline(always)]
    fn low_nibbles(self, bytes: IntPair) -> IntPair {
        both!(|bytes| _mm256_and_si256(bytes, _mm256_set1_epi8(15)))
    }

    #[inline(always)]
    fn high_nibbles(self, bytes: IntPair) -> IntPair {
        both!(|bytes| _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), _mm256_set1_epi8(15)))
    }

    #[inline(always)]
    fn raise(self, nibbles: IntPair, plane: IntPair, count: u32, at: u32) -> IntPair {
        let mask = ((1 << count) - 1) << 4;
        // Shifts of 16 bits move bits between bytes, but none that the mask keeps.
        both!(|nibbles, plane| {
            let moved = match at {
                0 => _mm256_slli_epi16::<4>(plane),
                1 => _mm256_slli_epi16::<3>(plane),
                2 => _mm256_slli_epi16::<2>(plane),
                3 => _mm256_slli_epi16::<1>(plane),
                4 => plane,
                5 => _mm256_srli_epi16::<1>(plane),
                6 => _mm256_srli_epi16::<2>(plane),
                _ => _mm256_srli_epi16::<3>(plane),
            };
            _mm256_or_si256(nibbles, _mm256_and_si256(moved, _mm256_set1_epi8(mask)))
        })
    }

    #[inline(always)]
    fn byte(self, bytes: IntPair, j: usize) -> Pair {
        self.to_float(both!(|bytes| {
            let moved = match j {
                0 => bytes,
                1 => _mm256_srli_epi32::<8>(bytes),
                2 => _mm256_srli_epi32::<16>(bytes),
                _ => _mm256_srli_epi32::<24>(bytes),
            };
            _mm256_and_si256(moved, _mm256_set1_epi32(255))
        }))
    }

    #[inline(always)]
    fn splat_int(self, value: i32) -> IntPair {
        // SAFETY: the CPU has AVX2.
        unsafe { IntPair(_mm256_set1_epi32(value), _mm256_set1_epi32(value)) }
    }

    #[inline(always)]
    fn to_float(self, ints: IntPair) -> Pair {
        // SAFETY: the CPU has AVX2.
        unsafe { Pair(_mm256_cvtepi32_ps(ints.0), _mm256_cvtepi32_ps(ints.1)) }
    }

    #[inline(always)]
    fn dot(self, sums: IntPair, w: IntPair, x: i32, wide: bool) -> IntPair {
        // Two products of bytes less than 64 with signed bytes fit in 16 bits; larger ones are taken
        // in halves of four bits.
        both!(|sums, w| {
            let x = _mm256_set1_epi32(x);
            if wide {
                let nibble = _mm256_set1_epi8(15);
                let low = _mm256_and_si256(w, nibble);
                let high = _mm256_and_si256(_mm256_srli_epi16::<4>(w), nibble);
                let low = _mm256_madd_epi16(_mm256_maddubs_epi16(low, x), _mm256_set1_epi16(1));
                let high = _mm256_madd_epi16(_mm256_maddubs_epi16(high, x), _mm256_set1_epi16(16));
                _mm256_add_epi32(_mm256_add_epi32(sums, low), high)
            } else {
                let pairs = _mm256_maddubs_epi16(w, x);
                _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            }
        })
    }

    #[inline(always)]
    fn halves(self, from: &[u8; 32]) -> Pair {
        let start = from.as_ptr().cast::<__m128i>();
        // SAFETY: the CPU has F16C, and there are sixteen f16.
        unsafe {
            Pair(
                _mm256_cvtph_ps(_mm_loadu_si128(start)),
                _mm256_cvtph_ps(_mm_loadu_si128(start.add(1))),
            )
        }
    }

    #[inline(always)]
    fn unsigned(self, from: &[u8; 16]) -> Pair {
        // SAFETY: the CPU has AVX2, and there are sixteen bytes.
        let ints = unsafe {
            let bytes = _mm_loadu_si128(from.as_ptr().cast());
            IntPair(
                _mm256_cvtepu8_epi32(bytes),
                _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(bytes, bytes)),
            )
        };
        self.to_float(ints)
    }

    #[inline(always)]
    fn signed(self, from: &[u8; 16]) -> Pair {
        // SAFETY: the CPU has AVX2, and there are sixteen bytes.
        let ints = unsafe {
            let bytes = _mm_loadu_si128(from.as_ptr().cast());
            IntPair(
                _mm256_cvtepi8_epi32(bytes),
                _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes)),
            )
        };
        self.to_float(ints)
    }
}

impl ByteSimd for Avx512 {
    type B = __m512i;
    type I = __m512i;
    const TILE_ROWS: usize = 4;

    #[inline(always)]
    fn bytes(self, from: &Line) -> __m512i {
        // SAFETY: the CPU has AVX-512 F, and a line is 64 bytes.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn low_nibbles(self, bytes: __m512i) -> __m512i {
        // SAFETY: the CPU has AVX-512 F.
        unsafe { _mm512_and_si512(bytes, _mm512_set1_epi8(15)) }
    }

    #[inline(always)]
    fn high_nibbles(self, bytes: __m512i) -> __m512i {
        // SAFETY: the CPU has AVX-512 F and BW.
        unsafe { _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), _mm512_set1_epi8(15)) }
    }

    #[inline(always)]
    fn raise(self, nibbles: __m512i, plane: __m512i, count: u32, at: u32) -> __m512i {
        let mask = ((1 << count) - 1) << 4;
        // SAFETY: the CPU has AVX-512 F and BW. As in `Avx2::raise`.
        unsafe {
            let moved = match at {
                0 => _mm512_slli_epi16::<4>(plane),
                1 => _mm512_slli_epi16::<3>(plane),
                2 => _mm512_slli_epi16::<2>(plane),
                3 => _mm512_slli_epi16::<1>(plane),
                4 => plane,
                5 => _mm512_srli_epi16::<1>(plane),
                6 => _mm512_srli_epi16::<2>(plane),
                _ => _mm512_srli_epi16::<3>(plane),
            };
            _mm512_or_si512(nibbles, _mm512_and_si512(moved, _mm512_set1_epi8(mask)))
        }
    }

    #[inline(always)]
    fn byte(self, bytes: __m512i, j: usize) -> __m512 {
        // SAFETY: the CPU has AVX-512 F.
        unsafe {
            let moved = match j {
                0 => bytes,
                1 => _mm512_srli_epi32::<8>(bytes),
                2 => _mm512_srli_epi32::<16>(bytes),
                _ => _mm512_srli_epi32::<24>(bytes),
            };
            _mm512_cvtepi32_ps(_mm512_and_si512(moved, _mm512_set1_epi32(255)))
        }
    }

    #[inline(always)]
    fn splat_int(self, value: i32) -> __m512i {
        // SAFETY: the CPU has AVX-512 F.
        unsafe { _mm512_set1_epi32(value) }
    }

    #[inline(always)]
    fn to_float(self, ints: __m512i) -> __m512 {
        // SAFETY: the CPU has AVX-512 F.
        unsafe { _mm512_cvtepi32_ps(ints) }
    }

    #[inline(always)]
    fn dot(self, sums: __m512i, w: __m512i, x: i32, wide: bool) -> __m512i {
        // SAFETY: the CPU has AVX-512 F and BW. As in `Avx2::dot`.
        unsafe {
            let x = _mm512_set1_epi32(x);
            if wide {
                let low = self.low_nibbles(w);
                let high = self.high_nibbles(w);
                let low = _mm512_madd_epi16(_mm512_maddubs_epi16(low, x), _mm512_set1_epi16(1));
                let high = _mm512_madd_epi16(_mm512_maddubs_epi16(high, x), _mm512_set1_epi16(16));
                _mm512_add_epi32(_mm512_add_epi32(sums, low), high)
            } else {
                let pairs = _mm512_maddubs_epi16(w, x);
                _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
            }
        }
    }

    #[inline(always)]
    fn halves(self, from: &[u8; 32]) -> __m512 {
        // SAFETY: the CPU has AVX-512 F, and there are sixteen f16.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
    }

    #[inline(always)]
    fn unsigned(self, from: &[u8; 16]) -> __m512 {
        // SAFETY: the CPU has AVX-512 F, and there are sixteen bytes.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn signed(self, from: &[u8; 16]) -> __m512 {
        // SAFETY: the CPU has AVX-512 F, and there are sixteen bytes.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast()))) }
    }
}
