//! The EAGLE-3 draft head: one decoder layer that drafts from the target's own states.
//!
//! The state at position t goes with the embedding of token t+1, at RoPE position t; the output
//! predicts token t+2. The state before the final norm is what the next drafted step receives.
//!
//! Beside a quantised target the head's weights are kept in 8 bits: a draft is only proposed, so this
//! can cost acceptance but no output, and drafting is bound by reading them. What a signal probe reads
//! stays as it is, since thresholds were calibrated on it.

use std::path::Path;
use std::sync::Arc;

use specexit_kernels::{Kernels, Matrix, Precision, RopeTable};

use crate::config::inverse_frequencies;
use crate::decoder_layer::{Attention, AttentionSizes, LayerBuffers, Mlp, Span, sized};
use crate::embedded::Embedded;
use crate::error::{ModelError, Result};
use crate::head_file::{HEAD_CONFIG, HEAD_WEIGHTS, HeadConfig, open_weights, read_d2t};
use crate::kv_cache::KvCache;
use crate::probe::{PROBE_ROWS, Positions, Probe};
use crate::target::{LogitRows, Target, load_mlp};
use crate::weights::Weights;

/// A draft head ready to run beside its target.
pub struct DraftHead {
    /// Sizes and provenance.
    pub config: HeadConfig,
    kernels: Arc<Kernels>,
    embed_tokens: Arc<Matrix>,
    /// `[H, 3 H_t]`.
    fc: Matrix,
    /// `None` in a plain EAGLE-3 head.
    probe: Option<Probe>,
    midlayer: MidLayer,
    norm: Vec<f32>,
    /// `[V_d, H]`.
    lm_head: Matrix,
    /// Target id of each draft id; `None` for the full vocabulary.
    d2t: Option<Vec<u32>>,
    rope: RopeTable,
}

struct MidLayer {
    input_layernorm: Vec<f32>,
    hidden_norm: Vec<f32>,
    self_attn: Attention,
    post_attention_layernorm: Vec<f32>,
    mlp: Mlp,
}

/// New rows of one sequence; they sit at positions `cache.len()..`.
pub struct DraftRows<'a> {
    /// Token t+1 for each row.
    pub tokens: &'a [u32],
    /// Residual r for each row, `[rows, H]`: [`DraftHead::fuse`]d states, or fed-back hidden states.
    pub residual: &'a [f32],
    /// The sequence's draft cache, extended by the forward.
    pub cache: &'a mut KvCache,
    /// Which rows' logits are wanted.
    pub logits: LogitRows,
}

/// Results and scratch of a draft forward, reused from call to call.
#[derive(Default)]
pub struct DraftWorkspace {
    residual: Vec<f32>,
    input: Vec<f32>,
    normed: Vec<f32>,
    final_rows: Vec<f32>,
    logits: Vec<f32>,
    layer: LayerBuffers,
    width: usize,
    vocab: usize,
    rows: usize,
    logit_rows: usize,
}

impl DraftWorkspace {
    /// The state before the final norm of row `row` of the batch, `[H]`.
    pub fn hidden(&self, row: usize) -> &[f32] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        &self.residual[row * self.width..(row + 1) * self.width]
    }

    /// Logits over the draft vocabulary of the `index`-th row among those asked for, `[V_d]`.
    pub fn logits(&self, index: usize) -> &[f32] {
        assert!(index < self.logit_rows, "logits {index} of {}", self.logit_rows);
        &self.logits[index * self.vocab..(index + 1) * self.vocab]
    }
}

impl DraftHead {
    /// Reads a head's folder for `target`, sharing its embedding and kernels.
    ///
    /// # Errors
    /// A missing or broken file, a head of another model, or weights that are not finite.
    pub fn load(dir: &Path, target: &Target) -> Result<DraftHead> {
        let config = HeadConfig::open(dir)?;
        config.check_target(dir, target.config.hidden_size, target.config.vocab_size)?;
        Self::build(config, &open_weights(dir)?, dir, target)
    }

