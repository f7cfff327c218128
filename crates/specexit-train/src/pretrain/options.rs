//! What `pretrain` is asked for.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use specexit_model::hash::sha256_hex;

use crate::error::{Result, TrainError};
use crate::net::decoder::DecoderShape;
use crate::ops::Products;
use crate::provenance::PROGRAM;

/// One training text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its tokens, two at least.
    pub tokens: Vec<u32>,
    /// Tokens before this index carry no loss (the prompt).
    pub loss_from: usize,
}

/// Where texts come from; must be a pure function of its arguments, so that a run resumes exactly.
pub trait Corpus: Sync {
    /// Text number `index` of a run of which the share `progress` (0..1) is done (for a curriculum).
    fn sample(&self, index: u64, progress: f64) -> Sample;
    /// Texts that are never trained on, for the held-out loss.
    fn held_out(&self) -> Vec<Sample>;
    /// Hash of everything that decides the texts; part of the run's identity.
    fn hash(&self) -> String;
}

/// What to pretrain and how. A recipe says how, and nothing of the rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainOptions {
    /// Folder of the run: checkpoint, metrics, and in `model` the model as it stands. A run that is
    /// found there goes on.
    #[serde(skip_deserializing)]
    pub out: PathBuf,
    /// Sizes of the model.
    #[serde(skip_deserializing)]
    pub shape: DecoderShape,
    /// Steps of the whole run.
    pub steps: u64,
    /// Tokens of a step, at most; at least one text.
    pub batch_tokens: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// What the cosine decay ends at, as a share of the peak.
    pub final_lr: f64,
    /// Share of the steps over which the learning rate rises linearly.
    pub warmup: f64,
    /// AdamW's decay of the first moment.
    pub beta1: f64,
    /// AdamW's decay of the second moment.
    pub beta2: f64,
    /// AdamW's weight decay, of matrices only.
    pub weight_decay: f64,
    /// Longest gradient; longer ones are scaled down.
    pub clip_norm: f64,
    /// Seed of the initial weights.
    pub seed: u64,
    /// What the products of the layers are computed in.
    #[serde(default)]
    pub products: Products,
    /// Seconds between checkpoints.
    pub checkpoint_seconds: f64,
    /// The held-out loss is measured every so many steps and at the end; at the end alone when 0.
    pub eval_steps: u64,
    /// Id that starts a text, as `config.json` will say.
    #[serde(skip_deserializing)]
    pub bos_token_id: Option<u32>,
    /// Ids that end a text.
    #[serde(skip_deserializing)]
    pub eos_token_id: Vec<u32>,
    /// Id that pads batches elsewhere.
    #[serde(skip_deserializing)]
    pub pad_token_id: Option<u32>,
    /// Written beside the weights (tokenizer.json, …): names and contents.
    #[serde(skip_deserializing)]
    pub files: Vec<(String, Vec<u8>)>,
}

/// Options that do not change what is learned, and `files`, of which hashes are kept.
const FREE: [&str; 4] = ["out", "files", "checkpoint_seconds", "eval_steps"];

impl PretrainOptions {
    /// Says which option cannot be used, if any.
    ///
    /// # Errors
    /// The first such option.
    pub fn validate(&self) -> Result<()> {
        self.shape.validate()?;
        for (option, value) in [("lr", self.lr), ("clip_norm", self.clip_norm)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(TrainError::option(
                    option,
                    format!("= {value}; it must be above zero"),
                ));
            }
        }
        for (option, value) in [
            ("warmup", self.warmup),
            ("beta1", self.beta1),
            ("beta2", self.beta2),
            ("weight_decay", self.weight_decay),
        ] {
            if !(0.0..1.0).contains(&value) {
                let problem = format!("= {value}; it must be from 0 to below 1");
                return Err(TrainError::option(option, problem));
            }
        }
        if !(0.0..=1.0).contains(&self.final_lr) {
            return Err(TrainError::option("final_lr", "must be from 0 to 1"));
        }
        if self.steps == 0 {
            return Err(TrainError::option("steps", "= 0: nothing to train"));
        }
        if self.batch_tokens == 0 || self.batch_tokens > 1 << 24 {
            let problem = format!("= {}; it must be from 1 to {}", self.batch_tokens, 1 << 24);
            return Err(TrainError::option("batch_tokens", problem));
        }
        for (option, ids) in [
            ("bos_token_id", self.bos_token_id.as_slice()),
            ("eos_token_id", &self.eos_token_id),
            ("pad_token_id", self.pad_token_id.as_slice()),
        ] {
            if let Some(id) = ids.iter().find(|&&id| id as usize >= self.shape.vocab_size) {
                let problem =
                    format!("= {id}, outside the vocabulary of {}", self.shape.vocab_size);
                return Err(TrainError::option(option, problem));
            }
        }
        for (name, _) in &self.files {
            let plain = !name.is_empty() && !name.contains(['/', '\\']) && name != "..";
            if !plain || OWN_FILES.contains(&name.as_str()) {
                let problem = format!("has {name:?}; names must be plain and not {OWN_FILES:?}");
                return Err(TrainError::option("files", problem));
            }
        }
        Ok(())
    }

    /// What makes the run this run and no other.
    pub(super) fn identity(&self, corpus: &dyn Corpus) -> Value {
        let mut options = serde_json::to_value(self).unwrap_or_default();
        if let Value::Object(map) = &mut options {
            map.retain(|key, _| !FREE.contains(&key.as_str()));
        }
        let files: serde_json::Map<String, Value> =
            self.files.iter().map(|(name, data)| (name.clone(), sha256_hex(data).into())).collect();
        json!({
            "format": "specexit-pretrain-run",
            "version": 1,
            "program": PROGRAM,
            "corpus": corpus.hash(),
            "options": options,
            "files": files,
        })
    }
}

/// Files of the model folder that `files` cannot replace.
pub(super) const OWN_FILES: [&str; 3] =
    ["model.safetensors", "config.json", "generation_config.json"];
