//! A whole training run: data, states, loop, head and report.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use specexit_exit::{BoundaryTable, TokenId};
use specexit_kernels::RopeTable;
use specexit_model::config::inverse_frequencies;
use specexit_model::head_file::{HeadConfig, SPECEXIT_VERSION, SpecExitConfig};
use specexit_model::{Model, Positions};

use super::checkpoint::RunState;
use super::evaluate::Quality;
use super::export::head_file;
use super::metrics::read_metrics;
use super::options::TrainOptions;
use super::report::verdict::Known;
use super::report::{
    self, Curves, DataReport, HeadSizes, PAGE_FILE, REPORT_FILE, RunReport, TrainReport, Verdict,
};
use super::trainer::{METRICS, Plan, Trainer};
use crate::data::batches::{Batch, Loader, output_rows, statistics};
use crate::data::examples::{Example, ExampleRules, read_examples, split};
use crate::data::source::{LoadedTarget, TargetSource};
use crate::data::states::StatesCache;
use crate::data::vocabulary::draft_vocabulary;
use crate::error::{Result, TrainError};
use crate::jsonl::{file_hash, identify};
use crate::label::{LabelFile, LabelHeader};
use crate::net::draft::{Draft, DraftShape};
use crate::net::init::{TargetStart, fresh_params};
use crate::net::params::Param;
use crate::net::probe::{Probe, SIGNAL_NAMES, SIGNALS};
use crate::ops::all_cores;
use crate::progress::Progress;
use crate::provenance::{ModelId, PROGRAM, derived_seed};

/// Folder of the finished head inside a run's folder.
pub const HEAD_FOLDER: &str = "head";
/// Name of the format of `run.json`.
const FORMAT: &str = "specexit-run";
/// Version of the format.
const VERSION: u32 = 1;
/// Largest draft vocabulary unless asked for otherwise, as in published heads.
const DRAFT_VOCABULARY: usize = 32_000;

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

/// Trains a draft head with a signal probe for `model` on labels made with it.
///
/// A run found in `options.out` goes on where its last checkpoint left it, to the same result bit by
/// bit; a finished one is only reported again.
///
/// # Errors
/// Labels of another model, an option that cannot be used or differs from the run found, too little
/// room for the states, or numbers that stop being finite.
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
    train_on(options, &facts, &mut LoadedTarget::new(&model.target), progress)
}

