//! Operations row by row over slices, without a tape.

use rayon::prelude::*;

use super::{ROWS_PER_TASK, dot};

/// `y = x / sqrt(mean(x^2) + eps) * weight` for each `weight.len()` numbers of `x`.
pub(crate) fn norm(y: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
    let width = weight.len();
    let task = ROWS_PER_TASK * width;
    y.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(y, x)| {
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let k = inverse(x, eps);
            for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                *y = x * k * w;
            }
        }
    });
}

fn inverse(x: &[f32], eps: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt()
}

/// `dx += dnorm/dx g` and `dw += dnorm/dw g` of [`norm`]: with k the inverse root mean square and n the
/// width, `g w k - x k^3 sum(g w x) / n` and `sum_rows g x k`.
pub(crate) fn norm_backward(
    dx: &mut [f32],
    dw: &mut [f32],
    g: &[f32],
    x: &[f32],
    weight: &[f32],
    eps: f32,
) {
    let width = weight.len();
    let task = ROWS_PER_TASK * width;
    let tasks = dx.par_chunks_mut(task).zip(x.par_chunks(task)).zip(g.par_chunks(task));
    let partial: Vec<Vec<f32>> = tasks
        .map(|((dx, x), g)| {
            let mut dw = vec![0f32; width];
            let rows = dx.chunks_exact_mut(width).zip(x.chunks_exact(width));
            let mut gw = vec![0f32; width];
            for ((dx, x), g) in rows.zip(g.chunks_exact(width)) {
                let k = inverse(x, eps);
                for ((gw, g), w) in gw.iter_mut().zip(g).zip(weight) {
                    *gw = g * w;
                }
                let c = dot(&gw, x) * k * k * k / width as f32;
                for i in 0..width {
                    dx[i] += gw[i] * k - x[i] * c;
                    dw[i] += g[i] * x[i] * k;
                }
            }
            dw
        })
        .collect();
    for part in &partial {
        dw.iter_mut().zip(part).for_each(|(sum, p)| *sum += p);
    }
}

/// `1 / (1 + exp(-x))`
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// `y = silu(gate) * up` for rows `gate|up` of `2 width` numbers.
pub(crate) fn swiglu(y: &mut [f32], gate_up: &[f32], width: usize) {
    let rows = y.par_chunks_mut(width).zip(gate_up.par_chunks(2 * width));
    rows.for_each(|(y, gate_up)| {
        let (gate, up) = gate_up.split_at(width);
        for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
            *y = g * sigmoid(*g) * u;
        }
    });
}

/// The gradient of the rows `gate|up` of [`swiglu`], in place of them.
pub(crate) fn swiglu_backward(gate_up: &mut [f32], grad: &[f32], width: usize) {
    let rows = gate_up.par_chunks_mut(2 * width).zip(grad.par_chunks(width));
    rows.for_each(|(gate_up, grad)| {
        let (gate, up) = gate_up.split_at_mut(width);
        for ((g, u), d) in gate.iter_mut().zip(up).zip(grad) {
            let s = sigmoid(*g);
            (*g, *u) = (d * *u * s * (1.0 + *g * (1.0 - s)), d * *g * s);
        }
    });
}

/// Turns logits `[rows, vocab]` into `scale` times the gradient of the sum over rows of the
/// cross-entropy with `targets`, and returns that sum.
pub(crate) fn cross_entropy(logits: &mut [f32], vocab: usize, targets: &[u32], scale: f32) -> f64 {
    let losses: Vec<f64> = logits
        .par_chunks_mut(vocab)
        .zip(targets)
        .map(|(row, &target)| {
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let right = row[target as usize] - max;
            let mut sum = 0f32;
            for x in row.iter_mut() {
                *x = (*x - max).exp();
                sum += *x;
            }
            let factor = scale / sum;
            row.iter_mut().for_each(|x| *x *= factor);
            row[target as usize] -= scale;
            f64::from(sum.ln() - right)
        })
        .collect();
    losses.iter().sum()
}
