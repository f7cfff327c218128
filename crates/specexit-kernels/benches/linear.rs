//! `[1024 -> 3072]` for 1 to 512 rows, in bf16 and every block format, over 24 weights in turn (bf16;
//! as many as take as much memory for the formats) so that caches do not flatter.
//! `SPECEXIT_THREADS` (default 2) sets the number of threads.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use specexit_kernels::{BlockFormat, Kernels, Matrix, Precision};

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

/// Weights of `format` whose scales are finite whatever the bytes.
fn quantised(format: BlockFormat) -> Vec<Matrix> {
    let len = K / format.columns() * format.bytes();
    let blocks: Vec<u8> = (0..len * N).map(|i| (i * 37 % 61) as u8).collect();
    let load = || {
        Matrix::from_blocks(format, N, K, threads(), |row| &blocks[row * len..][..len])
            .expect("finite scales")
    };
    (0..(WEIGHTS * N * K * 2).div_ceil(len * N)).map(|_| load()).collect()
}

fn blocks(c: &mut Criterion) {
    let x: Vec<f32> = (0..512 * K).map(|i| (i % 127) as f32 * 0.01 - 0.63).collect();
    let mut y = vec![0.0; 512 * N];
    let kernels = Kernels::new(threads(), Precision::Bf16);
    for format in BlockFormat::ALL {
        let weights = quantised(format);
        let mut group = c.benchmark_group(format!("linear {format}"));
        for m in [1, 2, 4, 8, 16, 512] {
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
    targets = linear, blocks
}
criterion_main!(benches);