    /// Reads a head that stands in the program itself.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_embedded(files: &Embedded, target: &Target) -> Result<DraftHead> {
        let dir = files.path();
        let config = HeadConfig::from_json(files.text(HEAD_CONFIG)?, &dir.join(HEAD_CONFIG))?;
        config.check_target(&dir, target.config.hidden_size, target.config.vocab_size)?;
        let weights = Weights::from_embedded(&dir.join(HEAD_WEIGHTS), files.file(HEAD_WEIGHTS)?)?;
        Self::build(config, &weights, &dir, target)
    }

    fn build(
        config: HeadConfig,
        weights: &Weights,
        dir: &Path,
        target: &Target,
    ) -> Result<DraftHead> {
        let (h, width) = (config.hidden_size, 3 * config.target_hidden());
        let (fc, probe) = load_fc(weights, h, width, dir)?;
        let eight_bits = target.is_quantised() && target.kernels().precision() == Precision::Bf16;
        let threads = target.kernels().threads();
        let kept = |matrix: Matrix, probed: bool| {
            let rounded = if eight_bits && !probed { matrix.in_8_bits(threads) } else { None };
            rounded.unwrap_or(matrix)
        };
        let probed = probe.as_ref().is_some_and(Probe::reads_draft);
        let lm_head = kept(weights.matrix("lm_head.weight", config.draft_vocab(), h)?, false);
        let embed_tokens = if weights.contains("embed_tokens.weight") {
            Arc::new(weights.matrix("embed_tokens.weight", config.vocab_size, h)?)
        } else if config.target_hidden() == h {
            Arc::clone(target.embed_tokens())
        } else {
            return Err(ModelError::MissingTensor {
                path: dir.join(HEAD_WEIGHTS),
                tensor: "embed_tokens.weight".to_owned(),
            });
        };
        let inv_freq = inverse_frequencies(config.rope_theta, config.head_dim());
        let positions = target.config.max_position_embeddings;
        Ok(DraftHead {
            kernels: Arc::clone(target.kernels()),
            embed_tokens,
            fc: kept(fc, probed),
            probe,
            midlayer: MidLayer::load(&config, weights, |matrix| kept(matrix, probed))?,
            norm: weights.vector("norm.weight", h)?,
            lm_head,
            d2t: read_d2t(weights, &config, dir)?,
            rope: RopeTable::new(&inv_freq, positions),
            config,
        })
    }

    /// Bytes of weights that drafting reads.
    pub fn weight_bytes(&self) -> usize {
        let MidLayer { self_attn, mlp, .. } = &self.midlayer;
        let attn = self_attn.qkv_proj.bytes() + self_attn.o_proj.bytes();
        let layer = attn + mlp.gate_up_proj.bytes() + mlp.down_proj.bytes();
        self.fc.bytes() + layer + self.lm_head.bytes()
    }

    /// Whether the head predicts signals; a plain EAGLE-3 head does not and never exits.
    pub fn has_probe(&self) -> bool {
        self.probe.is_some()
    }

    /// Target id of each draft id, ascending; `None` when they are the same.
    pub fn d2t(&self) -> Option<&[u32]> {
        self.d2t.as_deref()
    }

    /// The target id of draft id `draft`.
    pub fn target_id(&self, draft: usize) -> u32 {
        self.d2t.as_ref().map_or(draft as u32, |d2t| d2t[draft])
    }

    /// An empty draft cache.
    pub fn new_cache(&self) -> KvCache {
        let AttentionSizes { kv_heads, head_dim, .. } = self.midlayer.self_attn.sizes;
        KvCache::new(1, kv_heads, head_dim, self.kernels.cache_numbers())
    }

    /// Bytes of draft cache that so many positions of a sequence take.
    pub fn cache_bytes(&self, positions: usize) -> usize {
        self.new_cache().bytes_for(positions)
    }

    /// `fc` over tapped states `[m, 3 H_t]`: the residual `[m, H]` of the first drafted step.
    pub fn fuse(&self, taps: &[f32], residual: &mut Vec<f32>) {
        let rows = taps.len() / self.fc.cols();
        residual.resize(rows * self.config.hidden_size, 0.0);
        self.kernels.linear(residual, taps, &self.fc, None);
    }

    /// Whether signals are read off draft rows ([`Self::draft_signal_logits`]) and not off the target's
    /// states ([`Self::signal_logits`]).
    pub fn probe_reads_draft(&self) -> bool {
        self.probe.as_ref().is_some_and(Probe::reads_draft)
    }

    /// Signal logits of one position's tapped states `[3 H_t]`: confidence, progress, remaining. `None`
    /// without a probe, and for one that reads draft rows.
    pub fn signal_logits(&self, taps: &[f32]) -> Option<[f32; PROBE_ROWS]> {
        let probe = self.probe.as_ref().filter(|probe| !probe.reads_draft())?;
        Some(probe.logits(&self.kernels, taps))
    }

    /// Signal logits of token t+1, given the state before the final norm ([`DraftWorkspace::hidden`],
    /// `[H]`) of the row that pairs the target's state t with this token. `None` unless the probe reads
    /// draft rows.
    pub fn draft_signal_logits(&self, hidden: &[f32]) -> Option<[f32; PROBE_ROWS]> {
        let probe = self.probe.as_ref().filter(|probe| probe.reads_draft())?;
        let mut normed = vec![0.0; hidden.len()];
        self.kernels.rms_norm(&mut normed, hidden, &self.norm, self.config.rms_norm_eps);
        Some(probe.logits(&self.kernels, &normed))
    }

    /// At which thinking tokens these mean something.
    pub fn signal_positions(&self) -> Positions {
        self.config.specexit.as_ref().map(|origin| origin.positions).unwrap_or_default()
    }

    /// Runs new rows of several sequences through the layer and, where asked, to draft logits.
    ///
    /// # Errors
    /// A token id outside the vocabulary.
    pub fn forward(
        &self,
        batch: &mut [DraftRows<'_>],
        workspace: &mut DraftWorkspace,
    ) -> Result<()> {
        let (h, eps, kernels) = (self.config.hidden_size, self.config.rms_norm_eps, &*self.kernels);
        let (mut ids, mut positions, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        for rows in batch.iter() {
            let first = ids.len();
            ids.extend_from_slice(rows.tokens);
            let start = rows.cache.len() as u32;
            positions.extend(start..start + rows.tokens.len() as u32);
            match rows.logits {
                LogitRows::None => {}
                LogitRows::Last => wanted.push(ids.len() - 1),
                LogitRows::All => wanted.extend(first..ids.len()),
            }
        }
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.config.vocab_size) {
            return Err(ModelError::TokenOutOfRange { id, vocab: self.config.vocab_size });
        }
        let rows = ids.len();
        (workspace.rows, workspace.width) = (rows, h);

        let residual = sized(&mut workspace.residual, rows * h);
        let mut next = 0;
        let mut spans = Vec::with_capacity(batch.len());
        for b in batch.iter_mut() {
            let span = next..next + b.tokens.len();
            residual[span.start * h..span.end * h].copy_from_slice(b.residual);
            next = span.end;
            spans.push(Span { rows: span, cache: &mut *b.cache });
        }

        let layer = &self.midlayer;
        let (embed, states) = sized(&mut workspace.normed, 3 * rows * h).split_at_mut(rows * h);
        let (states, raw) = states.split_at_mut(rows * h);
        kernels.embed(raw, &ids, &self.embed_tokens);
        kernels.rms_norm(embed, raw, &layer.input_layernorm, eps);
        kernels.rms_norm(states, residual, &layer.hidden_norm, eps);
        let input = sized(&mut workspace.input, rows * 2 * h);
        for (row, to) in input.chunks_exact_mut(2 * h).enumerate() {
            to[..h].copy_from_slice(&embed[row * h..(row + 1) * h]);
            to[h..].copy_from_slice(&states[row * h..(row + 1) * h]);
        }
        let buffers = &mut workspace.layer;
        let rope = &self.rope;
        let attn = &layer.self_attn;
        attn.forward(kernels, residual, input, &positions, rope, eps, 0, &mut spans, buffers);
        kernels.rms_norm(states, residual, &layer.post_attention_layernorm, eps);
        layer.mlp.forward(kernels, residual, states, buffers);
        for span in &mut spans {
            span.cache.advance(span.rows.len());
        }

        (workspace.logit_rows, workspace.vocab) = (wanted.len(), self.config.draft_vocab());
        if wanted.is_empty() {
            return Ok(());
        }
        let last = sized(&mut workspace.normed, wanted.len() * h);
        for (to, &row) in last.chunks_exact_mut(h).zip(&wanted) {
            to.copy_from_slice(&workspace.residual[row * h..(row + 1) * h]);
        }
        let final_rows = sized(&mut workspace.final_rows, wanted.len() * h);
        kernels.rms_norm(final_rows, last, &self.norm, eps);
        let logits = sized(&mut workspace.logits, wanted.len() * self.config.draft_vocab());
        kernels.linear(logits, final_rows, &self.lm_head, None);
        Ok(())
    }
}

