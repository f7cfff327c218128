//! The draft layer on the kernels' training operations: bf16 factors, f32 sums, and buffers that are
//! kept from one batch to the next.
//!
//! The head's part of the backward runs with the forward of each step, so that the logits of one step
//! only exist at a time.

use std::sync::Arc;

use candle_core::Result;
use specexit_kernels::{
    Bf16Rows, CausalShape, ChainSequence, Kernels, PairPanels, RopeTable, RowLosses, SoftTargets,
};

use super::{DraftBatch, DraftShape, DraftTensor, Drafted, nothing_drafted};
use crate::net::buffers::{Weight, sized, weight_gradient};
use crate::net::params::Param;

/// See the module.
pub(crate) struct Fast {
    shape: DraftShape,
    rope: Arc<RopeTable>,
    kernels: Arc<Kernels>,
    weights: Weights,
    taps: Bf16Rows,
    steps: Vec<StepTrace>,
    losses: RowLosses,
    scratch: Scratch,
}

/// The trained tensors of one step, rounded and packed; products that read the same rows are one.
#[derive(Default)]
struct Weights {
    fc: Weight,
    qkv: Weight,
    o: Weight,
    gate_up: Weight,
    down: Weight,
    lm_head: Weight,
    input_norm: Vec<f32>,
    hidden_norm: Vec<f32>,
    post_norm: Vec<f32>,
    norm: Vec<f32>,
    /// `q|k|v` or `gate|up`, row under row.
    stacked: Vec<f32>,
}

/// What the backward needs of one step of the training-time test. A step has `queries` rows that
/// draft; `height` is the same but for step 0, which needs keys of the whole contexts.
#[derive(Default)]
struct StepTrace {
    sequences: Vec<ChainSequence>,
    queries: usize,
    height: usize,
    /// Embeddings of the tokens that go with the rows, `[height, H]`.
    embed: Vec<f32>,
    /// What is fed to the layer: the fused states, or the step before's output, `[height, H]`.
    source: Vec<f32>,
    /// Both after their norms, side by side.
    input: Bf16Rows,
    /// `q|k|v` before rotation, `[height, q + 2 kv]`.
    qkv: Vec<f32>,
    /// Logarithms of the softmaxes' sums, `[queries, heads]`.
    lse: Vec<f32>,
    attended: Bf16Rows,
    /// The residual between attention and MLP, `[queries, H]`.
    middle: Vec<f32>,
    middle_normed: Bf16Rows,
    /// `gate|up`.
    gate_up: Vec<f32>,
    gated: Bf16Rows,
    /// The residual behind the layer, `[queries, H]`.
    output: Vec<f32>,
    /// The gradient of its norm, `[queries, H]`.
    dnormed: Vec<f32>,
}

/// What no later operation needs.
#[derive(Default)]
struct Scratch {
    /// Gradient of the residual.
    dx: Vec<f32>,
    /// Gradient of the embeddings, which nobody asks for.
    dembed: Vec<f32>,
    /// Logits, and gradients in f32 of what a product read.
    wide: Vec<f32>,
    /// Activations, and gradients in bf16 of what a product made.
    narrow: Bf16Rows,
    /// The final norm's output.
    normed: Bf16Rows,
    /// Both factors of a weight's gradient.
    a: PairPanels,
    b: PairPanels,
    /// Gradients of each step's `q|k|v`.
    drows: Vec<Vec<f32>>,
    /// Gradients of the stacked weights.
    dqkv: Vec<f32>,
    dgate_up: Vec<f32>,
}

/// Rows `from` (`width` wide) of step k, sequence by sequence, as rows of the step before.
fn keep(to: &mut [f32], from: &[f32], width: usize, rows: &[(usize, &ChainSequence)]) {
    for (start, s) in rows {
        let count = s.queries * width;
        to[s.row * width..][..count].copy_from_slice(&from[start * width..][..count]);
    }
}

/// The backward of [`keep`], in place: moves the rows of each sequence to where they came from among
/// `height` rows, and zeros to all others.
fn spread(x: &mut [f32], width: usize, height: usize, rows: &[(usize, &ChainSequence)]) {
    // A sequence's rows move to higher places, or stay: from the last one on, none is overwritten.
    let mut end = height;
    for (start, s) in rows.iter().rev() {
        x.copy_within(s.row * width..(s.row + s.queries) * width, start * width);
        x[(start + s.queries) * width..end * width].fill(0.0);
        end = *start;
    }
    x[..end * width].fill(0.0);
}

/// For each sequence of step `step`, the row it goes on from: of the contexts at step 0, of the rows
/// of the step before later on.
fn origins<'a>(
    sequences: &'a [ChainSequence],
    before: Option<&[ChainSequence]>,
) -> Vec<(usize, &'a ChainSequence)> {
    let start = |(i, s): (usize, &ChainSequence)| match before {
        None => s.starts[0] + s.first,
        Some(before) => before[i].row,
    };
    sequences.iter().enumerate().map(|(i, s)| (start((i, s)), s)).collect()
}

