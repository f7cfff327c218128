//! The probe in training: the same beside a draft layer and alone.

use std::ops::Range;

use specexit_kernels::Kernels;

use super::checkpoint::{At, Best, Exact};
use super::evaluate::{Readings, SignalQuality};
use super::metrics::StepMetrics;
use super::options::{LossWeights, TrainOptions};
use super::schedule::Schedule;
use crate::data::batches::LabelBatch;
use crate::data::examples::Example;
use crate::error::Result;
use crate::net::params::{AdamW, EPS, Param, update_all};
use crate::net::probe::{Probe, SIGNAL_NAMES, SIGNALS};

/// Share of the old value in the smoothed loss weights.
const LAMBDA_DECAY: f64 = 0.9;
/// Bounds of the dynamic loss weights.
const LAMBDA_RANGE: (f64, f64) = (1e-3, 1e3);

/// A probe, its best values so far and the weights of its losses.
pub(crate) struct ProbeTrainer<'a> {
    options: &'a TrainOptions,
    kernels: &'a Kernels,
    /// Steps of the run that train the probe: all, or those from the one where it begins.
    steps: Range<u64>,
    pub(crate) probe: Probe,
    /// Values of the best probe so far.
    pub(crate) best: Probe,
    /// When they were measured, signal by signal.
    pub(crate) best_steps: [Option<Best>; SIGNALS],
    /// Smoothed weights of the losses; absent before the first step.
    pub(crate) lambda: Option<[f64; SIGNALS]>,
}

impl<'a> ProbeTrainer<'a> {
    /// A fresh `probe`, to be trained in these steps of the run.
    pub(crate) fn new(
        options: &'a TrainOptions,
        kernels: &'a Kernels,
        steps: Range<u64>,
        probe: Probe,
    ) -> Self {
        let best = probe.clone();
        Self { options, kernels, steps, probe, best, best_steps: [None; SIGNALS], lambda: None }
    }

    /// One update; `token_norm` is the gradient norm of `fc` under the token loss, if there is one.
    pub(crate) fn step(
        &mut self,
        batch: &LabelBatch,
        token_norm: Option<f64>,
        at: At<'_>,
    ) -> Result<StepMetrics> {
        let o = self.options;
        let forward = self.probe.forward(self.kernels, &batch.coordinates, &batch.labels);
        let losses = forward.losses;
        for (loss, name) in losses.iter().zip(SIGNAL_NAMES) {
            at.finite(*loss, &format!("the {name} loss"))?;
        }
        let lambda = loss_weights(o.weights(), &forward.norms, token_norm, self.lambda);
        let grads = self.probe.backward(&batch.coordinates, forward, lambda);
        let squares = grads.iter().map(|g| self.kernels.sum_of_squares(g));
        let grad_norm = squares.sum::<f64>().sqrt();
        at.finite(grad_norm, "the gradient of the probe")?;
        let schedule = Schedule {
            peak: o.probe_lr,
            last: o.final_lr,
            warmup: o.warmup,
            updates: self.steps.end - self.steps.start,
        };
        let done = at.step - self.steps.start;
        let adam = AdamW {
            lr: schedule.rate(done),
            beta1: o.beta1,
            beta2: o.beta2,
            eps: EPS,
            weight_decay: o.probe_weight_decay,
            update: done + 1,
        };
        let norms = (grad_norm, o.probe_clip_norm);
        update_all(self.kernels, &mut self.probe.params, &grads, norms, &adam);
        self.lambda = Some(lambda);
        Ok(StepMetrics {
            signal_losses: Some(losses),
            lambda: Some(lambda),
            probe_lr: adam.lr,
            probe_grad_norm: grad_norm,
            ..StepMetrics::default()
        })
    }

    /// The step of the run in which its training begins.
    pub(crate) fn begins(&self) -> u64 {
        self.steps.start
    }

    /// Keeps what is best so far, measured after step `step`, if it was measured at all; the tensors to be
    /// saved.
    pub(crate) fn keep_best(&mut self, quality: &[SignalQuality], step: u64) -> Vec<&Param> {
        let losses: Vec<f64> = quality.iter().map(|signal| signal.loss).collect();
        if losses.len() == SIGNALS {
            let before = self.best_steps.map(|best| best.map(|best| best.loss.0));
            let better = self.best.keep_best(&self.probe, &losses, before);
            for i in (0..SIGNALS).filter(|&i| better[i]) {
                self.best_steps[i] = Some(Best { loss: Exact(losses[i]), step });
            }
        }
        self.best.params.iter().collect()
    }

