//! The operations of training against their definitions, on every instruction set.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Numbers, bits, close, kernels, wide, widened};
use specexit_kernels::{Bf16Rows, CausalShape, HeadNorms, PairPanels, RopeTable, bf16};

fn rounded(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| bf16::from_f32(*x).to_f64()).collect()
}

#[test]
fn products_of_any_shape() {
    let shapes: &[[usize; 3]] = if cfg!(miri) {
        &[[1, 1, 1], [17, 33, 35], [9, 40, 3]]
    } else {
        &[[1, 1, 1], [17, 33, 35], [9, 40, 3], [130, 70, 600], [8, 32, 32], [300, 5, 64]]
    };
    for &[m, n, k] in shapes {
        let mut random = Numbers::new((m * n * k) as u64);
        let (x, w, g) = (random.take(m * k), random.take(n * k), random.take(m * n));
        let base = random.take(m * n);
        let (xr, wr, gr) = (rounded(&x), rounded(&w), rounded(&g));
        let sum = |count: usize, f: &dyn Fn(usize) -> f64| (0..count).map(f).sum::<f64>();
        let mut y = wide(&base);
        let mut dx = vec![0.0; m * k];
        let mut dw = vec![1.0; n * k];
        for i in 0..m {
            for j in 0..n {
                y[i * n + j] += sum(k, &|l| xr[i * k + l] * wr[j * k + l]);
            }
            for l in 0..k {
                dx[i * k + l] = sum(n, &|j| gr[i * n + j] * wr[j * k + l]);
            }
        }
        for j in 0..n {
            for l in 0..k {
                dw[j * k + l] += sum(m, &|i| gr[i * n + j] * xr[i * k + l]);
            }
        }
        for kernels in kernels(2) {
            let name = format!("{} [{m}, {n}, {k}]", kernels.isa());
            let (mut rows, mut grad) = (Bf16Rows::default(), Bf16Rows::default());
            let (mut a, mut b) = (PairPanels::default(), PairPanels::default());
            // What a buffer held before must not matter.
            kernels.round_rows(&mut rows, &[f32::NAN; 77], 7);
            kernels.interleave(&mut b, &rows);
            kernels.round_rows(&mut rows, &x, k);
            assert_eq!(widened(&rows), xr, "{name}");
            kernels.round_rows(&mut grad, &g, n);
            kernels.pack_transposed(&mut b, &w, n, k);
            let mut found = vec![f32::NAN; m * n];
            kernels.multiply(&mut found, &rows, &b, Some(&base));
            close(&wide(&found), &y, 1e-5, &format!("{name} y"));
            kernels.pack(&mut b, &w, n, k);
            let mut found = vec![f32::NAN; m * k];
            kernels.multiply(&mut found, &grad, &b, None);
            close(&wide(&found), &dx, 1e-5, &format!("{name} dx"));
            kernels.interleave(&mut a, &grad);
            kernels.interleave(&mut b, &rows);
            let mut found = vec![1.0; n * k];
            kernels.multiply_transposed(&mut found, &a, &b);
            close(&wide(&found), &dw, 1e-5, &format!("{name} dw"));
        }
    }
}

/// Central differences of `loss` in every coordinate of `x`.
fn differences(x: &[f64], loss: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let h = 1e-5;
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let before = x[i];
            x[i] = before + h;
            let up = loss(&x);
            x[i] = before - h;
            let down = loss(&x);
            x[i] = before;
            (up - down) / (2.0 * h)
        })
        .collect()
}

fn weighted(y: &[f64], weights: &[f32]) -> f64 {
    y.iter().zip(weights).map(|(y, w)| y * f64::from(*w)).sum()
}

fn norm(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let width = weight.len();
    let row = |x: &[f64]| {
        let k = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / width as f64 + eps).sqrt();
        x.iter().zip(weight).map(|(x, w)| x * k * w).collect::<Vec<_>>()
    };
    x.chunks(width).flat_map(row).collect()
}

const ROUNDING: f64 = 1.0 / 256.0;

