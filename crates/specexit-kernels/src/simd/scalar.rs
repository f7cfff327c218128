//! The portable twin: arrays that the compiler vectorises as far as the target's baseline allows.

use super::{LANES, Lanes, Simd};
use crate::matrix::Block;

/// Whether the target multiplies and adds in one instruction without being asked at run time.
/// Elsewhere `f32::mul_add` is a library call.
const FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// Portable code.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

/// `f` for each lane.
#[inline(always)]
fn map(f: impl Fn(usize) -> f32) -> Lanes {
    let mut lanes = [0.0; LANES];
    for (i, lane) in lanes.iter_mut().enumerate() {
        *lane = f(i);
    }
    lanes
}

impl Simd for Scalar {
    type F = Lanes;
    const MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> Lanes {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, from: &Lanes) -> Lanes {
        *from
    }

    #[inline(always)]
    fn store(self, vector: Lanes, to: &mut Lanes) {
        *to = vector;
    }

    #[inline(always)]
    fn add(self, a: Lanes, b: Lanes) -> Lanes {
        map(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Lanes, b: Lanes) -> Lanes {
        map(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: Lanes, b: Lanes) -> Lanes {
        map(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: Lanes, b: Lanes) -> Lanes {
        map(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn fma(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        map(|i| if FUSED { a[i].mul_add(b[i], c[i]) } else { a[i] * b[i] + c[i] })
    }

    #[inline(always)]
    fn max(self, a: Lanes, b: Lanes) -> Lanes {
        map(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn min(self, a: Lanes, b: Lanes) -> Lanes {
        map(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn zero_below(self, x: Lanes, limit: f32, value: Lanes) -> Lanes {
        map(|i| if x[i] < limit { 0.0 } else { value[i] })
    }

    #[inline(always)]
    fn power_of_two(self, magic: Lanes) -> Lanes {
        map(|i| f32::from_bits((magic[i].to_bits() << 23).wrapping_add(1.0_f32.to_bits())))
    }

    #[inline(always)]
    fn widen(self, block: &Block) -> (Lanes, Lanes) {
        let value = |i: usize| f32::from_bits(u32::from(block[i].to_bits()) << 16);
        (map(|i| value(2 * i)), map(|i| value(2 * i + 1)))
    }

    #[inline(always)]
    fn widen_bytes(self, block: &[i8; 2 * LANES]) -> (Lanes, Lanes) {
        (map(|i| f32::from(block[2 * i])), map(|i| f32::from(block[2 * i + 1])))
    }

    #[inline(always)]
    fn sum4(self, vectors: [Lanes; 4]) -> [f32; 4] {
        vectors.map(|v| {
            let quarter = |i: usize| (v[i] + v[i + 2]) + (v[i + 1] + v[i + 3]);
            (quarter(0) + quarter(4)) + (quarter(8) + quarter(12))
        })
    }

    #[inline(always)]
    fn prefetch(self, _address: *const u8) {}
}
