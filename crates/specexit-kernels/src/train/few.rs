//! Products with a handful of rows of weights, summed in f64: what linear probes consist of.

use crate::disjoint::Disjoint;
use crate::kernels::Kernels;

/// Columns that one task of [`Kernels::few_sums`] takes.
const COLUMNS: usize = if cfg!(miri) { 3 } else { 64 };

/// Interleaved sums of a dot product.
const SUMS: usize = 16;

impl Kernels {
    /// `z = x · wᵀ` with sums in f64: `x` `[m, width]`, `w` `[n, width]`, `z` `[m, n]`. Every
    /// instruction set gives the same bits.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit or a size is 0.
    pub fn few_dots(&self, z: &mut [f32], x: &[f32], w: &[f32], width: usize) {
        assert!(width > 0 && !w.is_empty() && w.len().is_multiple_of(width), "w is not whole rows");
        let n = w.len() / width;
        assert_eq!(z.len() * width, x.len() * n, "z is not [m, {n}]");
        self.each_rows(z, n, |first, z| {
            let x = &x[first * width..][..z.len() / n * width];
            dispatch!(
                self.checked_isa(),
                dots(z: &mut [f32], x: &[f32], w: &[f32], width: usize)
            );
        });
    }

    /// `sums += dᵀ · x` in f64: `d` `[m, n]`, `x` `[m, width]`, `sums` `[n, width]`; m may be 0. Every
    /// instruction set gives the same bits.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit, or n or the width is 0.
    pub fn few_sums(&self, sums: &mut [f64], d: &[f64], x: &[f32], width: usize) {
        let whole = width > 0 && !sums.is_empty() && sums.len().is_multiple_of(width);
        assert!(whole, "sums are not whole rows");
        let n = sums.len() / width;
        assert_eq!(d.len() * width, x.len() * n, "d is not [m, {n}]");
        if d.is_empty() {
            return;
        }
        let all = &Disjoint::new(sums);
        self.pool().claim(width.div_ceil(COLUMNS), |task| {
            let columns = task * COLUMNS..width.min((task + 1) * COLUMNS);
            for i in 0..n {
                // SAFETY: each task has its own columns, and this thread holds no other part.
                let sums = unsafe { all.part(i * width + columns.start..i * width + columns.end) };
                let x = &x[columns.start..];
                let d = &d[i..];
                dispatch!(
                    self.checked_isa(),
                    weighted_sum(sums: &mut [f64], d: &[f64], n: usize, x: &[f32], width: usize)
                );
            }
        });
    }

    /// For each row x of `x` `[m, width]`, with `s = one · x` in f64: the row
    /// `(x - mean s) scale | s` of `out`, `[m, width + 1]`. Every instruction set gives the same bits.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit or the width is 0.
    pub fn centred_rows(
        &self,
        out: &mut [f32],
        x: &[f32],
        one: &[f32],
        mean: &[f32],
        scale: &[f32],
    ) {
        let width = one.len();
        assert!(width > 0 && mean.len() == width && scale.len() == width, "weights of {width}");
        assert_eq!(out.len() * width, x.len() * (width + 1), "out is not [m, {}]", width + 1);
        self.each_rows(out, width + 1, |first, out| {
            let x = &x[first * width..][..out.len() / (width + 1) * width];
            dispatch!(
                self.checked_isa(),
                centred(out: &mut [f32], x: &[f32], one: &[f32], mean: &[f32], scale: &[f32])
            );
        });
    }

    /// `x = x * scale`, column by column: `x` `[m, scale.len()]`.
    ///
    /// # Panics
    ///
    /// If `x` is not whole rows.
    pub fn scale_columns(&self, x: &mut [f32], scale: &[f32]) {
        let width = scale.len();
        assert!(width > 0 && x.len().is_multiple_of(width), "x is not whole rows of {width}");
        self.each_rows(x, width, |_, x| {
            dispatch!(self.checked_isa(), scaled(x: &mut [f32], scale: &[f32]));
        });
    }
}

// Written lane by lane: the compiler makes vectors of these loops, and never fuses what would round
// differently.

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<SUMS>(), b.as_chunks::<SUMS>());
    let mut sums = [0f64; SUMS];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..SUMS {
            sums[lane] += f64::from(a[lane]) * f64::from(b[lane]);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    sums.iter().sum::<f64>() + rest
}

#[inline(always)]
fn dots<S>(_: S, z: &mut [f32], x: &[f32], w: &[f32], width: usize) {
    let n = w.len() / width;
    for (z, x) in z.chunks_exact_mut(n).zip(x.chunks_exact(width)) {
        for (z, w) in z.iter_mut().zip(w.chunks_exact(width)) {
            *z = dot(w, x) as f32;
        }
    }
}

/// `sums += sum_r d[r n] x[r width..]`, row after row.
#[inline(always)]
fn weighted_sum<S>(_: S, sums: &mut [f64], d: &[f64], n: usize, x: &[f32], width: usize) {
    for (d, x) in d.iter().step_by(n).zip(x.chunks(width)) {
        if *d != 0.0 {
            for (sum, x) in sums.iter_mut().zip(x) {
                *sum += d * f64::from(*x);
            }
        }
    }
}

#[inline(always)]
fn centred<S>(_: S, out: &mut [f32], x: &[f32], one: &[f32], mean: &[f32], scale: &[f32]) {
    let width = one.len();
    for (out, x) in out.chunks_exact_mut(width + 1).zip(x.chunks_exact(width)) {
        let s = dot(one, x) as f32;
        for i in 0..width {
            out[i] = (x[i] - mean[i] * s) * scale[i];
        }
        out[width] = s;
    }
}

#[inline(always)]
fn scaled<S>(_: S, x: &mut [f32], scale: &[f32]) {
    for x in x.chunks_exact_mut(scale.len()) {
        x.iter_mut().zip(scale).for_each(|(x, scale)| *x *= scale);
    }
}
