//! The options of `train`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use specexit_model::Positions;

use crate::error::{Result, TrainError};
use crate::net::init::Init;
use crate::net::probe::ProbeKind;
use crate::ops::Products;

/// How the three signal losses are weighted against the token loss.
///
/// The probe shares no weight with the draft layer and has its own clipping and its own learning
/// rate, so the weights only scale its gradient before Adam.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossWeights {
    /// W1 in joint runs, W2 where the probe is trained alone.
    #[default]
    Dynamic,
    /// The gradient norm of `fc` under the token loss over that of the signal's own row, smoothed over
    /// steps and kept within 0.001 and 1000. Passes with the probe alone keep the weights.
    W1,
    /// The mean of the three signals' gradient norms over that of the signal's own row, smoothed and
    /// bounded alike, in all passes.
    W2,
    /// The same weights throughout.
    Fixed {
        /// Weight of the confidence loss.
        confidence: f64,
        /// Weight of the progress loss.
        progress: f64,
        /// Weight of the remaining-length loss.
        remaining: f64,
    },
}

/// Which texts the draft layer learns from. The signals' labels are the same for both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sequences {
    /// Whole outputs: the draft also meets what comes after the earliest sufficient cut, which plain
    /// EAGLE-3 has to draft.
    #[default]
    Whole,
    /// Outputs that end their thought at the earliest sufficient cut.
    Shortened,
}

/// What to train, on what, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainOptions {
    /// The label file.
    pub labels: PathBuf,
    /// Folder of the run: states, checkpoints, metrics, report, and in `head` the finished head. A
    /// run that is found there goes on.
    pub out: PathBuf,
    /// Folder of a finished head that gets a probe: only that is trained, and replaces any the head
    /// has. Nothing of the draft layer changes, and options about it are refused.
    pub signals_only: Option<PathBuf>,

    /// Width of the head's MLP; the target's, but at most 4 H, when absent.
    pub intermediate_size: Option<usize>,
    /// Query heads; the target's when absent.
    pub heads: Option<usize>,
    /// Key/value heads; the target's when absent.
    pub kv_heads: Option<usize>,
    /// Width of a head, even; the target's when absent.
    pub head_dim: Option<usize>,
    /// Tokens the draft can name, the most frequent ones of the training sequences; at most 32,000
    /// and never one that does not occur when absent.
    pub draft_vocab_size: Option<usize>,
    /// Where the weights start.
    pub init: Init,

    /// Which texts the draft layer learns from.
    pub sequences: Sequences,
    /// Label the thinking tokens after the earliest sufficient cut too: progress 1, remaining 0. Only
    /// whole outputs have any.
    pub label_beyond: bool,
    /// Longest training sequence, in tokens; longer ones are cut.
    pub max_length: usize,
    /// Share of the questions held out.
    pub held_out: f64,
    /// Tokens of a step, prompts included; at least one sequence.
    pub batch_tokens: usize,
    /// Cap of the target's states on disk, in units of 10^9 bytes; 0 stores none. The target computes
    /// what does not fit each time it is read, to the same bits.
    pub cache_gb: f64,

    /// Passes over the training sequences.
    pub epochs: usize,
    /// Peak learning rate of the draft layer.
    pub lr: f64,
    /// Share of the steps over which the learning rate rises linearly.
    pub warmup: f64,
    /// What the cosine decay ends at, as a share of the peak.
    pub final_lr: f64,
    /// AdamW's decay of the first moment.
    pub beta1: f64,
    /// AdamW's decay of the second moment.
    pub beta2: f64,
    /// AdamW's weight decay of the draft layer's matrices.
    pub weight_decay: f64,
    /// Longest gradient of the draft layer; longer ones are scaled down.
    pub clip_norm: f64,
    /// Steps K of the training-time test.
    pub ttt_steps: usize,
    /// How much less each further step weighs.
    pub ttt_decay: f64,
    /// What the products of the layers are computed in.
    pub products: Products,

    /// What the probe is made of.
    pub probe: ProbeKind,
    /// Width M of the MLP's hidden layer; 128 when absent.
    pub probe_width: Option<usize>,
    /// Which thinking tokens the probe learns from, and later speaks at.
    pub positions: Positions,
    /// Further passes with the probe alone; they cost little.
    pub probe_epochs: usize,
    /// Peak learning rate of the probe.
    pub probe_lr: f64,
    /// Weight decay of the probe.
    pub probe_weight_decay: f64,
    /// Longest gradient of the probe.
    pub probe_clip_norm: f64,
    /// Weights of the signal losses.
    pub loss_weights: LossWeights,

    /// After so many passes without a better held-out loss no further ones are made: of those that train
    /// the draft layer, then of those with the probe alone. All passes are made when absent.
    pub patience: Option<usize>,
    /// Seed of initial weights, data order and held-out split.
    pub seed: u64,
    /// Longest drafted chain that the report simulates.
    pub report_chain: usize,
    /// Steps between checkpoints; by time alone when absent.
    pub checkpoint_steps: Option<u64>,
    /// Seconds between checkpoints.
    pub checkpoint_seconds: f64,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            labels: PathBuf::new(),
            out: PathBuf::new(),
            signals_only: None,
            intermediate_size: None,
            heads: None,
            kv_heads: None,
            head_dim: None,
            draft_vocab_size: None,
            init: Init::default(),
            sequences: Sequences::default(),
            label_beyond: true,
            max_length: 4096,
            held_out: 0.1,
            batch_tokens: 2048,
            cache_gb: 16.0,
            epochs: 10,
            lr: 3e-4,
            warmup: 0.05,
            final_lr: 0.05,
            beta1: 0.9,
            beta2: 0.95,
            weight_decay: 0.0,
            clip_norm: 1.0,
            ttt_steps: 7,
            ttt_decay: 0.8,
            products: Products::default(),
            probe: ProbeKind::default(),
            probe_width: None,
            positions: Positions::Boundaries,
            probe_epochs: 20,
            probe_lr: 1e-3,
            probe_weight_decay: 0.01,
            probe_clip_norm: 1.0,
            loss_weights: LossWeights::default(),
            patience: None,
            seed: 0,
            report_chain: 6,
            checkpoint_steps: None,
            checkpoint_seconds: 60.0,
        }
    }
}

