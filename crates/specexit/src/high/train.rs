//! What `train` is to do.

use specexit_model::Positions;
use specexit_train::{Sequences, TrainOptions};

use super::ModelChoice;
use crate::failure::UsageError;
use crate::low;

/// A head to train.
pub(crate) struct Train {
    pub(crate) model: ModelChoice,
    pub(crate) options: TrainOptions,
    pub(crate) json: bool,
}

impl Train {
    pub(crate) fn new(args: low::Train) -> anyhow::Result<Self> {
        let low::Train { model, labels, out, signals_only, json, shape, data, draft, probe, run } =
            args;
        let sequences = data.sequences.unwrap_or_default();
        let options = TrainOptions {
            labels,
            out,
            signals_only,
            intermediate_size: shape.intermediate_size,
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            draft_vocab_size: shape.draft_vocab_size,
            init: shape.init.unwrap_or_default(),
            sequences,
            label_beyond: !data.no_label_beyond && sequences == Sequences::Whole,
            max_length: data.max_length,
            held_out: data.held_out,
            batch_tokens: data.batch_tokens,
            cache_gb: data.cache_gb,
            epochs: draft.epochs,
            lr: draft.lr,
            warmup: draft.warmup,
            final_lr: draft.final_lr,
            beta1: draft.beta1,
            beta2: draft.beta2,
            weight_decay: draft.weight_decay,
            clip_norm: draft.clip_norm,
            ttt_steps: draft.ttt_steps,
            ttt_decay: draft.ttt_decay,
            products: draft.products.unwrap_or_default(),
            probe: probe.probe.unwrap_or_default(),
            probe_width: probe.probe_width,
            positions: probe.positions.unwrap_or(Positions::Boundaries),
            probe_epochs: probe.probe_epochs,
            probe_lr: probe.probe_lr,
            probe_weight_decay: probe.probe_weight_decay,
            probe_clip_norm: probe.probe_clip_norm,
            loss_weights: probe.loss_weights.map(|weights| weights.0).unwrap_or_default(),
            patience: run.patience,
            seed: run.seed,
            report_chain: run.report_chain,
            checkpoint_steps: run.checkpoint_steps,
            checkpoint_seconds: run.checkpoint_seconds,
        };
        options.validate().map_err(|e| UsageError(e.to_string()))?;
        Ok(Self { model: ModelChoice::new(&model)?, options, json })
    }
}
