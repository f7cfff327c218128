//! How fast the products of training are.
//!
//! `cargo test --release -p specexit-kernels --test train_speed -- --ignored --nocapture`
#![allow(clippy::print_stdout, reason = "a measurement")]

mod common;

use std::time::Instant;

use common::Numbers;
use specexit_kernels::{Bf16Rows, Kernels, PairPanels, Precision};

fn time(name: &str, flops: f64, mut f: impl FnMut()) {
    let mut best = f64::MAX;
    for _ in 0..30 {
        let start = Instant::now();
        f();
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("{name}: {:.3} ms, {:.0} GFLOP/s", best * 1e3, flops / best / 1e9);
}

#[test]
#[ignore = "a measurement, not a check"]
fn products() {
    for threads in [1, 2] {
        let kernels = Kernels::new(threads, Precision::Bf16);
        let m = 2048;
        for (n, k) in [(320, 192), (192, 192), (1024, 192), (192, 512), (192, 1024), (512, 192)] {
            let mut random = Numbers::new(1);
            let (x, w, g) = (random.take(m * k), random.take(n * k), random.take(m * n));
            let (mut xr, mut gr) = (Bf16Rows::default(), Bf16Rows::default());
            let (mut wp, mut xp, mut gp) =
                (PairPanels::default(), PairPanels::default(), PairPanels::default());
            kernels.round_rows(&mut gr, &g, n);
            let (mut y, mut dw) = (vec![0.0; m * n], vec![0.0; n * k]);
            let flops = 2.0 * (m * n * k) as f64;
            let name = |what: &str| format!("{threads} threads, {m} x {n} x {k} {what}");
            time(&name("round"), 0.0, || kernels.round_rows(&mut xr, &x, k));
            time(&name("weight"), 0.0, || kernels.pack_transposed(&mut wp, &w, n, k));
            time(&name("interleave"), 0.0, || kernels.interleave(&mut xp, &xr));
            kernels.interleave(&mut gp, &gr);
            time(&name("multiply"), flops, || kernels.multiply(&mut y, &xr, &wp, None));
            time(&name("multiply_transposed"), flops, || {
                kernels.multiply_transposed(&mut dw, &gp, &xp);
            });
        }
    }
}

#[test]
#[ignore = "a measurement, not a check"]
fn attention() {
    use specexit_kernels::{CausalShape, HeadNorms, RopeTable};
    let shape = CausalShape { heads: 6, kv_heads: 2, head_dim: 32 };
    let freq: Vec<f32> = (0..16).map(|i| 0.5f32.powi(i)).collect();
    let rope = RopeTable::new(&freq, 1024);
    let mut texts = vec![];
    let mut rows = 0;
    for length in [150, 220, 300, 380, 450, 500] {
        texts.push(rows..rows + length);
        rows += length;
    }
    let pairs: usize = texts.iter().map(|t| t.len() * (t.len() + 1) / 2).sum();
    let mut random = Numbers::new(1);
    let (qkv, grad, w) = (random.take(rows * 320), random.take(rows * 192), vec![1.0; 32]);
    let norms = HeadNorms { q: &w, k: &w, eps: 1e-6 };
    let mut lse = vec![0.0; rows * 6];
    let (mut out, mut d) = (Bf16Rows::default(), Bf16Rows::default());
    let (mut dq, mut dk) = (vec![0.0; 32], vec![0.0; 32]);
    for threads in [1, 2] {
        let kernels = Kernels::new(threads, Precision::Bf16);
        let flops = 2.0 * (pairs * 192) as f64;
        time(&format!("{threads} threads, {rows} rows forward"), 2.0 * flops, || {
            kernels.causal_attention(&mut out, &mut lse, &qkv, &texts, shape, norms, &rope);
        });
        time(&format!("{threads} threads, {rows} rows backward"), 5.0 * flops, || {
            let dnorms = [&mut dq[..], &mut dk[..]];
            kernels.causal_attention_backward(
                &mut d, dnorms, &grad, &lse, &qkv, &texts, shape, norms, &rope,
            );
        });
        let mut x = vec![0.0; rows * 192];
        let mut dw = vec![0.0; 192];
        time("norm backward", 0.0, || {
            kernels.norm_rows_backward(&mut x, &mut dw, &grad, &grad, &[1.0; 192], 1e-6);
        });
        time("norm", 0.0, || kernels.norm_rows(&mut out, &grad, &[1.0; 192], 1e-6));
        let gate_up = random.take(rows * 1024);
        let up = random.take(rows * 512);
        time("swiglu", 0.0, || kernels.swiglu_rows(&mut out, &gate_up, 512));
        time("swiglu backward", 0.0, || {
            kernels.swiglu_rows_backward(&mut d, &gate_up, &up, 512);
        });
        let mut logits = random.take(rows * 512);
        let targets = vec![3; rows];
        time("cross-entropy", 0.0, || {
            kernels.cross_entropy(&mut d, &mut logits, 512, &targets, 1e-3);
        });
    }
}
