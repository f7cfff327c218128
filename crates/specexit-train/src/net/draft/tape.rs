//! The draft layer on candle's tape, from operations whose gradients are checked one by one.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor, Var};
use specexit_kernels::RopeTable;

use super::{DraftBatch, DraftShape, Drafted, nothing_drafted};
use crate::net::params::Param;
use crate::ops::{AttentionStep, Gemm, Projection, SequenceRows, attention, rms_norm, silu_mul};
use crate::ops::{soft_cross_entropy, tensor, with_numbers};

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

/// What the steps so far leave to the next one.
struct Chain {
    /// The fused states, then the output of the step before.
    fed_back: Tensor,
    keys: Vec<Tensor>,
    values: Vec<Tensor>,
    /// Where each step's keys begin among all.
    bases: Vec<usize>,
    next_key: usize,
}

/// The layer on the tape.
pub(crate) struct Tape {
    shape: DraftShape,
    /// Cosines and sines.
    rope: Arc<RopeTable>,
    /// Computes the products.
    gemm: Gemm,
    /// Weights without a tape.
    frozen: Option<Weights>,
}

impl Tape {
    /// A layer of this shape.
    pub(super) fn new(shape: &DraftShape, rope: Arc<RopeTable>, gemm: Gemm) -> Self {
        Self { shape: shape.clone(), rope, gemm, frozen: None }
    }

    /// See [`super::Draft::gradients`].
    pub(super) fn gradients(
        &self,
        params: &[Param],
        batch: &DraftBatch,
        steps: usize,
        decay: f64,
        grads: &mut [Vec<f32>],
    ) -> Result<Drafted> {
        let (weights, vars) = Weights::tracked(params, &self.gemm)?;
        let (loss, drafted) = self.run(&weights, batch, steps, decay)?;
        let found = loss.backward()?;
        for (var, grad) in vars.iter().zip(grads) {
            let found = found.get(var.as_tensor()).ok_or_else(|| {
                candle_core::Error::Msg("a trained tensor received no gradient".to_owned())
            })?;
            with_numbers(found, |g| {
                grad.copy_from_slice(g);
                Ok(())
            })?;
        }
        Ok(drafted)
    }

    /// See [`super::Draft::prepare`].
    pub(super) fn prepare(&mut self, params: &[Param]) -> Result<()> {
        self.frozen = Some(Weights::frozen(params, &self.gemm)?);
        Ok(())
    }

    /// See [`super::Draft::forward`].
    pub(super) fn forward(&self, batch: &DraftBatch, steps: usize) -> Result<Drafted> {
        Ok(self.run(self.frozen()?, batch, steps, 1.0)?.1)
    }

    /// See [`super::Draft::probed`].
    pub(super) fn probed(&self, batch: &DraftBatch) -> Result<Vec<f32>> {
        if batch.probed.is_empty() {
            return Ok(Vec::new());
        }
        let weights = self.frozen()?;
        let mut chain = Chain::begin(&self.shape, weights, batch)?;
        let hidden = self.step(weights, batch, 0, &mut chain)?;
        let rows: Vec<u32> = batch.probed.iter().map(|&row| row as u32).collect();
        let kept = hidden.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?;
        rms_norm(&kept, &weights.norm, self.shape.eps)?.flatten_all()?.to_vec1()
    }

    fn frozen(&self) -> Result<&Weights> {
        let missing = || candle_core::Error::Msg("a forward without weights".to_owned());
        self.frozen.as_ref().ok_or_else(missing)
    }

