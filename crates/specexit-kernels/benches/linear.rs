//! `[1024 -> 3072]` for 1 to 512 rows, over 24 weights in turn so that caches do not flatter.
//! `SPECEXIT_THREADS` (default 2) sets the number of threads.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use specexit_kernels::{Kernels, Matrix, Precision};

const K: usize = 1024;
const N: usize = 3072;
const WEIGHTS: usize = 24;

fn threads() -> usize {
    std::env::var("SPECEXIT_THREADS").map_or(2, |n| n.parse().expect("a number of threads"))
}

fn linear(c: &mut Criterion) {
    let values: Vec<f32> = (0..N * K).map(|i| (i % 251) as f32 * 0.01 - 1.25).collect();
    let weights: Vec<Matrix> = (0..WEIGHTS).map(|_| Matrix::from_f32(N, K, &values)).collect();
    let x: Vec<f32> = (0..512 * K).map(|i| (i % 127) as f32 * 0.01 - 0.63).collect();
    let mut y = vec![0.0; 512 * N];
    for precision in [Precision::Bf16, Precision::F32] {
        let kernels = Kernels::new(threads(), precision);
        let mut group = c.benchmark_group(format!("linear {precision:?}"));
        for m in [1, 2, 4, 8, 16, 64, 512] {
            group.throughput(Throughput::Bytes(weights[0].bytes() as u64));
            group.bench_with_input(BenchmarkId::from_parameter(m), &m, |b, &m| {
                let mut turn = weights.iter().cycle();
                b.iter(|| {
                    let w = turn.next().expect("an endless cycle");
                    kernels.linear(black_box(&mut y[..m * N]), black_box(&x[..m * K]), w, None);
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30);
    targets = linear
}
criterion_main!(benches);
