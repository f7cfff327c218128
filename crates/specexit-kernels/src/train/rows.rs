//! Operations row by row and their backward.

use half::bf16;

use super::ROWS_PER_TASK;
use super::operands::Bf16Rows;
use crate::disjoint::Disjoint;
use crate::kernels::Kernels;
use crate::linear::round;
use crate::simd::{LANES, Simd, exp, max_of, sum_of_squares};
use crate::softmax::exp_in_place;

/// Rounds the first `to.len()` lanes, at most sixteen, to bf16.
#[inline(always)]
pub(super) fn store_rounded<S: Simd>(s: S, vector: S::F, to: &mut [bf16]) {
    let lanes = s.lanes(vector);
    if let Ok(to) = <&mut [bf16; LANES]>::try_from(&mut *to) {
        for i in 0..LANES {
            to[i] = bf16::from_bits(round(lanes[i]));
        }
    } else {
        for (to, x) in to.iter_mut().zip(lanes) {
            *to = bf16::from_bits(round(x));
        }
    }
}

impl Kernels {
    /// `y = x / sqrt(mean(x²) + eps) * weight` row by row, rounded: `x` and `y` `[m, weight.len()]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit.
    pub fn norm_rows(&self, y: &mut Bf16Rows, x: &[f32], weight: &[f32], eps: f32) {
        self.norm_rows_beside(y, &[(x, weight)], eps);
    }

    /// As [`norm_rows`](Self::norm_rows) for several inputs `(x, weight)` of equal width and height,
    /// whose results lie side by side in the rows of `y`, `[m, inputs * width]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit, or there is no input.
    pub fn norm_rows_beside(&self, y: &mut Bf16Rows, inputs: &[(&[f32], &[f32])], eps: f32) {
        let (x, weight) = inputs.first().expect("something to norm");
        let (width, values) = (weight.len(), x.len());
        assert!(width > 0 && values.is_multiple_of(width), "x is not whole rows of {width}");
        let same = |(x, weight): &(&[f32], &[f32])| x.len() == values && weight.len() == width;
        assert!(inputs.iter().all(same), "inputs differ in their lengths");
        y.resize(values / width, inputs.len() * width);
        let stride = y.stride();
        self.each_rows(y.values_mut(), stride, |first, y| {
            for (i, (x, weight)) in inputs.iter().enumerate() {
                let x = &x[first * width..][..y.len() / stride * width];
                let (offset, y) = (i * width, &mut *y);
                dispatch!(
                    self.checked_isa(),
                    norm(
                        y: &mut [bf16],
                        stride: usize,
                        offset: usize,
                        x: &[f32],
                        weight: &[f32],
                        eps: f32,
                    )
                );
            }
        });
    }

    /// The backward of [`norm_rows`](Self::norm_rows): adds the gradients of x and of the weight,
    /// given that of y, to `dx` and `dw`.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit.
    pub fn norm_rows_backward(
        &self,
        dx: &mut [f32],
        dw: &mut [f32],
        grad: &[f32],
        x: &[f32],
        weight: &[f32],
        eps: f32,
    ) {
        self.norm_rows_beside_backward(dx, dw, grad, weight.len(), 0, x, weight, eps);
    }

    /// As [`norm_rows_backward`](Self::norm_rows_backward) for one input of
    /// [`norm_rows_beside`](Self::norm_rows_beside): its gradient begins at column `offset` of the
    /// rows of `grad`, which are `stride` wide.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit.
    pub fn norm_rows_beside_backward(
        &self,
        dx: &mut [f32],
        dw: &mut [f32],
        grad: &[f32],
        stride: usize,
        offset: usize,
        x: &[f32],
        weight: &[f32],
        eps: f32,
    ) {
        let width = weight.len();
        assert!(width > 0 && x.len().is_multiple_of(width), "x is not whole rows of {width}");
        assert!(offset + width <= stride, "{offset} + {width} columns in rows of {stride}");
        let fits = dx.len() == x.len() && grad.len() == x.len() / width * stride;
        assert!(fits, "dx, grad and x differ in their rows");
        assert_eq!(dw.len(), width, "dw is not [{width}]");
        let tasks = (x.len() / width).div_ceil(ROWS_PER_TASK);
        let mut partial = vec![0.0; tasks * width];
        let parts = &Disjoint::new(&mut partial);
        self.each_rows(dx, width, |first, dx| {
            let (from, task) = (first * width, first / ROWS_PER_TASK);
            let x = &x[from..][..dx.len()];
            let grad = &grad[first * stride..][..dx.len() / width * stride];
            // SAFETY: each task has its own part.
            let dw = unsafe { parts.part(task * width..(task + 1) * width) };
            dispatch!(
                self.checked_isa(),
                norm_backward(
                    dx: &mut [f32],
                    dw: &mut [f32],
                    grad: &[f32],
                    stride: usize,
                    offset: usize,
                    x: &[f32],
                    weight: &[f32],
                    eps: f32,
                )
            );
        });
        for part in partial.chunks_exact(width) {
            dw.iter_mut().zip(part).for_each(|(dw, part)| *dw += part);
        }
    }