    /// The layer at one step: its output, `[queries, H]`.
    fn step(
        &self,
        w: &Weights,
        batch: &DraftBatch,
        step: usize,
        chain: &mut Chain,
    ) -> Result<Tensor> {
        let (h, eps) = (self.shape.hidden, self.shape.eps);
        // Step 0 needs keys of the whole context, later steps only of the rows that draft.
        let kept = kept_rows(batch, step)?;
        let fed_back = &chain.fed_back;
        let source = if step == 0 { fed_back.clone() } else { fed_back.index_select(&kept, 0)? };
        let mut embed = Vec::new();
        batch.embeddings(&mut embed, step, h);
        let height = embed.len() / h;
        let embed = tensor(embed, (height, h))?;
        let normed = rms_norm(&source, &w.hidden_norm, eps)?;
        let input = Tensor::cat(&[rms_norm(&embed, &w.input_layernorm, eps)?, normed], 1)?;
        chain.keys.push(w.k_proj.apply(&input)?);
        chain.values.push(w.v_proj.apply(&input)?);
        chain.bases.push(chain.next_key);
        chain.next_key += height;
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
            sequences: sequence_rows(batch, step, &chain.bases),
        };
        let (keys, values) = (Tensor::cat(&chain.keys, 0)?, Tensor::cat(&chain.values, 0)?);
        let attended = attention(&q, &keys, &values, geometry)?;
        let hidden = (residual + w.o_proj.apply(&attended)?)?;
        let normed = rms_norm(&hidden, &w.post_attention_layernorm, eps)?;
        let gated = silu_mul(&w.gate_proj.apply(&normed)?, &w.up_proj.apply(&normed)?)?;
        hidden + w.down_proj.apply(&gated)?
    }

    /// The loss on the tape, and all that was found.
    fn run(
        &self,
        w: &Weights,
        batch: &DraftBatch,
        steps: usize,
        decay: f64,
    ) -> Result<(Tensor, Drafted)> {
        let probs = Arc::new(batch.targets.probs.clone());
        let mut chain = Chain::begin(&self.shape, w, batch)?;
        let mut total: Option<Tensor> = None;
        let (mut step_losses, mut picks) = (Vec::new(), Vec::new());
        #[cfg(test)]
        let mut all_logits = Vec::new();

        for step in 0..steps {
            if batch.rows(step) == 0 {
                break;
            }
            let hidden = self.step(w, batch, step, &mut chain)?;
            let logits = w.lm_head.apply(&rms_norm(&hidden, &w.norm, self.shape.eps)?)?;

            let target_rows = batch.target_rows(step);
            let weights = batch.weights(&target_rows);
            let loss = soft_cross_entropy(&logits, Arc::clone(&probs), target_rows, weights)?;
            step_losses.push(f64::from(loss.to_scalar::<f32>()?));
            picks.push(with_numbers(&logits, |l| Ok(largest(l, self.shape.vocab)))?);
            let weighted = (loss * decay.powi(step as i32))?;
            total = Some(match total {
                Some(total) => (total + weighted)?,
                None => weighted,
            });
            chain.fed_back = hidden;
            #[cfg(test)]
            all_logits.push(logits.flatten_all()?.to_vec1()?);
        }
        let loss = total.ok_or_else(nothing_drafted)?;
        let drafted = Drafted {
            loss: f64::from(loss.to_scalar::<f32>()?),
            step_losses,
            picks,
            #[cfg(test)]
            logits: all_logits,
        };
        Ok((loss, drafted))
    }
}

impl Chain {
    fn begin(shape: &DraftShape, w: &Weights, batch: &DraftBatch) -> Result<Self> {
        let taps = tensor(batch.taps.clone(), (batch.context(), shape.taps))?;
        let fed_back = w.fc.apply(&taps)?;
        let (keys, values, bases) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { fed_back, keys, values, bases, next_key: 0 })
    }
}

/// Rows of the previous step (or, for step 0, of the context) that step `step` goes on with.
fn kept_rows(batch: &DraftBatch, step: usize) -> Result<Tensor> {
    let before = batch.geometry(step.saturating_sub(1));
    let mut rows: Vec<u32> = Vec::new();
    for (s, b) in batch.geometry(step).iter().zip(&before) {
        let start = if step == 0 { s.starts[0] + s.first } else { b.row };
        rows.extend(start as u32..(start + s.queries) as u32);
    }
    let count = rows.len();
    Tensor::from_vec(rows, count, &Device::Cpu)
}

/// Where each sequence's rows lie, given where the keys of each step begin.
fn sequence_rows(batch: &DraftBatch, step: usize, bases: &[usize]) -> Vec<SequenceRows> {
    let geometry = batch.geometry(step).into_iter().filter(|s| s.queries > 0);
    let rows = geometry.map(|s| SequenceRows {
        first: s.first,
        queries: s.queries,
        query_row: s.row,
        key_rows: s.starts.iter().zip(bases).map(|(start, base)| base + start).collect(),
    });
    rows.collect()
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
