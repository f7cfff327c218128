//! The decoder written plainly, in f32 or bf16: slow, and what [`super::fast`] is held against.

use std::sync::Arc;

use candle_core::Result;
use specexit_kernels::RopeTable;
use specexit_model::config::inverse_frequencies;

use super::shape::{EMBEDDING, LayerTensor};
use super::{DecoderShape, TextBatch};
use crate::net::params::Param;
use crate::ops::{AttentionStep, Dense, Gemm, SequenceRows, rows};

/// The decoder without its weights.
pub(crate) struct Plain {
    pub(super) shape: DecoderShape,
    rope: Arc<RopeTable>,
    gemm: Gemm,
}

/// The trained tensors, prepared for the products of one step.
pub(crate) struct Weights<'a> {
    params: &'a [Param],
    pub(super) layers: Vec<LayerWeights>,
    pub(super) head: Dense,
}

/// Matrices of one layer.
pub(super) struct LayerWeights {
    pub(super) qkv: Dense,
    pub(super) o: Dense,
    pub(super) gate_up: Dense,
    pub(super) down: Dense,
}

/// What the backward needs of one layer.
pub(super) struct LayerTrace {
    /// The residual before the layer, `[rows, H]`.
    pub(super) input: Vec<f32>,
    /// It normed.
    pub(super) normed: Vec<f32>,
    /// Queries and keys before their norms, `[rows, q]`, `[rows, kv]`.
    pub(super) raw: [Vec<f32>; 2],
    /// Queries, keys (normed) and values, `[rows, q]`, `[rows, kv]`, `[rows, kv]`.
    pub(super) qkv: [Vec<f32>; 3],
    /// What attention gave, `[rows, q]`.
    pub(super) attended: Vec<f32>,
    /// The residual between attention and feed-forward layer, `[rows, H]`.
    pub(super) middle: Vec<f32>,
    /// It normed.
    pub(super) middle_normed: Vec<f32>,
    /// `gate|up`, `[rows, 2 I]`.
    pub(super) gate_up: Vec<f32>,
    /// `silu(gate) * up`, `[rows, I]`.
    pub(super) gated: Vec<f32>,
}

/// What the backward needs of a forward.
pub(crate) struct Trace {
    pub(super) layers: Vec<LayerTrace>,
    /// The last residual of the rows that carry loss, `[loss rows, H]`.
    pub(super) last: Vec<f32>,
    /// It normed.
    pub(super) last_normed: Vec<f32>,
    /// Logits of these rows, `[loss rows, V]`.
    pub(super) logits: Vec<f32>,
}

impl Trace {
    #[cfg(test)]
    pub(super) fn logits(&self) -> &[f32] {
        &self.logits
    }
}

impl<'a> Weights<'a> {
    pub(super) fn tensor(&self, index: usize) -> &'a [f32] {
        &self.params[index].value
    }
}

impl Plain {
    /// A decoder of this shape.
    pub(crate) fn new(shape: &DecoderShape, gemm: Gemm) -> Self {
        let inv_freq = inverse_frequencies(shape.rope_theta, shape.head_dim);
        let rope = Arc::new(RopeTable::new(&inv_freq, shape.max_position_embeddings));
        Self { shape: shape.clone(), rope, gemm }
    }