    /// `y = silu(gate) * up`, rounded: `gate_up` `[m, 2 * width]` with rows `gate|up`, `y`
    /// `[m, width]`.
    ///
    /// # Panics
    ///
    /// If `gate_up` is not whole rows.
    pub fn swiglu_rows(&self, y: &mut Bf16Rows, gate_up: &[f32], width: usize) {
        assert!(width > 0 && gate_up.len().is_multiple_of(2 * width), "not whole rows of gate|up");
        y.resize(gate_up.len() / (2 * width), width);
        let stride = y.stride();
        self.each_rows(y.values_mut(), stride, |first, y| {
            let gate_up = &gate_up[2 * first * width..][..y.len() / stride * 2 * width];
            dispatch!(
                self.checked_isa(),
                swiglu(y: &mut [bf16], stride: usize, gate_up: &[f32], width: usize)
            );
        });
    }

    /// The gradient, rounded, of the rows `gate|up` of [`swiglu_rows`](Self::swiglu_rows), given
    /// that of y.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit.
    pub fn swiglu_rows_backward(
        &self,
        d: &mut Bf16Rows,
        gate_up: &[f32],
        grad: &[f32],
        width: usize,
    ) {
        assert!(width > 0 && gate_up.len().is_multiple_of(2 * width), "not whole rows of gate|up");
        assert_eq!(2 * grad.len(), gate_up.len(), "gate_up is not twice as long as grad");
        d.resize(gate_up.len() / (2 * width), 2 * width);
        let stride = d.stride();
        self.each_rows(d.values_mut(), stride, |first, d| {
            let rows = d.len() / stride;
            let gate_up = &gate_up[2 * first * width..][..rows * 2 * width];
            let grad = &grad[first * width..][..rows * width];
            dispatch!(
                self.checked_isa(),
                swiglu_backward(
                    d: &mut [bf16],
                    stride: usize,
                    gate_up: &[f32],
                    grad: &[f32],
                    width: usize,
                )
            );
        });
    }

    /// [`softmax`](crate::softmax) of each row of `x` `[m, width]`.
    ///
    /// # Panics
    ///
    /// If `x` is not whole rows.
    pub fn softmax_rows(&self, x: &mut [f32], width: usize) {
        assert!(width > 0 && x.len().is_multiple_of(width), "x is not whole rows of {width}");
        self.each_rows(x, width, |_, x| x.chunks_exact_mut(width).for_each(crate::softmax));
    }

    /// The sum over rows of the cross-entropy of `logits` `[m, vocab]` with `targets` `[m]`, and
    /// `scale` times its gradient, rounded. The logits are overwritten.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit or a target is not below `vocab`.
    pub fn cross_entropy(
        &self,
        d: &mut Bf16Rows,
        logits: &mut [f32],
        vocab: usize,
        targets: &[u32],
        scale: f32,
    ) -> f64 {
        assert_eq!(
            logits.len(),
            targets.len() * vocab,
            "logits are not [{}, {vocab}]",
            targets.len()
        );
        assert!(targets.iter().all(|&t| (t as usize) < vocab), "a target of {vocab} or more");
        d.resize(targets.len(), vocab);
        let stride = d.stride();
        let mut losses = vec![0.0; targets.len()];
        let (all_logits, all_losses) = (&Disjoint::new(logits), &Disjoint::new(&mut losses));
        self.each_rows(d.values_mut(), stride, |first, d| {
            let rows = first..first + d.len() / stride;
            // SAFETY: each task has its own rows.
            let logits = unsafe { all_logits.part(rows.start * vocab..rows.end * vocab) };
            // SAFETY: as above.
            let losses = unsafe { all_losses.part(rows.clone()) };
            let targets = &targets[rows];
            dispatch!(
                self.checked_isa(),
                cross_entropy(
                    d: &mut [bf16],
                    stride: usize,
                    losses: &mut [f64],
                    logits: &mut [f32],
                    targets: &[u32],
                    scale: f32,
                )
            );
        });
        losses.iter().sum()
    }
}

#[inline(always)]
fn norm<S: Simd>(
    s: S,
    y: &mut [bf16],
    stride: usize,
    offset: usize,
    x: &[f32],
    weight: &[f32],
    eps: f32,
) {
    let width = weight.len();
    for (y, x) in y.chunks_exact_mut(stride).zip(x.chunks_exact(width)) {
        let mean = sum_of_squares(s, x) / width as f32;
        let scale = s.splat(1.0 / (mean + eps).sqrt());
        let y = &mut y[offset..offset + width];
        let parts = y.chunks_mut(LANES).zip(x.chunks(LANES)).zip(weight.chunks(LANES));
        for ((y, x), w) in parts {
            let normed = s.mul(s.mul(s.load_part(x, 0.0), scale), s.load_part(w, 0.0));
            store_rounded(s, normed, y);
        }
    }
}