impl MidLayer {
    fn load(
        config: &HeadConfig,
        weights: &Weights,
        kept: impl Fn(Matrix) -> Matrix,
    ) -> Result<MidLayer> {
        let h = config.hidden_size;
        let sizes = AttentionSizes {
            heads: config.num_attention_heads,
            kv_heads: config.kv_heads(),
            head_dim: config.head_dim(),
        };
        let vector = |name: &str| weights.vector(&format!("midlayer.{name}.weight"), h);
        let proj = |name: &str, rows, cols| {
            weights.matrix(&format!("midlayer.self_attn.{name}.weight"), rows, cols)
        };
        let q_proj = proj("q_proj", sizes.q(), 2 * h)?;
        let k_proj = proj("k_proj", sizes.kv(), 2 * h)?;
        let v_proj = proj("v_proj", sizes.kv(), 2 * h)?;
        let Mlp { gate_up_proj, down_proj } =
            load_mlp(weights, "midlayer.mlp", h, config.intermediate_size)?;
        Ok(MidLayer {
            input_layernorm: vector("input_layernorm")?,
            hidden_norm: vector("hidden_norm")?,
            self_attn: Attention {
                sizes,
                qkv_proj: kept(Matrix::stack(vec![q_proj, k_proj, v_proj])),
                qkv_bias: None,
                qk_norm: None,
                o_proj: kept(proj("o_proj", h, sizes.q())?),
            },
            post_attention_layernorm: vector("post_attention_layernorm")?,
            mlp: Mlp { gate_up_proj: kept(gate_up_proj), down_proj: kept(down_proj) },
        })
    }
}

/// `fc.weight` without its probe rows, and the probe: those rows, or one beside a plain `fc`.
fn load_fc(
    weights: &Weights,
    h: usize,
    width: usize,
    dir: &Path,
) -> Result<(Matrix, Option<Probe>)> {
    let (shape, data) = weights.f32("fc.weight")?;
    let beside = Probe::load_beside(weights, h, width, dir)?;
    match (&shape[..], beside) {
        ([rows, cols], probe) if *cols == width && *rows == h => {
            Ok((Matrix::from_f32(h, width, &data), probe))
        }
        ([rows, cols], None) if *cols == width && *rows == h + PROBE_ROWS => {
            let (fc, probe) = data.split_at(h * width);
            Ok((Matrix::from_f32(h, width, fc), Some(Probe::Rows(probe.to_vec()))))
        }
        _ => Err(ModelError::TensorShape {
            path: dir.join(HEAD_WEIGHTS),
            tensor: "fc.weight".to_owned(),
            expected: vec![h, width],
            found: shape,
        }),
    }
}
