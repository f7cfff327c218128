//! How fast a step is at the sizes of Qwen2.5-0.5B.
//!
//! `cargo test --release -p specexit-train speed -- --ignored --nocapture`

use std::sync::Arc;
use std::time::Instant;

use specexit_kernels::RopeTable;
use specexit_model::config::inverse_frequencies;

use super::draft::{Draft, DraftBatch, DraftSequence, DraftShape, Targets};
use super::init::{Init, TargetStart, fresh_params};
use super::params::AdamW;
use crate::ops::check::numbers;
use crate::ops::{Products, all_cores};

/// Processor seconds of this process so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> =
        stat.split_whitespace().skip(13).take(2).filter_map(|f| f.parse().ok()).collect();
    fields.iter().sum::<f64>() / 100.0
}

#[test]
#[ignore = "a measurement, not a check"]
fn speed_of_a_step() {
    let shape = DraftShape {
        hidden: 896,
        taps: 3 * 896,
        intermediate: 3584,
        heads: 14,
        kv_heads: 2,
        head_dim: 64,
        vocab: 5000,
        eps: 1e-6,
    };
    let (sequences, length, prompt) = (4, 502, 150);
    let context = length - 2;
    let queries = context - (prompt - 1);
    let positions = sequences * queries;
    let mut probs: Vec<f32> = numbers(1, positions * shape.vocab);
    probs.chunks_exact_mut(shape.vocab).for_each(|row| {
        row.iter_mut().for_each(|p| *p = (p.abs() * 8.0).exp());
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|p| *p /= sum);
    });
    let rows = sequences * context;
    let embeddings = numbers(2, (context + 1) * shape.hidden);
    let sequence = DraftSequence { context, first: prompt - 1, queries, embeddings };
    let batch = DraftBatch {
        taps: numbers(3, rows * shape.taps),
        sequences: vec![sequence; sequences],
        targets: Targets { probs, argmax: vec![Some(0); positions] },
        probed: Vec::new(),
    };
    let start = TargetStart { lm_head: &[], final_rms: &[], inverse_rms: &[] };
    let mut params = fresh_params(&shape, Init::Random, &start, 1);
    let count: usize = params.iter().map(|p| p.value.len()).sum();
    let mut grads: Vec<Vec<f32>> = params.iter().map(|p| vec![0.0; p.value.len()]).collect();
    let kernels = all_cores();
    for products in [Products::Bf16, Products::F32] {
        let rope = Arc::new(RopeTable::new(&inverse_frequencies(1e6, 64), 1024));
        let mut draft = Draft::new(&shape, rope, products, &kernels);
        // The first one also fills the buffers.
        for steps in [1, 1, 4, 4] {
            let (wall, cpu) = (Instant::now(), cpu_seconds());
            draft.gradients(&params, &batch, steps, 0.8, &mut grads).unwrap();
            let adam = AdamW {
                lr: 1e-4,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.0,
                update: 1,
            };
            for (param, grad) in params.iter_mut().zip(&grads) {
                param.update(&kernels, grad, 1.0, &adam);
            }
            let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds() - cpu);
            println!(
                "{products:?}, {steps} steps, {count} weights: {wall:.2} s wall, {cpu:.2} s CPU; \
                 {:.0} tokens/s on two free cores",
                rows as f64 / (cpu / 2.0)
            );
        }
    }
}
