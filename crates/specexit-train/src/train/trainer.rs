//! The training loop: joint steps of draft layer and probe, then steps of the probe alone. A run that
//! has no draft layer is one without joint steps.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::checkpoint::{self, At, Exact, RunState};
use super::draft_trainer::DraftTrainer;
use super::evaluate::{Quality, SignalQuality};
use super::metrics::{self, HeldOutMetrics, MetricsFile, StepMetrics};
use super::options::TrainOptions;
use super::probe_trainer::ProbeTrainer;
use crate::data::batches::{LabelBatch, LabelLoader, epoch_steps};
use crate::data::examples::Example;
use crate::data::source::TargetSource;
use crate::error::Result;
use crate::net::params::Param;
use crate::net::probe::ProbeKind;
use crate::progress::Progress;

/// Files of a run.
pub(crate) const LAST: &str = "last.safetensors";
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
        let joint = options.joint_epochs();
        let passes = joint + options.probe_epochs;
        let count = |epoch| {
            epoch_steps(examples, train, options.batch_tokens, options.seed, epoch as u64).len()
        };
        Self { steps: (0..passes).map(|e| count(e) as u64).collect(), joint }
    }

    /// All steps.
    pub(crate) fn total(&self) -> u64 {
        self.steps.iter().sum()
    }

    /// Steps that train the draft layer.
    pub(crate) fn joint_steps(&self) -> u64 {
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
    options: &'a TrainOptions,
    folder: &'a Path,
    /// The last checkpoint.
    last: PathBuf,
    train: &'a [usize],
    held_out: &'a [usize],
    loader: &'a LabelLoader<'a, S>,
    /// What the last step of the probe alone read.
    batch: LabelBatch,
    plan: Plan,
    /// Absent where the probe is trained alone.
    pub(crate) draft: Option<DraftTrainer<'a, S>>,
    pub(crate) probe: ProbeTrainer<'a>,
    /// Identity of the run.
    run: String,
    /// Place in the plan: steps done or left out.
    pub(crate) step: u64,
    /// Steps left out because patience ended.
    pub(crate) left_out: u64,
}

impl<'a, S: TargetSource> Trainer<'a, S> {
    /// The run `run` at its beginning: passes over the sequences `train`, measured on `held_out`.
    pub(crate) fn new(
        options: &'a TrainOptions,
        run: String,
        (train, held_out): (&'a [usize], &'a [usize]),
        loader: &'a LabelLoader<'a, S>,
        plan: Plan,
        draft: Option<DraftTrainer<'a, S>>,
        probe: ProbeTrainer<'a>,
    ) -> Self {
        let (folder, batch) = (&*options.out, LabelBatch::default());
        let last = folder.join(LAST);
        Self {
            options,
            folder,
            last,
            train,
            held_out,
            loader,
            batch,
            plan,
            draft,
            probe,
            run,
            step: 0,
            left_out: 0,
        }
    }

    /// All steps of the run.
    pub(crate) fn total(&self) -> u64 {
        self.plan.total()
    }

    /// Takes up the last checkpoint of the folder, if there is one.
    pub(crate) fn resume(&mut self) -> Result<()> {
        let draft = self.draft.iter_mut().flat_map(|draft| &mut draft.params);
        let mut params: Vec<&mut Param> = draft.chain(&mut self.probe.probe.params).collect();
        let Some(state) = checkpoint::load_run::<RunState>(&self.last, &mut params)? else {
            return Ok(());
        };
        checkpoint::same_run(&self.last, state.run, &self.run)?;
        (self.step, self.left_out) = (state.step, state.left_out);
        self.probe.lambda = state.lambda.map(|lambda| lambda.map(|l| l.0));
        self.probe.best_steps = state.best_probe;
        if let Some(draft) = &mut self.draft {
            draft.best = state.best_draft;
        }
        let mut best: Vec<&mut Param> = self.probe.best.params.iter_mut().collect();
        checkpoint::load_values(&self.folder.join(BEST_PROBE), &mut best)?;
        Ok(())
    }

