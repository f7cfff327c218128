//! The training loop: joint steps of draft layer and probe, then steps of the probe alone.

use std::path::Path;
use std::time::Instant;

use specexit_kernels::Kernels;

use super::checkpoint::{self, Best, Exact, RunState};
use super::evaluate::{self, Quality};
use super::metrics::{self, HeldOutMetrics, MetricsFile, StepMetrics};
use super::options::{LossWeights, TrainOptions};
use super::schedule::Schedule;
use crate::data::batches::{Batch, Loader, epoch_steps};
use crate::data::examples::Example;
use crate::data::source::TargetSource;
use crate::error::Result;
use crate::net::draft::Draft;
use crate::net::params::{AdamW, Param, clip_factor};
use crate::net::probe::{Probe, SIGNAL_NAMES, SIGNALS, SignalLabel};
use crate::progress::Progress;

/// AdamW's epsilon.
const EPS: f64 = 1e-8;
/// Share of the old value in the smoothed loss weights.
const LAMBDA_DECAY: f64 = 0.9;
/// Bounds of the dynamic loss weights.
const LAMBDA_RANGE: (f64, f64) = (1e-3, 1e3);

/// Files of a run.
pub(crate) const LAST: &str = "last.safetensors";
pub(crate) const BEST_DRAFT: &str = "best-draft.safetensors";
pub(crate) const BEST_PROBE: &str = "best-probe.safetensors";
pub(crate) const METRICS: &str = "metrics.jsonl";

/// How many steps each pass has: joint passes first, then those of the probe alone.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    steps: Vec<u64>,
    joint: usize,
}

impl Plan {
    /// Lays out all passes of a run.
    pub(crate) fn new(options: &TrainOptions, examples: &[Example], train: &[usize]) -> Self {
        let passes = options.epochs + options.probe_epochs;
        let count = |epoch| {
            epoch_steps(examples, train, options.batch_tokens, options.seed, epoch as u64).len()
        };
        Self { steps: (0..passes).map(|e| count(e) as u64).collect(), joint: options.epochs }
    }

    /// All steps.
    pub(crate) fn total(&self) -> u64 {
        self.steps.iter().sum()
    }

    /// Steps that train the draft layer.
    fn joint_steps(&self) -> u64 {
        self.steps[..self.joint].iter().sum()
    }

    /// The pass that step `step` (from 0) belongs to, and its place therein.
    fn locate(&self, step: u64) -> (usize, usize) {
        let mut left = step;
        for (epoch, &steps) in self.steps.iter().enumerate() {
            if left < steps {
                return (epoch, left as usize);
            }
            left -= steps;
        }
        (self.steps.len(), 0)
    }
}

/// A run in memory.
pub(crate) struct Trainer<'a, S> {
    pub(crate) options: &'a TrainOptions,
    pub(crate) folder: &'a Path,
    pub(crate) examples: &'a [Example],
    pub(crate) train: &'a [usize],
    pub(crate) held_out: &'a [usize],
    pub(crate) loader: &'a Loader<'a, S>,
    pub(crate) kernels: &'a Kernels,
    pub(crate) draft: Draft,
    /// Gradients of the draft layer, one for each of `params`.
    pub(crate) grads: Vec<Vec<f32>>,
    /// What the last step read.
    pub(crate) batch: Batch,
    pub(crate) plan: Plan,
    pub(crate) params: Vec<Param>,
    pub(crate) probe: Probe,
    /// Values of the best probe so far.
    pub(crate) best_probe: Probe,
    pub(crate) state: RunState,
}