/// Options that do not change what is learned: a run may go on with others.
///
/// The head of `signals_only` counts by its hash, not by its place.
const FREE: [&str; 7] = [
    "labels",
    "out",
    "signals_only",
    "cache_gb",
    "report_chain",
    "checkpoint_steps",
    "checkpoint_seconds",
];

/// Options that mean nothing where the probe is trained alone.
const OF_DRAFT: [&str; 15] = [
    "intermediate_size",
    "heads",
    "kv_heads",
    "head_dim",
    "draft_vocab_size",
    "init",
    "sequences",
    "epochs",
    "lr",
    "weight_decay",
    "clip_norm",
    "ttt_steps",
    "ttt_decay",
    "products",
    "report_chain",
];

impl TrainOptions {
    /// Says which option cannot be used, if any.
    ///
    /// # Errors
    /// The first such option.
    pub fn validate(&self) -> Result<()> {
        let positive = |option, value: f64| {
            if value.is_finite() && value > 0.0 {
                return Ok(());
            }
            Err(TrainError::option(option, format!("= {value}; it must be above zero")))
        };
        let share = |option, value: f64| {
            if (0.0..1.0).contains(&value) {
                return Ok(());
            }
            Err(TrainError::option(option, format!("= {value}; it must be from 0 to below 1")))
        };
        if self.label_beyond && self.sequences == Sequences::Shortened {
            let problem =
                "needs whole outputs: shortened ones have no thinking tokens beyond the cut";
            return Err(TrainError::option("label_beyond", problem));
        }
        if self.probe_width.is_some() && self.probe != ProbeKind::Mlp {
            return Err(TrainError::option("probe_width", "is that of an MLP; set probe = mlp"));
        }
        if self.probe == ProbeKind::Draft && self.probe_epochs == 0 {
            let problem = "= 0: a probe after the draft layer is trained once the layer is";
            return Err(TrainError::option("probe_epochs", problem));
        }
        positive("lr", self.lr)?;
        positive("probe_lr", self.probe_lr)?;
        positive("clip_norm", self.clip_norm)?;
        positive("probe_clip_norm", self.probe_clip_norm)?;
        positive("ttt_decay", self.ttt_decay)?;
        if !(self.cache_gb.is_finite() && self.cache_gb >= 0.0) {
            let problem = format!("= {}; it must be 0 or more", self.cache_gb);
            return Err(TrainError::option("cache_gb", problem));
        }
        share("held_out", self.held_out)?;
        share("warmup", self.warmup)?;
        share("beta1", self.beta1)?;
        share("beta2", self.beta2)?;
        share("weight_decay", self.weight_decay)?;
        share("probe_weight_decay", self.probe_weight_decay)?;
        if !(0.0..=1.0).contains(&self.final_lr) {
            return Err(TrainError::option("final_lr", "must be from 0 to 1"));
        }
        for (option, value, limit) in [
            ("ttt_steps", self.ttt_steps, 16),
            ("report_chain", self.report_chain, 16),
            ("batch_tokens", self.batch_tokens, 1 << 24),
            ("max_length", self.max_length, 1 << 24),
            ("intermediate_size", self.intermediate_size.unwrap_or(1), 1 << 20),
            ("heads", self.heads.unwrap_or(1), 1 << 12),
            ("kv_heads", self.kv_heads.unwrap_or(1), 1 << 12),
            ("head_dim", self.head_dim.unwrap_or(1), 1 << 12),
            ("probe_width", self.probe_width.unwrap_or(1), 1 << 14),
            ("draft_vocab_size", self.draft_vocab_size.unwrap_or(1), 1 << 24),
        ] {
            if value == 0 || value > limit {
                let problem = format!("= {value}; it must be from 1 to {limit}");
                return Err(TrainError::option(option, problem));
            }
        }
        if self.signals_only.is_some() {
            self.validate_alone()?;
        } else if self.epochs == 0 && self.probe_epochs == 0 {
            return Err(TrainError::option("epochs", "and probe_epochs are 0: nothing to train"));
        }
        if self.loss_weights == LossWeights::W1 && self.probe_is_alone() {
            let problem = "w1 needs a token loss beside the signals', which neither signals_only nor \
                           probe = draft has; use w2";
            return Err(TrainError::option("loss_weights", problem));
        }
        if self.patience == Some(0) {
            return Err(TrainError::option("patience", "= 0; leave it out to make all passes"));
        }
        if self.patience.is_some() && self.held_out == 0.0 {
            return Err(TrainError::option("patience", "needs held-out questions; raise held_out"));
        }
        if self.checkpoint_steps == Some(0) {
            return Err(TrainError::option(
                "checkpoint_steps",
                "= 0; leave it out for by-time only",
            ));
        }
        Ok(())
    }