    /// Trains to the end, or until the caller cancels; true when the end was reached.
    pub(crate) fn run(&mut self, progress: &mut dyn Progress) -> Result<bool> {
        let path = self.folder.join(METRICS);
        let mut metrics = MetricsFile::open(&path, metrics::FORMAT, &self.run, self.step)?;
        let total = self.plan.total();
        progress.start("train", "steps", total, self.step);
        let mut saved = Instant::now();
        let mut steps: Option<(usize, Vec<Vec<usize>>)> = None;
        while self.step < total {
            let (epoch, index) = self.plan.locate(self.step);
            let current = match steps.take() {
                Some((of, steps)) if of == epoch => steps,
                _ => self.steps_of(epoch),
            };
            let mut record = self.one_step(epoch, &current[index])?;
            self.step += 1;
            record.step = self.step;
            record.epoch = epoch as u64;
            metrics.append(&record)?;
            progress.advance(self.step, &brief(&record));
            let ended = index + 1 == current.len();
            if ended {
                self.end_epoch(epoch, &mut metrics, progress)?;
                self.leave_out_the_rest(epoch, progress);
            }
            steps = Some((epoch, current));
            let cancelled = progress.cancelled();
            let by_steps =
                self.options.checkpoint_steps.is_some_and(|n| self.step.is_multiple_of(n));
            let by_time = saved.elapsed().as_secs_f64() >= self.options.checkpoint_seconds;
            if cancelled || by_steps || by_time || self.step == total {
                self.save()?;
                saved = Instant::now();
            }
            if cancelled {
                break;
            }
        }
        progress.finish();
        Ok(self.step == total)
    }

    fn steps_of(&self, epoch: usize) -> Vec<Vec<usize>> {
        let o = self.options;
        epoch_steps(self.loader.examples, self.train, o.batch_tokens, o.seed, epoch as u64)
    }

    fn save(&self) -> Result<()> {
        let draft = self.draft.iter().flat_map(|draft| &draft.params);
        let params: Vec<&Param> = draft.chain(&self.probe.probe.params).collect();
        let state = RunState {
            run: self.run.clone(),
            step: self.step,
            left_out: self.left_out,
            lambda: self.probe.lambda.map(|lambda| lambda.map(Exact)),
            best_draft: self.draft.as_ref().and_then(|draft| draft.best),
            best_probe: self.probe.best_steps,
        };
        checkpoint::save_run(&self.last, &params, &state)
    }

    /// One step of draft layer and probe, or of the probe alone.
    fn one_step(&mut self, epoch: usize, indices: &[usize]) -> Result<StepMetrics> {
        let at = At { step: self.step, last: &self.last };
        match &mut self.draft {
            Some(draft) if epoch < self.plan.joint => {
                let backward = draft.backward(indices, at)?;
                // The probe first: should its loss fail, the draft layer is still as it was saved.
                let mut record = if self.step < self.probe.begins() {
                    StepMetrics::default()
                } else {
                    self.probe.step(draft.labelled(), Some(backward.fc_norm), at)?
                };
                draft.update(backward, at, &mut record);
                Ok(record)
            }
            _ => {
                load_labelled(
                    self.options,
                    &mut self.draft,
                    self.loader,
                    indices,
                    &mut self.batch,
                )?;
                self.probe.step(&self.batch, None, at)
            }
        }
    }

    /// Held-out quality of the probe as it is.
    fn measure_signals(&mut self, plots: bool) -> Result<Vec<SignalQuality>> {
        let Self { options, draft, loader, held_out, probe, .. } = self;
        probe.measure(loader.examples, held_out, plots, |indices, batch| {
            load_labelled(options, draft, loader, indices, batch)
        })
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
        let mut quality = Quality::default();
        if self.step > self.probe.begins() {
            quality.signals = self.measure_signals(false)?;
        }
        let at = At { step: self.step, last: &self.last };
        let steps = self.held_out_steps();
        if let Some(draft) = self.draft.as_mut().filter(|_| epoch < self.plan.joint) {
            quality.draft = draft.measure(&steps)?;
            draft.keep_best(quality.draft.token_loss, self.folder, at)?;
        }
        let best = self.probe.keep_best(&quality.signals, self.step);
        checkpoint::save_values(&self.folder.join(BEST_PROBE), &best, self.step)?;
        progress.note(&describe(epoch, &quality));
        metrics.append(&HeldOutMetrics { step: self.step, epoch: epoch as u64, held_out: quality })
    }

