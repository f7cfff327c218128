//! Attention of 1 and 8 rows over 128 and 2048 positions, and of a prompt of 512, over several caches
//! in turn, in bf16. `SPECEXIT_THREADS` (default 2) sets the number of threads.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use specexit_kernels::{AttentionSequence, AttentionShape, Kernels, KeysValues, Precision, bf16};

/// The reference reasoner, SmolLM2-135M, Qwen2.5-0.5B, Qwen2.5-1.5B and Qwen3-1.7B.
const SHAPES: [(usize, usize, usize); 5] =
    [(6, 6, 32), (9, 3, 64), (14, 2, 64), (12, 2, 128), (16, 8, 128)];

/// Bytes of all caches together: more than any level of cache holds.
const CACHES: usize = 96 << 20;

fn threads() -> usize {
    std::env::var("SPECEXIT_THREADS").map_or(2, |n| n.parse().expect("a number of threads"))
}

fn attention(c: &mut Criterion) {
    let kernels = Kernels::new(threads(), Precision::Bf16);
    let number = |i: usize| (i % 251) as f32 * 0.01 - 1.25;
    let memory: Vec<bf16> = (0..CACHES / 2).map(|i| bf16::from_f32(number(i))).collect();
    let queries: Vec<f32> = (0..512 * 2048).map(number).collect();
    for (heads, kv_heads, head_dim) in SHAPES {
        let shape = AttentionShape { heads, kv_heads, head_dim, scale: 0.125 };
        let mut group = c.benchmark_group(format!("attention {heads}/{kv_heads}/{head_dim}"));
        for (rows, start) in [(1, 127), (8, 120), (1, 2047), (8, 2040), (512, 0)] {
            let cache = (start + rows) * kv_heads * head_dim;
            let q = &queries[..rows * heads * head_dim];
            let mut out = vec![0.0; q.len()];
            group.throughput(Throughput::Bytes((2 * cache * 2) as u64));
            let name = format!("{rows} rows after {start}");
            group.bench_with_input(BenchmarkId::from_parameter(name), &rows, |b, &rows| {
                let mut turn = memory.chunks_exact(2 * cache).cycle();
                b.iter(|| {
                    let (keys, values) = turn.next().expect("an endless cycle").split_at(cache);
                    let cache = KeysValues::Bf16 { keys, values };
                    let sequence = AttentionSequence { rows: 0..rows, start, cache };
                    let out = black_box(&mut out);
                    kernels.attention(out, q, heads * head_dim, shape, &[sequence]);
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30);
    targets = attention
}
criterion_main!(benches);
