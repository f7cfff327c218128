//! Logits, tapped states and draft head against transformers and an independent torch head.
//!
//! The golden files come from `scripts/make_goldens.py`: tiny random checkpoints whose weights are exact
//! in bf16, and what transformers computes from them in f32.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use specexit_kernels::{Kernels, Precision};
use specexit_model::{
    DraftHead, DraftRows, DraftWorkspace, LogitRows, ModelConfig, Target, TargetRows, Weights,
    Workspace,
};

const TOLERANCE: f32 = 1e-4;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

struct Golden(Weights);

impl Golden {
    fn open(name: &str) -> Golden {
        Golden(Weights::open_safetensors_file(&golden(name).join("golden.safetensors")).unwrap())
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        self.0.f32(name).unwrap().1
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        let len = self.0.shape(name).unwrap()[0];
        self.0.integers(name, len).unwrap().into_iter().map(|id| id as u32).collect()
    }
}

fn target(name: &str, threads: usize) -> Target {
    let dir = golden(name);
    let path = dir.join("config.json");
    let config = ModelConfig::from_json(&std::fs::read_to_string(&path).unwrap(), &path).unwrap();
    let weights = Weights::open_safetensors(&dir).unwrap();
    let kernels = Arc::new(Kernels::new(threads, Precision::F32));
    Target::load(config, &weights, kernels).unwrap()
}

#[track_caller]
fn assert_close(what: &str, ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let worst = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < TOLERANCE, "{what}: largest difference {worst}");
}

/// Runs `ids` in `chunks`, collecting logits of all rows and the taps, `[3, T, H]` like the golden.
fn run(target: &Target, ids: &[u32], chunk: usize) -> (Vec<f32>, Vec<f32>) {
    let hidden = target.config.hidden_size;
    let (mut logits, mut rows) = (Vec::new(), Vec::new());
    let mut cache = target.new_cache();
    let mut workspace = Workspace::default();
    for tokens in ids.chunks(chunk) {
        let batch = TargetRows { tokens, cache: &mut cache, logits: LogitRows::All };
        target.forward(&mut [batch], &mut workspace).unwrap();
        for row in 0..tokens.len() {
            logits.extend_from_slice(workspace.logits(row));
            rows.push(workspace.taps(row).to_vec());
        }
    }
    let mut taps = Vec::new();
    for slot in 0..3 {
        for row in &rows {
            taps.extend_from_slice(&row[slot * hidden..(slot + 1) * hidden]);
        }
    }
    (logits, taps)
}

#[test]
fn targets_agree_with_transformers() {
    for name in ["llama2", "llama3", "qwen2", "qwen3"] {
        let golden = Golden::open(name);
        let ids = golden.ids("input_ids");
        for chunk in [ids.len(), 5, 1] {
            let (logits, taps) = run(&target(name, 2), &ids, chunk);
            assert_close(&format!("{name} logits"), &logits, &golden.f32("logits"));
            assert_close(&format!("{name} taps"), &taps, &golden.f32("taps"));
        }
    }
}

#[test]
fn a_row_has_the_same_bits_however_it_is_computed() {
    for name in ["llama2", "llama3", "qwen2", "qwen3"] {
        let ids = Golden::open(name).ids("input_ids");
        let alone = run(&target(name, 1), &ids, 1);
        for (threads, chunk) in [(1, 7), (2, 1), (2, 3), (2, ids.len())] {
            assert!(run(&target(name, threads), &ids, chunk) == alone, "{name} {threads} {chunk}");
        }
    }
}

#[test]
fn sequences_in_one_batch_do_not_touch_each_other() {
    let target = target("qwen3", 2);
    let ids = Golden::open("qwen3").ids("input_ids");
    let (alone, _) = run(&target, &ids, ids.len());
    let mut workspace = Workspace::default();
    let mut caches = [target.new_cache(), target.new_cache(), target.new_cache()];
    let other = [9u32, 8, 7, 6, 5];
    let [a, b, c] = &mut caches;
    let mut batch = [
        TargetRows { tokens: &other, cache: a, logits: LogitRows::Last },
        TargetRows { tokens: &ids, cache: b, logits: LogitRows::All },
        TargetRows { tokens: &other[..2], cache: c, logits: LogitRows::None },
    ];
    target.forward(&mut batch, &mut workspace).unwrap();
    for row in 0..ids.len() {
        let vocab = target.config.vocab_size;
        assert_eq!(workspace.logits(1 + row), &alone[row * vocab..(row + 1) * vocab]);
    }
}

