//! What a decode step costs beside reading weights: many operations on next to no numbers.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use safetensors::tensor::{Dtype, TensorView};
use specexit_kernels::{Kernels, bf16};

use crate::config::{Architecture, ModelConfig, RopeScaling};
use crate::error::{ModelError, Result};
use crate::kv_cache::KvCache;
use crate::target::{LogitRows, Target, TargetRows, Workspace};
use crate::weights::Weights;

const LAYERS: usize = 24;
const HIDDEN: usize = 64;
const VOCAB: usize = 64;

/// Positions that a step attends to.
const CONTEXT: usize = 16;

/// A target of 24 layers, as real ones have, but of width 64 with one head, so that its weights (1.4 MB) and
/// states stay in a cache: a step of it is dispatch, hand-overs between threads and norms.
pub struct StepProbe {
    target: Target,
    cache: KvCache,
    workspace: Workspace,
}

impl StepProbe {
    /// A target of pseudo-random weights on `kernels`, with a few tokens read.
    ///
    /// # Errors
    /// As [`Target::load`]; none that a caller could cause.
    pub fn new(kernels: Arc<Kernels>) -> Result<StepProbe> {
        // The decoder's one way of loading reads files; this one stands in memory.
        static FILE: OnceLock<Vec<u8>> = OnceLock::new();
        let path = Path::new("(step probe)");
        let file = match FILE.get() {
            Some(file) => file,
            None => {
                let made = weights_file().map_err(|error| ModelError::BadFile {
                    path: path.to_owned(),
                    problem: error.to_string(),
                })?;
                FILE.get_or_init(|| made)
            }
        };
        let target = Target::load(config(), &Weights::from_embedded(path, file)?, kernels)?;
        let cache = target.new_cache();
        let mut probe = StepProbe { target, cache, workspace: Workspace::default() };
        probe.forward(&[1; CONTEXT])?;
        Ok(probe)
    }

    /// One decode step, always at the same position.
    ///
    /// # Errors
    /// As [`Target::forward`]; none that a caller could cause.
    pub fn step(&mut self) -> Result<()> {
        self.forward(&[2])?;
        self.cache.truncate(CONTEXT);
        Ok(())
    }

    fn forward(&mut self, tokens: &[u32]) -> Result<()> {
        let rows = TargetRows { tokens, cache: &mut self.cache, logits: LogitRows::All };
        self.target.forward(&mut [rows], &mut self.workspace)
    }
}

fn config() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Llama,
        hidden_size: HIDDEN,
        intermediate_size: HIDDEN,
        num_hidden_layers: LAYERS,
        num_attention_heads: 1,
        num_key_value_heads: 1,
        head_dim: HIDDEN,
        vocab_size: VOCAB,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        max_position_embeddings: 2 * CONTEXT,
        tie_word_embeddings: true,
        attention_bias: false,
        qk_norm: false,
        eos_token_ids: Vec::new(),
        bos_token_id: None,
    }
}

fn weights_file() -> std::result::Result<Vec<u8>, safetensors::SafeTensorError> {
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![VOCAB, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    let square = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"];
    let square = square.into_iter().chain(["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]);
    for layer in 0..LAYERS {
        let name = |name: &str| format!("model.layers.{layer}.{name}.weight");
        shapes.extend(square.clone().map(|matrix| (name(matrix), vec![HIDDEN, HIDDEN])));
        let norms = ["input_layernorm", "post_attention_layernorm"];
        shapes.extend(norms.map(|norm| (name(norm), vec![HIDDEN])));
    }
    let mut state = 1_u32;
    let mut number = |scale: f32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        scale * ((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
    };
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            // Rows keep the size of their inputs; norms are around one.
            let (offset, scale) = if shape.len() == 1 { (1.0, 0.1) } else { (0.0, 0.2) };
            let numbers = (0..shape.iter().product()).map(|_| offset + number(scale));
            let data = numbers.flat_map(|x: f32| bf16::from_f32(x).to_le_bytes()).collect();
            (name, shape, data)
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, data)| {
        Ok((name.as_str(), TensorView::new(Dtype::BF16, shape.clone(), data)?))
    });
    safetensors::serialize(
        views.collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>()?,
        None,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use specexit_kernels::Precision;

    #[test]
    fn every_step_computes_the_same_finite_numbers() {
        let logits = |threads| {
            let kernels = Arc::new(Kernels::new(threads, Precision::Bf16));
            let mut probe = StepProbe::new(kernels).unwrap();
            probe.step().unwrap();
            let first = probe.workspace.logits(0).to_vec();
            probe.step().unwrap();
            assert_eq!((probe.workspace.logits(0), probe.cache.len()), (&first[..], CONTEXT));
            first
        };
        let one = logits(1);
        assert!(one.iter().all(|x| x.is_finite()) && one.iter().any(|x| *x != one[0]), "{one:?}");
        assert_eq!(one, logits(2));
    }
}