#[test]
fn norms_and_their_gradients() {
    let (rows, width, eps) = (if cfg!(miri) { 5 } else { 70 }, 21, 1e-3);
    let mut random = Numbers::new(3);
    let (x, w, g) = (random.take(rows * width), random.take(width), random.take(rows * width));
    let expected = norm(&wide(&x), &wide(&w), eps);
    let dx = differences(&wide(&x), |x| weighted(&norm(x, &wide(&w), eps), &g));
    let dw = differences(&wide(&w), |w| weighted(&norm(&wide(&x), w, eps), &g));
    for kernels in kernels(2) {
        let mut y = Bf16Rows::default();
        kernels.norm_rows(&mut y, &x, &w, eps as f32);
        close(&widened(&y), &expected, ROUNDING, "y");
        let (mut found_x, mut found_w) = (vec![1.0; x.len()], vec![-1.0; width]);
        kernels.norm_rows_backward(&mut found_x, &mut found_w, &g, &x, &w, eps as f32);
        let less = |x: &[f32], by: f64| wide(x).iter().map(|x| x - by).collect::<Vec<_>>();
        close(&less(&found_x, 1.0), &dx, 1e-5, "dx");
        close(&less(&found_w, -1.0), &dw, 1e-5, "dw");
    }
}

#[test]
fn swiglu_and_its_gradient() {
    let (rows, width) = (3, 19);
    let mut random = Numbers::new(4);
    let (x, g) = (random.take(rows * 2 * width), random.take(rows * width));
    let x: Vec<f32> = x.iter().map(|x| 4.0 * x).collect();
    let swiglu = |x: &[f64]| {
        let row = |row: &[f64]| {
            let (gate, up) = row.split_at(width);
            gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect::<Vec<_>>()
        };
        x.chunks(2 * width).flat_map(row).collect::<Vec<_>>()
    };
    let d = differences(&wide(&x), |x| weighted(&swiglu(x), &g));
    for kernels in kernels(2) {
        let mut y = Bf16Rows::default();
        kernels.swiglu_rows(&mut y, &x, width);
        close(&widened(&y), &swiglu(&wide(&x)), ROUNDING, "y");
        kernels.swiglu_rows_backward(&mut y, &x, &g, width);
        close(&widened(&y), &d, ROUNDING, "d");
    }
}

#[test]
fn cross_entropy_and_its_gradient() {
    let (rows, vocab) = (4, 37);
    let logits: Vec<f32> = Numbers::new(5).take(rows * vocab).iter().map(|x| 5.0 * x).collect();
    let targets = [0, 36, 7, 7];
    let loss = |x: &[f64]| {
        let row =
            |(x, t): (&[f64], &u32)| x.iter().map(|x| x.exp()).sum::<f64>().ln() - x[*t as usize];
        x.chunks(vocab).zip(&targets).map(row).sum::<f64>()
    };
    let d: Vec<f64> = differences(&wide(&logits), loss).iter().map(|d| d * 0.5).collect();
    for kernels in kernels(2) {
        let mut found = Bf16Rows::default();
        let sum = kernels.cross_entropy(&mut found, &mut logits.clone(), vocab, &targets, 0.5);
        assert!((sum - loss(&wide(&logits))).abs() < 1e-5 * sum, "{sum}");
        close(&widened(&found), &d, ROUNDING, "d");
    }
}

const SHAPE: CausalShape = CausalShape { heads: 4, kv_heads: 2, head_dim: 6 };
const ROW: usize = 48;

