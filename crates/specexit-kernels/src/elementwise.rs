//! Operations value by value.

use half::bf16;

use crate::linear::round_into;
use crate::simd::{LANES, Simd, exp};

/// `y = silu(gate) * up` with `silu(g) = g / (1 + exp(-g))`, for rows `gate|up` of `2 * width`
/// values.
#[inline(always)]
pub(crate) fn silu_mul_rows<S: Simd>(s: S, y: &mut [f32], gate_up: &[f32], width: usize) {
    for (y, gate_up) in y.chunks_exact_mut(width).zip(gate_up.chunks_exact(2 * width)) {
        let (gate, up) = gate_up.split_at(width);
        let (y_vectors, y_rest) = y.as_chunks_mut::<LANES>();
        let (gate_vectors, gate_rest) = gate.as_chunks::<LANES>();
        let (up_vectors, up_rest) = up.as_chunks::<LANES>();
        for ((y, gate), up) in y_vectors.iter_mut().zip(gate_vectors).zip(up_vectors) {
            s.store(silu_mul(s, s.load(gate), s.load(up)), y);
        }
        let rest = silu_mul(s, s.load_part(gate_rest, 0.0), s.load_part(up_rest, 0.0));
        s.store_part(rest, y_rest);
    }
}

#[inline(always)]
fn silu_mul<S: Simd>(s: S, gate: S::F, up: S::F) -> S::F {
    let e = exp(s, s.sub(s.splat(0.0), gate));
    s.mul(s.div(gate, s.add(s.splat(1.0), e)), up)
}

/// `y = y + x`.
#[inline(always)]
pub(crate) fn add<S: Simd>(s: S, y: &mut [f32], x: &[f32]) {
    let (y_vectors, y_rest) = y.as_chunks_mut::<LANES>();
    let (x_vectors, x_rest) = x.as_chunks::<LANES>();
    for (y, x) in y_vectors.iter_mut().zip(x_vectors) {
        s.store(s.add(s.load(y), s.load(x)), y);
    }
    for (y, x) in y_rest.iter_mut().zip(x_rest) {
        *y += x;
    }
}

/// The values rounded to the nearest bf16.
#[inline(always)]
pub(crate) fn narrow<S: Simd>(_: S, y: &mut [bf16], x: &[f32]) {
    round_into(y, x);
}