/// [`train`] for anything that can play the target.
pub(crate) fn train_on(
    options: &TrainOptions,
    facts: &TargetFacts,
    source: &mut impl TargetSource,
    progress: &mut dyn Progress,
) -> Result<TrainSummary> {
    options.validate()?;
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
    let max_length = options.max_length.min(facts.max_positions);
    let table = BoundaryTable::new(&header.options.boundaries, &facts.token_bytes);
    let rules = ExampleRules {
        norm: header.options.progress_norm,
        sequences: options.sequences,
        label_beyond: options.label_beyond,
        boundaries: (options.positions == Positions::Boundaries).then_some(&table),
        max_length,
    };
    let examples = read_examples(&options.labels, records, &rules)?;
    check_tokens(&options.labels, &examples, source.vocab_size())?;
    let (train, held_out) = split(&examples, options.held_out, options.seed)?;

    std::fs::create_dir_all(&options.out).map_err(TrainError::io("create", &options.out))?;
    let labels_hash = file_hash(&options.labels)?;
    let run = open_run(options, facts, &labels_hash)?;
    let cache = StatesCache::build(
        &options.out,
        &examples,
        source,
        &facts.id.hash,
        options.cache_gb,
        progress,
    )?;
    if progress.cancelled() {
        return Ok(unfinished(options, 0, 0));
    }

    let of_train: Vec<&Example> = train.iter().map(|&i| &examples[i]).collect();
    let size = options.draft_vocab_size.unwrap_or(DRAFT_VOCABULARY).min(source.vocab_size());
    let always = [&facts.stop_ids[..], &closing].concat();
    let vocabulary = draft_vocabulary(&of_train, size, &always);
    let width = source.hidden_size();
    let means = statistics(&examples, &train, &cache, width)?;
    let rows = output_rows(source, &vocabulary);
    let shape = draft_shape(options, facts, width, vocabulary.len())?;
    let start = TargetStart {
        lm_head: &rows,
        final_rms: &means.final_rms,
        inverse_rms: &means.basis.inverse_rms,
    };
    let seed = derived_seed(options.seed, &["weights"]);
    let params = fresh_params(&shape, options.init, &start, seed);
    let remaining: Vec<f32> =
        of_train.iter().flat_map(|e| e.labels.iter().map(|l| l.label.remaining)).collect();
    if remaining.is_empty() {
        return Err(TrainError::NoData(format!(
            "no training thought in {} has a label at a boundary; use positions = dense",
            options.labels.display()
        )));
    }
    let mean_remaining = remaining.iter().sum::<f32>() / remaining.len().max(1) as f32;
    let seed = derived_seed(options.seed, &["probe"]);
    let hidden = options.hidden_width();
    let probe = Probe::new(options.probe, shape.taps, hidden, mean_remaining, seed);

    let kernels = all_cores();
    let inv_freq = inverse_frequencies(facts.rope_theta, shape.head_dim);
    let longest = examples.iter().map(|e| e.tokens.len()).max().unwrap_or(0);
    let steps = options.ttt_steps.max(options.report_chain);
    let rope = Arc::new(RopeTable::new(&inv_freq, longest + steps));
    let draft = Draft::new(&shape, rope, options.products, &kernels);
    let (basis, products) = (&means.basis, options.products);
    let loader =
        Loader::new(&examples, &cache, &*source, basis, &vocabulary, &rows, products, &kernels)?;
    let mut trainer = Trainer {
        options,
        folder: &options.out,
        examples: &examples,
        train: &train,
        held_out: &held_out,
        loader: &loader,
        kernels: &kernels,
        draft,
        grads: params.iter().map(|p| vec![0.0; p.value.len()]).collect(),
        batch: Batch::default(),
        plan: Plan::new(options, &examples, &train),
        params,
        best_probe: probe.clone(),
        probe,
        state: RunState {
            run,
            step: 0,
            lambda: None,
            best_draft: None,
            best_probe: [None; SIGNALS],
        },
    };
    trainer.resume()?;
    let total = trainer.plan.total();
    if !trainer.run(progress)? {
        return Ok(unfinished(options, trainer.state.step, total));
    }

    let quality = trainer.take_best()?;
    let data = DataReport {
        labels_hash,
        train_sequences: train.len(),
        held_out_sequences: held_out.len(),
        train_positions: of_train.iter().map(|e| e.queries()).sum(),
        train_labels: remaining.len(),
        draft_vocabulary: vocabulary.len(),
        label_max_len: remaining.iter().copied().fold(0.0, f32::max) as usize,
        label_options: serde_json::to_value(&header.options).unwrap_or_default(),
    };
    let config = head_config(options, facts, &shape, source.vocab_size(), &header, &data);
    let head = options.out.join(HEAD_FOLDER);
    head_file(config, &shape, &trainer.params, &trainer.probe, &means.basis, &vocabulary)
        .save(&head)?;
    let report = finish(options, facts, &shape, data, &trainer, quality)?;
    Ok(TrainSummary {
        finished: true,
        steps: total,
        total_steps: total,
        head,
        page: options.out.join(PAGE_FILE),
        report: Some(report),
    })
}

