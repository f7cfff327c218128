//! A run that trains a draft layer and a probe beside it.

use std::sync::Arc;

use specexit_kernels::RopeTable;
use specexit_model::config::inverse_frequencies;
use specexit_model::head_file::HeadConfig;

use super::draft_trainer::DraftTrainer;
use super::export::{folded, head_file};
use super::options::TrainOptions;
use super::probe_trainer::ProbeTrainer;
use super::report::HeadSizes;
use super::run::{HEAD_FOLDER, Prepared, TargetFacts, finish};
use super::trainer::{Plan, Trainer};
use super::{DataReport, TrainSummary};
use crate::data::batches::{LabelLoader, Loader, output_rows, statistics};
use crate::data::examples::Example;
use crate::data::source::TargetSource;
use crate::data::states::Content;
use crate::data::vocabulary::draft_vocabulary;
use crate::error::{Result, TrainError};
use crate::net::draft::{Draft, DraftShape};
use crate::net::init::{TargetStart, fresh_params};
use crate::net::params::Param;
use crate::net::probe::ProbeKind;
use crate::ops::all_cores;
use crate::progress::Progress;
use crate::provenance::derived_seed;

/// Largest draft vocabulary unless asked for otherwise, as in published heads.
const DRAFT_VOCABULARY: usize = 32_000;

/// Trains on `data` to the end, or until the caller cancels.
pub(crate) fn run<S: TargetSource>(
    data: &Prepared<'_>,
    source: &S,
    progress: &mut dyn Progress,
) -> Result<TrainSummary> {
    let Prepared { options, facts, examples, train, held_out, .. } = data;
    let width = source.hidden_size();
    // A probe after the draft layer reads its outputs, each followed by 1.
    let after = options.probe == ProbeKind::Draft;
    let probe = data.fresh_probe(if after { width + 1 } else { 3 * width })?;
    let run = data.open_run(None)?;
    let Some(states) = data.states(source, Content::Whole, progress)? else {
        return Ok(data.unfinished(0, 0));
    };

    let of_train: Vec<&Example> = train.iter().map(|&i| &examples[i]).collect();
    let size = options.draft_vocab_size.unwrap_or(DRAFT_VOCABULARY).min(source.vocab_size());
    let always = [&facts.stop_ids[..], &data.closing].concat();
    let vocabulary = draft_vocabulary(&of_train, size, &always);
    let means = statistics(examples, train, &states, width)?;
    let rows = output_rows(source, &vocabulary);
    let shape = draft_shape(options, facts, width, vocabulary.len())?;
    let start = TargetStart {
        lm_head: &rows,
        final_rms: &means.final_rms,
        inverse_rms: &means.basis.inverse_rms,
    };
    let seed = derived_seed(options.seed, &["weights"]);
    let params = fresh_params(&shape, options.init, &start, seed);

    let kernels = all_cores();
    let inv_freq = inverse_frequencies(facts.rope_theta, shape.head_dim);
    let longest = examples.iter().map(|e| e.tokens.len()).max().unwrap_or(0);
    let steps = options.ttt_steps.max(options.report_chain);
    let rope = Arc::new(RopeTable::new(&inv_freq, longest + steps));
    let draft = Draft::new(&shape, rope, options.products, &kernels);
    let labelled = LabelLoader {
        examples,
        states: &states,
        basis: &means.basis,
        kernels: Arc::clone(&kernels),
    };
    let loader = Loader::new(&labelled, source, &vocabulary, &rows, options.products)?;
    let plan = Plan::new(options, examples, train);
    let joint = plan.joint_steps();
    let draft = DraftTrainer::new(options, &loader, &kernels, joint, draft, params, train);
    let begins = if after { joint } else { 0 };
    let probe = ProbeTrainer::new(options, &kernels, begins..plan.total(), probe);
    let parts = (&train[..], &held_out[..]);
    let mut trainer = Trainer::new(options, run, parts, &labelled, plan, Some(draft), probe);
    trainer.resume()?;
    if !trainer.run(progress)? {
        return Ok(data.unfinished(trainer.step, trainer.total()));
    }

    let quality = trainer.take_best()?;
    let report = DataReport {
        train_positions: of_train.iter().map(|e| e.queries()).sum(),
        draft_vocabulary: vocabulary.len(),
        ..data.report()
    };
    let config = head_config(data, &shape, source.vocab_size(), &report);
    let basis = match &mut trainer.draft {
        Some(draft) if after => draft.finished()?,
        _ => means.basis.clone(),
    };
    let probe = folded(&trainer.probe.probe, &basis);
    let params: &[Param] = trainer.draft.as_ref().map_or(&[], |draft| &draft.params);
    head_file(config, params, &probe, &means.basis.inverse_rms, &vocabulary)
        .save(&options.out.join(HEAD_FOLDER))?;
    let sizes = HeadSizes {
        hidden_size: shape.hidden,
        intermediate_size: shape.intermediate,
        attention_heads: shape.heads,
        key_value_heads: shape.kv_heads,
        head_dim: shape.head_dim,
    };
    finish(data, sizes, report, None, &trainer, quality)
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
    data: &Prepared<'_>,
    shape: &DraftShape,
    vocab_size: usize,
    report: &DataReport,
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
        rope_theta: data.facts.rope_theta,
        rope_scaling: None,
        max_position_embeddings: data.facts.max_positions,
        vocab_size,
        draft_vocab_size: Some(shape.vocab),
        target_hidden_size: Some(shape.hidden),
        hidden_act: "silu".to_owned(),
        tie_word_embeddings: false,
        torch_dtype: "bfloat16".to_owned(),
        specexit: Some(data.origin(report)),
    }
}
