//! The draft layer under EAGLE-3's training-time test.
//!
//! One Llama layer with a doubled input (the EAGLE-3 head as AngelSlim and SafeAILab train it). Step 0 pairs the fused states of
//! position t with the embedding of token t+1 and predicts token t+2; step k feeds the output of
//! step k-1 (before the final norm) back, pairs it with token t+1+k and predicts token t+2+k, seeing
//! exactly the keys that a chain drafted from t would see. Rows of all sequences of a batch
//! go through the linear layers together, without padding.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor, Var};
use specexit_kernels::RopeTable;

use super::params::Param;
use crate::ops::{AttentionStep, Gemm, Projection, SequenceRows, attention, rms_norm, silu_mul};
use crate::ops::{soft_cross_entropy, tensor, with_numbers};

/// Sizes of the draft layer.
#[derive(Clone, Debug)]
pub(crate) struct DraftShape {
    /// Width H; that of the target, since the embedding is shared.
    pub(crate) hidden: usize,
    /// Width of the fused input, 3 H_t.
    pub(crate) taps: usize,
    /// Width of the MLP.
    pub(crate) intermediate: usize,
    /// Query heads.
    pub(crate) heads: usize,
    /// Key/value heads.
    pub(crate) kv_heads: usize,
    /// Width of a head.
    pub(crate) head_dim: usize,
    /// Draft vocabulary V_d.
    pub(crate) vocab: usize,
    /// Epsilon of the norms.
    pub(crate) eps: f32,
}