impl Weights {
    fn set(&mut self, kernels: &Kernels, params: &[Param]) {
        use DraftTensor::*;
        let of = |which: DraftTensor| &params[which as usize];
        let stacked = &mut self.stacked;
        let mut stack = |weight: &mut Weight, tensors: &[DraftTensor]| {
            stacked.clear();
            tensors.iter().for_each(|&t| stacked.extend_from_slice(&of(t).value));
            let inputs = of(tensors[0]).shape[1];
            weight.set(kernels, stacked, stacked.len() / inputs, inputs);
        };
        stack(&mut self.fc, &[Fc]);
        stack(&mut self.qkv, &[Q, K, V]);
        stack(&mut self.o, &[O]);
        stack(&mut self.gate_up, &[Gate, Up]);
        stack(&mut self.down, &[Down]);
        stack(&mut self.lm_head, &[LmHead]);
        self.input_norm.clone_from(&of(InputNorm).value);
        self.hidden_norm.clone_from(&of(HiddenNorm).value);
        self.post_norm.clone_from(&of(PostNorm).value);
        self.norm.clone_from(&of(Norm).value);
    }
}

impl Fast {
    /// A layer of this shape.
    pub(super) fn new(shape: &DraftShape, rope: Arc<RopeTable>, kernels: &Arc<Kernels>) -> Self {
        Self {
            shape: shape.clone(),
            rope,
            kernels: Arc::clone(kernels),
            weights: Weights::default(),
            taps: Bf16Rows::default(),
            steps: Vec::new(),
            losses: RowLosses::default(),
            scratch: Scratch::default(),
        }
    }

    /// Rounds and packs the weights.
    pub(super) fn prepare(&mut self, params: &[Param]) {
        self.weights.set(&self.kernels, params);
    }

    fn attention(&self) -> CausalShape {
        let DraftShape { heads, kv_heads, head_dim, .. } = self.shape;
        CausalShape { heads, kv_heads, head_dim }
    }

    /// Columns of `q|k|v`.
    fn qkv_width(&self) -> usize {
        (self.shape.heads + 2 * self.shape.kv_heads) * self.shape.head_dim
    }

    /// See [`super::Draft::forward`].
    pub(super) fn forward(&mut self, batch: &DraftBatch, steps: usize) -> Result<Drafted> {
        self.run(batch, steps, 1.0, None)
    }

    /// See [`super::Draft::gradients`].
    pub(super) fn gradients(
        &mut self,
        batch: &DraftBatch,
        steps: usize,
        decay: f64,
        grads: &mut [Vec<f32>],
    ) -> Result<Drafted> {
        grads.iter_mut().for_each(|g| g.fill(0.0));
        let drafted = self.run(batch, steps, decay, Some(grads))?;
        self.backward(drafted.step_losses.len(), grads);
        Ok(drafted)
    }

    /// All steps forward; with gradients, back again to the final norm of each.
    fn run(
        &mut self,
        batch: &DraftBatch,
        steps: usize,
        decay: f64,
        mut grads: Option<&mut [Vec<f32>]>,
    ) -> Result<Drafted> {
        self.kernels.round_rows(&mut self.taps, &batch.taps, self.shape.taps);
        let mut found = Drafted::default();
        for step in 0..steps {
            if batch.rows(step) == 0 {
                break;
            }
            self.step_forward(batch, step);
            let weight = decay.powi(step as i32);
            self.head(batch, step, weight, grads.as_deref_mut(), &mut found);
        }
        if found.step_losses.is_empty() { Err(nothing_drafted()) } else { Ok(found) }
    }

    /// See [`super::Draft::probed`].
    pub(super) fn probed(&mut self, batch: &DraftBatch) -> Vec<f32> {
        if batch.probed.is_empty() {
            return Vec::new();
        }
        self.kernels.round_rows(&mut self.taps, &batch.taps, self.shape.taps);
        self.step_forward(batch, 0);
        let h = self.shape.hidden;
        let outputs: Vec<f32> = match self.steps.first() {
            Some(t) => {
                batch.probed.iter().flat_map(|row| &t.output[row * h..][..h]).copied().collect()
            }
            None => Vec::new(),
        };
        let mut normed = vec![0.0; outputs.len()];
        self.kernels.rms_norm(&mut normed, &outputs, &self.weights.norm, self.shape.eps);
        normed
    }