    /// Prepares the tensors of [`DecoderShape::tensors`] for one step.
    pub(crate) fn weights<'a>(&self, params: &'a [Param]) -> Result<Weights<'a>> {
        let dense = |index: usize| {
            let p = &params[index];
            Dense::new(&p.value, p.shape[0], p.shape[1], &self.gemm)
        };
        let layer = |l: usize| {
            let of = |tensor| dense(DecoderShape::index(l, tensor));
            Ok(LayerWeights {
                qkv: of(LayerTensor::Qkv)?,
                o: of(LayerTensor::O)?,
                gate_up: of(LayerTensor::GateUp)?,
                down: of(LayerTensor::Down)?,
            })
        };
        let layers = (0..self.shape.num_hidden_layers).map(layer).collect::<Result<_>>()?;
        Ok(Weights { params, layers, head: dense(EMBEDDING)? })
    }

    /// Runs a batch up to the logits of the rows that carry loss.
    pub(crate) fn forward(&self, w: &Weights<'_>, batch: &TextBatch) -> Result<Trace> {
        let (h, rows) = (self.shape.hidden_size, batch.rows());
        let mut x = vec![0f32; rows * h];
        let embedding = w.tensor(EMBEDDING);
        for (x, &token) in x.chunks_exact_mut(h).zip(&batch.tokens) {
            x.copy_from_slice(&embedding[token as usize * h..][..h]);
        }
        let mut layers = Vec::with_capacity(w.layers.len());
        for layer in 0..w.layers.len() {
            layers.push(self.layer(w, layer, batch, &mut x)?);
        }
        let mut last = Vec::with_capacity(batch.loss_rows.len() * h);
        for &row in &batch.loss_rows {
            last.extend_from_slice(&x[row as usize * h..][..h]);
        }
        let mut last_normed = vec![0f32; last.len()];
        let norm = w.tensor(self.shape.final_norm());
        rows::norm(&mut last_normed, &last, norm, self.shape.eps());
        let mut logits = vec![0f32; batch.loss_rows.len() * self.shape.vocab_size];
        w.head.apply(&mut logits, &last_normed)?;
        Ok(Trace { layers, last, last_normed, logits })
    }

    /// Sum of the cross-entropies of all targets.
    pub(crate) fn loss(&self, w: &Weights<'_>, batch: &TextBatch) -> Result<f64> {
        let mut trace = self.forward(w, batch)?;
        Ok(rows::cross_entropy(&mut trace.logits, self.shape.vocab_size, &batch.targets, 1.0))
    }

    fn layer(
        &self,
        w: &Weights<'_>,
        layer: usize,
        batch: &TextBatch,
        x: &mut Vec<f32>,
    ) -> Result<LayerTrace> {
        let s = &self.shape;
        let (h, q, kv, eps, rows) = (s.hidden_size, s.q(), s.kv(), s.eps(), batch.rows());
        let tensor = |which| w.tensor(DecoderShape::index(layer, which));
        let weights = &w.layers[layer];
        let input = std::mem::take(x);
        let mut normed = vec![0f32; rows * h];
        rows::norm(&mut normed, &input, tensor(LayerTensor::InputNorm), eps);
        let mut together = vec![0f32; rows * (q + 2 * kv)];
        weights.qkv.apply(&mut together, &normed)?;
        let columns = |from: usize, width: usize| {
            let parts = together.chunks_exact(q + 2 * kv).flat_map(|row| &row[from..from + width]);
            parts.copied().collect::<Vec<f32>>()
        };
        let raw = [columns(0, q), columns(q, kv)];
        let mut qkv = [vec![0f32; rows * q], vec![0f32; rows * kv], columns(q + kv, kv)];
        rows::norm(&mut qkv[0], &raw[0], tensor(LayerTensor::QNorm), eps);
        rows::norm(&mut qkv[1], &raw[1], tensor(LayerTensor::KNorm), eps);
        let attended = self.attention(batch).forward(&qkv[0], &qkv[1], &qkv[2]);
        let mut middle = vec![0f32; rows * h];
        weights.o.apply(&mut middle, &attended)?;
        middle.iter_mut().zip(&input).for_each(|(m, x)| *m += x);
        let mut middle_normed = vec![0f32; rows * h];
        rows::norm(&mut middle_normed, &middle, tensor(LayerTensor::PostNorm), eps);
        let mut gate_up = vec![0f32; rows * 2 * s.intermediate_size];
        weights.gate_up.apply(&mut gate_up, &middle_normed)?;
        let mut gated = vec![0f32; rows * s.intermediate_size];
        rows::swiglu(&mut gated, &gate_up, s.intermediate_size);
        let mut output = vec![0f32; rows * h];
        weights.down.apply(&mut output, &gated)?;
        output.iter_mut().zip(&middle).for_each(|(o, m)| *o += m);
        *x = output;
        Ok(LayerTrace { input, normed, raw, qkv, attended, middle, middle_normed, gate_up, gated })
    }

    pub(super) fn attention(&self, batch: &TextBatch) -> AttentionStep {
        let sequences = batch.texts.iter().map(|rows| SequenceRows {
            first: 0,
            queries: rows.len(),
            query_row: rows.start,
            key_rows: vec![rows.start],
        });
        AttentionStep {
            heads: self.shape.num_attention_heads,
            kv_heads: self.shape.num_key_value_heads,
            head_dim: self.shape.head_dim,
            rope: Arc::clone(&self.rope),
            step: 0,
            sequences: sequences.collect(),
        }
    }
}

