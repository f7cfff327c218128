//! How fast a step is at the sizes of Qwen2.5-0.5B.
//!
//! `cargo test --release -p specexit-train speed -- --ignored --nocapture`

use std::sync::Arc;
use std::time::Instant;

use specexit_kernels::RopeTable;
use specexit_model::config::inverse_frequencies;

use super::draft::{Draft, DraftBatch, DraftSequence, DraftShape, Targets, Weights};
use super::init::{Init, TargetStart, fresh_params};
use super::params::AdamW;
use crate::ops::check::numbers;
use crate::ops::{Gemm, Products, tensor, with_numbers};

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
        taps: tensor(numbers(3, rows * shape.taps), (rows, shape.taps)).unwrap(),
        sequences: vec![sequence; sequences],
        targets: Targets { probs: Arc::new(probs), argmax: vec![Some(0); positions] },
    };
    let start = TargetStart { lm_head: &[], final_rms: &[], inverse_rms: &[] };
    let mut params = fresh_params(&shape, Init::Random, &start, 1);
    let count: usize = params.iter().map(|p| p.value.len()).sum();
    for products in [Products::Bf16, Products::F32] {
        let draft = Draft {
            shape: shape.clone(),
            rope: Arc::new(RopeTable::new(&inverse_frequencies(1e6, 64), 1024)),
            gemm: Gemm::new(products),
        };
        for steps in [1, 4] {
            let (wall, cpu) = (Instant::now(), cpu_seconds());
            let (weights, vars) = Weights::tracked(&params, &draft.gemm).unwrap();
            let drafted = draft.forward(&weights, &batch, steps, 0.8).unwrap();
            let forward = cpu_seconds() - cpu;
            let grads = drafted.loss.backward().unwrap();
            let backward = cpu_seconds() - cpu - forward;
            let adam = AdamW {
                lr: 1e-4,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.0,
                update: 1,
            };
            for (param, var) in params.iter_mut().zip(&vars) {
                let grad = grads.get(var.as_tensor()).unwrap();
                with_numbers(grad, |g| {
                    param.update(g, 1.0, &adam);
                    Ok(())
                })
                .unwrap();
            }
            let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds() - cpu);
            let update = cpu - forward - backward;
            println!(
                "{products:?}, {steps} steps, {count} weights: {wall:.2} s wall, {cpu:.2} s CPU \
                 (forward {forward:.2}, backward {backward:.2}, update {update:.2}); \
                 {:.0} tokens/s on two free cores",
                rows as f64 / (cpu / 2.0)
            );
        }
    }
}