    /// The layer at one step.
    fn step_forward(&mut self, batch: &DraftBatch, step: usize) {
        let shape = self.attention();
        let (s, kernels, w) = (&self.shape, &self.kernels, &self.weights);
        let (h, i, eps) = (s.hidden, s.intermediate, s.eps);
        let width = self.qkv_width();
        if self.steps.len() == step {
            self.steps.push(StepTrace::default());
        }
        let (before, t) = self.steps.split_at_mut(step);
        let t = &mut t[0];
        t.sequences = batch.geometry(step);
        t.queries = batch.rows(step);
        t.height = if step == 0 { batch.context() } else { t.queries };
        let (queries, height) = (t.queries, t.height);
        batch.embeddings(&mut t.embed, step, h);
        let source = sized(&mut t.source, height * h);
        match before.last() {
            None => kernels.multiply(source, &self.taps, &w.fc.forward, None),
            Some(before) => {
                keep(source, &before.output, h, &origins(&t.sequences, Some(&before.sequences)));
            }
        }
        let source: &[f32] = source;
        let residual = match step {
            0 => {
                let residual = sized(&mut self.scratch.wide, queries * h);
                keep(residual, source, h, &origins(&t.sequences, None));
                &*residual
            }
            _ => source,
        };
        let inputs = [(&t.embed[..], &w.input_norm[..]), (source, &w.hidden_norm[..])];
        kernels.norm_rows_beside(&mut t.input, &inputs, eps);
        kernels.multiply(sized(&mut t.qkv, height * width), &t.input, &w.qkv.forward, None);
        let mut qkv: Vec<&[f32]> = before.iter().map(|t| &t.qkv[..t.height * width]).collect();
        qkv.push(&t.qkv[..height * width]);
        let lse = sized(&mut t.lse, queries * s.heads);
        kernels.chain_attention(&mut t.attended, lse, &qkv, &t.sequences, shape, &self.rope);
        let middle = sized(&mut t.middle, queries * h);
        kernels.multiply(middle, &t.attended, &w.o.forward, Some(residual));
        kernels.norm_rows(&mut t.middle_normed, middle, &w.post_norm, eps);
        let gate_up = sized(&mut t.gate_up, queries * 2 * i);
        kernels.multiply(gate_up, &t.middle_normed, &w.gate_up.forward, None);
        kernels.swiglu_rows(&mut t.gated, gate_up, i);
        let output = sized(&mut t.output, queries * h);
        kernels.multiply(output, &t.gated, &w.down.forward, Some(middle));
    }

    /// Logits and losses of a step; with gradients, back to the final norm.
    fn head(
        &mut self,
        batch: &DraftBatch,
        step: usize,
        weight: f64,
        grads: Option<&mut [Vec<f32>]>,
        found: &mut Drafted,
    ) {
        let (s, kernels, w) = (&self.shape, &self.kernels, &self.weights);
        let (h, vocab) = (s.hidden, s.vocab);
        let Scratch { wide, narrow, normed, a, b, .. } = &mut self.scratch;
        let t = &mut self.steps[step];
        kernels.norm_rows(normed, &t.output[..t.queries * h], &w.norm, s.eps);
        let logits = sized(wide, t.queries * vocab);
        kernels.multiply(logits, normed, &w.lm_head.forward, None);
        #[cfg(test)]
        found.logits.push(logits.to_vec());
        let rows = batch.target_rows(step);
        let weights = batch.weights(&rows);
        let targets = SoftTargets { probs: &batch.targets.probs, rows: &rows, weights: &weights };
        let gradient = grads.is_some().then_some((&mut *narrow, weight as f32));
        kernels.soft_cross_entropy(&mut self.losses, gradient, logits, vocab, targets);
        if let Some(grads) = grads {
            let dw = &mut grads[DraftTensor::LmHead as usize];
            weight_gradient(kernels, [a, b], dw, narrow, normed);
            let dnormed = sized(&mut t.dnormed, t.queries * h);
            kernels.multiply(dnormed, narrow, &w.lm_head.backward, None);
        }
        let loss = self.losses.losses.iter().sum::<f64>();
        found.loss += weight * loss;
        found.step_losses.push(loss);
        found.picks.push(self.losses.picks.clone());
    }

    /// Adds the gradients of all but the head, given those of the final norms' results.
    fn backward(&mut self, steps: usize, grads: &mut [Vec<f32>]) {
        let width = self.qkv_width();
        let s = &self.shape;
        let Scratch { dx, drows, dqkv, dgate_up, .. } = &mut self.scratch;
        drows.resize_with(drows.len().max(steps), Vec::new);
        for (d, t) in drows.iter_mut().zip(&self.steps[..steps]) {
            sized(d, t.height * width).fill(0.0);
        }
        sized(dqkv, width * 2 * s.hidden).fill(0.0);
        sized(dgate_up, 2 * s.intermediate * s.hidden).fill(0.0);
        // Nothing reads the last step's output but its norm.
        sized(dx, self.steps[steps - 1].queries * s.hidden).fill(0.0);
        for step in (0..steps).rev() {
            self.step_backward(step, grads);
        }
        let Scratch { dqkv, dgate_up, .. } = &self.scratch;
        use DraftTensor::{Gate, K, Q, Up, V};
        for (stacked, tensors) in [(dqkv, &[Q, K, V][..]), (dgate_up, &[Gate, Up])] {
            let mut rest = &stacked[..];
            for &tensor in tensors {
                let grad = &mut grads[tensor as usize];
                let (own, others) = rest.split_at(grad.len());
                grad.copy_from_slice(own);
                rest = others;
            }
        }
    }

