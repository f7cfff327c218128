//! How fast a step is at the sizes that are meant to be trained on a CPU.
//!
//! `cargo test --release -p specexit-train decoder::speed -- --ignored --nocapture`; beside torch:
//! `python3 scripts/bench_training.py`

use std::time::Instant;

use super::*;
use crate::net::params::AdamW;

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
    let shape = DecoderShape {
        vocab_size: 512,
        hidden_size: 192,
        intermediate_size: 512,
        num_hidden_layers: 8,
        num_attention_heads: 6,
        num_key_value_heads: 2,
        head_dim: 32,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        max_position_embeddings: 1024,
    };
    let mut params = shape.fresh_params(1);
    let lengths = [150usize, 220, 300, 380, 450, 500];
    let mut texts = Vec::new();
    let mut total = 0;
    for length in lengths.iter().cycle() {
        if total + length > 8192 {
            break;
        }
        let text: Vec<u32> = (0..*length).map(|i| (i * i * 31 + total) as u32 % 512).collect();
        total += length;
        texts.push(text);
    }
    // Multiply-adds of the linear layers (twice as many again backward) and of attention's two
    // products over the triangle (five of them backward).
    let matrices: usize = params.iter().filter(|p| p.decays).map(|p| p.value.len()).sum();
    let pairs: usize = texts.iter().map(|t| t.len() * (t.len() + 1) / 2).sum();
    let linear = 6.0 * (matrices * total) as f64;
    let attention = 14.0 * (pairs * shape.q() * shape.num_hidden_layers) as f64;
    let batches = TextBatch::group(texts.iter().map(|t| (&t[..], t.len() / 4)), 2048);
    let mut grads: Vec<Vec<f32>> = params.iter().map(|p| vec![0.0; p.value.len()]).collect();
    let kernels = all_cores();
    let mut decoder = Fast::new(&shape, &kernels);
    for _ in 0..8 {
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let mut parts = [0f64; 4];
        let mut last = start;
        let mut lap = |part: usize| {
            parts[part] += last.elapsed().as_secs_f64() * 1e3;
            last = Instant::now();
        };
        grads.iter_mut().for_each(|g| g.fill(0.0));
        decoder.prepare(&params);
        lap(0);
        for batch in &batches {
            decoder.forward(&params, batch);
            lap(1);
            decoder.backward(&params, batch, 1e-4, &mut grads);
            lap(2);
        }
        let adam =
            AdamW { lr: 1e-4, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0, update: 1 };
        params.iter_mut().zip(&grads).for_each(|(p, g)| p.update(&kernels, g, 1.0, &adam));
        lap(3);
        let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        let [prepare, forward, backward, update] = parts;
        println!(
            "{total} tokens: {:.0} ms wall, {:.0} ms CPU (weights {prepare:.0}, forward \
             {forward:.0}, backward {backward:.0}, update {update:.0}); {:.0} tokens/s, \
             {:.0} GFLOP/s wall, {:.0} on two free cores",
            wall * 1e3,
            cpu * 1e3,
            total as f64 / wall,
            (linear + attention) / wall / 1e9,
            (linear + attention) / (cpu / 2.0) / 1e9,
        );
    }
}

/// Nanoseconds that this process's threads have spent on a processor.
fn cpu_nanoseconds() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let of = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    };
    tasks.map(of).sum()
}

/// The Rust side of `scripts/bench_training.py`, which has the same model and says what is printed.
#[test]
#[ignore = "a measurement, not a check"]
fn speed_of_one_layer() {
    let shape = DecoderShape {
        vocab_size: 512,
        hidden_size: 512,
        intermediate_size: 1536,
        num_hidden_layers: 1,
        num_attention_heads: 8,
        num_key_value_heads: 8,
        head_dim: 64,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        max_position_embeddings: 512,
    };
    let threads = std::env::var("BENCH_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let steps: usize = std::env::var("BENCH_STEPS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let mut params = shape.fresh_params(1);
    let mut batch = TextBatch::default();
    for text in 0..4u32 {
        let tokens: Vec<u32> = (0..513).map(|i: u32| (i * i * 31 + i * 7 + text) % 512).collect();
        batch.push(&tokens, 0);
    }
    let mut grads: Vec<Vec<f32>> = params.iter().map(|p| vec![0.0; p.value.len()]).collect();
    let kernels = Arc::new(Kernels::new(threads, specexit_kernels::Precision::Bf16));
    let mut decoder = Fast::new(&shape, &kernels);
    let scale = 1.0 / batch.rows() as f32;
    let mut wall = Vec::new();
    let (mut cpu, mut loss) = (0, 0.0);
    for step in 0..steps + 2 {
        // Two steps to fill the buffers.
        if step == 2 {
            cpu = cpu_nanoseconds();
        }
        let start = Instant::now();
        grads.iter_mut().for_each(|g| g.fill(0.0));
        decoder.prepare(&params);
        decoder.forward(&params, &batch);
        loss = decoder.backward(&params, &batch, scale, &mut grads) * f64::from(scale);
        let update = step as u64 + 1;
        let adam =
            AdamW { lr: 1e-4, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0, update };
        params.iter_mut().zip(&grads).for_each(|(p, g)| p.update(&kernels, g, 1.0, &adam));
        if step >= 2 {
            wall.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    let cpu = (cpu_nanoseconds() - cpu) as f64 / 1e6 / steps as f64;
    println!("BENCH {{\"wall_ms\": {wall:.3?}, \"cpu_ms\": {cpu:.3}, \"loss\": {loss:.5}}}");
}