/// Names and shapes of the trained tensors, in the order of [`Weights`].
pub(crate) fn tensor_shapes(s: &DraftShape) -> [(&'static str, Vec<usize>); 13] {
    let (h, i) = (s.hidden, s.intermediate);
    let (q, kv) = (s.heads * s.head_dim, s.kv_heads * s.head_dim);
    [
        ("fc.weight", vec![h, s.taps]),
        ("midlayer.input_layernorm.weight", vec![h]),
        ("midlayer.hidden_norm.weight", vec![h]),
        ("midlayer.self_attn.q_proj.weight", vec![q, 2 * h]),
        ("midlayer.self_attn.k_proj.weight", vec![kv, 2 * h]),
        ("midlayer.self_attn.v_proj.weight", vec![kv, 2 * h]),
        ("midlayer.self_attn.o_proj.weight", vec![h, q]),
        ("midlayer.post_attention_layernorm.weight", vec![h]),
        ("midlayer.mlp.gate_proj.weight", vec![i, h]),
        ("midlayer.mlp.up_proj.weight", vec![i, h]),
        ("midlayer.mlp.down_proj.weight", vec![h, i]),
        ("norm.weight", vec![h]),
        ("lm_head.weight", vec![s.vocab, h]),
    ]
}

/// The trained tensors of one step.
pub(crate) struct Weights {
    fc: Projection,
    input_layernorm: Tensor,
    hidden_norm: Tensor,
    q_proj: Projection,
    k_proj: Projection,
    v_proj: Projection,
    o_proj: Projection,
    post_attention_layernorm: Tensor,
    gate_proj: Projection,
    up_proj: Projection,
    down_proj: Projection,
    norm: Tensor,
    lm_head: Projection,
}

impl Weights {
    /// Tensors that the tape follows, with the variables behind them in the order of `params`.
    pub(crate) fn tracked(params: &[Param], gemm: &Gemm) -> Result<(Self, Vec<Var>)> {
        let vars = params.iter().map(Param::var).collect::<Result<Vec<_>>>()?;
        Ok((Self::of(vars.iter().map(|v| v.as_tensor().clone()), gemm)?, vars))
    }

    /// Tensors without a tape, for evaluation.
    pub(crate) fn frozen(params: &[Param], gemm: &Gemm) -> Result<Self> {
        let tensors: Result<Vec<_>> =
            params.iter().map(|p| tensor(p.value.clone(), p.shape.as_slice())).collect();
        Self::of(tensors?.into_iter(), gemm)
    }

    fn of(mut tensors: impl Iterator<Item = Tensor>, gemm: &Gemm) -> Result<Self> {
        let mut next = || {
            tensors.next().ok_or_else(|| candle_core::Error::Msg("a tensor is missing".to_owned()))
        };
        Ok(Self {
            fc: Projection::new(next()?, gemm)?,
            input_layernorm: next()?,
            hidden_norm: next()?,
            q_proj: Projection::new(next()?, gemm)?,
            k_proj: Projection::new(next()?, gemm)?,
            v_proj: Projection::new(next()?, gemm)?,
            o_proj: Projection::new(next()?, gemm)?,
            post_attention_layernorm: next()?,
            gate_proj: Projection::new(next()?, gemm)?,
            up_proj: Projection::new(next()?, gemm)?,
            down_proj: Projection::new(next()?, gemm)?,
            norm: next()?,
            lm_head: Projection::new(next()?, gemm)?,
        })
    }
}

/// One sequence of a batch.
#[derive(Clone, Debug)]
pub(crate) struct DraftSequence {
    /// Positions whose states are used: `0..context`.
    pub(crate) context: usize,
    /// First position that drafts: the prompt's last.
    pub(crate) first: usize,
    /// Positions that draft at step 0; step k has k fewer.
    pub(crate) queries: usize,
    /// Embeddings of tokens `0..context + 1`, `[tokens, H]`.
    pub(crate) embeddings: Vec<f32>,
}

/// What the target would say at each drafted position.
#[derive(Clone, Debug)]
pub(crate) struct Targets {
    /// Softmax of the target's logits over the draft vocabulary, `[positions, V_d]`.
    pub(crate) probs: Arc<Vec<f32>>,
    /// The target's most probable token as a draft id; `None` where the draft lacks it.
    pub(crate) argmax: Vec<Option<u32>>,
}

/// Rows of several sequences.
#[derive(Clone, Debug)]
pub(crate) struct DraftBatch {
    /// Scaled tapped states of all sequences' contexts, `[rows, 3 H_t]`.
    pub(crate) taps: Tensor,
    /// The sequences.
    pub(crate) sequences: Vec<DraftSequence>,
    /// For each sequence in turn, its `queries` rows: row i of a sequence is what the target says
    /// after position `first + 1 + i`. Row i of step k is compared with number i + k.
    pub(crate) targets: Targets,
}

/// What a forward found.
pub(crate) struct Drafted {
    /// `sum_k decay^k loss_k`, on the tape when the weights are.
    pub(crate) loss: Tensor,
    /// Mean cross-entropy of each step, in nats per drafted position.
    pub(crate) step_losses: Vec<f64>,
    /// Most probable draft id of each row of each step, sequences in turn.
    pub(crate) picks: Vec<Vec<u32>>,
    /// Logits of each step, `[rows, V_d]`: kept for comparison with inference only.
    #[cfg(test)]
    pub(crate) logits: Vec<Tensor>,
}

impl DraftBatch {
    /// Positions that draft at step `step`, per sequence.
    fn queries(&self, step: usize) -> impl Iterator<Item = usize> {
        self.sequences.iter().map(move |s| s.queries.saturating_sub(step))
    }

    /// Number of rows of step `step`.
    pub(crate) fn rows(&self, step: usize) -> usize {
        self.queries(step).sum()
    }

    /// For each row of step `step`, the row of [`Targets`] it is compared with.
    pub(crate) fn target_rows(&self, step: usize) -> Vec<usize> {
        let mut start = 0;
        let mut rows = Vec::new();
        for (sequence, queries) in self.sequences.iter().zip(self.queries(step)) {
            rows.extend(start + step..start + step + queries);
            start += sequence.queries;
        }
        rows
    }

    /// Embeddings that go with the rows of a step: of token t+1+step for positions t in `rows`.
    fn embeddings(&self, step: usize, width: usize, all: bool) -> Result<Tensor> {
        let mut out = Vec::new();
        for (s, queries) in self.sequences.iter().zip(self.queries(step)) {
            let positions = if all { 0..s.context } else { s.first..s.first + queries };
            let tokens = positions.start + 1 + step..positions.end + 1 + step;
            out.extend_from_slice(&s.embeddings[tokens.start * width..tokens.end * width]);
        }
        let rows = out.len() / width;
        tensor(out, (rows, width))
    }

    /// Rows of the previous step (or, for step 0, of the context) that step `step` goes on with.
    fn kept_rows(&self, step: usize) -> Result<Tensor> {
        let mut start = 0;
        let mut rows: Vec<u32> = Vec::new();
        for (s, queries) in self.sequences.iter().zip(self.queries(step)) {
            let (skip, height) = match step {
                0 => (s.first, s.context),
                _ => (0, s.queries.saturating_sub(step - 1)),
            };
            rows.extend((start + skip) as u32..(start + skip + queries) as u32);
            start += height;
        }
        let count = rows.len();
        Tensor::from_vec(rows, count, &Device::Cpu)
    }

    /// Where each sequence's rows of a step lie, given where its keys of all steps so far start.
    fn geometry(&self, step: usize, key_rows: &[Vec<usize>]) -> Vec<SequenceRows> {
        let mut query_row = 0;
        let mut rows = Vec::with_capacity(self.sequences.len());
        for ((s, queries), key_rows) in self.sequences.iter().zip(self.queries(step)).zip(key_rows)
        {
            if queries > 0 {
                let key_rows = key_rows.clone();
                rows.push(SequenceRows { first: s.first, queries, query_row, key_rows });
            }
            query_row += queries;
        }
        rows
    }
}

/// The layer's forward; holds no weights.
pub(crate) struct Draft {
    /// Sizes.
    pub(crate) shape: DraftShape,
    /// Cosines and sines.
    pub(crate) rope: Arc<RopeTable>,
    /// Computes the products.
    pub(crate) gemm: Gemm,
}

impl Draft {
    /// Runs `steps` steps of the training-time test; later steps weigh `decay` times less each.
    pub(crate) fn forward(
        &self,
        w: &Weights,
        batch: &DraftBatch,
        steps: usize,
        decay: f64,
    ) -> Result<Drafted> {
        let (h, eps) = (self.shape.hidden, self.shape.eps);
        let mut fed_back = w.fc.apply(&batch.taps)?;
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let mut key_rows: Vec<Vec<usize>> = vec![Vec::new(); batch.sequences.len()];
        let mut next_key = 0;
        let mut total: Option<Tensor> = None;
        let (mut step_losses, mut picks) = (Vec::new(), Vec::new());
        #[cfg(test)]
        let mut all_logits = Vec::new();

        for step in 0..steps {
            let rows = batch.rows(step);
            if rows == 0 {
                break;
            }
            // Step 0 needs keys of the whole context, later steps only of the rows that draft.
            let kept = batch.kept_rows(step)?;
            let source =
                if step == 0 { fed_back.clone() } else { fed_back.index_select(&kept, 0)? };
            let embed = batch.embeddings(step, h, step == 0)?;
            let normed = rms_norm(&source, &w.hidden_norm, eps)?;
            let input = Tensor::cat(&[rms_norm(&embed, &w.input_layernorm, eps)?, normed], 1)?;
            keys.push(w.k_proj.apply(&input)?);
            values.push(w.v_proj.apply(&input)?);
            for ((rows, s), queries) in
                key_rows.iter_mut().zip(&batch.sequences).zip(batch.queries(step))
            {
                rows.push(next_key);
                next_key += if step == 0 { s.context } else { queries };
            }
            let (residual, query_input) = match step {
                0 => (source.index_select(&kept, 0)?, input.index_select(&kept, 0)?),
                _ => (source, input),
            };

            let q = w.q_proj.apply(&query_input)?;
            let geometry = AttentionStep {
                heads: self.shape.heads,
                kv_heads: self.shape.kv_heads,
                head_dim: self.shape.head_dim,
                rope: Arc::clone(&self.rope),
                step,
                sequences: batch.geometry(step, &key_rows),
            };
            let attended =
                attention(&q, &Tensor::cat(&keys, 0)?, &Tensor::cat(&values, 0)?, geometry)?;
            let hidden = (residual + w.o_proj.apply(&attended)?)?;
            let normed = rms_norm(&hidden, &w.post_attention_layernorm, eps)?;
            let gated = silu_mul(&w.gate_proj.apply(&normed)?, &w.up_proj.apply(&normed)?)?;
            let hidden = (hidden + w.down_proj.apply(&gated)?)?;
            let logits = w.lm_head.apply(&rms_norm(&hidden, &w.norm, eps)?)?;

            // Rows whose most probable target token the draft cannot name teach it nothing useful.
            let target_rows = batch.target_rows(step);
            let weight = 1.0 / rows as f32;
            let argmax = &batch.targets.argmax;
            let weights =
                target_rows.iter().map(|&r| if argmax[r].is_some() { weight } else { 0.0 });
            let weights = weights.collect();
            let probs = Arc::clone(&batch.targets.probs);
            let loss = soft_cross_entropy(&logits, probs, target_rows, weights)?;
            step_losses.push(f64::from(loss.to_scalar::<f32>()?));
            picks.push(with_numbers(&logits, |l| Ok(largest(l, self.shape.vocab)))?);
            let weighted = (loss * decay.powi(step as i32))?;
            total = Some(match total {
                Some(total) => (total + weighted)?,
                None => weighted,
            });
            fed_back = hidden;
            #[cfg(test)]
            all_logits.push(logits);
        }
        let Some(loss) = total else {
            return Err(candle_core::Error::Msg("a batch without drafted positions".to_owned()));
        };
        Ok(Drafted {
            loss,
            step_losses,
            picks,
            #[cfg(test)]
            logits: all_logits,
        })
    }
}

/// Index of the largest number of each row; the first among equals.
fn largest(rows: &[f32], width: usize) -> Vec<u32> {
    use rayon::prelude::*;
    rows.par_chunks(width)
        .map(|row| {
            let mut best = 0;
            for (i, x) in row.iter().enumerate() {
                if *x > row[best] {
                    best = i;
                }
            }
            best as u32
        })
        .collect()
}