    /// Turns the gradient `dx` of a step's output, but for what its norm adds, into that of what was
    /// fed to the step.
    fn step_backward(&mut self, step: usize, grads: &mut [Vec<f32>]) {
        use DraftTensor::{Down, Fc, HiddenNorm, InputNorm, Norm, O, PostNorm};
        let (shape, width) = (self.attention(), self.qkv_width());
        let (s, kernels, w) = (&self.shape, &self.kernels, &self.weights);
        let (h, i, eps) = (s.hidden, s.intermediate, s.eps);
        let Scratch { dx, dembed, wide, narrow, a, b, drows, dqkv, dgate_up, .. } =
            &mut self.scratch;
        let t = &self.steps[step];
        let (queries, height) = (t.queries, t.height);

        let d = &mut dx[..queries * h];
        let output = &t.output[..queries * h];
        kernels.norm_rows_backward(
            d,
            &mut grads[Norm as usize],
            &t.dnormed[..queries * h],
            output,
            &w.norm,
            eps,
        );
        kernels.round_rows(narrow, d, h);
        weight_gradient(kernels, [a, b], &mut grads[Down as usize], narrow, &t.gated);
        let dgated = sized(wide, queries * i);
        kernels.multiply(dgated, narrow, &w.down.backward, None);
        kernels.swiglu_rows_backward(narrow, &t.gate_up[..queries * 2 * i], dgated, i);
        let dw = &mut dgate_up[..2 * i * h];
        weight_gradient(kernels, [a, b], dw, narrow, &t.middle_normed);
        let dnormed = sized(wide, queries * h);
        kernels.multiply(dnormed, narrow, &w.gate_up.backward, None);
        let middle = &t.middle[..queries * h];
        kernels.norm_rows_backward(
            d,
            &mut grads[PostNorm as usize],
            dnormed,
            middle,
            &w.post_norm,
            eps,
        );

        kernels.round_rows(narrow, d, h);
        weight_gradient(kernels, [a, b], &mut grads[O as usize], narrow, &t.attended);
        let dattended = sized(wide, queries * s.heads * s.head_dim);
        kernels.multiply(dattended, narrow, &w.o.backward, None);
        let steps = &self.steps[..=step];
        let qkv: Vec<&[f32]> = steps.iter().map(|t| &t.qkv[..t.height * width]).collect();
        let rows = steps.iter().zip(drows.iter_mut());
        let mut down: Vec<&mut [f32]> = rows.map(|(t, d)| &mut d[..t.height * width]).collect();
        let lse = &t.lse[..queries * s.heads];
        kernels.chain_attention_backward(
            &mut down,
            dattended,
            lse,
            &qkv,
            &t.sequences,
            shape,
            &self.rope,
        );

        // Later steps are done: this one's keys and values have all of their gradient.
        kernels.round_rows(narrow, &drows[step][..height * width], width);
        weight_gradient(kernels, [a, b], &mut dqkv[..width * 2 * h], narrow, &t.input);
        let dinput = sized(wide, height * 2 * h);
        kernels.multiply(dinput, narrow, &w.qkv.backward, None);
        let (stride, dembed) = (2 * h, sized(dembed, height * h));
        dembed.fill(0.0);
        let (x, weight) = (&t.embed[..height * h], &w.input_norm);
        let dw = &mut grads[InputNorm as usize];
        kernels.norm_rows_beside_backward(dembed, dw, dinput, stride, 0, x, weight, eps);
        let d = sized(dx, height * h);
        if step == 0 {
            spread(d, h, height, &origins(&t.sequences, None));
        }
        let (x, weight) = (&t.source[..height * h], &w.hidden_norm);
        kernels.norm_rows_beside_backward(
            d,
            &mut grads[HiddenNorm as usize],
            dinput,
            stride,
            h,
            x,
            weight,
            eps,
        );
        if step == 0 {
            kernels.round_rows(narrow, d, h);
            weight_gradient(kernels, [a, b], &mut grads[Fc as usize], narrow, &self.taps);
        } else {
            let before = &self.steps[step - 1];
            let d = sized(dx, before.queries * h);
            spread(d, h, before.queries, &origins(&t.sequences, Some(&before.sequences)));
        }
    }
}
