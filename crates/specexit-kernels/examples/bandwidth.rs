//! Prints what a linear layer `[1024 -> 3072]` costs for 1 to 512 rows: µs, GFLOP/s, GB/s of weights
//! read, and the time against that of one row, over 24 weights in turn (151 MB) so that caches do
//! not flatter, and how fast all threads read such a block without multiplying. Arguments: threads,
//! precision (`bf16`, `f32`), instruction set.
//!
//! ```text
//! cargo run --release -p specexit-kernels --example bandwidth -- 2 bf16 avx512-bf16
//! ```
#![allow(clippy::print_stdout)]

use std::time::Instant;

use specexit_kernels::{Isa, Kernels, Precision, ProductProbe, ReadProbe};

const K: usize = 1024;
const N: usize = 3072;
const WEIGHTS: usize = 24;
const ROWS: [usize; 8] = [1, 2, 3, 4, 8, 16, 64, 512];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let threads = arguments.next().map_or(2, |n| n.parse().expect("threads"));
    let precision = match arguments.next().as_deref() {
        Some("f32") => Precision::F32,
        _ => Precision::Bf16,
    };
    let isa = arguments.next().map_or(Isa::detect(), |name| name.parse().expect("isa"));
    let kernels = Kernels::with_isa(threads, precision, isa);

    let mut product = ProductProbe::new(512, K, N, WEIGHTS);
    let mut block = ReadProbe::new(WEIGHTS * product.weight_bytes());

    println!("[{K} -> {N}], {threads} threads, {isa}, {precision:?}");
    // Rounds over all sizes, so that a neighbour's load falls on all of them alike.
    let mut times = [const { Vec::new() }; ROWS.len()];
    let mut reads = Vec::new();
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < 6.0 {
        for (times, m) in times.iter_mut().zip(ROWS) {
            for _ in 0..if m == 512 { 2 } else { WEIGHTS } {
                times.push(product.pass(&kernels, m));
            }
        }
        reads.push(block.pass(&kernels));
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let one = median(&mut times[0]);
    println!(
        "{:>5} {:>10} {:>10} {:>9} {:>8} {:>7}",
        "rows", "median µs", "best µs", "GFLOP/s", "GB/s", "to one"
    );
    for (times, m) in times.iter_mut().zip(ROWS) {
        let time = median(times);
        println!(
            "{m:5} {:10.1} {:10.1} {:9.1} {:8.1} {:7.2}",
            time * 1e6,
            times[0] * 1e6,
            product.flops(m) / time / 1e9,
            product.weight_bytes() as f64 / time / 1e9,
            time / one,
        );
    }
    println!("reading alone: {:.1} GB/s", median(&mut reads) / 1e9);
    println!("at best:       {:.1} GB/s", reads[reads.len() - 1] / 1e9);
}
