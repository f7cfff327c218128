//! A whole pretraining run.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use specexit_kernels::Kernels;

use super::batch::{Step, held_out, next_step};
use super::export::{MODEL_FOLDER, write_model};
use super::metrics::{FORMAT, PretrainHeldOut, PretrainStep};
use super::options::{Corpus, PretrainOptions};
use crate::error::{Result, TrainError};
use crate::jsonl::identify;
use crate::net::decoder::{Decoder, TextBatch};
use crate::net::params::{AdamW, Param, update_all};
use crate::ops::all_cores;
use crate::progress::Progress;
use crate::provenance::derived_seed;
use crate::train::checkpoint::{self, Exact};
use crate::train::metrics::MetricsFile;
use crate::train::schedule::Schedule;

/// AdamW's epsilon.
const EPS: f64 = 1e-8;
/// The state of a run.
const LAST: &str = "last.safetensors";
/// Share of the old value in the loss and the speed that progress shows.
const SMOOTHING: f64 = 0.95;

/// What `pretrain` did.
#[derive(Clone, Debug, PartialEq)]
pub struct PretrainSummary {
    /// False when the caller cancelled; the same call goes on.
    pub finished: bool,
    /// Steps done.
    pub steps: u64,
    /// Tokens read.
    pub tokens: u64,
    /// Folder of the model, `out/model`.
    pub model: PathBuf,
    /// Last held-out loss measured, in nats a token.
    pub held_out_loss: Option<f64>,
}

/// Where a run stands, beside its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct State {
    /// Identity of the run, see `run.json`.
    run: String,
    /// Steps done.
    step: u64,
    /// Number of the next text.
    sample: u64,
    /// Tokens read.
    tokens: u64,
    /// Last held-out loss measured.
    held_out_loss: Option<Exact>,
}

/// Trains a decoder on the texts of `corpus`.
///
/// A run found in `options.out` goes on where its last checkpoint left it, to the same result bit by
/// bit; a finished one is only reported again. The folder `out/model` can be loaded from the first
/// checkpoint on.
///
/// # Errors
/// An option or a text that cannot be used, options that differ from the run found, a file that
/// cannot be written, or numbers that stop being finite.
pub fn pretrain(
    options: &PretrainOptions,
    corpus: &dyn Corpus,
    progress: &mut dyn Progress,
) -> Result<PretrainSummary> {
    options.validate()?;
    std::fs::create_dir_all(&options.out).map_err(TrainError::io("create", &options.out))?;
    let run = identify(&options.out.join("run.json"), &options.identity(corpus))?;
    let params = options.shape.fresh_params(derived_seed(options.seed, &["weights"]));
    let kernels = all_cores();
    let mut trainer = Trainer {
        options,
        corpus,
        decoder: Decoder::new(&options.shape, options.products, &kernels),
        kernels,
        grads: params.iter().map(|p| vec![0.0; p.value.len()]).collect(),
        params,
        held_out: held_out(corpus, &options.shape)?,
        state: State { run, step: 0, sample: 0, tokens: 0, held_out_loss: None },
    };
    trainer.resume()?;
    trainer.run(progress)?;
    let state = trainer.state;
    Ok(PretrainSummary {
        finished: state.step == options.steps,
        steps: state.step,
        tokens: state.tokens,
        model: options.out.join(MODEL_FOLDER),
        held_out_loss: state.held_out_loss.map(|l| l.0),
    })
}

/// A run in memory.
struct Trainer<'a> {
    options: &'a PretrainOptions,
    corpus: &'a dyn Corpus,
    decoder: Decoder,
    kernels: Arc<Kernels>,
    params: Vec<Param>,
    grads: Vec<Vec<f32>>,
    held_out: Vec<TextBatch>,
    state: State,
}