    /// Goes on to the next kind of pass when this one has not helped for as long as patience lasts.
    fn leave_out_the_rest(&mut self, epoch: usize, progress: &mut dyn Progress) {
        let Some(patience) = self.options.patience else { return };
        let joint = epoch < self.plan.joint;
        let best = match (&self.draft, joint) {
            (Some(draft), true) => draft.best.map(|best| best.step),
            _ => self.probe.best_steps.iter().flatten().map(|best| best.step).max(),
        };
        // A best value was measured at the end of a pass.
        let best = best.map_or(0, |step| self.plan.locate(step.saturating_sub(1)).0);
        let first = if joint { 0 } else { self.plan.joint };
        let next = if joint { self.plan.joint_steps() } else { self.plan.total() };
        if epoch + 1 - best.max(first) > patience && self.step < next {
            progress.note(&format!(
                "nothing better in {patience} passes: {} steps are left out",
                next - self.step
            ));
            self.left_out += next - self.step;
            self.step = next;
        }
    }

    /// The held-out sequences in steps, always the same.
    fn held_out_steps(&self) -> Vec<Vec<usize>> {
        let o = self.options;
        epoch_steps(self.loader.examples, self.held_out, o.batch_tokens, o.seed, 0)
    }

    /// Puts the best held-out values in place of the last ones, and measures them.
    pub(crate) fn take_best(&mut self) -> Result<Quality> {
        let mut quality = Quality::default();
        if self.held_out.is_empty() {
            return Ok(quality);
        }
        let steps = self.held_out_steps();
        if let Some(draft) = &mut self.draft {
            draft.take_best(self.folder)?;
            quality.draft = draft.measure(&steps)?;
        }
        self.probe.take_best();
        quality.signals = self.measure_signals(true)?;
        Ok(quality)
    }
}

/// Loads what the probe reads of the sequences `indices`: the target's states, or what the finished draft
/// layer makes of them.
fn load_labelled<S: TargetSource>(
    options: &TrainOptions,
    draft: &mut Option<DraftTrainer<'_, S>>,
    loader: &LabelLoader<'_, S>,
    indices: &[usize],
    batch: &mut LabelBatch,
) -> Result<()> {
    match draft {
        Some(draft) if options.probe == ProbeKind::Draft => draft.load_outputs(indices, batch),
        _ => loader.load(indices, batch),
    }
}

/// One step in a few words, for a progress bar.
fn brief(record: &StepMetrics) -> String {
    let mut words = Vec::new();
    if let (Some(loss), Some(agreement)) = (record.token_loss, record.agreement_per_depth.first()) {
        words.push(format!("loss {loss:.3}, top-1 {:.0} %", 100.0 * agreement));
    }
    if let Some([c, p, r]) = record.signal_losses {
        words.push(format!("signals {c:.3} {p:.3} {r:.3}"));
    }
    words.join(", ")
}

/// One held-out measurement in a line.
fn describe(epoch: usize, quality: &Quality) -> String {
    let draft = &quality.draft;
    let mut words = Vec::new();
    let mut kind = " (probe)";
    if let (Some(first), Some(tau)) =
        (draft.agreement_per_depth.first(), draft.tau_per_chain.last())
    {
        let (loss, first, chain) = (draft.token_loss, 100.0 * first, draft.tau_per_chain.len());
        words.push(format!(
            "held-out loss {loss:.3}, top-1 {first:.1} %, tau {tau:.2} (chain of {chain})"
        ));
        kind = "";
    }
    words.extend(quality.signals.iter().map(|s| format!("{} r {:.2}", s.signal, s.correlation)));
    format!("epoch {}{kind}: {}", epoch + 1, words.join(", "))
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
