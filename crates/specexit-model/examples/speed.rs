//! Prints how long a target takes to load, to read 512 tokens, to decode one row and to verify some.
//! Arguments: model, threads, `f32` for exact activations.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Instant;

use specexit_kernels::{Kernels, Precision};
use specexit_model::{LogitRows, ModelFiles, ModelSource, Target, TargetRows, Workspace};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let source = ModelSource::parse(&arguments.next().expect("a model")).unwrap();
    let threads = arguments.next().map_or(2, |n| n.parse().expect("threads"));
    let precision = if arguments.next().is_some() { Precision::F32 } else { Precision::Bf16 };
    let start = Instant::now();
    let files = ModelFiles::load(&source).unwrap();
    let opened = start.elapsed().as_secs_f64();
    let kernels = Arc::new(Kernels::new(threads, precision));
    let start = Instant::now();
    let target = Target::load(files.config.clone(), &files.weights, kernels).unwrap();
    println!(
        "opened in {opened:.2} s, loaded in {:.2} s, {:.0} MB a row, {:.0} MB in the file",
        start.elapsed().as_secs_f64(),
        target.weight_bytes() as f64 / 1e6,
        files.weights.stored_bytes() as f64 / 1e6,
    );
    let tokens: Vec<u32> = (0..512).map(|i| 1000 + i * 7 % 3000).collect();
    let mut workspace = Workspace::default();
    for _ in 0..2 {
        let mut cache = target.new_cache();
        let start = Instant::now();
        for chunk in tokens.chunks(256) {
            let rows = TargetRows { tokens: chunk, cache: &mut cache, logits: LogitRows::Last };
            target.forward(&mut [rows], &mut workspace).unwrap();
        }
        println!("512 tokens: {:.1} tokens/s", 512.0 / start.elapsed().as_secs_f64());
    }
    let mut cache = target.new_cache();
    let rows = TargetRows { tokens: &tokens[..64], cache: &mut cache, logits: LogitRows::Last };
    target.forward(&mut [rows], &mut workspace).unwrap();
    let mut times = vec![Vec::new(); 9];
    for _ in 0..24 {
        for m in [1, 2, 4, 5, 6, 8] {
            cache.truncate(64);
            let tokens = &tokens[..m];
            let start = Instant::now();
            let rows = TargetRows { tokens, cache: &mut cache, logits: LogitRows::All };
            target.forward(&mut [rows], &mut workspace).unwrap();
            times[m].push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    let mut one = 0.0;
    for (m, times) in times.iter_mut().enumerate().filter(|(_, times)| !times.is_empty()) {
        times.sort_by(f64::total_cmp);
        let (best, median) = (times[0], times[times.len() / 2]);
        if m == 1 {
            one = best;
        }
        println!(
            "{m} rows: best {best:.2} ms ({:.1}/s), median {median:.2} ms, {:.2} times one",
            1e3 / best,
            best / one
        );
    }
}