impl<S: TargetSource> Trainer<'_, S> {
    /// Takes up the last checkpoint of the folder, if there is one.
    pub(crate) fn resume(&mut self) -> Result<()> {
        let path = self.folder.join(LAST);
        let mut params: Vec<&mut Param> =
            self.params.iter_mut().chain(&mut self.probe.params).collect();
        let Some(state) = checkpoint::load_run::<RunState>(&path, &mut params)? else {
            return Ok(());
        };
        checkpoint::same_run(&path, state.run.clone(), &self.state.run)?;
        self.state = state;
        let mut best: Vec<&mut Param> = self.best_probe.params.iter_mut().collect();
        checkpoint::load_values(&self.folder.join(BEST_PROBE), &mut best)?;
        Ok(())
    }

    /// Trains to the end, or until the caller cancels; true when the end was reached.
    pub(crate) fn run(&mut self, progress: &mut dyn Progress) -> Result<bool> {
        let path = self.folder.join(METRICS);
        let mut metrics =
            MetricsFile::open(&path, metrics::FORMAT, &self.state.run, self.state.step)?;
        let total = self.plan.total();
        progress.start("train", "steps", total, self.state.step);
        let mut saved = Instant::now();
        let mut steps: Option<(usize, Vec<Vec<usize>>)> = None;
        while self.state.step < total {
            let (epoch, index) = self.plan.locate(self.state.step);
            let current = match steps.take() {
                Some((of, steps)) if of == epoch => steps,
                _ => self.steps_of(epoch),
            };
            let mut record = if epoch < self.plan.joint {
                self.joint_step(&current[index])?
            } else {
                self.probe_step(&current[index])?
            };
            self.state.step += 1;
            record.step = self.state.step;
            record.epoch = epoch as u64;
            metrics.append(&record)?;
            progress.advance(self.state.step, &brief(&record));
            let ended = index + 1 == current.len();
            if ended {
                self.end_epoch(epoch, &mut metrics, progress)?;
            }
            steps = Some((epoch, current));
            let cancelled = progress.cancelled();
            let by_steps =
                self.options.checkpoint_steps.is_some_and(|n| self.state.step.is_multiple_of(n));
            let by_time = saved.elapsed().as_secs_f64() >= self.options.checkpoint_seconds;
            if cancelled || by_steps || by_time || self.state.step == total {
                self.save()?;
                saved = Instant::now();
            }
            if cancelled {
                break;
            }
        }
        progress.finish();
        Ok(self.state.step == total)
    }

    fn steps_of(&self, epoch: usize) -> Vec<Vec<usize>> {
        let o = self.options;
        epoch_steps(self.examples, self.train, o.batch_tokens, o.seed, epoch as u64)
    }

    fn save(&self) -> Result<()> {
        let params: Vec<&Param> = self.params.iter().chain(&self.probe.params).collect();
        checkpoint::save_run(&self.folder.join(LAST), &params, &self.state)
    }

    /// One step of draft layer and probe.
    fn joint_step(&mut self, indices: &[usize]) -> Result<StepMetrics> {
        let o = self.options;
        let mut batch = std::mem::take(&mut self.batch);
        self.loader.load(indices, &mut batch)?;
        let (grads, draft) = (&mut self.grads, &mut self.draft);
        let drafted =
            draft.gradients(&self.params, &batch.draft, o.ttt_steps, o.ttt_decay, grads)?;
        let token_loss = drafted.loss;
        self.check(token_loss, "the token loss")?;
        let squares: Vec<f64> = self.grads.iter().map(|g| self.kernels.sum_of_squares(g)).collect();
        let grad_norm = squares.iter().sum::<f64>().sqrt();
        self.check(grad_norm, "the gradient of the draft layer")?;

        // The probe first: should its loss fail, the draft layer is still as it was saved.
        let mut record =
            self.train_probe(&batch.coordinates, &batch.labels, Some(squares[0].sqrt()))?;
        let schedule = Schedule {
            peak: o.lr,
            last: o.final_lr,
            warmup: o.warmup,
            updates: self.plan.joint_steps(),
        };
        let adam = AdamW {
            lr: schedule.rate(self.state.step),
            beta1: o.beta1,
            beta2: o.beta2,
            eps: EPS,
            weight_decay: o.weight_decay,
            update: self.state.step + 1,
        };
        let clip = clip_factor(grad_norm, o.clip_norm);
        for (param, grad) in self.params.iter_mut().zip(&self.grads) {
            param.update(self.kernels, grad, clip, &adam);
        }
        let agreement = evaluate::agreement(&batch.draft, &drafted);
        record.agreement_per_depth = evaluate::agreement_shares(&agreement);
        record.tokens = batch.tokens;
        record.token_loss = Some(token_loss);
        record.loss_per_depth = drafted.step_losses;
        record.lr = adam.lr;
        record.grad_norm = grad_norm;
        self.batch = batch;
        Ok(record)
    }

    /// One step of the probe alone.
    fn probe_step(&mut self, indices: &[usize]) -> Result<StepMetrics> {
        let mut batch = std::mem::take(&mut self.batch);
        self.loader.load_labelled(indices, &mut batch)?;
        let record = self.train_probe(&batch.coordinates, &batch.labels, None);
        self.batch = batch;
        record
    }

    /// Updates the probe; `token_norm` is the gradient norm of `fc` under the token loss.
    fn train_probe(
        &mut self,
        coordinates: &[f32],
        labels: &[SignalLabel],
        token_norm: Option<f64>,
    ) -> Result<StepMetrics> {
        let o = self.options;
        let forward = self.probe.forward(self.kernels, coordinates, labels);
        let losses = forward.losses;
        for (loss, name) in losses.iter().zip(SIGNAL_NAMES) {
            self.check(*loss, &format!("the {name} loss"))?;
        }
        let lambda = self.loss_weights(&forward.norms, token_norm);
        let grads = self.probe.backward(coordinates, forward, lambda);
        let squares = grads.iter().map(|g| self.kernels.sum_of_squares(g));
        let grad_norm = squares.sum::<f64>().sqrt();
        self.check(grad_norm, "the gradient of the probe")?;
        let schedule = Schedule {
            peak: o.probe_lr,
            last: o.final_lr,
            warmup: o.warmup,
            updates: self.plan.total(),
        };
        let adam = AdamW {
            lr: schedule.rate(self.state.step),
            beta1: o.beta1,
            beta2: o.beta2,
            eps: EPS,
            weight_decay: o.probe_weight_decay,
            update: self.state.step + 1,
        };
        let clip = clip_factor(grad_norm, o.probe_clip_norm);
        for (param, grad) in self.probe.params.iter_mut().zip(&grads) {
            param.update(self.kernels, grad, clip, &adam);
        }
        self.state.lambda = Some(lambda.map(Exact));
        Ok(StepMetrics {
            signal_losses: losses,
            lambda,
            probe_lr: adam.lr,
            probe_grad_norm: grad_norm,
            ..StepMetrics::default()
        })
    }

    /// The weights of this step's signal losses. Without a token loss they stay as they were.
    fn loss_weights(&self, norms: &[f64], token_norm: Option<f64>) -> [f64; SIGNALS] {
        if let LossWeights::Fixed { confidence, progress, remaining } = self.options.loss_weights {
            return [confidence, progress, remaining];
        }
        let before = self.state.lambda.map(|l| l.map(|l| l.0));
        let Some(token_norm) = token_norm else { return before.unwrap_or([1.0; SIGNALS]) };
        std::array::from_fn(|i| {
            let (low, high) = LAMBDA_RANGE;
            let now = (token_norm / (norms[i] + EPS)).clamp(low, high);
            before.map_or(now, |b| LAMBDA_DECAY * b[i] + (1.0 - LAMBDA_DECAY) * now)
        })
    }

    fn check(&self, number: f64, what: &str) -> Result<()> {
        checkpoint::finite(number, what, self.state.step + 1, &self.folder.join(LAST))
    }

    /// Measures on the held-out questions and keeps what is best so far.
    fn end_epoch(
        &mut self,
        epoch: usize,
        metrics: &mut MetricsFile,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        if self.held_out.is_empty() {
            return Ok(());
        }
        let step = self.state.step;
        let mut quality = Quality { signals: self.measure_signals(false)?, ..Quality::default() };
        if epoch < self.plan.joint {
            quality.draft = self.measure_draft()?;
            let loss = quality.draft.token_loss;
            self.check(loss, "the held-out token loss")?;
            if self.state.best_draft.is_none_or(|best| loss < best.loss.0) {
                let params: Vec<&Param> = self.params.iter().collect();
                checkpoint::save_values(&self.folder.join(BEST_DRAFT), &params, step)?;
                self.state.best_draft = Some(Best { loss: Exact(loss), step });
            }
        }
        let losses: Vec<f64> = quality.signals.iter().map(|signal| signal.loss).collect();
        let before = self.state.best_probe.map(|best| best.map(|best| best.loss.0));
        let better = self.best_probe.keep_best(&self.probe, &losses, before);
        for i in (0..SIGNALS).filter(|&i| better[i]) {
            self.state.best_probe[i] = Some(Best { loss: Exact(losses[i]), step });
        }
        let best: Vec<&Param> = self.best_probe.params.iter().collect();
        checkpoint::save_values(&self.folder.join(BEST_PROBE), &best, step)?;
        progress.note(&describe(epoch, &quality));
        metrics.append(&HeldOutMetrics { step, epoch: epoch as u64, held_out: quality })
    }

    /// Held-out quality of the draft layer as it is.
    fn measure_draft(&mut self) -> Result<evaluate::DraftQuality> {
        let o = self.options;
        let steps = epoch_steps(self.examples, self.held_out, o.batch_tokens, o.seed, 0);
        self.draft.prepare(&self.params)?;
        evaluate::draft_quality(
            &mut self.draft,
            self.loader,
            &steps,
            o.ttt_steps,
            o.ttt_decay,
            o.report_chain,
        )
    }

    /// Held-out quality of the probe as it is; `plots` adds what a page shows of it.
    fn measure_signals(&self, plots: bool) -> Result<Vec<evaluate::SignalQuality>> {
        let mut readings = evaluate::Readings::default();
        let mut batch = Batch::default();
        // One sequence at a time: the states of all may not fit into memory.
        for &index in self.held_out {
            self.loader.load_labelled(&[index], &mut batch)?;
            let question = &self.examples[index].question;
            let (coordinates, labels) = (&batch.coordinates, &batch.labels);
            readings.add(self.kernels, question, &self.probe, coordinates, labels);
        }
        Ok(readings.quality(plots))
    }

    /// Puts the best held-out values in place of the last ones, and measures them.
    pub(crate) fn take_best(&mut self) -> Result<Quality> {
        if self.held_out.is_empty() {
            return Ok(Quality::default());
        }
        let mut params: Vec<&mut Param> = self.params.iter_mut().collect();
        checkpoint::load_values(&self.folder.join(BEST_DRAFT), &mut params)?;
        self.probe.take_values(&self.best_probe);
        Ok(Quality { draft: self.measure_draft()?, signals: self.measure_signals(true)? })
    }
}

