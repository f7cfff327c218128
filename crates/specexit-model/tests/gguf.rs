//! GGUF files against the safetensors they were made from, the `gguf` package and transformers.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use specexit_kernels::{Kernels, Precision};
use specexit_model::{
    Architecture, LogitRows, ModelConfig, ModelFiles, ModelSource, RopeScaling, Target, TargetRows,
    Weights, Workspace,
};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn open(name: &str) -> (Weights, ModelConfig) {
    let (weights, metadata) = Weights::open_gguf(&golden(&format!("gguf/{name}.gguf"))).unwrap();
    let config = ModelConfig::from_gguf(&metadata, &weights).unwrap();
    (weights, config)
}

#[test]
fn blocks_decode_as_in_the_gguf_package() {
    let (blocks, _) = Weights::open_gguf(&golden("gguf/blocks.gguf")).unwrap();
    let expected = Weights::open_safetensors_file(&golden("gguf/blocks.safetensors")).unwrap();
    assert_eq!(blocks.names(), expected.names());
    assert!(blocks.names().len() >= 8);
    for name in blocks.names() {
        assert_eq!(blocks.dtype(&name).unwrap(), name);
        let (shape, ours) = blocks.f32(&name).unwrap();
        let (_, theirs) = expected.f32(&name).unwrap();
        assert_eq!(shape, [2, 256]);
        let matrix = blocks.matrix(&name, 2, 256).unwrap();
        let kept = !matches!(&*name, "Q2_K" | "Q3_K" | "F32" | "F16" | "BF16");
        let mut kept_values = vec![f32::NAN; 2 * 256];
        for (row, values) in kept_values.chunks_exact_mut(256).enumerate() {
            matrix.read_row(row, values);
        }
        // Quantised matrices lose nothing, the others are rounded to bf16.
        let precision = if kept { 0.0 } else { 1.0 / 256.0 };
        for (at, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            // The order of the few multiplications per number is each implementation's own.
            assert!((ours - theirs).abs() <= theirs.abs() * 1e-6, "{name} {at}: {ours} {theirs}");
            let read = kept_values[at];
            assert!((read - ours).abs() <= ours.abs() * precision, "{name} {at}: {read} {ours}");
        }
    }
}

#[test]
fn scales_that_are_not_finite_are_found() {
    let mut file = std::fs::read(golden("gguf/blocks.gguf")).unwrap();
    let (blocks, _folder) = open_blocks(&file);
    let data = file.len() - blocks.stored_bytes();
    // As f16 this is a NaN wherever a scale stands.
    file[data..].fill(0x7c);
    let (blocks, _folder) = open_blocks(&file);
    for name in blocks.names() {
        let error = blocks.matrix(&name, 2, 256).unwrap_err().to_string();
        assert!(error.contains(&name) && error.contains("holds NaN at index ["), "{error}");
    }
}

fn open_blocks(file: &[u8]) -> (Weights, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blocks.gguf");
    std::fs::write(&path, file).unwrap();
    (Weights::open_gguf(&path).unwrap().0, folder)
}

#[test]
fn tensors_are_those_of_the_checkpoint() {
    for name in ["llama3", "qwen3"] {
        let (gguf, _) = open(name);
        let folder = Weights::open_safetensors(&golden(name)).unwrap();
        let mut compared = 0;
        for tensor in gguf.names() {
            if tensor == "rope_freqs.weight" {
                continue;
            }
            // q and k come back in their own order, everything is exact in bf16.
            assert_eq!(gguf.f32(&tensor).unwrap(), folder.f32(&tensor).unwrap(), "{name} {tensor}");
            compared += 1;
        }
        assert!(compared >= 2 * 9 + 2, "{name}: {compared}");
    }
}

