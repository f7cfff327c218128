//! The target decoder: Llama 2/3, Qwen2/2.5, Qwen3 and SmolLM2 behind one forward.
//!
//! A forward takes rows of several sequences at once. Linear layers see all rows together, attention
//! sees one sequence at a time, and every row's result has the same bits whatever runs beside it.

use std::sync::Arc;

use specexit_kernels::{Kernels, Matrix, RopeTable};

use crate::config::{Architecture, ModelConfig};
use crate::decoder_layer::{Attention, AttentionSizes, LayerBuffers, Mlp, Span, sized};
use crate::error::{ModelError, Result};
use crate::kv_cache::KvCache;
use crate::weights::Weights;

/// The large reasoning model whose output counts.
pub struct Target {
    /// Shape and constants of the model.
    pub config: ModelConfig,
    kernels: Arc<Kernels>,
    embed_tokens: Arc<Matrix>,
    layers: Vec<DecoderLayer>,
    norm: Vec<f32>,
    /// `None` when the embedding is tied.
    lm_head: Option<Matrix>,
    rope: RopeTable,
    taps: [usize; 3],
}

struct DecoderLayer {
    input_layernorm: Vec<f32>,
    self_attn: Attention,
    post_attention_layernorm: Vec<f32>,
    mlp: Mlp,
}

/// For which rows of a sequence logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitRows {
    /// No row: the sequence is still being read.
    None,
    /// The last row.
    Last,
    /// Every row: drafted tokens are being verified.
    All,
}

/// New tokens of one sequence; they sit at positions `cache.len()..`.
pub struct TargetRows<'a> {
    /// The tokens, at least one.
    pub tokens: &'a [u32],
    /// The sequence's cache, extended by the forward.
    pub cache: &'a mut KvCache,
    /// Which rows' logits are wanted.
    pub logits: LogitRows,
}

/// Results and scratch of a forward, reused from call to call.
#[derive(Default)]
pub struct Workspace {
    x: Vec<f32>,
    normed: Vec<f32>,
    taps: Vec<f32>,
    final_rows: Vec<f32>,
    logits: Vec<f32>,
    layer: LayerBuffers,
    rows: usize,
    tap_width: usize,
    vocab: usize,
    logit_rows: usize,
}

impl Workspace {
    /// The tapped residual states of row `row` of the batch: low, mid, high, `[3 * hidden]`.
    pub fn taps(&self, row: usize) -> &[f32] {
        assert!(row < self.rows, "row {row} of a forward over {} rows", self.rows);
        &self.taps[row * self.tap_width..(row + 1) * self.tap_width]
    }

    /// Logits of the `index`-th row among those asked for, `[vocab]`.
    pub fn logits(&self, index: usize) -> &[f32] {
        assert!(index < self.logit_rows, "logits {index} of {}", self.logit_rows);
        &self.logits[index * self.vocab..(index + 1) * self.vocab]
    }

    /// The normed final state of the `index`-th row among those asked for, `[hidden]`.
    pub fn hidden(&self, index: usize) -> &[f32] {
        let width = self.tap_width / 3;
        assert!(index < self.logit_rows, "hidden {index} of {}", self.logit_rows);
        &self.final_rows[index * width..(index + 1) * width]
    }
}

/// The states of a whole token sequence that training reads.
pub struct States {
    /// Tapped residual states, `[tokens, 3 * hidden]`.
    pub taps: Vec<f32>,
    /// Normed final states, `[tokens, hidden]`; `lm_head` maps them to logits.
    pub hidden: Vec<f32>,
}

/// Rows that one prefill forward reads at most: large enough for full speed, small enough for cache.
pub const PREFILL_CHUNK: usize = 256;