/// With k the inverse root mean square and n the width: `dx = g w k - x k^3 sum(g w x) / n`,
/// `dw = sum_rows g x k`.
#[inline(always)]
fn norm_backward<S: Simd>(
    s: S,
    dx: &mut [f32],
    dw: &mut [f32],
    grad: &[f32],
    stride: usize,
    offset: usize,
    x: &[f32],
    weight: &[f32],
    eps: f32,
) {
    let width = weight.len();
    let rows = dx.chunks_exact_mut(width).zip(grad.chunks_exact(stride)).zip(x.chunks_exact(width));
    for ((dx, g), x) in rows {
        let g = &g[offset..offset + width];
        let (mut squares, mut products) = (s.splat(0.0), s.splat(0.0));
        for ((x, g), w) in x.chunks(LANES).zip(g.chunks(LANES)).zip(weight.chunks(LANES)) {
            let x = s.load_part(x, 0.0);
            squares = s.fma(x, x, squares);
            products = s.fma(s.mul(s.load_part(g, 0.0), s.load_part(w, 0.0)), x, products);
        }
        let k = 1.0 / (s.sum(squares) / width as f32 + eps).sqrt();
        let c = s.splat(-s.sum(products) * k * k * k / width as f32);
        let k = s.splat(k);
        let ins = x.chunks(LANES).zip(g.chunks(LANES)).zip(weight.chunks(LANES));
        let outs = dx.chunks_mut(LANES).zip(dw.chunks_mut(LANES));
        for ((dx, dw), ((x, g), w)) in outs.zip(ins) {
            let x = s.load_part(x, 0.0);
            let gk = s.mul(s.load_part(g, 0.0), k);
            s.store_part(s.fma(gk, x, s.load_part(dw, 0.0)), dw);
            let sum = s.fma(gk, s.load_part(w, 0.0), s.load_part(dx, 0.0));
            s.store_part(s.fma(x, c, sum), dx);
        }
    }
}

/// `1 / (1 + exp(-x))`
#[inline(always)]
fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.splat(0.0), x))))
}

#[inline(always)]
fn swiglu<S: Simd>(s: S, y: &mut [bf16], stride: usize, gate_up: &[f32], width: usize) {
    for (y, gate_up) in y.chunks_exact_mut(stride).zip(gate_up.chunks_exact(2 * width)) {
        let (gate, up) = gate_up.split_at(width);
        let parts = y[..width].chunks_mut(LANES).zip(gate.chunks(LANES)).zip(up.chunks(LANES));
        for ((y, gate), up) in parts {
            let gate = s.load_part(gate, 0.0);
            let silu = s.mul(gate, sigmoid(s, gate));
            store_rounded(s, s.mul(silu, s.load_part(up, 0.0)), y);
        }
    }
}

/// With σ = sigmoid(gate): `dgate = grad up σ (1 + gate (1 - σ))`, `dup = grad gate σ`.
#[inline(always)]
fn swiglu_backward<S: Simd>(
    s: S,
    d: &mut [bf16],
    stride: usize,
    gate_up: &[f32],
    grad: &[f32],
    width: usize,
) {
    let one = s.splat(1.0);
    let rows = d.chunks_exact_mut(stride).zip(gate_up.chunks_exact(2 * width));
    for ((d, gate_up), grad) in rows.zip(grad.chunks_exact(width)) {
        let (gate, up) = gate_up.split_at(width);
        let (dgate, dup) = d[..2 * width].split_at_mut(width);
        let ins = gate.chunks(LANES).zip(up.chunks(LANES)).zip(grad.chunks(LANES));
        let outs = dgate.chunks_mut(LANES).zip(dup.chunks_mut(LANES));
        for ((dgate, dup), ((gate, up), grad)) in outs.zip(ins) {
            let (gate, up) = (s.load_part(gate, 0.0), s.load_part(up, 0.0));
            let sigma = sigmoid(s, gate);
            let grad_sigma = s.mul(s.load_part(grad, 0.0), sigma);
            let slope = s.fma(gate, s.sub(one, sigma), one);
            store_rounded(s, s.mul(s.mul(grad_sigma, up), slope), dgate);
            store_rounded(s, s.mul(grad_sigma, gate), dup);
        }
    }
}

#[inline(always)]
fn cross_entropy<S: Simd>(
    s: S,
    d: &mut [bf16],
    stride: usize,
    losses: &mut [f64],
    logits: &mut [f32],
    targets: &[u32],
    scale: f32,
) {
    let vocab = logits.len() / targets.len();
    let rows = d.chunks_exact_mut(stride).zip(losses).zip(logits.chunks_exact_mut(vocab));
    for (((d, loss), row), &target) in rows.zip(targets) {
        let target = target as usize;
        let largest = max_of(s, row);
        let right = row[target] - largest;
        let sum = exp_in_place(s, row, s.splat(largest));
        *loss = f64::from(sum.ln() - right);
        let factor = s.splat(scale / sum);
        let own = row[target] * (scale / sum) - scale;
        for (d, p) in d[..vocab].chunks_mut(LANES).zip(row.chunks(LANES)) {
            store_rounded(s, s.mul(s.load_part(p, 0.0), factor), d);
        }
        d[target] = bf16::from_bits(round(own));
    }
}
