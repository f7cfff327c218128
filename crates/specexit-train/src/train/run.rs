//! A whole training run: what both kinds of run prepare and report.

use std::path::{Path, PathBuf};

use serde_json::json;
use specexit_exit::{BoundaryTable, TokenId};
use specexit_model::head_file::{SPECEXIT_VERSION, SpecExitConfig};
use specexit_model::{Model, Positions};

use super::evaluate::Quality;
use super::metrics::read_metrics;
use super::options::TrainOptions;
use super::report::verdict::Known;
use super::report::{
    self, Curves, DataReport, HeadSizes, PAGE_FILE, REPORT_FILE, RunReport, TrainReport, Verdict,
};
use super::trainer::{METRICS, Trainer};
use super::{joint, signals_only};
use crate::data::examples::{Example, ExampleRules, read_examples, split};
use crate::data::source::{LoadedTarget, TargetSource};
use crate::data::states::{Content, States};
use crate::error::{Result, TrainError};
use crate::jsonl::{file_hash, identify};
use crate::label::{LabelFile, LabelHeader};
use crate::net::params::Param;
use crate::net::probe::{Probe, SIGNAL_NAMES};
use crate::progress::Progress;
use crate::provenance::{ModelId, PROGRAM, derived_seed};

/// Folder of the finished head inside a run's folder.
pub const HEAD_FOLDER: &str = "head";
/// Name of the format of `run.json`.
const FORMAT: &str = "specexit-run";
/// Version of the format.
const VERSION: u32 = 1;

/// What `train` did.
#[derive(Clone, Debug)]
pub struct TrainSummary {
    /// False when the caller cancelled; the same call goes on.
    pub finished: bool,
    /// Steps done.
    pub steps: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Folder of the head, once finished.
    pub head: PathBuf,
    /// The page about the head, once finished.
    pub page: PathBuf,
    /// The report, once finished.
    pub report: Option<TrainReport>,
}

/// What training takes from a model besides its states.
pub(crate) struct TargetFacts {
    pub(crate) id: ModelId,
    pub(crate) intermediate_size: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) rms_norm_eps: f32,
    pub(crate) rope_theta: f64,
    pub(crate) max_positions: usize,
    /// Tokens the draft must be able to name: those that end a text.
    pub(crate) stop_ids: Vec<TokenId>,
    /// The text of every token, which says where boundaries are.
    pub(crate) token_bytes: Vec<Vec<u8>>,
}

/// Trains a draft head with a signal probe for `model` on labels made with it, or the probe alone
/// (`signals_only`).
///
/// A run found in `options.out` goes on where its last checkpoint left it, to the same result bit by
/// bit; a finished one is only reported again.
///
/// # Errors
/// Labels or a head of another model, an option that cannot be used or differs from the run found, a
/// full disk, or numbers that stop being finite.
pub fn train(
    options: &TrainOptions,
    model: &Model,
    progress: &mut dyn Progress,
) -> Result<TrainSummary> {
    let config = &model.target.config;
    let facts = TargetFacts {
        id: ModelId::of(model),
        intermediate_size: config.intermediate_size,
        heads: config.num_attention_heads,
        kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
        rms_norm_eps: config.rms_norm_eps,
        rope_theta: config.rope_theta,
        max_positions: config.max_position_embeddings,
        stop_ids: config.eos_token_ids.clone(),
        token_bytes: model.tokenizer.token_bytes(config.vocab_size),
    };
    train_on(options, &facts, &LoadedTarget::new(&model.target), progress)
}

/// What both kinds of run begin with.
pub(crate) struct Prepared<'a> {
    pub(crate) options: &'a TrainOptions,
    pub(crate) facts: &'a TargetFacts,
    /// How the labels were made.
    header: LabelHeader,
    labels_hash: String,
    /// Tokens that end a thought in the labelled texts.
    pub(crate) closing: Vec<TokenId>,
    pub(crate) examples: Vec<Example>,
    /// Indices of the sequences that are trained on.
    pub(crate) train: Vec<usize>,
    /// Indices of those that are held out.
    pub(crate) held_out: Vec<usize>,
}