fn unfinished(options: &TrainOptions, steps: u64, total_steps: u64) -> TrainSummary {
    let head = options.out.join(HEAD_FOLDER);
    let page = options.out.join(PAGE_FILE);
    TrainSummary { finished: false, steps, total_steps, head, page, report: None }
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

/// Writes `run.json` of a new run or compares it with that of the run found; its hash is the run's
/// identity.
fn open_run(options: &TrainOptions, facts: &TargetFacts, labels_hash: &str) -> Result<String> {
    let header = json!({
        "format": FORMAT,
        "version": VERSION,
        "program": PROGRAM,
        "model": {"hash": facts.id.hash, "tokenizer_hash": facts.id.tokenizer_hash},
        "labels_hash": labels_hash,
        "options": options.identity(),
    });
    identify(&options.out.join("run.json"), &header)
}

fn draft_shape(
    options: &TrainOptions,
    facts: &TargetFacts,
    width: usize,
    vocab: usize,
) -> Result<DraftShape> {
    let shape = DraftShape {
        hidden: width,
        taps: 3 * width,
        intermediate: options
            .intermediate_size
            .unwrap_or_else(|| facts.intermediate_size.min(4 * width)),
        heads: options.heads.unwrap_or(facts.heads),
        kv_heads: options.kv_heads.unwrap_or(facts.kv_heads),
        head_dim: options.head_dim.unwrap_or(facts.head_dim),
        vocab,
        eps: facts.rms_norm_eps,
    };
    if !shape.heads.is_multiple_of(shape.kv_heads) {
        return Err(TrainError::option(
            "kv_heads",
            format!("= {}, which does not divide heads = {}", shape.kv_heads, shape.heads),
        ));
    }
    if !shape.head_dim.is_multiple_of(2) {
        return Err(TrainError::option("head_dim", "must be even: RoPE rotates pairs"));
    }
    Ok(shape)
}

fn head_config(
    options: &TrainOptions,
    facts: &TargetFacts,
    shape: &DraftShape,
    vocab_size: usize,
    header: &LabelHeader,
    data: &DataReport,
) -> HeadConfig {
    HeadConfig {
        architectures: vec!["Eagle3LlamaForCausalLM".to_owned()],
        model_type: "llama".to_owned(),
        hidden_size: shape.hidden,
        intermediate_size: shape.intermediate,
        num_hidden_layers: 1,
        num_attention_heads: shape.heads,
        num_key_value_heads: Some(shape.kv_heads),
        head_dim: Some(shape.head_dim),
        rms_norm_eps: shape.eps,
        rope_theta: facts.rope_theta,
        rope_scaling: None,
        max_position_embeddings: facts.max_positions,
        vocab_size,
        draft_vocab_size: Some(shape.vocab),
        target_hidden_size: Some(shape.hidden),
        hidden_act: "silu".to_owned(),
        tie_word_embeddings: false,
        torch_dtype: "bfloat16".to_owned(),
        specexit: Some(SpecExitConfig {
            version: SPECEXIT_VERSION,
            signals: SIGNAL_NAMES.map(str::to_owned).to_vec(),
            progress_norm: spelled(&header.options.progress_norm),
            confidence_kind: spelled(&header.options.confidence),
            positions: options.positions,
            label_max_len: data.label_max_len,
            target_name: facts.id.name.clone(),
            target_hash: facts.id.hash.clone(),
            tokenizer_hash: facts.id.tokenizer_hash.clone(),
            labels_hash: data.labels_hash.clone(),
            seed: options.seed,
            program: PROGRAM.to_owned(),
        }),
    }
}

/// A unit variant as it is spelled in files.
fn spelled(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn finish<S: TargetSource>(
    options: &TrainOptions,
    facts: &TargetFacts,
    shape: &DraftShape,
    data: DataReport,
    trainer: &Trainer<'_, S>,
    quality: Quality,
) -> Result<TrainReport> {
    let state = &trainer.state;
    let count = |p: &Param| p.value.len();
    let (steps, held_out) = read_metrics(&options.out.join(METRICS))?;
    let mut report = TrainReport {
        format: report::FORMAT.to_owned(),
        version: report::VERSION,
        program: PROGRAM.to_owned(),
        model: facts.id.clone(),
        options: options.identity(),
        run: RunReport {
            parameters: trainer.params.iter().chain(&trainer.probe.params).map(count).sum(),
            steps: state.step,
            best_draft_step: state.best_draft.map(|b| b.step),
            best_probe_steps: state.best_probe.map(|best| best.map(|b| b.step)),
        },
        head: HeadSizes {
            hidden_size: shape.hidden,
            intermediate_size: shape.intermediate,
            attention_heads: shape.heads,
            key_value_heads: shape.kv_heads,
            head_dim: shape.head_dim,
        },
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
    report::write_page(&options.out, &options.out.join(PAGE_FILE))?;
    Ok(report)
}
