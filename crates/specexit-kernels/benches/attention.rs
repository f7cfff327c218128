//! Attention of 1 and 8 rows over 128 and 2048 positions, and of a prompt of 512, over several caches
//! in turn, in bf16 and in 8 bits; and of 8 sequences together. `SPECEXIT_THREADS` (default 2) sets the number of threads.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use specexit_kernels::{
    AttentionSequence, AttentionShape, CacheNumbers, Kernels, KeysValues, Precision,
};

/// The reference reasoner, SmolLM2-135M, Qwen2.5-0.5B, Qwen2.5-1.5B and Qwen3-1.7B.
const SHAPES: [(usize, usize, usize); 5] =
    [(6, 6, 32), (9, 3, 64), (14, 2, 64), (12, 2, 128), (16, 8, 128)];

/// What caches are kept in.
const KEPT: [CacheNumbers; 2] = [CacheNumbers::Bf16, CacheNumbers::Int8];

/// Bytes of all caches together: more than any level of cache holds.
const CACHES: usize = 96 << 20;

fn threads() -> usize {
    std::env::var("SPECEXIT_THREADS").map_or(2, |n| n.parse().expect("a number of threads"))
}

fn attention(c: &mut Criterion) {
    let kernels = Kernels::new(threads(), Precision::Bf16);
    let number = |i: usize| (i % 251) as f32 * 0.01 - 1.25;
    let queries: Vec<f32> = (0..512 * 2048).map(number).collect();
    for ((heads, kv_heads, head_dim), numbers) in SHAPES.iter().flat_map(|s| KEPT.map(|n| (*s, n)))
    {
        let shape = AttentionShape { heads, kv_heads, head_dim, scale: 0.125 };
        let name = format!("attention {heads}/{kv_heads}/{head_dim} {numbers}");
        let mut group = c.benchmark_group(name);
        for (rows, start) in [(1, 127), (8, 120), (1, 2047), (8, 2040), (512, 0)] {
            let width = kv_heads * head_dim;
            let mut cache = KeysValues::new(kv_heads, head_dim, numbers);
            for position in 0..start + rows {
                let number: Vec<f32> = (0..width).map(|i| number(position * width + i)).collect();
                cache.push(&kernels, &number, &number);
            }
            cache.shrink();
            let bytes = cache.capacity_bytes();
            let caches = vec![cache; CACHES / bytes];
            let q = &queries[..rows * heads * head_dim];
            let mut out = vec![0.0; q.len()];
            group.throughput(Throughput::Bytes(bytes as u64));
            let name = format!("{rows} rows after {start}");
            group.bench_with_input(BenchmarkId::from_parameter(name), &rows, |b, &rows| {
                let mut turn = caches.iter().cycle();
                b.iter(|| {
                    let cache = turn.next().expect("an endless cycle");
                    let sequence = AttentionSequence { rows: 0..rows, start, cache };
                    let out = black_box(&mut out);
                    kernels.attention(out, q, heads * head_dim, shape, &[sequence]);
                });
            });
        }
        group.finish();
    }
}

/// One row of each of eight sequences, layer by layer: what a small model decodes together from the
/// level-3 cache.
fn sequences(c: &mut Criterion) {
    let kernels = Kernels::new(threads(), Precision::Bf16);
    let (heads, kv_heads, head_dim) = SHAPES[0];
    let shape = AttentionShape { heads, kv_heads, head_dim, scale: 0.125 };
    let width = heads * head_dim;
    let q = vec![0.5; 8 * width];
    let mut out = vec![0.0; q.len()];
    let mut group = c.benchmark_group("8 sequences in 8 layers");
    for (start, numbers) in [127, 255, 511].iter().flat_map(|s| KEPT.map(|n| (*s, n))) {
        let mut cache = KeysValues::new(kv_heads, head_dim, numbers);
        for position in 0..=start {
            let number: Vec<f32> = (0..width).map(|i| ((position + i) % 7) as f32).collect();
            cache.push(&kernels, &number, &number);
        }
        cache.shrink();
        let layers = vec![vec![cache; 8]; 8];
        group.throughput(Throughput::Bytes((64 * layers[0][0].capacity_bytes()) as u64));
        group.bench_with_input(
            BenchmarkId::new(numbers.to_string(), start),
            &start,
            |b, &start| {
                b.iter(|| {
                    for layer in &layers {
                        let sequence =
                            |(row, cache)| AttentionSequence { rows: row..row + 1, start, cache };
                        let sequences: Vec<_> = layer.iter().enumerate().map(sequence).collect();
                        kernels.attention(black_box(&mut out), &q, width, shape, &sequences);
                    }
                });
            },
        );
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30);
    targets = attention, sequences
}
criterion_main!(benches);