    /// Refuses what does not apply where the probe is trained alone.
    fn validate_alone(&self) -> Result<()> {
        let value = |of: &Self| serde_json::to_value(of).unwrap_or_default();
        let (given, default) = (value(self), value(&Self::default()));
        if let Some(option) = OF_DRAFT.into_iter().find(|o| given.get(o) != default.get(o)) {
            let problem =
                "is about the draft layer, which signals_only leaves as it is; leave it out";
            return Err(TrainError::option(option, problem));
        }
        if self.probe == ProbeKind::Draft {
            let problem = "= draft reads outputs of the layer, which signals_only does not run";
            return Err(TrainError::option("probe", problem));
        }
        if self.probe_epochs == 0 {
            return Err(TrainError::option("probe_epochs", "= 0: nothing to train"));
        }
        Ok(())
    }

    /// Passes that train draft layer and probe together.
    pub(crate) fn joint_epochs(&self) -> usize {
        if self.signals_only.is_some() { 0 } else { self.epochs }
    }

    /// Whether the probe is never trained in the same step as the draft layer.
    fn probe_is_alone(&self) -> bool {
        self.signals_only.is_some() || self.probe == ProbeKind::Draft
    }

    /// The loss weights, with `dynamic` spelled out.
    pub(crate) fn weights(&self) -> LossWeights {
        match self.loss_weights {
            LossWeights::Dynamic if self.probe_is_alone() => LossWeights::W2,
            LossWeights::Dynamic => LossWeights::W1,
            chosen => chosen,
        }
    }

