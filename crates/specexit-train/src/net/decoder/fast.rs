//! The decoder on the kernels' training operations: bf16 factors, f32 sums, and buffers that are
//! kept from one batch to the next.

use std::sync::Arc;

use specexit_kernels::{Bf16Rows, CausalShape, HeadNorms, Kernels, PairPanels, RopeTable};
use specexit_model::config::inverse_frequencies;

use super::shape::{EMBEDDING, LayerTensor};
use super::{DecoderShape, TextBatch};
use crate::net::buffers::{Weight, sized, weight_gradient};
use crate::net::params::Param;

/// See the module.
pub(crate) struct Fast {
    shape: DecoderShape,
    rope: RopeTable,
    kernels: Arc<Kernels>,
    weights: Vec<LayerWeights>,
    head: Weight,
    layers: Vec<LayerTrace>,
    tail: Tail,
    scratch: Scratch,
}

/// Matrices of one layer.
#[derive(Default)]
struct LayerWeights {
    qkv: Weight,
    o: Weight,
    gate_up: Weight,
    down: Weight,
}

/// What the backward needs of one layer.
#[derive(Default)]
struct LayerTrace {
    /// The residual before the layer, `[rows, H]`.
    input: Vec<f32>,
    normed: Bf16Rows,
    /// `q|k|v` before norms and rotation.
    qkv: Vec<f32>,
    /// Logarithms of the softmaxes' sums, `[rows, heads]`.
    lse: Vec<f32>,
    attended: Bf16Rows,
    /// The residual between attention and feed-forward layer, `[rows, H]`.
    middle: Vec<f32>,
    middle_normed: Bf16Rows,
    /// `gate|up`.
    gate_up: Vec<f32>,
    gated: Bf16Rows,
}

/// What follows the last layer.
#[derive(Default)]
struct Tail {
    /// The residual behind the last layer, `[rows, H]`.
    output: Vec<f32>,
    /// Its rows that carry loss, `[loss rows, H]`.
    last: Vec<f32>,
    last_normed: Bf16Rows,
    /// `[loss rows, V]`.
    logits: Vec<f32>,
}

/// What no later operation needs.
#[derive(Default)]
struct Scratch {
    /// Gradient of the residual.
    dx: Vec<f32>,
    /// Gradients in f32 of what a product read.
    wide: Vec<f32>,
    /// Gradients in bf16 of what a product made.
    narrow: Bf16Rows,
    /// Both factors of a weight's gradient.
    a: PairPanels,
    b: PairPanels,
}

impl Fast {
    /// A decoder of this shape.
    pub(crate) fn new(shape: &DecoderShape, kernels: &Arc<Kernels>) -> Self {
        let inv_freq = inverse_frequencies(shape.rope_theta, shape.head_dim);
        let layers = shape.num_hidden_layers;
        Self {
            shape: shape.clone(),
            rope: RopeTable::new(&inv_freq, shape.max_position_embeddings),
            kernels: Arc::clone(kernels),
            weights: (0..layers).map(|_| LayerWeights::default()).collect(),
            head: Weight::default(),
            layers: (0..layers).map(|_| LayerTrace::default()).collect(),
            tail: Tail::default(),
            scratch: Scratch::default(),
        }
    }

    /// Rounds and packs the weights of a step.
    pub(crate) fn prepare(&mut self, params: &[Param]) {
        let set = |weight: &mut Weight, param: &Param| {
            weight.set(&self.kernels, &param.value, param.shape[0], param.shape[1]);
        };
        for (layer, w) in self.weights.iter_mut().enumerate() {
            let param = |which| &params[DecoderShape::index(layer, which)];
            set(&mut w.qkv, param(LayerTensor::Qkv));
            set(&mut w.o, param(LayerTensor::O));
            set(&mut w.gate_up, param(LayerTensor::GateUp));
            set(&mut w.down, param(LayerTensor::Down));
        }
        set(&mut self.head, &params[EMBEDDING]);
    }

    fn causal(&self) -> CausalShape {
        CausalShape {
            heads: self.shape.num_attention_heads,
            kv_heads: self.shape.num_key_value_heads,
            head_dim: self.shape.head_dim,
        }
    }