/// [`train`] for anything that can play the target.
pub(crate) fn train_on<S: TargetSource>(
    options: &TrainOptions,
    facts: &TargetFacts,
    source: &S,
    progress: &mut dyn Progress,
) -> Result<TrainSummary> {
    options.validate()?;
    let head = options.signals_only.as_deref();
    let head = head.map(|dir| signals_only::open(dir, source, &facts.id.hash)).transpose()?;
    let data = Prepared::read(options, facts, source.vocab_size())?;
    std::fs::create_dir_all(&options.out).map_err(TrainError::io("create", &options.out))?;
    match head {
        None => joint::run(&data, source, progress),
        Some(head) => signals_only::run(&data, &head, source, progress),
    }
}

impl<'a> Prepared<'a> {
    /// Reads the labels for a target of `vocab` tokens.
    fn read(options: &'a TrainOptions, facts: &'a TargetFacts, vocab: usize) -> Result<Self> {
        let labels = LabelFile::open(&options.labels)?;
        let header = labels.header.clone();
        if let Some((field, found, expected)) = header.model.difference(&facts.id) {
            return Err(TrainError::Mismatch {
                path: options.labels.clone(),
                field: field.to_owned(),
                found,
                expected,
                advice: "train on labels made with this model".to_owned(),
            });
        }
        let records = labels.collect::<Result<Vec<_>>>()?;
        let closing: Vec<TokenId> = records.iter().flat_map(|r| r.close_ids.clone()).collect();
        let records = records.into_iter().map(Ok);
        let table = BoundaryTable::new(&header.options.boundaries, &facts.token_bytes);
        let rules = ExampleRules {
            norm: header.options.progress_norm,
            sequences: options.sequences,
            label_beyond: options.label_beyond,
            boundaries: (options.positions == Positions::Boundaries).then_some(&table),
            max_length: options.max_length.min(facts.max_positions),
        };
        let examples = read_examples(&options.labels, records, &rules)?;
        check_tokens(&options.labels, &examples, vocab)?;
        let (train, held_out) = split(&examples, options.held_out, options.seed)?;
        let labels_hash = file_hash(&options.labels)?;
        Ok(Self { options, facts, header, labels_hash, closing, examples, train, held_out })
    }

    /// Writes `run.json` of a new run or compares it with that of the run found; its hash is the
    /// run's identity. `base` is the hash of the head that gets a probe.
    pub(crate) fn open_run(&self, base: Option<&str>) -> Result<String> {
        let id = &self.facts.id;
        let mut header = json!({
            "format": FORMAT,
            "version": VERSION,
            "program": PROGRAM,
            "model": {"hash": id.hash, "tokenizer_hash": id.tokenizer_hash},
            "labels_hash": self.labels_hash,
            "options": self.options.identity(),
        });
        if let Some(base) = base {
            header["base_head"] = json!(base);
        }
        identify(&self.options.out.join("run.json"), &header)
    }

    /// What a run that was cancelled says.
    pub(crate) fn unfinished(&self, steps: u64, total_steps: u64) -> TrainSummary {
        let head = self.options.out.join(HEAD_FOLDER);
        let page = self.options.out.join(PAGE_FILE);
        TrainSummary { finished: false, steps, total_steps, head, page, report: None }
    }

    /// Remaining lengths of the labelled tokens that are trained on.
    fn remaining(&self) -> impl Iterator<Item = f32> {
        let examples = self.train.iter().map(|&i| &self.examples[i]);
        examples.flat_map(|e| e.labels.iter().map(|l| l.label.remaining))
    }