impl Trainer<'_> {
    /// Takes up the last checkpoint of the folder, if there is one.
    fn resume(&mut self) -> Result<()> {
        let path = self.options.out.join(LAST);
        let mut params: Vec<&mut Param> = self.params.iter_mut().collect();
        let Some(state) = checkpoint::load_run::<State>(&path, &mut params)? else {
            return Ok(());
        };
        checkpoint::same_run(&path, state.run.clone(), &self.state.run)?;
        self.state = state;
        Ok(())
    }

    fn save(&self) -> Result<()> {
        let params: Vec<&Param> = self.params.iter().collect();
        checkpoint::save_run(&self.options.out.join(LAST), &params, &self.state)?;
        write_model(&self.options.out.join(MODEL_FOLDER), self.options, &self.params)
    }

    /// Trains to the end, or until the caller cancels.
    fn run(&mut self, progress: &mut dyn Progress) -> Result<()> {
        let o = self.options;
        let path = o.out.join("metrics.jsonl");
        let mut metrics = MetricsFile::open(&path, FORMAT, &self.state.run, self.state.step)?;
        progress.start("pretrain", "steps", o.steps, self.state.step);
        let mut saved = Instant::now();
        let mut shown = Shown::default();
        while self.state.step < o.steps {
            let started = Instant::now();
            let record = self.step()?;
            metrics.append(&record)?;
            shown.add(&record, started.elapsed().as_secs_f64());
            let finished = self.state.step == o.steps;
            let due = o.eval_steps > 0 && self.state.step.is_multiple_of(o.eval_steps);
            if (due || finished) && !self.held_out.is_empty() {
                let record = self.measure()?;
                metrics.append(&record)?;
                progress
                    .note(&format!("step {}: held-out {:.4}", record.step, record.held_out_loss));
            }
            let held_out = self.state.held_out_loss.map(|l| l.0);
            progress.advance(self.state.step, &shown.message(held_out));
            let cancelled = progress.cancelled();
            if cancelled || finished || saved.elapsed().as_secs_f64() >= o.checkpoint_seconds {
                self.save()?;
                saved = Instant::now();
            }
            if cancelled {
                break;
            }
        }
        progress.finish();
        Ok(())
    }

    fn step(&mut self) -> Result<PretrainStep> {
        let o = self.options;
        let done = self.state.step as f64 / o.steps as f64;
        let Step { batches, samples, tokens } =
            next_step(self.corpus, &o.shape, self.state.sample, done, o.batch_tokens)?;
        let targets: usize = batches.iter().map(|b| b.targets.len()).sum();
        let scale = 1.0 / targets as f32;
        self.grads.iter_mut().for_each(|g| g.fill(0.0));
        let loss = self.decoder.gradients(&self.params, &batches, scale, &mut self.grads)?;
        let loss = loss / targets as f64;
        self.check(loss, "the loss")?;
        let squares: Vec<f64> = self.grads.iter().map(|g| self.kernels.sum_of_squares(g)).collect();
        let grad_norm = squares.iter().sum::<f64>().sqrt();
        self.check(grad_norm, "the gradient")?;

        let schedule =
            Schedule { peak: o.lr, last: o.final_lr, warmup: o.warmup, updates: o.steps };
        let adam = AdamW {
            lr: schedule.rate(self.state.step),
            beta1: o.beta1,
            beta2: o.beta2,
            eps: EPS,
            weight_decay: o.weight_decay,
            update: self.state.step + 1,
        };
        let norms = (grad_norm, o.clip_norm);
        update_all(&self.kernels, &mut self.params, &self.grads, norms, &adam);
        self.state.step += 1;
        self.state.sample += samples;
        self.state.tokens += tokens;
        let (step, targets) = (self.state.step, targets as u64);
        Ok(PretrainStep { step, tokens, targets, loss, lr: adam.lr, grad_norm })
    }

    fn measure(&mut self) -> Result<PretrainHeldOut> {
        let loss = self.decoder.loss(&self.params, &self.held_out)?;
        let targets: usize = self.held_out.iter().map(|b| b.targets.len()).sum();
        let loss = loss / targets as f64;
        self.check(loss, "the held-out loss")?;
        self.state.held_out_loss = Some(Exact(loss));
        let (step, targets) = (self.state.step, targets as u64);
        Ok(PretrainHeldOut { step, held_out_loss: loss, targets })
    }

    fn check(&self, number: f64, what: &str) -> Result<()> {
        checkpoint::finite(number, what, self.state.step + 1, &self.options.out.join(LAST))
    }
}

/// What progress shows: smoothed, and never part of the run's state.
#[derive(Default)]
struct Shown {
    loss: Option<f64>,
    speed: Option<f64>,
}

impl Shown {
    fn add(&mut self, record: &PretrainStep, seconds: f64) {
        let smooth = |old: Option<f64>, new: f64| {
            Some(old.map_or(new, |old| SMOOTHING * old + (1.0 - SMOOTHING) * new))
        };
        self.loss = smooth(self.loss, record.loss);
        self.speed = smooth(self.speed, record.tokens as f64 / seconds.max(1e-9));
    }

    fn message(&self, held_out: Option<f64>) -> String {
        let (loss, speed) = (self.loss.unwrap_or_default(), self.speed.unwrap_or_default());
        let held_out = held_out.map_or(String::new(), |l| format!(", held-out {l:.4}"));
        format!("loss {loss:.4}{held_out}, {speed:.0} tokens/s")
    }
}