    /// Runs a batch up to the logits of the rows that carry loss.
    pub(crate) fn forward(&mut self, params: &[Param], batch: &TextBatch) {
        let causal = self.causal();
        let (s, kernels) = (&self.shape, &self.kernels);
        let (h, i, eps, rows) = (s.hidden_size, s.intermediate_size, s.eps(), batch.rows());
        let first = self.layers.first_mut().map_or(&mut self.tail.output, |l| &mut l.input);
        let embedding = &params[EMBEDDING].value;
        for (x, &token) in sized(first, rows * h).chunks_exact_mut(h).zip(&batch.tokens) {
            x.copy_from_slice(&embedding[token as usize * h..][..h]);
        }
        for layer in 0..self.layers.len() {
            let (before, after) = self.layers.split_at_mut(layer + 1);
            let (t, w) = (&mut before[layer], &self.weights[layer]);
            let param = |which| &params[DecoderShape::index(layer, which)].value[..];
            let input = &t.input[..rows * h];
            kernels.norm_rows(&mut t.normed, input, param(LayerTensor::InputNorm), eps);
            let qkv = sized(&mut t.qkv, rows * (s.q() + 2 * s.kv()));
            kernels.multiply(qkv, &t.normed, &w.qkv.forward, None);
            let lse = sized(&mut t.lse, rows * s.num_attention_heads);
            let norms =
                HeadNorms { q: param(LayerTensor::QNorm), k: param(LayerTensor::KNorm), eps };
            kernels.causal_attention(
                &mut t.attended,
                lse,
                qkv,
                &batch.texts,
                causal,
                norms,
                &self.rope,
            );
            let middle = sized(&mut t.middle, rows * h);
            kernels.multiply(middle, &t.attended, &w.o.forward, Some(input));
            kernels.norm_rows(&mut t.middle_normed, middle, param(LayerTensor::PostNorm), eps);
            let gate_up = sized(&mut t.gate_up, rows * 2 * i);
            kernels.multiply(gate_up, &t.middle_normed, &w.gate_up.forward, None);
            kernels.swiglu_rows(&mut t.gated, gate_up, i);
            let output = after.first_mut().map_or(&mut self.tail.output, |l| &mut l.input);
            let output = sized(output, rows * h);
            kernels.multiply(output, &t.gated, &w.down.forward, Some(middle));
        }
        let tail = &mut self.tail;
        let last = sized(&mut tail.last, batch.loss_rows.len() * h);
        for (last, &row) in last.chunks_exact_mut(h).zip(&batch.loss_rows) {
            last.copy_from_slice(&tail.output[row as usize * h..][..h]);
        }
        kernels.norm_rows(&mut tail.last_normed, last, &params[s.final_norm()].value, eps);
        let logits = sized(&mut tail.logits, batch.loss_rows.len() * s.vocab_size);
        kernels.multiply(logits, &tail.last_normed, &self.head.forward, None);
    }

    /// Logits of the last forward, `[loss rows, V]`.
    #[cfg(test)]
    pub(super) fn logits(&self, batch: &TextBatch) -> &[f32] {
        &self.tail.logits[..batch.loss_rows.len() * self.shape.vocab_size]
    }

    /// A batch's summed loss.
    pub(crate) fn loss(&mut self, params: &[Param], batch: &TextBatch) -> f64 {
        self.forward(params, batch);
        self.cross_entropy(batch, 1.0)
    }

    /// The summed loss, and `scale` times its gradient in place of the logits.
    fn cross_entropy(&mut self, batch: &TextBatch, scale: f32) -> f64 {
        let vocab = self.shape.vocab_size;
        let logits = &mut self.tail.logits[..batch.loss_rows.len() * vocab];
        let d = &mut self.scratch.narrow;
        self.kernels.cross_entropy(d, logits, vocab, &batch.targets, scale)
    }