    /// Width M of an MLP probe's hidden layer.
    pub(crate) fn hidden_width(&self) -> usize {
        self.probe_width.unwrap_or(128)
    }

    /// The options that decide what is learned, as recorded with the run.
    pub(crate) fn identity(&self) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let Value::Object(map) = &mut value {
            let of_draft = |key: &str| self.signals_only.is_some() && OF_DRAFT.contains(&key);
            map.retain(|key, _| !FREE.contains(&key.as_str()) && !of_draft(key));
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_the_identity_leaves_out_what_is_free() {
        let options = TrainOptions::default();
        options.validate().unwrap();
        let identity = options.identity();
        assert!(identity.get("lr").is_some() && identity.get("cache_gb").is_none());
        for name in FREE {
            assert!(serde_json::to_value(&options).unwrap().get(name).is_some(), "{name}");
        }
    }

    #[test]
    fn impossible_options_are_named() {
        let error = |options: TrainOptions| options.validate().unwrap_err().to_string();
        let d = TrainOptions::default;
        assert!(error(TrainOptions { lr: f64::NAN, ..d() }).starts_with("lr = NaN"));
        assert!(error(TrainOptions { held_out: 1.0, ..d() }).starts_with("held_out = 1"));
        assert!(error(TrainOptions { ttt_steps: 0, ..d() }).starts_with("ttt_steps = 0"));
        assert!(error(TrainOptions { cache_gb: -1.0, ..d() }).starts_with("cache_gb = -1"));
        TrainOptions { cache_gb: 0.0, ..d() }.validate().unwrap();
    }

    #[test]
    fn a_probe_alone_has_no_options_of_the_draft_layer() {
        let alone = TrainOptions { signals_only: Some("head".into()), ..TrainOptions::default() };
        alone.validate().unwrap();
        let identity = alone.identity();
        let joint = TrainOptions::default().identity();
        for name in OF_DRAFT {
            assert!(identity.get(name).is_none(), "{name}");
            assert!(joint.get(name).is_some() != FREE.contains(&name), "{name}");
        }
        assert!(identity.get("probe_lr").is_some() && identity.get("signals_only").is_none());
        let error = |options: TrainOptions| options.validate().unwrap_err().to_string();
        let a = || alone.clone();
        for (options, name) in [
            (TrainOptions { lr: 1e-3, ..a() }, "lr is about the draft layer"),
            (TrainOptions { heads: Some(2), ..a() }, "heads is about the draft layer"),
            (
                TrainOptions { sequences: Sequences::Shortened, label_beyond: false, ..a() },
                "sequences is about",
            ),
            (TrainOptions { loss_weights: LossWeights::W1, ..a() }, "loss_weights w1 needs"),
            (TrainOptions { probe_epochs: 0, ..a() }, "probe_epochs = 0"),
            (TrainOptions { probe: ProbeKind::Draft, ..a() }, "probe = draft"),
        ] {
            let error = error(options);
            assert!(error.starts_with(name), "{error}");
        }
        assert_eq!(alone.weights(), LossWeights::W2);
        let after = || TrainOptions { probe: ProbeKind::Draft, ..TrainOptions::default() };
        assert_eq!(after().weights(), LossWeights::W2);
        let w1 = TrainOptions { loss_weights: LossWeights::W1, ..after() };
        assert!(error(w1).starts_with("loss_weights w1 needs"));
        let none = TrainOptions { probe_epochs: 0, ..after() };
        assert!(error(none).starts_with("probe_epochs = 0"));
        assert_eq!(TrainOptions::default().weights(), LossWeights::W1);
    }
}
