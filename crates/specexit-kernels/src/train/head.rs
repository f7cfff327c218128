//! Norm and rotary embedding of one head, and their backward.

use crate::simd::{LANES, Simd, sum_of_squares};

/// The norms that queries and keys pass before they are rotated.
#[derive(Clone, Copy, Debug)]
pub struct HeadNorms<'a> {
    /// Weight of the queries' norm, `[head_dim]`.
    pub q: &'a [f32],
    /// Weight of the keys' norm, `[head_dim]`.
    pub k: &'a [f32],
    /// Added to the mean square.
    pub eps: f32,
}

/// One norm and the angles of one position.
#[derive(Clone, Copy)]
pub(super) struct Turn<'a> {
    pub(super) weight: &'a [f32],
    pub(super) eps: f32,
    pub(super) cos: &'a [f32],
    pub(super) sin: &'a [f32],
    /// Factor of the result.
    pub(super) scale: f32,
}

/// A rotation by the angles of one position, without a norm.
#[derive(Clone, Copy)]
pub(super) struct Rotation<'a> {
    pub(super) cos: &'a [f32],
    pub(super) sin: &'a [f32],
    /// Factor of the result.
    pub(super) scale: f32,
}

impl Rotation<'_> {
    /// `y = scale * rotate(x)`.
    #[inline(always)]
    pub(super) fn forward<S: Simd>(&self, s: S, y: &mut [f32], x: &[f32]) {
        let (half, scale) = (self.cos.len(), s.splat(self.scale));
        let (x_low, x_high) = x.split_at(half);
        let (y_low, y_high) = y.split_at_mut(half);
        for start in (0..half).step_by(LANES) {
            let part = start..half.min(start + LANES);
            let a = s.mul(s.load_part(&x_low[part.clone()], 0.0), scale);
            let b = s.mul(s.load_part(&x_high[part.clone()], 0.0), scale);
            let cos = s.load_part(&self.cos[part.clone()], 0.0);
            let sin = s.load_part(&self.sin[part.clone()], 0.0);
            s.store_part(s.sub(s.mul(a, cos), s.mul(b, sin)), &mut y_low[part.clone()]);
            s.store_part(s.fma(a, sin, s.mul(b, cos)), &mut y_high[part]);
        }
    }

    /// Adds the gradient of `x` to `dx`, given that of `y`.
    #[inline(always)]
    pub(super) fn backward<S: Simd>(&self, s: S, dx: &mut [f32], g: &[f32]) {
        let (half, scale) = (self.cos.len(), s.splat(self.scale));
        let (g_low, g_high) = g.split_at(half);
        let (x_low, x_high) = dx.split_at_mut(half);
        for start in (0..half).step_by(LANES) {
            let part = start..half.min(start + LANES);
            let a = s.mul(s.load_part(&g_low[part.clone()], 0.0), scale);
            let b = s.mul(s.load_part(&g_high[part.clone()], 0.0), scale);
            let cos = s.load_part(&self.cos[part.clone()], 0.0);
            let sin = s.load_part(&self.sin[part.clone()], 0.0);
            let low = s.add(s.load_part(&x_low[part.clone()], 0.0), s.fma(a, cos, s.mul(b, sin)));
            let high = s.sub(s.mul(b, cos), s.mul(a, sin));
            let high = s.add(s.load_part(&x_high[part.clone()], 0.0), high);
            s.store_part(low, &mut x_low[part.clone()]);
            s.store_part(high, &mut x_high[part]);
        }
    }
}

impl Turn<'_> {
    /// `y = scale * rotate(norm(x))`.
    #[inline(always)]
    pub(super) fn forward<S: Simd>(&self, s: S, y: &mut [f32], x: &[f32]) {
        let half = self.cos.len();
        let k = s.splat(self.scale / (sum_of_squares(s, x) / x.len() as f32 + self.eps).sqrt());
        let ((x_low, x_high), (w_low, w_high)) = (x.split_at(half), self.weight.split_at(half));
        let (y_low, y_high) = y.split_at_mut(half);
        for start in (0..half).step_by(LANES) {
            let part = start..half.min(start + LANES);
            let a = s.mul(s.load_part(&x_low[part.clone()], 0.0), k);
            let b = s.mul(s.load_part(&x_high[part.clone()], 0.0), k);
            let a = s.mul(a, s.load_part(&w_low[part.clone()], 0.0));
            let b = s.mul(b, s.load_part(&w_high[part.clone()], 0.0));
            let cos = s.load_part(&self.cos[part.clone()], 0.0);
            let sin = s.load_part(&self.sin[part.clone()], 0.0);
            s.store_part(s.sub(s.mul(a, cos), s.mul(b, sin)), &mut y_low[part.clone()]);
            s.store_part(s.fma(a, sin, s.mul(b, cos)), &mut y_high[part]);
        }
    }

    /// Turns `g`, the gradient of `y`, into that of `x` and adds that of the weight to `dw`.
    ///
    /// With k the inverse root mean square and n the width, the norm's own gradient is
    /// `g w k - x k^3 sum(g w x) / n`.
    #[inline(always)]
    pub(super) fn backward<S: Simd>(&self, s: S, g: &mut [f32], dw: &mut [f32], x: &[f32]) {
        let (half, n) = (self.cos.len(), x.len());
        let scale = s.splat(self.scale);
        let (g_low, g_high) = g.split_at_mut(half);
        for start in (0..half).step_by(LANES) {
            let part = start..half.min(start + LANES);
            let a = s.mul(s.load_part(&g_low[part.clone()], 0.0), scale);
            let b = s.mul(s.load_part(&g_high[part.clone()], 0.0), scale);
            let cos = s.load_part(&self.cos[part.clone()], 0.0);
            let sin = s.load_part(&self.sin[part.clone()], 0.0);
            s.store_part(s.fma(a, cos, s.mul(b, sin)), &mut g_low[part.clone()]);
            s.store_part(s.sub(s.mul(b, cos), s.mul(a, sin)), &mut g_high[part]);
        }
        let k = 1.0 / (sum_of_squares(s, x) / n as f32 + self.eps).sqrt();
        let k_lanes = s.splat(k);
        let mut products = s.splat(0.0);
        for start in (0..n).step_by(LANES) {
            let part = start..n.min(start + LANES);
            let gx = s.load_part(&g[part.clone()], 0.0);
            let x = s.load_part(&x[part.clone()], 0.0);
            let sum = s.fma(s.mul(gx, x), k_lanes, s.load_part(&dw[part.clone()], 0.0));
            s.store_part(sum, &mut dw[part.clone()]);
            let gw = s.mul(gx, s.load_part(&self.weight[part.clone()], 0.0));
            products = s.fma(gw, x, products);
            s.store_part(gw, &mut g[part]);
        }
        let c = s.splat(-s.sum(products) * k * k * k / n as f32);
        for start in (0..n).step_by(LANES) {
            let part = start..n.min(start + LANES);
            let gw = s.load_part(&g[part.clone()], 0.0);
            let sum = s.fma(s.load_part(&x[part.clone()], 0.0), c, s.mul(gw, k_lanes));
            s.store_part(sum, &mut g[part]);
        }
    }
}
