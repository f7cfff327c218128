//! Prints what a linear layer with quantised weights costs for 1 to 512 rows: µs, GFLOP/s, GB/s of
//! weights read, and the time against that of one row, over as many weights in turn as take 150 MB,
//! so that caches do not flatter. Arguments: threads, columns, rows, instruction set, format.
//!
//! ```text
//! cargo run --release -p specexit-kernels --example blocks -- 2 1024 3072 avx512-bf16 Q4_K
//! ```
#![allow(clippy::print_stdout)]

use std::time::Instant;

use specexit_kernels::{BlockFormat, Isa, Kernels, Matrix, Precision};

const ROWS: [usize; 9] = [1, 2, 3, 4, 6, 8, 16, 64, 512];
const BYTES: usize = 150 << 20;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let threads = arguments.next().map_or(2, |n| n.parse().expect("threads"));
    let k: usize = arguments.next().map_or(1024, |n| n.parse().expect("columns"));
    let n: usize = arguments.next().map_or(3072, |n| n.parse().expect("rows"));
    let isa = arguments.next().map_or(Isa::detect(), |name| name.parse().expect("isa"));
    let wanted = arguments.next();
    let kernels = Kernels::with_isa(threads, Precision::Bf16, isa);
    let mut state = 1_u32;
    let mut number = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let x: Vec<f32> = (0..512 * k).map(|_| number()).collect();
    let mut y = vec![0.0; 512 * n];
    for format in BlockFormat::ALL {
        let named = wanted.as_deref().is_none_or(|name| name == format.name());
        if !named || !k.is_multiple_of(format.columns()) {
            continue;
        }
        let len = k / format.columns() * format.bytes();
        // Bytes below 64 are finite as f16, wherever they stand.
        let blocks: Vec<u8> = (0..len * n).map(|_| ((number() + 0.5) * 64.0) as u8).collect();
        let load = || {
            let row = |row: usize| &blocks[row * len..][..len];
            Matrix::from_blocks(format, n, k, threads, row).expect("finite scales")
        };
        let weights: Vec<Matrix> = (0..BYTES.div_ceil(len * n)).map(|_| load()).collect();
        println!("{format} [{k} -> {n}], {threads} threads, {isa}");
        let mut times = [const { Vec::new() }; ROWS.len()];
        let start = Instant::now();
        while start.elapsed().as_secs_f64() < 2.0 {
            for (times, m) in times.iter_mut().zip(ROWS) {
                for w in &weights[..if m >= 64 { 2 } else { weights.len() }] {
                    let start = Instant::now();
                    kernels.linear(&mut y[..m * n], &x[..m * k], w, None);
                    times.push(start.elapsed().as_secs_f64());
                }
            }
        }
        let median = |times: &mut Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        let one = median(&mut times[0]);
        println!(
            "{:>5} {:>10} {:>9} {:>8} {:>7}",
            "rows", "median µs", "GFLOP/s", "GB/s", "to one"
        );
        for (times, m) in times.iter_mut().zip(ROWS) {
            let time = median(times);
            println!(
                "{m:5} {:10.1} {:9.1} {:8.1} {:7.2}",
                time * 1e6,
                2.0 * (m * n * k) as f64 / time / 1e9,
                weights[0].bytes() as f64 / time / 1e9,
                time / one,
            );
        }
    }
}