/// One step in a few words, for a progress bar.
fn brief(record: &StepMetrics) -> String {
    let [c, p, r] = record.signal_losses;
    let signals = format!("signals {c:.3} {p:.3} {r:.3}");
    match (record.token_loss, record.agreement_per_depth.first()) {
        (Some(loss), Some(agreement)) => {
            format!("loss {loss:.3}, top-1 {:.0} %, {signals}", 100.0 * agreement)
        }
        _ => signals,
    }
}

/// One held-out measurement in a line.
fn describe(epoch: usize, quality: &Quality) -> String {
    let signals: Vec<String> =
        quality.signals.iter().map(|s| format!("{} r {:.2}", s.signal, s.correlation)).collect();
    let signals = signals.join(", ");
    let draft = &quality.draft;
    match (draft.agreement_per_depth.first(), draft.tau_per_chain.last()) {
        (Some(first), Some(tau)) => format!(
            "epoch {}: held-out loss {:.3}, top-1 {:.1} %, tau {tau:.2} (chain of {}), {signals}",
            epoch + 1,
            draft.token_loss,
            100.0 * first,
            draft.tau_per_chain.len(),
        ),
        _ => format!("epoch {} (probe): {signals}", epoch + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_found_in_their_pass() {
        let plan = Plan { steps: vec![2, 3, 1], joint: 2 };
        let at: Vec<(usize, usize)> = (0..7).map(|s| plan.locate(s)).collect();
        assert_eq!(at, [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0), (3, 0)]);
        assert_eq!((plan.total(), plan.joint_steps()), (6, 5));
    }
}
