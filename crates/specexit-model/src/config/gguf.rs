//! The config of the model in a GGUF file.

use super::{Architecture, ModelConfig, RopeScaling};
use crate::error::{ModelError, Result, shown};
use crate::weights::{GgufMetadata, Weights};

/// Control tokens that end a turn in the supported families.
///
/// GGUF names one end id, sometimes two, where `generation_config.json` lists them all; llama.cpp
/// recognises the others by their text as well.
const END_TOKENS: [&str; 8] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
    "<｜end▁of▁sentence｜>",
];

impl ModelConfig {
    /// Reads the config from a GGUF file's metadata, and from its tensors what the metadata leaves
    /// out: the rows of the embedding, whether the output head is tied, rotary factors.
    ///
    /// # Errors
    /// When a needed key is absent or of the wrong kind, or asks for something specexit does not
    /// implement (each named).
    pub fn from_gguf(metadata: &GgufMetadata, weights: &Weights) -> Result<Self> {
        let architecture = Architecture::parse(metadata.architecture()?, metadata.path())?;
        let keys = Keys { metadata, prefix: architecture.name() };

        let hidden_size = keys.size("embedding_length")?;
        let num_attention_heads = keys.size("attention.head_count")?;
        let head_dim = match keys.optional_size("attention.key_length")? {
            Some(head_dim) => head_dim,
            None if num_attention_heads > 0 => hidden_size / num_attention_heads,
            None => 0,
        };
        if let Some(value) = keys.optional_size("attention.value_length")?
            && value != head_dim
        {
            return Err(metadata.unsupported(
                format!("values of width {value} beside keys of {head_dim}"),
                "both must be equal",
            ));
        }
        if let Some(rotated) = keys.optional_size("rope.dimension_count")?
            && rotated != head_dim
        {
            return Err(metadata.unsupported(
                format!("a rotary embedding of {rotated} of {head_dim} dimensions"),
                "all must be rotated",
            ));
        }
        if let Some(window) = keys.optional_size("attention.sliding_window")?
            && window > 0
        {
            return Err(metadata.unsupported(
                format!("`{}` {window}", keys.name("attention.sliding_window")),
                "use a model with full attention",
            ));
        }
        if let Some(experts) = keys.optional_size("expert_count")?
            && experts > 0
        {
            return Err(metadata
                .unsupported(format!("a mixture of {experts} experts"), "use a dense model"));
        }

        const EMBEDDING: &str = "model.embed_tokens.weight";
        let vocab_size = match weights.shape(EMBEDDING).as_deref() {
            Some([rows, _]) => *rows,
            _ => {
                return Err(ModelError::MissingTensor {
                    path: metadata.path().to_owned(),
                    tensor: EMBEDDING.to_owned(),
                });
            }
        };
        let config = Self {
            architecture,
            hidden_size,
            intermediate_size: keys.size("feed_forward_length")?,
            num_hidden_layers: keys.size("block_count")?,
            num_attention_heads,
            num_key_value_heads: keys
                .optional_size("attention.head_count_kv")?
                .unwrap_or(num_attention_heads),
            head_dim,
            vocab_size,
            rms_norm_eps: keys.number("attention.layer_norm_rms_epsilon")? as f32,
            // llama.cpp leaves the key out where the base is the original one.
            rope_theta: keys.optional_number("rope.freq_base")?.unwrap_or(10_000.0),
            rope_scaling: keys.rope_scaling(weights)?,
            max_position_embeddings: keys.size("context_length")?,
            tie_word_embeddings: !weights.contains("lm_head.weight"),
            attention_bias: architecture == Architecture::Qwen2,
            qk_norm: architecture == Architecture::Qwen3,
            eos_token_ids: end_ids(metadata)?,
            bos_token_id: metadata.id("tokenizer.ggml.bos_token_id")?,
        };
        config.validate_as(metadata.path())?;
        Ok(config)
    }
}

/// Ids that end a generation: those the metadata names, and the control tokens known to.
fn end_ids(metadata: &GgufMetadata) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for key in ["eos_token_id", "eot_token_id", "eom_token_id"] {
        ids.extend(metadata.id(&format!("tokenizer.ggml.{key}"))?);
    }
    let tokens = metadata.texts("tokenizer.ggml.tokens")?.unwrap_or_default();
    // Every supported family has its end tokens at one end of the vocabulary, but nothing says so.
    let named = tokens.iter().zip(0..).filter(|(token, _)| END_TOKENS.contains(&token.as_str()));
    ids.extend(named.map(|(_, id): (_, u32)| id));
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// The metadata keys of one architecture: `llama.block_count` and so on.
struct Keys<'a> {
    metadata: &'a GgufMetadata,
    prefix: &'static str,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        self.metadata.size(&self.name(key))
    }

    fn size(&self, key: &str) -> Result<usize> {
        self.metadata.need(self.optional_size(key)?, &self.name(key))
    }

    fn optional_number(&self, key: &str) -> Result<Option<f64>> {
        self.metadata.number(&self.name(key))
    }

    fn number(&self, key: &str) -> Result<f64> {
        self.metadata.need(self.optional_number(key)?, &self.name(key))
    }

    fn rope_scaling(&self, weights: &Weights) -> Result<RopeScaling> {
        const FACTORS: &str = "rope_freqs.weight";
        if weights.contains(FACTORS) {
            return Ok(RopeScaling::Factors(weights.f32(FACTORS)?.1));
        }
        match self.metadata.text(&self.name("rope.scaling.type"))? {
            None | Some("none") => Ok(RopeScaling::None),
            Some("linear") => {
                Ok(RopeScaling::Linear { factor: self.number("rope.scaling.factor")? })
            }
            Some(other) => Err(self.metadata.unsupported(
                format!("the rope scaling `{}`", shown(other)),
                "supported are none, linear and the factors of rope_freqs.weight",
            )),
        }
    }
}
