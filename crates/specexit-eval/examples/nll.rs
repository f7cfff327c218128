//! Teacher-forced negative log-likelihood of given token ids, for comparison with another engine.
//!
//! ```text
//! cargo run --release -p specexit-eval --example nll -- MODEL IDS.jsonl [--threads N] [--f32] [--kv-cache NUMBERS]
//! ```
//! Every line of IDS.jsonl is `{"id": …, "token_ids": [...], "start": n}`; the tokens from index
//! `start` on (at least 1) are scored, in natural logs. Prints JSON: `mean_nll` over all scored
//! tokens, and per item its `id`, `nll` (mean), `sum` and `tokens`.
#![allow(clippy::print_stdout, reason = "printing is what it does")]

use std::error::Error;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};
use specexit_kernels::{CacheNumbers, DEFAULT_ARITHMETIC, Kernels, Precision};
use specexit_model::{LogitRows, Model, ModelSource, PREFILL_CHUNK, Target, TargetRows, Workspace};

#[derive(Deserialize)]
struct Item {
    id: Value,
    token_ids: Vec<u32>,
    start: usize,
}

struct Args {
    model: String,
    ids: PathBuf,
    threads: usize,
    precision: Precision,
    cache: Option<CacheNumbers>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = args()?;
    let text = std::fs::read_to_string(&args.ids)?;
    let items: Vec<Item> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let mut kernels = Kernels::new(args.threads, args.precision);
    if let Some(numbers) = args.cache {
        kernels = kernels.with_cache(numbers);
    }
    let model = Model::load_on(&ModelSource::parse(&args.model)?, kernels)?;
    let mut workspace = Workspace::default();
    let (mut total, mut scored, mut results) = (0f64, 0usize, Vec::new());
    for item in items {
        let sum = nll(&model.target, &item, &mut workspace)?;
        let tokens = item.token_ids.len().saturating_sub(item.start);
        total += sum;
        scored += tokens;
        let mean = sum / tokens as f64;
        results.push(json!({"id": item.id, "nll": mean, "sum": sum, "tokens": tokens}));
    }
    let arithmetic = model.target.kernels().arithmetic();
    let report = json!({
        "model": model.name,
        "hash": model.hash,
        "arithmetic": arithmetic.as_deref().unwrap_or(DEFAULT_ARITHMETIC),
        "mean_nll": total / scored as f64,
        "scored": scored,
        "items": results,
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

fn args() -> Result<Args, Box<dyn Error>> {
    let usage = "usage: nll MODEL IDS.jsonl [--threads N] [--f32] [--kv-cache NUMBERS]";
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut places = Vec::new();
    let (model, ids, precision) = (String::new(), PathBuf::new(), Precision::Bf16);
    let mut parsed = Args { model, ids, threads, precision, cache: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--f32" => parsed.precision = Precision::F32,
            "--kv-cache" => parsed.cache = Some(words.next().ok_or(usage)?.parse()?),
            "--threads" => parsed.threads = words.next().ok_or(usage)?.parse()?,
            _ => places.push(word),
        }
    }
    let [model, ids] = places.try_into().map_err(|_| usage)?;
    parsed.model = model;
    parsed.ids = ids.into();
    Ok(parsed)
}

/// Sum of −ln p of the item's tokens from `start` on.
fn nll(target: &Target, item: &Item, workspace: &mut Workspace) -> Result<f64, Box<dyn Error>> {
    if item.start == 0 {
        return Err("start must be at least 1: the first token has nothing before it".into());
    }
    let mut cache = target.new_cache();
    let mut sum = 0.0;
    let mut read = 0;
    for tokens in item.token_ids.chunks(PREFILL_CHUNK) {
        let rows = TargetRows { tokens, cache: &mut cache, logits: LogitRows::All };
        target.forward(&mut [rows], workspace)?;
        for row in 0..tokens.len() {
            let next = read + row + 1;
            if let Some(&id) = item.token_ids.get(next).filter(|_| next >= item.start) {
                sum -= log_probability(workspace.logits(row), id);
            }
        }
        read += tokens.len();
    }
    Ok(sum)
}

fn log_probability(logits: &[f32], id: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&l| f64::from(l - max).exp()).sum();
    f64::from(logits[id as usize] - max) - sum.ln()
}