    /// Adds `scale` times the gradient of the summed loss of the batch that was run last to `grads`
    /// and returns that sum.
    pub(crate) fn backward(
        &mut self,
        params: &[Param],
        batch: &TextBatch,
        scale: f32,
        grads: &mut [Vec<f32>],
    ) -> f64 {
        let loss = self.cross_entropy(batch, scale);
        let (s, kernels) = (&self.shape, &self.kernels);
        let (h, eps, rows) = (s.hidden_size, s.eps(), batch.rows());
        let Scratch { dx, wide, narrow, a, b } = &mut self.scratch;
        let tail = &self.tail;
        weight_gradient(kernels, [a, b], &mut grads[EMBEDDING], narrow, &tail.last_normed);
        let count = batch.loss_rows.len() * h;
        let dnormed = sized(wide, count);
        kernels.multiply(dnormed, narrow, &self.head.backward, None);
        let (norm, last) = (s.final_norm(), &tail.last[..count]);
        // The gradient of the rows that carry loss first lies where that of all rows will.
        let dlast = sized(dx, rows * h);
        dlast.fill(0.0);
        let dlast = &mut dlast[..count];
        let weight = &params[norm].value;
        kernels.norm_rows_backward(dlast, &mut grads[norm], dnormed, last, weight, eps);
        // Each row moves to a higher place, or stays: from the last one on, none is overwritten.
        for (from, &to) in batch.loss_rows.iter().enumerate().rev() {
            let to = to as usize;
            if to > from {
                dx.copy_within(from * h..(from + 1) * h, to * h);
                dx[from * h..(from + 1) * h].fill(0.0);
            }
        }
        for layer in (0..self.layers.len()).rev() {
            self.layer_backward(params, layer, batch, grads);
        }
        // One row after the other: a token that occurs twice gets its sum in a fixed order.
        let dx = &self.scratch.dx[..rows * h];
        for (dx, &token) in dx.chunks_exact(h).zip(&batch.tokens) {
            let to = &mut grads[EMBEDDING][token as usize * h..][..h];
            to.iter_mut().zip(dx).for_each(|(to, dx)| *to += dx);
        }
        loss
    }

    /// Turns the gradient `dx` of the residual behind a layer into that before it.
    fn layer_backward(
        &mut self,
        params: &[Param],
        layer: usize,
        batch: &TextBatch,
        grads: &mut [Vec<f32>],
    ) {
        let causal = self.causal();
        let (s, kernels) = (&self.shape, &self.kernels);
        let (h, i, eps, rows) = (s.hidden_size, s.intermediate_size, s.eps(), batch.rows());
        let (t, w) = (&self.layers[layer], &self.weights[layer]);
        let Scratch { dx, wide, narrow, a, b } = &mut self.scratch;
        let dx = &mut dx[..rows * h];
        let index = |which| DecoderShape::index(layer, which);
        let param = |which| &params[index(which)].value[..];

        kernels.round_rows(narrow, dx, h);
        weight_gradient(kernels, [a, b], &mut grads[index(LayerTensor::Down)], narrow, &t.gated);
        let dgated = sized(wide, rows * i);
        kernels.multiply(dgated, narrow, &w.down.backward, None);
        kernels.swiglu_rows_backward(narrow, &t.gate_up[..rows * 2 * i], dgated, i);
        let dw = &mut grads[index(LayerTensor::GateUp)];
        weight_gradient(kernels, [a, b], dw, narrow, &t.middle_normed);
        let dnormed = sized(wide, rows * h);
        kernels.multiply(dnormed, narrow, &w.gate_up.backward, None);
        let dw = &mut grads[index(LayerTensor::PostNorm)];
        let weight = param(LayerTensor::PostNorm);
        kernels.norm_rows_backward(dx, dw, dnormed, &t.middle[..rows * h], weight, eps);

        kernels.round_rows(narrow, dx, h);
        weight_gradient(kernels, [a, b], &mut grads[index(LayerTensor::O)], narrow, &t.attended);
        let dattended = sized(wide, rows * s.q());
        kernels.multiply(dattended, narrow, &w.o.backward, None);
        let norms = HeadNorms { q: param(LayerTensor::QNorm), k: param(LayerTensor::KNorm), eps };
        // The two norms' gradients lie side by side among the others.
        let (before, after) = grads.split_at_mut(index(LayerTensor::KNorm));
        let dnorms = [&mut before[index(LayerTensor::QNorm)][..], &mut after[0][..]];
        kernels.causal_attention_backward(
            narrow,
            dnorms,
            dattended,
            &t.lse[..rows * s.num_attention_heads],
            &t.qkv[..rows * (s.q() + 2 * s.kv())],
            &batch.texts,
            causal,
            norms,
            &self.rope,
        );
        weight_gradient(kernels, [a, b], &mut grads[index(LayerTensor::Qkv)], narrow, &t.normed);
        let dnormed = sized(wide, rows * h);
        kernels.multiply(dnormed, narrow, &w.qkv.backward, None);
        let dw = &mut grads[index(LayerTensor::InputNorm)];
        let weight = param(LayerTensor::InputNorm);
        kernels.norm_rows_backward(dx, dw, dnormed, &t.input[..rows * h], weight, eps);
    }
}