    /// The states of all sequences, as far as `content` needs them; `None` when the caller cancelled.
    pub(crate) fn states<'s, S: TargetSource>(
        &'s self,
        source: &'s S,
        content: Content,
        progress: &mut dyn Progress,
    ) -> Result<Option<States<'s, S>>> {
        let (out, hash, cap) = (&self.options.out, &self.facts.id.hash, self.options.cache_gb);
        let states = States::build(out, &self.examples, source, content, hash, cap, progress)?;
        Ok((!progress.cancelled()).then_some(states))
    }

    /// A fresh probe for states of width `width` = 3 H_t.
    pub(crate) fn fresh_probe(&self, width: usize) -> Result<Probe> {
        let (options, count) = (self.options, self.remaining().count());
        if count == 0 {
            return Err(TrainError::NoData(format!(
                "no training thought in {} has a label at a boundary; use positions = dense",
                options.labels.display()
            )));
        }
        let mean = self.remaining().sum::<f32>() / count as f32;
        let seed = derived_seed(options.seed, &["probe"]);
        Ok(Probe::new(options.probe, width, options.hidden_width(), mean, seed))
    }

    /// What was trained on, but for the draft layer.
    pub(crate) fn report(&self) -> DataReport {
        DataReport {
            labels_hash: self.labels_hash.clone(),
            train_sequences: self.train.len(),
            held_out_sequences: self.held_out.len(),
            train_labels: self.remaining().count(),
            label_max_len: self.remaining().fold(0.0, f32::max) as usize,
            label_options: serde_json::to_value(&self.header.options).unwrap_or_default(),
            ..DataReport::default()
        }
    }

    /// What the head's config says about signals and origin.
    pub(crate) fn origin(&self, report: &DataReport) -> SpecExitConfig {
        let (options, id, labels) = (self.options, &self.facts.id, &self.header.options);
        SpecExitConfig {
            version: SPECEXIT_VERSION,
            signals: SIGNAL_NAMES.map(str::to_owned).to_vec(),
            progress_norm: spelled(&labels.progress_norm),
            confidence_kind: spelled(&labels.confidence),
            positions: options.positions,
            label_max_len: report.label_max_len,
            target_name: id.name.clone(),
            target_hash: id.hash.clone(),
            tokenizer_hash: id.tokenizer_hash.clone(),
            labels_hash: report.labels_hash.clone(),
            seed: options.seed,
            program: PROGRAM.to_owned(),
        }
    }
}

/// Every id must be a row of the embedding: the file may have been edited.
fn check_tokens(path: &Path, examples: &[Example], vocab: usize) -> Result<()> {
    let ids = examples.iter().flat_map(|e| &e.tokens);
    match ids.copied().find(|&t| t as usize >= vocab) {
        Some(id) => Err(TrainError::bad_file(
            path,
            format!("it has token {id}, but the model's vocabulary ends at {}", vocab - 1),
        )),
        None => Ok(()),
    }
}

/// A unit variant as it is spelled in files.
fn spelled(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Writes the report and the page of a run whose head is written.
pub(crate) fn finish<S: TargetSource>(
    prepared: &Prepared<'_>,
    head: HeadSizes,
    data: DataReport,
    base_head: Option<String>,
    trainer: &Trainer<'_, S>,
    quality: Quality,
) -> Result<TrainSummary> {
    let Prepared { options, facts, .. } = prepared;
    let count = |p: &Param| p.value.len();
    let (steps, held_out) = read_metrics(&options.out.join(METRICS))?;
    let (draft, probe) = (trainer.draft.as_ref(), &trainer.probe);
    let params = draft.iter().flat_map(|draft| &draft.params).chain(&probe.probe.params);
    let mut report = TrainReport {
        format: report::FORMAT.to_owned(),
        version: report::VERSION,
        program: PROGRAM.to_owned(),
        model: facts.id.clone(),
        options: options.identity(),
        base_head,
        run: RunReport {
            parameters: params.map(count).sum(),
            steps: trainer.step - trainer.left_out,
            best_draft_step: draft.and_then(|draft| draft.best).map(|best| best.step),
            best_probe_steps: probe.best_steps.map(|best| best.map(|b| b.step)),
        },
        head,
        held_out: (data.held_out_sequences > 0).then_some(quality),
        data,
        curves: Curves::of(&steps, &held_out),
        verdict: Verdict::default(),
    };
    report.verdict = Verdict::of(&Known {
        data: Some(&report.data),
        run: Some(&report.run),
        held_out: report.held_out.as_ref(),
        curves: &report.curves,
    });
    report.save(&options.out.join(REPORT_FILE))?;
    let page = options.out.join(PAGE_FILE);
    report::write_page(&options.out, &page)?;
    let head = options.out.join(HEAD_FOLDER);
    let (steps, total_steps) = (trainer.step - trainer.left_out, trainer.total());
    Ok(TrainSummary { finished: true, steps, total_steps, head, page, report: Some(report) })
}