/// Attention written out: `qkv`, then the norms' weights, to `[rows, heads * head_dim]`.
fn attention(x: &[f64], texts: &[std::ops::Range<usize>], inv_freq: &[f32]) -> Vec<f64> {
    let hd = SHAPE.head_dim;
    let (qkv, norms) = x.split_at(x.len() - 2 * hd);
    let head = |row: usize, head: usize| &qkv[row * ROW + head * hd..][..hd];
    let turned = |row: usize, h: usize, weight: &[f64], position: usize| {
        let mut x = norm(head(row, h), weight, 1e-4);
        for (i, f) in inv_freq.iter().enumerate() {
            let (sin, cos) = (position as f64 * f64::from(*f)).sin_cos();
            let (a, b) = (x[i], x[i + hd / 2]);
            (x[i], x[i + hd / 2]) = (a * cos - b * sin, b * cos + a * sin);
        }
        x
    };
    let mut out = Vec::new();
    for text in texts {
        for row in text.clone() {
            for h in 0..SHAPE.heads {
                let q = turned(row, h, &norms[..hd], row - text.start);
                let kv = h / (SHAPE.heads / SHAPE.kv_heads);
                let score = |key: usize| {
                    let k = turned(key, SHAPE.heads + kv, &norms[hd..], key - text.start);
                    let dot: f64 = q.iter().zip(k).map(|(q, k)| q * k).sum();
                    (dot / (hd as f64).sqrt()).exp()
                };
                let scores: Vec<f64> = (text.start..=row).map(score).collect();
                let total: f64 = scores.iter().sum();
                for i in 0..hd {
                    let value = |k: usize| head(k, SHAPE.heads + SHAPE.kv_heads + kv)[i];
                    let weighted = scores.iter().zip(text.start..).map(|(s, k)| s * value(k));
                    out.push(weighted.sum::<f64>() / total);
                }
            }
        }
    }
    out
}

#[test]
fn attention_and_its_gradients() {
    // One text that ends within a block, one of more than a block, and an empty one.
    let texts = if cfg!(miri) { vec![0..2, 2..2, 2..3] } else { vec![0..3, 3..3, 3..43] };
    let rows = texts.last().unwrap().end;
    let (hd, inv_freq) = (SHAPE.head_dim, [1.0, 0.3, 0.1]);
    let mut random = Numbers::new(6);
    let x = random.take(rows * ROW + 2 * hd);
    let g = random.take(rows * SHAPE.heads * hd);
    let expected = attention(&wide(&x), &texts, &inv_freq);
    // Along some directions only: one difference costs a whole attention.
    let count = if cfg!(miri) { 1 } else { 8 };
    let directions: Vec<Vec<f32>> = (0..count).map(|_| random.take(x.len())).collect();
    let slopes: Vec<f64> = directions
        .iter()
        .map(|direction| {
            let loss = |step: f64| {
                let moved: Vec<f64> = x
                    .iter()
                    .zip(direction)
                    .map(|(x, d)| f64::from(*x) + step * f64::from(*d))
                    .collect();
                weighted(&attention(&moved, &texts, &inv_freq), &g)
            };
            (loss(1e-5) - loss(-1e-5)) / 2e-5
        })
        .collect();
    let rope = RopeTable::new(&inv_freq, 64);
    let (qkv, norms) = x.split_at(rows * ROW);
    let norms = HeadNorms { q: &norms[..hd], k: &norms[hd..], eps: 1e-4 };
    let mut same: Vec<Vec<u32>> = Vec::new();
    for kernels in kernels(1).chain(kernels(3)) {
        let (mut out, mut d) = (Bf16Rows::default(), Bf16Rows::default());
        let mut lse = vec![f32::NAN; rows * SHAPE.heads];
        kernels.causal_attention(&mut out, &mut lse, qkv, &texts, SHAPE, norms, &rope);
        close(&widened(&out), &expected, ROUNDING, "out");
        let (mut dq, mut dk) = (vec![0.0; hd], vec![0.0; hd]);
        let dnorms = [&mut dq[..], &mut dk[..]];
        kernels
            .causal_attention_backward(&mut d, dnorms, &g, &lse, qkv, &texts, SHAPE, norms, &rope);
        let gradient: Vec<f64> =
            widened(&d).into_iter().chain(wide(&dq)).chain(wide(&dk)).collect();
        let found: Vec<f64> = directions.iter().map(|d| weighted(&gradient, d)).collect();
        close(&found, &slopes, ROUNDING, "slopes");
        same.push([bits(&lse), bits(&dq), bits(&dk)].concat());
    }
    let (one, three) = same.split_at(same.len() / 2);
    assert_eq!(one, three, "threads change the result");
}
