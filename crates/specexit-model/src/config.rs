//! What a checkpoint says about its model: sizes, norms, rotary embedding, special ids.
//!
//! One struct for the whole Llama family; the checkpoints differ only in the switches it holds.
//! [`ModelConfig::from_json`] reads Hugging Face's `config.json`, [`ModelConfig::from_gguf`] the
//! metadata of a GGUF file.

mod gguf;
mod json;
mod rope;

use std::path::{Path, PathBuf};

use crate::error::{ModelError, Result, shown};

pub use rope::RopeScaling;

/// The decoder families that specexit runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 2 and 3, DeepSeek-R1-Distill-Llama, SmolLM2.
    Llama,
    /// Qwen2, Qwen2.5, DeepSeek-R1-Distill-Qwen: q, k and v have a bias.
    Qwen2,
    /// Qwen3 (dense): q and k are normalised per head.
    Qwen3,
}

impl Architecture {
    /// The name used by `model_type` in `config.json` and `general.architecture` in GGUF.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// The family of that name, if specexit runs it.
    fn from_name(name: &str) -> Option<Self> {
        [Self::Llama, Self::Qwen2, Self::Qwen3].into_iter().find(|family| family.name() == name)
    }

    /// The family of that name, or an error that lists the supported ones.
    fn parse(name: &str, path: &Path) -> Result<Self> {
        Self::from_name(name).ok_or_else(|| ModelError::Unsupported {
            path: path.to_owned(),
            what: format!("the architecture `{}`", shown(name)),
            supported: "supported are llama, qwen2 and qwen3 (dense)".to_owned(),
        })
    }
}

/// The shape of a model. Field names are those of Hugging Face's `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The decoder family.
    pub architecture: Architecture,
    /// Width of the residual state, H.
    pub hidden_size: usize,
    /// Width of the feed-forward layer, I.
    pub intermediate_size: usize,
    /// Number of decoder layers, L.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; divides the number of query heads.
    pub num_key_value_heads: usize,
    /// Width of one head; heads · width need not be H.
    pub head_dim: usize,
    /// Rows of the embedding, V; may exceed the tokenizer's vocabulary (padding rows).
    pub vocab_size: usize,
    /// Added to the mean square in every RMS norm.
    pub rms_norm_eps: f32,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// How the rotary frequencies are changed for long contexts.
    pub rope_scaling: RopeScaling,
    /// Longest context the model was made for, in tokens.
    pub max_position_embeddings: usize,
    /// Whether the output head is the embedding itself.
    pub tie_word_embeddings: bool,
    /// Whether `q_proj`, `k_proj` and `v_proj` have a bias (`o_proj` never has).
    pub attention_bias: bool,
    /// Whether q and k pass an RMS norm per head before the rotary embedding.
    pub qk_norm: bool,
    /// Ids that end a generation, ascending.
    pub eos_token_ids: Vec<u32>,
    /// Id that starts a text, where the model has one.
    pub bos_token_id: Option<u32>,
}

impl ModelConfig {
    /// The rotary frequencies after scaling, one per pair of head dimensions: `[head_dim / 2]`.
    #[must_use]
    pub fn inv_freq(&self) -> Vec<f32> {
        self.rope_scaling.inv_freq(self.rope_theta, self.head_dim)
    }

    /// The layers whose *inputs* EAGLE-3 reads: low, mid and high, each below L.
    ///
    /// These are 2, L/2 and L−3, as every EAGLE-3 trainer and server has it. With fewer than six
    /// layers that formula reverses layers, so there the three are spread from layer 1 (0 below four
    /// layers) to the last.
    #[must_use]
    pub fn tap_layers(&self) -> [usize; 3] {
        let layers = self.num_hidden_layers;
        match layers {
            6.. => [2, layers / 2, layers - 3],
            4..6 => [1, layers / 2, layers - 1],
            _ => [0, layers / 2, layers.saturating_sub(1)],
        }
    }

    /// Checks that the sizes fit together, so that everything built from them can rely on it.
    ///
    /// # Errors
    /// [`ModelError::BadField`] naming the first field that cannot be right.
    pub fn validate(&self) -> Result<()> {
        self.validate_as(Path::new("config.json"))
    }

    /// As [`Self::validate`], blaming the file at `path`.
    fn validate_as(&self, path: &Path) -> Result<()> {
        let bad = |field: &str, problem: String| {
            Err(ModelError::BadField { path: path.to_owned(), field: field.to_owned(), problem })
        };
        // Generous bounds: far above any model of these families, far below what overflows a product.
        let sizes = [
            ("hidden_size", self.hidden_size, 1 << 20),
            ("intermediate_size", self.intermediate_size, 1 << 22),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 12),
            ("num_attention_heads", self.num_attention_heads, 1 << 14),
            ("num_key_value_heads", self.num_key_value_heads, 1 << 14),
            ("head_dim", self.head_dim, 1 << 14),
            ("vocab_size", self.vocab_size, 1 << 26),
            ("max_position_embeddings", self.max_position_embeddings, 1 << 32),
        ];
        for (field, size, limit) in sizes {
            if size == 0 || size > limit {
                return bad(field, format!("is {size}, but must be from 1 to {limit}"));
            }
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return bad(
                "num_key_value_heads",
                format!(
                    "is {}, which does not divide num_attention_heads ({})",
                    self.num_key_value_heads, self.num_attention_heads
                ),
            );
        }
        if !self.head_dim.is_multiple_of(2) {
            return bad(
                "head_dim",
                format!("is {}, but the rotary embedding needs an even width", self.head_dim),
            );
        }
        if !(self.rms_norm_eps > 0.0 && self.rms_norm_eps < 1.0) {
            return bad("rms_norm_eps", format!("is {}, but must be in (0, 1)", self.rms_norm_eps));
        }
        if !(self.rope_theta >= 1.0 && self.rope_theta.is_finite()) {
            return bad(
                "rope_theta",
                format!("is {}, but must be a finite number of 1 or more", self.rope_theta),
            );
        }
        if let Err(problem) = self.rope_scaling.check(self.head_dim) {
            return bad("rope_scaling", problem);
        }
        // Past this check every id indexes a row of the embedding.
        for id in self.eos_token_ids.iter().chain(&self.bos_token_id) {
            if *id as usize >= self.vocab_size {
                return bad(
                    "eos_token_id or bos_token_id",
                    format!("is {id}, outside the vocabulary of {} tokens", self.vocab_size),
                );
            }
        }
        Ok(())
    }
}

/// The unscaled rotary frequencies θ^(−2i/d) of heads of width d: `[head_dim / 2]`.
#[must_use]
pub fn inverse_frequencies(rope_theta: f64, head_dim: usize) -> Vec<f32> {
    RopeScaling::None.inv_freq(rope_theta, head_dim)
}

/// Where a value was read, for error messages.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
}

impl Place {
    /// An error about one field of the file.
    pub(crate) fn bad(&self, field: &str, problem: impl Into<String>) -> ModelError {
        ModelError::BadField {
            path: self.path.clone(),
            field: field.to_owned(),
            problem: problem.into(),
        }
    }

    /// An error about a feature that specexit lacks.
    pub(crate) fn unsupported(
        &self,
        what: impl Into<String>,
        supported: impl Into<String>,
    ) -> ModelError {
        ModelError::Unsupported {
            path: self.path.clone(),
            what: what.into(),
            supported: supported.into(),
        }
    }
}