#[test]
fn configs_are_those_of_the_checkpoint() {
    for name in ["llama3", "qwen3"] {
        let (_, gguf) = open(name);
        let folder = ModelConfig::from_folder(&golden(name)).unwrap();
        let expected = ModelConfig {
            num_hidden_layers: gguf.num_hidden_layers,
            rope_scaling: gguf.rope_scaling.clone(),
            // The tiny files name no tokenizer.
            eos_token_ids: Vec::new(),
            bos_token_id: None,
            ..folder.clone()
        };
        assert_eq!(gguf, expected, "{name}");
        for (ours, theirs) in gguf.inv_freq().iter().zip(folder.inv_freq()) {
            assert!((ours / theirs - 1.0).abs() < 1e-6, "{name}: {ours} {theirs}");
        }
    }
    assert!(matches!(open("llama3").1.rope_scaling, RopeScaling::Factors(_)));
    assert_eq!(open("qwen3").1.architecture, Architecture::Qwen3);
}

#[test]
fn logits_are_those_of_transformers() {
    let golden = Weights::open_safetensors_file(&golden("gguf/golden.safetensors")).unwrap();
    for name in ["llama3", "qwen3"] {
        let (weights, config) = open(name);
        let vocab = config.vocab_size;
        let target =
            Target::load(config, &weights, Arc::new(Kernels::new(2, Precision::F32))).unwrap();
        let key = format!("{name}.input_ids");
        let len = golden.shape(&key).unwrap()[0];
        let tokens: Vec<u32> =
            golden.integers(&key, len).unwrap().into_iter().map(|id| id as u32).collect();
        let (_, expected) = golden.f32(&format!("{name}.logits")).unwrap();
        let (mut cache, mut workspace) = (target.new_cache(), Workspace::default());
        let rows = TargetRows { tokens: &tokens, cache: &mut cache, logits: LogitRows::All };
        target.forward(&mut [rows], &mut workspace).unwrap();
        for row in 0..tokens.len() {
            for (ours, theirs) in workspace.logits(row).iter().zip(&expected[row * vocab..]) {
                assert!((ours - theirs).abs() < 1e-4, "{name} {row}: {ours} {theirs}");
            }
        }
    }
}

#[test]
#[ignore = "needs models: python3 scripts/fetch_dev_models.py && cargo test --release -p specexit-model --test gguf -- --ignored --nocapture"]
fn dev_models_load() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/dev-models");
    for (name, layers, heads, kv_heads, end) in [
        ("smollm2-135m-q4_1", 30, 9, 3, "<|im_end|>"),
        ("qwen2.5-coder-0.5b-q4_k_m", 24, 14, 2, "<|im_end|>"),
        ("qwen2.5-coder-1.5b-q4_k_m", 28, 12, 2, "<|im_end|>"),
    ] {
        let start = std::time::Instant::now();
        let path = models.join(format!("{name}.gguf"));
        let source = ModelSource::parse(path.to_str().unwrap()).unwrap();
        let files = ModelFiles::load(&source).unwrap();
        let opened = start.elapsed();
        let hash_start = std::time::Instant::now();
        assert_eq!(files.weights.hash(), files.hash);
        let hashed = hash_start.elapsed();

        let config = &files.config;
        assert_eq!(files.name, name);
        assert_eq!(config.num_hidden_layers, layers);
        assert_eq!((config.num_attention_heads, config.num_key_value_heads), (heads, kv_heads));
        // The Qwen files quantise their output head apart from the embedding.
        assert_eq!(config.tie_word_embeddings, name.contains("smollm2"));
        let end = files.tokenizer.token_id(end).unwrap();
        assert!(config.eos_token_ids.contains(&end) && files.tokenizer.is_special(end));
        assert!(files.chat_template.is_some());

        let start = std::time::Instant::now();
        let mut numbers = 0;
        for tensor in files.weights.names() {
            if let [rows, cols] = files.weights.shape(&tensor).unwrap()[..] {
                files.weights.matrix(&tensor, rows, cols).unwrap();
                numbers += rows * cols;
            }
        }
        eprintln!(
            "{name}: opened in {opened:.2?} (hash {hashed:.2?}), {numbers} weights in {:.2?}, \
             {:?}, end ids {:?}, bos {:?}",
            start.elapsed(),
            config.architecture,
            config.eos_token_ids,
            config.bos_token_id
        );
    }
}
