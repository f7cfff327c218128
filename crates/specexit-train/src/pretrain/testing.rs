//! Options for tests.

use std::path::Path;

use super::export::write_model;
use super::options::PretrainOptions;
use crate::net::decoder::DecoderShape;
use crate::net::params::Param;
use crate::ops::Products;

/// Options of a tiny run.
pub(crate) fn options(out: &Path) -> PretrainOptions {
    PretrainOptions {
        out: out.to_owned(),
        shape: DecoderShape {
            vocab_size: 20,
            hidden_size: 32,
            intermediate_size: 64,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 16,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-6,
            max_position_embeddings: 64,
        },
        steps: 120,
        batch_tokens: 256,
        lr: 1e-2,
        final_lr: 0.1,
        warmup: 0.1,
        beta1: 0.9,
        beta2: 0.95,
        weight_decay: 0.01,
        clip_norm: 1.0,
        seed: 1,
        products: Products::Bf16,
        checkpoint_seconds: 1e9,
        eval_steps: 20,
        bos_token_id: None,
        eos_token_id: vec![0, 1],
        pad_token_id: None,
        files: vec![("note.txt".to_owned(), b"hello".to_vec())],
    }
}

/// Exports a model.
pub(crate) fn write_for_tests(folder: &Path, shape: &DecoderShape, params: &[Param]) {
    let options = PretrainOptions { shape: shape.clone(), ..options(folder) };
    write_model(folder, &options, params).unwrap();
}