impl Plain {
    /// Adds `scale` times the gradient of a batch's summed loss to `grads`, which are laid out like
    /// the trained tensors, and returns that sum.
    pub(crate) fn backward(
        &self,
        w: &Weights<'_>,
        batch: &TextBatch,
        mut trace: Trace,
        scale: f32,
        grads: &mut [Vec<f32>],
    ) -> Result<f64> {
        let (s, h) = (&self.shape, self.shape.hidden_size);
        let loss = rows::cross_entropy(&mut trace.logits, s.vocab_size, &batch.targets, scale);
        let mut dnormed = vec![0f32; trace.last.len()];
        w.head.backward(&mut dnormed, &mut grads[EMBEDDING], &trace.logits, &trace.last_normed)?;
        let mut dlast = vec![0f32; trace.last.len()];
        let (last, norm) = (s.final_norm(), w.tensor(s.final_norm()));
        rows::norm_backward(&mut dlast, &mut grads[last], &dnormed, &trace.last, norm, s.eps());
        let mut dx = vec![0f32; batch.rows() * h];
        for (&row, dlast) in batch.loss_rows.iter().zip(dlast.chunks_exact(h)) {
            dx[row as usize * h..][..h].copy_from_slice(dlast);
        }
        for (layer, trace) in trace.layers.into_iter().enumerate().rev() {
            self.layer_backward(w, layer, batch, trace, &mut dx, grads)?;
        }
        // One row after the other: a token that occurs twice gets its sum in a fixed order.
        for (dx, &token) in dx.chunks_exact(h).zip(&batch.tokens) {
            let to = &mut grads[EMBEDDING][token as usize * h..][..h];
            to.iter_mut().zip(dx).for_each(|(to, dx)| *to += dx);
        }
        Ok(loss)
    }

    /// Turns the gradient `dx` of the residual behind a layer into that before it.
    fn layer_backward(
        &self,
        w: &Weights<'_>,
        layer: usize,
        batch: &TextBatch,
        mut t: LayerTrace,
        dx: &mut [f32],
        grads: &mut [Vec<f32>],
    ) -> Result<()> {
        let s = &self.shape;
        let (h, q, kv, eps, rows) = (s.hidden_size, s.q(), s.kv(), s.eps(), batch.rows());
        let index = |which| DecoderShape::index(layer, which);
        let weights = &w.layers[layer];

        let mut dgated = vec![0f32; t.gated.len()];
        weights.down.backward(&mut dgated, &mut grads[index(LayerTensor::Down)], dx, &t.gated)?;
        rows::swiglu_backward(&mut t.gate_up, &dgated, s.intermediate_size);
        let mut dnormed = vec![0f32; rows * h];
        let dw = &mut grads[index(LayerTensor::GateUp)];
        weights.gate_up.backward(&mut dnormed, dw, &t.gate_up, &t.middle_normed)?;
        let which = index(LayerTensor::PostNorm);
        rows::norm_backward(dx, &mut grads[which], &dnormed, &t.middle, w.tensor(which), eps);

        let mut dattended = vec![0f32; rows * q];
        weights.o.backward(&mut dattended, &mut grads[index(LayerTensor::O)], dx, &t.attended)?;
        let [qs, ks, vs] = &t.qkv;
        let (dq, dk, dv) = self.attention(batch).backward(qs, ks, vs, &dattended);
        let (mut dq_raw, mut dk_raw) = (vec![0f32; dq.len()], vec![0f32; dk.len()]);
        let which = index(LayerTensor::QNorm);
        let [q_raw, k_raw] = &t.raw;
        rows::norm_backward(&mut dq_raw, &mut grads[which], &dq, q_raw, w.tensor(which), eps);
        let which = index(LayerTensor::KNorm);
        rows::norm_backward(&mut dk_raw, &mut grads[which], &dk, k_raw, w.tensor(which), eps);
        let mut dqkv = Vec::with_capacity(rows * (q + 2 * kv));
        let parts = dq_raw.chunks_exact(q).zip(dk_raw.chunks_exact(kv)).zip(dv.chunks_exact(kv));
        for ((dq, dk), dv) in parts {
            dqkv.extend_from_slice(dq);
            dqkv.extend_from_slice(dk);
            dqkv.extend_from_slice(dv);
        }
        let dw = &mut grads[index(LayerTensor::Qkv)];
        weights.qkv.backward(&mut dnormed, dw, &dqkv, &t.normed)?;
        let which = index(LayerTensor::InputNorm);
        rows::norm_backward(dx, &mut grads[which], &dnormed, &t.input, w.tensor(which), eps);
        Ok(())
    }
}