#[test]
fn truncating_the_cache_takes_tokens_back() {
    let target = target("llama3", 2);
    let ids = Golden::open("llama3").ids("input_ids");
    let (alone, _) = run(&target, &ids, ids.len());
    let mut workspace = Workspace::default();
    let mut cache = target.new_cache();
    let forward = |tokens: &[u32], cache: &mut _, workspace: &mut _| {
        let batch = TargetRows { tokens, cache, logits: LogitRows::Last };
        target.forward(&mut [batch], workspace).unwrap();
    };
    forward(&ids[..10], &mut cache, &mut workspace);
    forward(&[1, 2, 3], &mut cache, &mut workspace);
    cache.truncate(10);
    let mut fork = cache.fork(10);
    forward(&ids[10..], &mut cache, &mut workspace);
    let vocab = target.config.vocab_size;
    assert_eq!(workspace.logits(0), &alone[alone.len() - vocab..]);
    forward(&ids[10..], &mut fork, &mut workspace);
    assert_eq!(workspace.logits(0), &alone[alone.len() - vocab..]);
}

/// Runs the head over the golden pairs, then a chain of fed-back steps.
fn run_head(name: &str) -> (DraftHead, Golden, Vec<f32>) {
    let target = target("qwen3", 2);
    let head = DraftHead::load(&golden(name), &target).unwrap();
    let golden = Golden::open(name);
    let ids = golden.ids("input_ids");
    let states = target.states(&ids, &mut Workspace::default()).unwrap();
    let (h, pairs) = (head.config.hidden_size, ids.len() - 1);
    let mut residual = Vec::new();
    head.fuse(&states.taps, &mut residual);
    assert_close("fc", &residual, &golden.f32("fc_out"));

    let mut workspace = DraftWorkspace::default();
    let mut cache = head.new_cache();
    let mut rows = [DraftRows {
        tokens: &ids[1..],
        residual: &residual[..pairs * h],
        cache: &mut cache,
        logits: LogitRows::All,
    }];
    head.forward(&mut rows, &mut workspace).unwrap();
    let (mut logits, mut hidden) = (Vec::new(), Vec::new());
    for row in 0..pairs {
        logits.extend_from_slice(workspace.logits(row));
        hidden.extend_from_slice(workspace.hidden(row));
    }
    assert_close("draft logits", &logits, &golden.f32("logits"));
    assert_close("draft hidden", &hidden, &golden.f32("hidden"));

    let (mut chain_logits, mut chain_hidden) = (Vec::new(), Vec::new());
    let mut fed_back = hidden[(pairs - 1) * h..].to_vec();
    for token in golden.ids("chain_tokens") {
        let tokens = [token];
        let cache = &mut cache;
        let logits = LogitRows::Last;
        let mut rows = [DraftRows { tokens: &tokens, residual: &fed_back, cache, logits }];
        head.forward(&mut rows, &mut workspace).unwrap();
        chain_logits.extend_from_slice(workspace.logits(0));
        chain_hidden.extend_from_slice(workspace.hidden(0));
        fed_back = workspace.hidden(0).to_vec();
    }
    assert_close("chain logits", &chain_logits, &golden.f32("chain_logits"));
    assert_close("chain hidden", &chain_hidden, &golden.f32("chain_hidden"));
    (head, golden, states.taps)
}

#[test]
fn plain_head_with_reduced_vocabulary_agrees() {
    let (head, _, taps) = run_head("eagle3");
    assert!(!head.has_probe());
    assert_eq!(head.signal_logits(&taps[..96]), None);
    assert_eq!(head.d2t().map(<[u32]>::len), Some(96));
}

#[test]
fn fused_head_with_full_vocabulary_agrees_and_predicts_signals() {
    let (head, golden, taps) = run_head("eagle3_fused");
    assert!(head.has_probe() && head.d2t().is_none());
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    let signals: Vec<f32> = taps
        .chunks_exact(3 * 32)
        .flat_map(|taps| {
            let [c, p, r] = head.signal_logits(taps).unwrap();
            [sigmoid(c), sigmoid(p), r.exp()]
        })
        .collect();
    assert_close("signals", &signals, &golden.f32("signals"));
}
