//! Sizes, tensors and initial values of a trained decoder.

use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};
use crate::net::init::Normal;
use crate::net::params::Param;

/// Sizes of the model that is trained: the Qwen3 architecture with a norm per head of queries and
/// keys, no biases, and the output projection tied to the embedding.
///
/// Field names are those of Hugging Face's `config.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderShape {
    /// Tokens, V; a recipe leaves it to the tokenizer.
    #[serde(default)]
    pub vocab_size: usize,
    /// Width of the residual state, H.
    pub hidden_size: usize,
    /// Width of the feed-forward layer, I.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key/value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Epsilon of all norms.
    pub rms_norm_eps: f64,
    /// Longest text, in tokens.
    pub max_position_embeddings: usize,
}

/// Tensors of one layer, in their order among the trained ones.
#[derive(Clone, Copy)]
pub(crate) enum LayerTensor {
    /// Norm before attention, `[H]`.
    InputNorm,
    /// Queries, keys and values stacked, `[q + 2 kv, H]`: they read the same rows.
    Qkv,
    /// Norm of each query, `[head_dim]`.
    QNorm,
    /// Norm of each key, `[head_dim]`.
    KNorm,
    /// Output of attention, `[H, q]`.
    O,
    /// Norm before the feed-forward layer, `[H]`.
    PostNorm,
    /// Gate and up projection stacked, `[2 I, H]`.
    GateUp,
    /// Output of the feed-forward layer, `[H, I]`.
    Down,
}

/// Number of tensors of a layer.
pub(crate) const LAYER_TENSORS: usize = 8;

/// Standard deviation of a fresh embedding.
const EMBEDDING_SPREAD: f32 = 0.05;

/// The embedding, `[V, H]`, comes first of all tensors.
pub(crate) const EMBEDDING: usize = 0;

impl DecoderShape {
    /// Columns of the queries.
    pub(crate) fn q(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Columns of the keys, and of the values.
    pub(crate) fn kv(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Epsilon as the arithmetic uses it.
    pub(crate) fn eps(&self) -> f32 {
        self.rms_norm_eps as f32
    }

    /// Place of a layer's tensor among the trained ones.
    pub(crate) fn index(layer: usize, tensor: LayerTensor) -> usize {
        1 + layer * LAYER_TENSORS + tensor as usize
    }

    /// Place of the final norm among the trained ones: the last.
    pub(crate) fn final_norm(&self) -> usize {
        1 + self.num_hidden_layers * LAYER_TENSORS
    }

    /// Names and dimensions of all trained tensors, in order.
    pub(crate) fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (h, i, hd) = (self.hidden_size, self.intermediate_size, self.head_dim);
        let (q, kv) = (self.q(), self.kv());
        let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![self.vocab_size, h])];
        for layer in 0..self.num_hidden_layers {
            // The order of `LayerTensor`.
            for (name, dims) in [
                ("input_layernorm", vec![h]),
                ("self_attn.qkv_proj", vec![q + 2 * kv, h]),
                ("self_attn.q_norm", vec![hd]),
                ("self_attn.k_norm", vec![hd]),
                ("self_attn.o_proj", vec![h, q]),
                ("post_attention_layernorm", vec![h]),
                ("mlp.gate_up_proj", vec![2 * i, h]),
                ("mlp.down_proj", vec![h, i]),
            ] {
                tensors.push((format!("model.layers.{layer}.{name}.weight"), dims));
            }
        }
        tensors.push(("model.norm.weight".to_owned(), vec![h]));
        tensors
    }

    /// Fresh tensors. Matrices are normally distributed with variance `1 / inputs` (LeCun et al.
    /// 1998), the embedding with deviation 0.05; norms are 1. Each head's keys begin as its queries do
    /// (after Trockman & Kolter 2023, "Mimetic initialization of self-attention layers"), so that a
    /// token attends to its like from the start: thoughts are full of things looked up by name.
    pub(crate) fn fresh_params(&self, seed: u64) -> Vec<Param> {
        let mut normal = Normal::new(seed);
        let mut params = Vec::new();
        for (name, dims) in self.tensors() {
            let count = dims.iter().product();
            let mut value = match dims[..] {
                [_] => vec![1.0; count],
                _ if params.is_empty() => normal.numbers(count, EMBEDDING_SPREAD),
                [_, inputs, ..] => normal.numbers(count, 1.0 / (inputs as f32).sqrt()),
                [] => Vec::new(),
            };
            if name.ends_with("qkv_proj.weight") {
                self.keys_like_queries(&mut value);
            }
            params.push(Param::new(name, dims, value));
        }
        params
    }

    /// Copies the rows of the first query head of each group to the keys of the group.
    fn keys_like_queries(&self, qkv: &mut [f32]) {
        let head = self.head_dim * self.hidden_size;
        let group = self.num_attention_heads / self.num_key_value_heads;
        let (queries, keys) = qkv.split_at_mut(self.q() * self.hidden_size);
        let firsts = queries.chunks_exact(head).step_by(group);
        keys.chunks_exact_mut(head).zip(firsts).for_each(|(key, query)| key.copy_from_slice(query));
    }

    /// Says which size cannot be used, if any.
    ///
    /// # Errors
    /// The first such size.
    pub fn validate(&self) -> Result<()> {
        for (option, value, limit) in [
            ("shape.vocab_size", self.vocab_size, 1 << 24),
            ("shape.hidden_size", self.hidden_size, 1 << 16),
            ("shape.intermediate_size", self.intermediate_size, 1 << 18),
            ("shape.num_hidden_layers", self.num_hidden_layers, 1 << 10),
            ("shape.num_attention_heads", self.num_attention_heads, 1 << 10),
            ("shape.num_key_value_heads", self.num_key_value_heads, 1 << 10),
            ("shape.head_dim", self.head_dim, 1 << 12),
            ("shape.max_position_embeddings", self.max_position_embeddings, 1 << 24),
        ] {
            if value == 0 || value > limit {
                let problem = format!("= {value}; it must be from 1 to {limit}");
                return Err(TrainError::option(option, problem));
            }
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let problem = format!(
                "= {}, which does not divide num_attention_heads = {}",
                self.num_key_value_heads, self.num_attention_heads
            );
            return Err(TrainError::option("shape.num_key_value_heads", problem));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(TrainError::option("shape.head_dim", "must be even: RoPE rotates pairs"));
        }
        if !(self.rms_norm_eps > 0.0 && self.rms_norm_eps < 1.0) {
            let problem = format!("= {}; it must be between 0 and 1", self.rms_norm_eps);
            return Err(TrainError::option("shape.rms_norm_eps", problem));
        }
        if !(self.rope_theta >= 1.0 && self.rope_theta.is_finite()) {
            let problem = format!("= {}; it must be 1 or more", self.rope_theta);
            return Err(TrainError::option("shape.rope_theta", problem));
        }
        Ok(())
    }
}
