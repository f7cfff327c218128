//! `label`: traces to labels.
//!
//! At boundaries inside each recorded thought the end-of-thinking marker is forced and the target
//! answers, greedily and briefly. The earliest boundary whose answer equals the trace's *own* answer
//! is the earliest sufficient cut n; labels are derived from it as in SpecExit (arXiv 2509.24248). Boundaries are
//! those of the exit rules, token by token, so that cuts in training and at run time coincide.

mod cuts;
mod record;
mod trial;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use specexit_answer::{AnswerKind, extract, matches_gold};
use specexit_engine::{Finish, Sampling};
use specexit_exit::BoundaryRules;
use specexit_model::ModelText;
use specexit_model::hash::sha256_hex;

use self::trial::Labeller;
use crate::collect::{Trace, TraceFile};
use crate::completer::{Completer, Needs};
use crate::error::{Result, TrainError};
use crate::jsonl::Appender;
use crate::progress::Progress;
use crate::provenance::{ModelId, PROGRAM};

pub use record::{
    ConfidenceKind, Cut, DropReason, LabelFile, LabelHeader, LabelRecord, ProgressNorm,
};

/// How labels are made: everything that decides what a record says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelRules {
    /// Where a thought may be cut.
    pub boundaries: BoundaryRules,
    /// Try every so many boundaries only.
    pub stride: usize,
    /// Most cuts per trace, spread evenly; all when absent.
    pub max_cuts: Option<usize>,
    /// Try all cuts instead of stopping at the earliest sufficient one: for ablations and negatives.
    pub all_cuts: bool,
    /// How many further cuts must give the same answer before one counts as sufficient; 0 takes the
    /// first match.
    pub stable_k: usize,
    /// Longest trial answer, in tokens.
    pub max_answer_tokens: usize,
    /// What is written to end the thought; what the trace itself has when absent.
    pub close_text: Option<String>,
    /// What sort of answer the questions have.
    pub answer_kind: AnswerKind,
    /// Use only traces whose own answer is the known one.
    pub only_correct: bool,
    /// Which tokens' probabilities the confidence averages. Geometric mean of the target's
    /// probabilities at temperature 1; the end of sequence does not count.
    pub confidence: ConfidenceKind,
    /// Leave the first token of the trial answer out of C1, as DEER does.
    pub confidence_skip_first: bool,
    /// What progress is relative to.
    pub progress_norm: ProgressNorm,
}

impl Default for LabelRules {
    fn default() -> Self {
        Self {
            boundaries: BoundaryRules { blank_line: true, ..BoundaryRules::default() },
            stride: 1,
            max_cuts: None,
            all_cuts: false,
            stable_k: 0,
            max_answer_tokens: 256,
            close_text: None,
            answer_kind: AnswerKind::default(),
            only_correct: false,
            confidence: ConfidenceKind::default(),
            confidence_skip_first: false,
            progress_norm: ProgressNorm::default(),
        }
    }
}

/// What to label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelOptions {
    /// The trace file.
    pub traces: PathBuf,
    /// The label file; one that exists is completed.
    pub out: PathBuf,
    /// Most traces; all when absent.
    pub limit: Option<usize>,
    /// Trial answers generated together.
    pub batch: usize,
    /// How labels are made; a file is only completed under the same rules.
    pub rules: LabelRules,
}

impl Default for LabelOptions {
    fn default() -> Self {
        Self {
            traces: PathBuf::new(),
            out: PathBuf::new(),
            limit: None,
            batch: 8,
            rules: LabelRules::default(),
        }
    }
}

/// What a label file holds after [`label`], earlier runs included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LabelSummary {
    /// False when the caller cancelled; the same call goes on.
    pub finished: bool,
    /// Traces looked at.
    pub traces: usize,
    /// Traces with labels.
    pub labelled: usize,
    /// Traces dropped, by reason.
    pub dropped: Vec<(DropReason, usize)>,
    /// Labelled traces that have a sufficient cut before their own end.
    pub shortened: usize,
    /// Thinking tokens of the labelled traces.
    pub thinking_tokens: usize,
    /// Thinking tokens kept, the sum of all n.
    pub kept_tokens: usize,
    /// Cuts tried.
    pub cuts: usize,
}

impl LabelSummary {
    fn add(&mut self, record: &LabelRecord) {
        self.traces += 1;
        if let Some(reason) = record.dropped {
            match self.dropped.iter_mut().find(|(r, _)| *r == reason) {
                Some((_, count)) => *count += 1,
                None => self.dropped.push((reason, 1)),
            }
            return;
        }
        self.labelled += 1;
        self.shortened += usize::from(record.sufficient && record.kept < record.full);
        self.thinking_tokens += record.full;
        self.kept_tokens += record.kept;
        self.cuts += record.cuts.len();
    }
}