impl Target {
    /// Reads the weights of a model.
    ///
    /// # Errors
    /// A tensor that is missing, of the wrong shape, or not finite.
    pub fn load(config: ModelConfig, weights: &Weights, kernels: Arc<Kernels>) -> Result<Target> {
        config.validate()?;
        let (hidden, vocab) = (config.hidden_size, config.vocab_size);
        let embed_tokens = Arc::new(weights.matrix("model.embed_tokens.weight", vocab, hidden)?);
        let layers = (0..config.num_hidden_layers)
            .map(|l| DecoderLayer::load(&config, weights, &format!("model.layers.{l}")))
            .collect::<Result<Vec<_>>>()?;
        let norm = weights.vector("model.norm.weight", hidden)?;
        let lm_head = if weights.contains("lm_head.weight") && !config.tie_word_embeddings {
            Some(weights.matrix("lm_head.weight", vocab, hidden)?)
        } else {
            None
        };
        let rope = RopeTable::new(&config.inv_freq(), config.max_position_embeddings);
        let taps = config.tap_layers();
        Ok(Target { config, kernels, embed_tokens, layers, norm, lm_head, rope, taps })
    }

    /// The kernels this target runs on.
    pub fn kernels(&self) -> &Arc<Kernels> {
        &self.kernels
    }

    /// The input embedding, `[vocab, hidden]`.
    pub fn embed_tokens(&self) -> &Arc<Matrix> {
        &self.embed_tokens
    }

    /// The output projection, `[vocab, hidden]`; the embedding when tied.
    pub fn lm_head(&self) -> &Matrix {
        self.lm_head.as_ref().unwrap_or(&self.embed_tokens)
    }

    /// Copies the embedding of token `id` into `row`, `[hidden]`.
    pub fn embedding_row(&self, id: u32, row: &mut [f32]) {
        self.kernels.embed(row, &[id], &self.embed_tokens);
    }

    /// An empty cache of the right shape.
    pub fn new_cache(&self) -> KvCache {
        let ModelConfig { num_hidden_layers, num_key_value_heads, head_dim, .. } = self.config;
        KvCache::new(num_hidden_layers, num_key_value_heads, head_dim, self.kernels.cache_numbers())
    }

    /// Bytes of key/value cache that so many positions of a sequence take.
    pub fn cache_bytes(&self, positions: usize) -> usize {
        self.new_cache().bytes_for(positions)
    }

    /// Whether a decoded row reads quantised weights.
    pub fn is_quantised(&self) -> bool {
        self.lm_head().is_quantised() || self.layers.iter().any(DecoderLayer::is_quantised)
    }

    /// Bytes of weights that one decoded row reads.
    pub fn weight_bytes(&self) -> usize {
        let layers: usize = self.layers.iter().map(DecoderLayer::bytes).sum();
        layers + self.lm_head().bytes()
    }

    /// Bytes of weights in memory: those that a row reads, and the embeddings where they are others.
    pub fn kept_bytes(&self) -> usize {
        let embeddings = self.lm_head.as_ref().map_or(0, |_| self.embed_tokens.bytes());
        self.weight_bytes() + embeddings
    }