    /// Puts the best values in place of the last ones.
    pub(crate) fn take_best(&mut self) {
        self.probe.take_values(&self.best);
    }

    /// Quality of the probe as it is on the sequences `indices` of `examples`, whose labels `load` loads;
    /// `plots` adds what a page shows of it.
    pub(crate) fn measure(
        &self,
        examples: &[Example],
        indices: &[usize],
        plots: bool,
        mut load: impl FnMut(&[usize], &mut LabelBatch) -> Result<()>,
    ) -> Result<Vec<SignalQuality>> {
        let mut readings = Readings::default();
        let mut batch = LabelBatch::default();
        // One sequence at a time: the states of all may not fit into memory.
        for &index in indices {
            load(&[index], &mut batch)?;
            let question = &examples[index].question;
            readings.add(self.kernels, question, &self.probe, &batch.coordinates, &batch.labels);
        }
        Ok(readings.quality(plots))
    }
}

/// The weights of a step's signal losses, given those `before` it.
fn loss_weights(
    weights: LossWeights,
    norms: &[f64; SIGNALS],
    token_norm: Option<f64>,
    before: Option<[f64; SIGNALS]>,
) -> [f64; SIGNALS] {
    let level = match (weights, token_norm) {
        (LossWeights::Fixed { confidence, progress, remaining }, _) => {
            return [confidence, progress, remaining];
        }
        (LossWeights::W2, _) => {
            let labelled = norms.iter().filter(|norm| **norm > 0.0).count();
            norms.iter().sum::<f64>() / labelled.max(1) as f64
        }
        (LossWeights::W1 | LossWeights::Dynamic, Some(norm)) => norm,
        // Nothing to compare with: the weights stay as they were.
        (LossWeights::W1 | LossWeights::Dynamic, None) => return before.unwrap_or([1.0; SIGNALS]),
    };
    std::array::from_fn(|i| {
        // A signal without a label in this step keeps its weight.
        if norms[i] == 0.0 {
            return before.map_or(1.0, |b| b[i]);
        }
        let (low, high) = LAMBDA_RANGE;
        let now = (level / (norms[i] + EPS)).clamp(low, high);
        before.map_or(now, |b| LAMBDA_DECAY * b[i] + (1.0 - LAMBDA_DECAY) * now)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: [f64; SIGNALS], expected: [f64; SIGNALS]) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5 * expected, "{found} {expected}");
        }
    }

    #[test]
    fn weights_worked_by_hand() {
        let norms = [2.0, 4.0, 0.0];
        let w2 = |norms, token, before| loss_weights(LossWeights::W2, norms, token, before);
        // The mean norm is 3; a signal without a gradient keeps its weight.
        close(w2(&norms, None, None), [1.5, 0.75, 1.0]);
        close(w2(&norms, Some(9.0), None), [1.5, 0.75, 1.0]);
        close(w2(&norms, None, Some([3.0, 0.75, 7.0])), [0.9 * 3.0 + 0.15, 0.75, 7.0]);
        close(w2(&[1.0, 1e-9, 1e6], None, None), [1e3, 1e3, 1.0 / 3.0]);
        close(w2(&[0.0; 3], None, Some([3.0, 2.0, 1.0])), [3.0, 2.0, 1.0]);
        let w1 = |token, before| loss_weights(LossWeights::W1, &norms, token, before);
        close(w1(Some(8.0), None), [4.0, 2.0, 1.0]);
        close(w1(Some(8.0), Some([4.0, 4.0, 9.0])), [4.0, 3.8, 9.0]);
        close(w1(Some(1e-9), None), [1e-3, 1e-3, 1.0]);
        close(w1(None, Some([3.0, 2.0, 1.0])), [3.0, 2.0, 1.0]);
        close(w1(None, None), [1.0; 3]);
        let fixed = LossWeights::Fixed { confidence: 1.0, progress: 2.0, remaining: 3.0 };
        close(loss_weights(fixed, &norms, Some(1.0), Some([9.0; 3])), [1.0, 2.0, 3.0]);
    }
}
