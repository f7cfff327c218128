//! The draft layer in training.

use std::path::Path;

use specexit_kernels::Kernels;

use super::checkpoint::{self, At, Best, Exact};
use super::evaluate::{self, DraftQuality};
use super::metrics::StepMetrics;
use super::options::TrainOptions;
use super::schedule::Schedule;
use crate::data::batches::{Batch, LabelBatch, Loader};
use crate::data::source::TargetSource;
use crate::error::Result;
use crate::net::draft::{Draft, DraftTensor, Drafted};
use crate::net::params::{AdamW, EPS, Param, update_all};
use crate::net::probe::{Basis, Moments};

/// File of the best draft layer so far.
pub(crate) const BEST_DRAFT: &str = "best-draft.safetensors";

/// A draft layer and what trains it.
pub(crate) struct DraftTrainer<'a, S> {
    options: &'a TrainOptions,
    loader: &'a Loader<'a, S>,
    kernels: &'a Kernels,
    /// Joint steps of the whole run.
    updates: u64,
    draft: Draft,
    pub(crate) params: Vec<Param>,
    /// Their gradients.
    grads: Vec<Vec<f32>>,
    /// What the last step read.
    batch: Batch,
    /// When the best values so far were measured.
    pub(crate) best: Option<Best>,
    /// Sequences that train the probe.
    train: &'a [usize],
    /// Coordinates of the finished layer's outputs, each followed by 1; absent until it is finished.
    outputs: Option<Basis>,
}

/// A step between its backward and its update.
pub(crate) struct Backward {
    drafted: Drafted,
    /// Gradient norm of all parameters.
    grad_norm: f64,
    /// Gradient norm of `fc`.
    pub(crate) fc_norm: f64,
}

impl<'a, S: TargetSource> DraftTrainer<'a, S> {
    /// Fresh `params` of `draft`, to be trained in `updates` steps.
    pub(crate) fn new(
        options: &'a TrainOptions,
        loader: &'a Loader<'a, S>,
        kernels: &'a Kernels,
        updates: u64,
        draft: Draft,
        params: Vec<Param>,
        train: &'a [usize],
    ) -> Self {
        let grads = params.iter().map(|p| vec![0.0; p.value.len()]).collect();
        let batch = Batch::default();
        let (best, outputs) = (None, None);
        Self {
            options,
            loader,
            kernels,
            updates,
            draft,
            params,
            grads,
            batch,
            best,
            train,
            outputs,
        }
    }

    /// What the probe reads in the step last loaded.
    pub(crate) fn labelled(&self) -> &LabelBatch {
        &self.batch.labelled
    }

    /// Loads the sequences `indices` and computes the gradients.
    pub(crate) fn backward(&mut self, indices: &[usize], at: At<'_>) -> Result<Backward> {
        let o = self.options;
        self.loader.load(indices, &mut self.batch)?;
        let Self { draft, params, grads, batch, .. } = self;
        let drafted = draft.gradients(params, &batch.draft, o.ttt_steps, o.ttt_decay, grads)?;
        at.finite(drafted.loss, "the token loss")?;
        let squares: Vec<f64> = self.grads.iter().map(|g| self.kernels.sum_of_squares(g)).collect();
        let grad_norm = squares.iter().sum::<f64>().sqrt();
        at.finite(grad_norm, "the gradient of the draft layer")?;
        Ok(Backward { drafted, grad_norm, fc_norm: squares[0].sqrt() })
    }

    /// Updates the parameters and says in `record` what the step did.
    pub(crate) fn update(&mut self, backward: Backward, at: At<'_>, record: &mut StepMetrics) {
        let o = self.options;
        let schedule =
            Schedule { peak: o.lr, last: o.final_lr, warmup: o.warmup, updates: self.updates };
        let adam = AdamW {
            lr: schedule.rate(at.step),
            beta1: o.beta1,
            beta2: o.beta2,
            eps: EPS,
            weight_decay: o.weight_decay,
            update: at.step + 1,
        };
        let Backward { drafted, grad_norm, .. } = backward;
        let norms = (grad_norm, o.clip_norm);
        update_all(self.kernels, &mut self.params, &self.grads, norms, &adam);
        let agreement = evaluate::agreement(&self.batch.draft, &drafted);
        record.agreement_per_depth = evaluate::agreement_shares(&agreement);
        record.tokens = self.batch.tokens;
        record.token_loss = Some(drafted.loss);
        record.loss_per_depth = drafted.step_losses;
        record.lr = adam.lr;
        record.grad_norm = grad_norm;
    }

    /// Quality of the draft layer as it is on the sequences `steps`.
    pub(crate) fn measure(&mut self, steps: &[Vec<usize>]) -> Result<DraftQuality> {
        let o = self.options;
        self.draft.prepare(&self.params)?;
        let draft = &mut self.draft;
        let (depth, decay, chain) = (o.ttt_steps, o.ttt_decay, o.report_chain);
        evaluate::draft_quality(draft, self.loader, steps, depth, decay, chain)
    }

    /// Saves the values into `folder` if they are the best so far, with held-out loss `loss`.
    pub(crate) fn keep_best(&mut self, loss: f64, folder: &Path, at: At<'_>) -> Result<()> {
        at.finite(loss, "the held-out token loss")?;
        if self.best.is_none_or(|best| loss < best.loss.0) {
            let params: Vec<&Param> = self.params.iter().collect();
            checkpoint::save_values(&folder.join(BEST_DRAFT), &params, at.step)?;
            self.best = Some(Best { loss: Exact(loss), step: at.step });
        }
        Ok(())
    }

    /// Loads the finished layer's outputs at the labels of the sequences `indices`, in the probe's
    /// coordinates, and the labels.
    pub(crate) fn load_outputs(&mut self, indices: &[usize], to: &mut LabelBatch) -> Result<()> {
        let basis = self.finished()?;
        let outputs = self.outputs(indices)?;
        to.labels.clone_from(&self.batch.labelled.labels);
        to.coordinates.clear();
        basis.coordinates(self.kernels, &mut to.coordinates, &outputs);
        self.outputs = Some(basis);
        Ok(())
    }

    /// Puts the layer in place that the head will have, unless it is there, and says in which
    /// coordinates a probe reads it. After an interruption it finds the same.
    pub(crate) fn finished(&mut self) -> Result<Basis> {
        if let Some(basis) = self.outputs.take() {
            return Ok(basis);
        }
        if self.best.is_some() {
            self.take_best(&self.options.out)?;
        }
        self.draft.prepare(&self.params)?;
        let mut moments = Moments::new(self.width() + 1);
        for &index in self.train {
            moments.add(&self.outputs(&[index])?);
        }
        Ok(moments.basis())
    }

    /// The layer's normed outputs at the labels of the sequences `indices`, each followed by 1: the
    /// coordinate of a bias, `[labels, H + 1]`.
    fn outputs(&mut self, indices: &[usize]) -> Result<Vec<f32>> {
        self.loader.load_probed(indices, &mut self.batch)?;
        let outputs = self.draft.probed(&self.batch.draft)?;
        Ok(outputs.chunks_exact(self.width()).flat_map(|row| [row, &[1.0]].concat()).collect())
    }

    /// Width H of the layer.
    fn width(&self) -> usize {
        self.params[DraftTensor::Norm as usize].value.len()
    }

    /// Puts the best values in place of the last ones.
    pub(crate) fn take_best(&mut self, folder: &Path) -> Result<()> {
        let mut params: Vec<&mut Param> = self.params.iter_mut().collect();
        checkpoint::load_values(&folder.join(BEST_DRAFT), &mut params)?;
        Ok(())
    }
}