    /// Runs new rows of several sequences through all layers.
    ///
    /// The batch's rows are numbered in order; `workspace` then holds the tapped states of every row
    /// and logits of the rows asked for. Caches are extended by all rows: truncate to take some back.
    ///
    /// # Errors
    /// A token id outside the vocabulary, or a position past the model's context.
    pub fn forward(&self, batch: &mut [TargetRows<'_>], workspace: &mut Workspace) -> Result<()> {
        let (hidden, kernels) = (self.config.hidden_size, &*self.kernels);
        let eps = self.config.rms_norm_eps;
        let (ids, positions) = self.check(batch)?;
        let rows = ids.len();
        workspace.rows = rows;
        workspace.tap_width = 3 * hidden;
        workspace.vocab = self.config.vocab_size;
        let mut next = 0;
        let wanted = wanted_rows(batch);
        let mut spans: Vec<Span<'_>> = batch
            .iter_mut()
            .map(|b| {
                let rows = next..next + b.tokens.len();
                next = rows.end;
                Span { rows, cache: &mut *b.cache }
            })
            .collect();

        let x = sized(&mut workspace.x, rows * hidden);
        let normed = sized(&mut workspace.normed, rows * hidden);
        let taps = sized(&mut workspace.taps, rows * 3 * hidden);
        kernels.embed(x, &ids, &self.embed_tokens);
        for (index, layer) in self.layers.iter().enumerate() {
            self.tap(index, x, taps);
            kernels.rms_norm(normed, x, &layer.input_layernorm, eps);
            let buffers = &mut workspace.layer;
            layer.self_attn.forward(
                kernels, x, normed, &positions, &self.rope, eps, index, &mut spans, buffers,
            );
            kernels.rms_norm(normed, x, &layer.post_attention_layernorm, eps);
            layer.mlp.forward(kernels, x, normed, buffers);
        }
        for span in &mut spans {
            span.cache.advance(span.rows.len());
        }

        workspace.logit_rows = wanted.len();
        let last = sized(&mut workspace.normed, wanted.len() * hidden);
        for (to, &row) in last.chunks_exact_mut(hidden).zip(&wanted) {
            to.copy_from_slice(&workspace.x[row * hidden..(row + 1) * hidden]);
        }
        let final_rows = sized(&mut workspace.final_rows, wanted.len() * hidden);
        kernels.rms_norm(final_rows, last, &self.norm, eps);
        let logits = sized(&mut workspace.logits, wanted.len() * self.config.vocab_size);
        kernels.linear(logits, final_rows, self.lm_head(), None);
        Ok(())
    }

    /// Tapped and final states of a whole sequence, read from its beginning.
    ///
    /// # Errors
    /// As [`Target::forward`].
    pub fn states(&self, tokens: &[u32], workspace: &mut Workspace) -> Result<States> {
        let hidden = self.config.hidden_size;
        let mut cache = self.new_cache();
        let mut states = States {
            taps: Vec::with_capacity(tokens.len() * 3 * hidden),
            hidden: Vec::with_capacity(tokens.len() * hidden),
        };
        for chunk in tokens.chunks(PREFILL_CHUNK) {
            // Only the last layer's states are wanted here: logits of every row would cost more
            // than the whole decoder, so the final norm is applied to the residual directly.
            let rows = TargetRows { tokens: chunk, cache: &mut cache, logits: LogitRows::None };
            self.forward(&mut [rows], workspace)?;
            states.taps.extend_from_slice(&workspace.taps[..chunk.len() * 3 * hidden]);
            let at = states.hidden.len();
            states.hidden.resize(at + chunk.len() * hidden, 0.0);
            let x = &workspace.x[..chunk.len() * hidden];
            let eps = self.config.rms_norm_eps;
            self.kernels.rms_norm(&mut states.hidden[at..], x, &self.norm, eps);
        }
        Ok(states)
    }

    /// Copies the residual into the slots of the taps that are inputs to layer `index`.
    fn tap(&self, index: usize, x: &[f32], taps: &mut [f32]) {
        let hidden = self.config.hidden_size;
        for slot in (0..3).filter(|&s| self.taps[s] == index) {
            for (tap, x) in taps.chunks_exact_mut(3 * hidden).zip(x.chunks_exact(hidden)) {
                tap[slot * hidden..(slot + 1) * hidden].copy_from_slice(x);
            }
        }
    }

    /// Token ids and positions of a batch, checked.
    fn check(&self, batch: &[TargetRows<'_>]) -> Result<(Vec<u32>, Vec<u32>)> {
        let (mut ids, mut positions) = (Vec::new(), Vec::new());
        for rows in batch {
            let (start, end) = (rows.cache.len(), rows.cache.len() + rows.tokens.len());
            let limit = self.config.max_position_embeddings;
            if end > limit {
                return Err(ModelError::ContextExceeded { tokens: end, limit });
            }
            for (&id, position) in rows.tokens.iter().zip(start..) {
                if id as usize >= self.config.vocab_size {
                    let vocab = self.config.vocab_size;
                    return Err(ModelError::TokenOutOfRange { id, vocab });
                }
                ids.push(id);
                positions.push(position as u32);
            }
        }
        Ok((ids, positions))
    }
}

/// Indices, within the batch, of the rows whose logits are wanted.
fn wanted_rows(batch: &[TargetRows<'_>]) -> Vec<usize> {
    let mut wanted = Vec::new();
    let mut next = 0;
    for rows in batch {
        let end = next + rows.tokens.len();
        match rows.logits {
            LogitRows::None => {}
            LogitRows::Last => wanted.push(end - 1),
            LogitRows::All => wanted.extend(next..end),
        }
        next = end;
    }
    wanted
}

impl DecoderLayer {
    fn load(config: &ModelConfig, weights: &Weights, prefix: &str) -> Result<DecoderLayer> {
        let hidden = config.hidden_size;
        let vector = |name: &str, len| weights.vector(&format!("{prefix}.{name}.weight"), len);
        Ok(DecoderLayer {
            input_layernorm: vector("input_layernorm", hidden)?,
            self_attn: load_attention(config, weights, &format!("{prefix}.self_attn"))?,
            post_attention_layernorm: vector("post_attention_layernorm", hidden)?,
            mlp: load_mlp(weights, &format!("{prefix}.mlp"), hidden, config.intermediate_size)?,
        })
    }

    fn is_quantised(&self) -> bool {
        [&self.self_attn.qkv_proj, &self.mlp.down_proj].into_iter().any(Matrix::is_quantised)
    }

    fn bytes(&self) -> usize {
        let attn = self.self_attn.qkv_proj.bytes() + self.self_attn.o_proj.bytes();
        attn + self.mlp.gate_up_proj.bytes() + self.mlp.down_proj.bytes()
    }
}

fn load_attention(config: &ModelConfig, weights: &Weights, prefix: &str) -> Result<Attention> {
    let sizes = AttentionSizes {
        heads: config.num_attention_heads,
        kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
    };
    let (q, kv, hidden) = (sizes.q(), sizes.kv(), config.hidden_size);
    let proj = |name: &str, rows| weights.matrix(&format!("{prefix}.{name}.weight"), rows, hidden);
    let qkv_proj =
        Matrix::stack(vec![proj("q_proj", q)?, proj("k_proj", kv)?, proj("v_proj", kv)?]);
    let qkv_bias = if config.attention_bias {
        let bias = |name: &str, len| weights.vector(&format!("{prefix}.{name}.bias"), len);
        Some([bias("q_proj", q)?, bias("k_proj", kv)?, bias("v_proj", kv)?].concat())
    } else {
        None
    };
    let qk_norm = if config.architecture == Architecture::Qwen3 {
        let norm = |name: &str| weights.vector(&format!("{prefix}.{name}.weight"), sizes.head_dim);
        Some((norm("q_norm")?, norm("k_norm")?))
    } else {
        None
    };
    let o_proj = weights.matrix(&format!("{prefix}.o_proj.weight"), hidden, q)?;
    Ok(Attention { sizes, qkv_proj, qkv_bias, qk_norm, o_proj })
}

/// Reads `gate_proj`, `up_proj` and `down_proj` under `prefix`.
pub(crate) fn load_mlp(
    weights: &Weights,
    prefix: &str,
    hidden: usize,
    intermediate: usize,
) -> Result<Mlp> {
    let proj =
        |name: &str, rows, cols| weights.matrix(&format!("{prefix}.{name}.weight"), rows, cols);
    let gate = proj("gate_proj", intermediate, hidden)?;
    let up = proj("up_proj", intermediate, hidden)?;
    Ok(Mlp {
        gate_up_proj: Matrix::stack(vec![gate, up]),
        down_proj: proj("down_proj", hidden, intermediate)?,
    })
}