/// Finds the earliest sufficient cut of every trace.
///
/// Records are appended as they are done; a killed run loses only traces in flight, and the same call
/// goes on. Once all are there, the file is put into the order of the traces.
///
/// # Errors
/// Traces of another model, a label file made under other rules (named), a confidence that the traces
/// or the completer do not allow, a completer that fails for good, or a full disk. Finished records
/// are kept.
pub fn label(
    options: &LabelOptions,
    completer: &mut dyn Completer,
    model: &ModelText,
    progress: &mut dyn Progress,
) -> Result<LabelSummary> {
    let traces = TraceFile::open(&options.traces)?;
    let id = ModelId::of_text(model);
    if let Some((field, found, expected)) = traces.header.model.difference(&id) {
        return Err(TrainError::Mismatch {
            path: options.traces.clone(),
            field: field.to_owned(),
            found,
            expected,
            advice: "label traces with the model that wrote them".to_owned(),
        });
    }
    check_rules(&options.rules, traces.header.options.record_logprobs)?;
    let confidence = options.rules.confidence;
    let endpoint = completer.prepare(Needs {
        logprobs: (confidence == ConfidenceKind::C1).then_some("confidence"),
        token_limit: None,
        scores: confidence == ConfidenceKind::C3,
        sampling: Sampling::greedy(),
    })?;
    let traces_header = serde_json::to_vec(&traces.header).unwrap_or_default();
    let header = LabelHeader {
        format: record::FORMAT.to_owned(),
        version: record::VERSION,
        program: PROGRAM.to_owned(),
        model: id,
        endpoint,
        arithmetic: completer.arithmetic(),
        traces_header: sha256_hex(&traces_header),
        options: options.rules.clone(),
    };
    let traces: Vec<Trace> =
        traces.take(options.limit.unwrap_or(usize::MAX)).collect::<Result<_>>()?;
    if traces.is_empty() {
        let path = options.traces.display();
        return Err(TrainError::NoData(format!("{path} holds no trace to label")));
    }
    let order: HashMap<(&str, usize), usize> =
        traces.iter().enumerate().map(|(i, t)| ((t.id.as_str(), t.sample), i)).collect();
    let mut summary = LabelSummary::default();
    let mut done = HashSet::new();
    let seen = |record: LabelRecord| {
        let Some(&at) = order.get(&(record.id.as_str(), record.sample)) else { return Ok(()) };
        check_trace(options, &traces[at], &record)?;
        summary.add(&record);
        done.insert(at);
        Ok(())
    };
    let mut file = Appender::open(&options.out, record::FORMAT, record::VERSION, &header, seen)?;
    let todo: Vec<&Trace> =
        traces.iter().enumerate().filter(|(i, _)| !done.contains(i)).map(|(_, t)| t).collect();
    let mut ready = done.len() as u64;
    progress.start("label", "traces", traces.len() as u64, ready);
    let mut labeller = Labeller::new(options, completer, model)?;
    summary.finished = labeller.run(&todo, |record| {
        file.append(&record)?;
        summary.add(&record);
        ready += 1;
        let share = 100.0 * summary.kept_tokens as f64 / summary.thinking_tokens.max(1) as f64;
        progress.advance(ready, &format!("{share:.0} % of thinking kept"));
        Ok(!progress.cancelled())
    })?;
    progress.finish();
    if summary.finished {
        file.sort_by_key(|record: &LabelRecord| {
            let at = order.get(&(record.id.as_str(), record.sample)).copied();
            (at.unwrap_or(traces.len()), record.id.clone(), record.sample)
        })?;
    }
    Ok(summary)
}

fn check_rules(rules: &LabelRules, logprobs: bool) -> Result<()> {
    match rules.confidence {
        ConfidenceKind::C2 if !logprobs => Err(TrainError::option(
            "confidence",
            "= C2 averages the probabilities of thinking tokens, which these traces do not have; \
             collect them with record_logprobs, or use C1",
        )),
        _ if rules.stride == 0 => {
            Err(TrainError::option("stride", "= 0; use 1 for every boundary"))
        }
        _ if rules.max_cuts == Some(0) => {
            Err(TrainError::option("max_cuts", "= 0; leave it out for no limit"))
        }
        _ if rules.max_answer_tokens == 0 => {
            Err(TrainError::option("max_answer_tokens", "= 0; a trial answer needs tokens"))
        }
        _ => Ok(()),
    }
}

fn check_trace(options: &LabelOptions, trace: &Trace, record: &LabelRecord) -> Result<()> {
    if trace.hash() == record.trace_hash {
        return Ok(());
    }
    Err(TrainError::Mismatch {
        path: options.out.clone(),
        field: format!("trace {} sample {}", record.id, record.sample),
        found: record.trace_hash.clone(),
        expected: trace.hash(),
        advice: "its labels are of another trace of this question; choose another output"
            .to_owned(),
    })
}

/// A record without labels, or `None` when the trace can be labelled.
fn dropped(trace: &Trace, rules: &LabelRules) -> Option<LabelRecord> {
    let mut record = empty_record(trace);
    let own = extract(&trace.answer, rules.answer_kind);
    let correct = grade(trace, rules.answer_kind);
    record.answer = own.map(|a| a.text);
    record.correct = correct;
    record.dropped = match trace {
        _ if trace.finish == Finish::Length => Some(DropReason::Length),
        _ if trace.close.is_none() => Some(DropReason::NoClose),
        _ if trace.thought_ids().is_empty() => Some(DropReason::NoThought),
        _ if record.answer.is_none() => Some(DropReason::NoAnswer),
        _ if rules.only_correct && correct != Some(true) => Some(DropReason::NotCorrect),
        _ => None,
    };
    record.dropped.is_some().then_some(record)
}

/// Whether the trace's own answer is the known one, where that can be said.
fn grade(trace: &Trace, kind: AnswerKind) -> Option<bool> {
    matches_gold(&trace.answer, trace.gold.as_ref()?, kind)
}

fn empty_record(trace: &Trace) -> LabelRecord {
    LabelRecord {
        id: trace.id.clone(),
        sample: trace.sample,
        trace_hash: trace.hash(),
        dropped: None,
        answer: None,
        gold: trace.gold.clone(),
        correct: None,
        full: 0,
        kept: 0,
        sufficient: false,
        cuts: Vec::new(),
        prompt_ids: Vec::new(),
        thought_ids: Vec::new(),
        close_ids: Vec::new(),
        answer_ids: Vec::new(),
        rest_ids: Vec::new(),
    }
}
