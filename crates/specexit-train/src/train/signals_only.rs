//! A run that gives a finished head a probe, or another one, and changes nothing else of it.

use std::path::Path;
use std::sync::Arc;

use specexit_model::RawHead;

use super::export::folded;
use super::probe_trainer::ProbeTrainer;
use super::report::HeadSizes;
use super::run::{HEAD_FOLDER, Prepared, finish};
use super::trainer::{Plan, Trainer};
use super::{DataReport, TrainSummary};
use crate::data::batches::{LabelLoader, labelled_basis};
use crate::data::source::TargetSource;
use crate::data::states::Content;
use crate::error::Result;
use crate::ops::all_cores;
use crate::progress::Progress;

/// Opens the head in `folder`, which must be one for the target.
pub(crate) fn open<S: TargetSource>(folder: &Path, source: &S, hash: &str) -> Result<RawHead> {
    let head = RawHead::open(folder)?;
    head.check_target(source.hidden_size(), source.vocab_size(), hash)?;
    Ok(head)
}

/// Trains a probe for `head` on `data` to the end, or until the caller cancels.
pub(crate) fn run<S: TargetSource>(
    data: &Prepared<'_>,
    head: &RawHead,
    source: &S,
    progress: &mut dyn Progress,
) -> Result<TrainSummary> {
    let Prepared { options, examples, train, held_out, .. } = data;
    let width = source.hidden_size();
    let probe = data.fresh_probe(3 * width)?;
    let base = head.hash();
    let run = data.open_run(Some(&base))?;
    let Some(states) = data.states(source, Content::Labelled, progress)? else {
        return Ok(data.unfinished(0, 0));
    };
    let basis = labelled_basis(train, &states, width)?;
    let kernels = all_cores();
    let loader =
        LabelLoader { examples, states: &states, basis: &basis, kernels: Arc::clone(&kernels) };
    let plan = Plan::new(options, examples, train);
    let probe = ProbeTrainer::new(options, &kernels, 0..plan.total(), probe);
    let parts = (&train[..], &held_out[..]);
    let mut trainer = Trainer::new(options, run, parts, &loader, plan, None, probe);
    trainer.resume()?;
    if !trainer.run(progress)? {
        return Ok(data.unfinished(trainer.step, trainer.total()));
    }

    let quality = trainer.take_best()?;
    let config = &head.config;
    let report = DataReport { draft_vocabulary: config.draft_vocab(), ..data.report() };
    let probe = folded(&trainer.probe.probe, &basis);
    head.save_with_probe(&options.out.join(HEAD_FOLDER), &probe, &data.origin(&report))?;
    let sizes = HeadSizes {
        hidden_size: config.hidden_size,
        intermediate_size: config.intermediate_size,
        attention_heads: config.num_attention_heads,
        key_value_heads: config.kv_heads(),
        head_dim: config.head_dim(),
    };
    finish(data, sizes, report, Some(base), &trainer, quality)
}
