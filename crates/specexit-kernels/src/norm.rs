//! Root-mean-square normalisation.

use crate::simd::{LANES, Simd, sum_of_squares};

/// `y = x / sqrt(mean(x²) + eps) * weight` for each row of `weight.len()` values (Zhang and
/// Sennrich 2019, as Llama computes it).
#[inline(always)]
pub(crate) fn rms_norm_rows<S: Simd>(s: S, y: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
    let width = weight.len();
    for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
        let scale = s.splat(scale(s, x, eps));
        let (y_vectors, y_rest) = y.as_chunks_mut::<LANES>();
        let (x_vectors, x_rest) = x.as_chunks::<LANES>();
        let (w_vectors, w_rest) = weight.as_chunks::<LANES>();
        for ((y, x), w) in y_vectors.iter_mut().zip(x_vectors).zip(w_vectors) {
            s.store(s.mul(s.mul(s.load(x), scale), s.load(w)), y);
        }
        let rest = s.mul(s.mul(s.load_part(x_rest, 0.0), scale), s.load_part(w_rest, 0.0));
        s.store_part(rest, y_rest);
    }
}

/// The same in place for `heads` heads of `weight.len()` values from column `offset` on, in rows of
/// `row_stride` values.
#[inline(always)]
pub(crate) fn rms_norm_heads<S: Simd>(
    s: S,
    x: &mut [f32],
    row_stride: usize,
    offset: usize,
    heads: usize,
    weight: &[f32],
    eps: f32,
) {
    let width = weight.len();
    let (w_vectors, w_rest) = weight.as_chunks::<LANES>();
    for row in x.chunks_exact_mut(row_stride) {
        for head in row[offset..offset + heads * width].chunks_exact_mut(width) {
            let scale = s.splat(scale(s, head, eps));
            let (vectors, rest) = head.as_chunks_mut::<LANES>();
            for (x, w) in vectors.iter_mut().zip(w_vectors) {
                s.store(s.mul(s.mul(s.load(x), scale), s.load(w)), x);
            }
            let last = s.mul(s.mul(s.load_part(rest, 0.0), scale), s.load_part(w_rest, 0.0));
            s.store_part(last, rest);
        }
    }
}

#[inline(always)]
fn scale<S: Simd>(s: S, x: &[f32], eps: f32) -> f32 {
    let mean = sum_of_squares(s, x) / x.len() as f32;
    1.0 / (mean + eps).sqrt()
}
