//! Trial answers: forcing the end of thinking at cuts, several traces at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use specexit_answer::{Answer, equal, extract};
use specexit_engine::{Prefix, Sampling, Scored};
use specexit_exit::{BoundaryTable, Phase, TokenId};
use specexit_model::{ModelText, Tokenizer};

use super::cuts::{Decision, candidate_cuts, decide};
use super::record::{ConfidenceKind, Cut, LabelRecord};
use super::{LabelOptions, LabelRules, dropped, empty_record, grade};
use crate::collect::Trace;
use crate::completer::{Ask, AskId, Completer, Completion};
use crate::error::{Result, TrainError};

/// Trial answers of one trace in flight beyond the first open cut: more would often be in vain.
const AHEAD: usize = 4;

/// The labelling loop.
pub(crate) struct Labeller<'a> {
    rules: &'a LabelRules,
    batch: usize,
    completer: &'a mut dyn Completer,
    tokenizer: Arc<Tokenizer>,
    table: BoundaryTable,
    stop_ids: Vec<TokenId>,
    close_ids: Option<Vec<TokenId>>,
}

/// One trial's outcome.
struct Trial {
    cut: Cut,
    answer_ids: Vec<TokenId>,
}

/// A trace being labelled.
struct Job<'a> {
    trace: &'a Trace,
    own: Answer,
    close_ids: Vec<TokenId>,
    cuts: Vec<usize>,
    trials: Vec<Option<Trial>>,
    submitted: usize,
    /// Everything up to the end of the thought.
    read: Vec<TokenId>,
    /// The same as keys and values, where the completer keeps them.
    prefix: Option<Arc<Prefix>>,
}

impl Job<'_> {
    /// Whether the answers so far say everything that the record will.
    fn decision(&self, rules: &LabelRules) -> Decision {
        let equal: Vec<Option<bool>> =
            self.trials.iter().map(|t| t.as_ref().map(|t| t.cut.equal)).collect();
        if rules.all_cuts && equal.contains(&None) {
            return Decision::Open;
        }
        decide(&equal, rules.stable_k)
    }

    /// What a cut leaves, and the end of the thought.
    fn closed(&self, cut: usize) -> Vec<TokenId> {
        let dropped = self.trace.thought_ids().len() - self.cuts[cut];
        [&self.read[..self.read.len() - dropped], &self.close_ids].concat()
    }

    /// The next cut worth a trial now.
    fn next_cut(&self, rules: &LabelRules) -> Option<usize> {
        let open = self.trials.iter().position(Option::is_none).unwrap_or(self.trials.len());
        let window = if rules.all_cuts { usize::MAX } else { open + AHEAD + rules.stable_k };
        (self.submitted < self.cuts.len().min(window)).then_some(self.submitted)
    }
}

impl<'a> Labeller<'a> {
    pub(crate) fn new(
        options: &'a LabelOptions,
        completer: &'a mut dyn Completer,
        model: &ModelText,
    ) -> Result<Self> {
        let rules = &options.rules;
        let bytes = model.tokenizer.token_bytes(model.config.vocab_size);
        let table = BoundaryTable::new(&rules.boundaries, &bytes);
        let marker = String::from_utf8_lossy(&completer.markers().close).into_owned();
        if rules.close_text.as_ref().is_some_and(|text| !text.contains(&marker)) {
            let problem = format!("does not contain the end marker {marker}");
            return Err(TrainError::option("close_text", problem));
        }
        let close_ids =
            rules.close_text.as_ref().map(|t| model.tokenizer.encode(t, false)).transpose()?;
        Ok(Self {
            rules,
            batch: options.batch.max(1),
            completer,
            tokenizer: Arc::clone(&model.tokenizer),
            table,
            stop_ids: model.config.eos_token_ids.clone(),
            close_ids,
        })
    }

    /// Labels all traces; `done` takes each record and says whether to go on. True at the end.
    ///
    /// When one trace fails, no other trial is begun, but records whose end is in sight are kept.
    pub(crate) fn run(
        &mut self,
        traces: &[&Trace],
        mut done: impl FnMut(LabelRecord) -> Result<bool>,
    ) -> Result<bool> {
        let mut waiting = traces.iter();
        let mut jobs: VecDeque<Job<'_>> = VecDeque::new();
        let mut flying: HashMap<AskId, (usize, usize)> = HashMap::new();
        // Jobs are known by a number that outlives their place in the queue.
        let mut first_job = 0;
        let mut failure = None;
        loop {
            while flying.len() < self.batch && failure.is_none() {
                let open = jobs.iter().position(|job| job.next_cut(self.rules).is_some());
                if let Some(at) = open {
                    let (id, cut) = self.submit(&mut jobs[at])?;
                    flying.insert(id, (first_job + at, cut));
                    continue;
                }
                let Some(trace) = waiting.next() else { break };
                match dropped(trace, self.rules) {
                    Some(record) => {
                        if !done(record)? {
                            return self.stop(flying);
                        }
                    }
                    None => jobs.push_back(self.begin(trace)?),
                }
            }
            if flying.is_empty() {
                return failure.map_or(Ok(true), Err);
            }
            for (id, completion) in self.completer.finished()? {
                let Some((number, cut)) = flying.remove(&id) else { continue };
                let job = &mut jobs[number - first_job];
                let completion = match completion {
                    Ok(completion) => completion,
                    Err(error) => {
                        failure = failure.or(Some(at_trace(job.trace, error)));
                        continue;
                    }
                };
                job.trials[cut] = Some(self.judge(job, cut, &completion)?);
                if job.decision(self.rules) == Decision::Open {
                    continue;
                }
                // What is still in flight for this trace cannot change its record any more.
                let vain: Vec<AskId> =
                    flying.iter().filter(|(_, (n, _))| *n == number).map(|(id, _)| *id).collect();
                for id in vain {
                    flying.remove(&id);
                    self.completer.cancel(id);
                }
                job.submitted = job.cuts.len();
                match self.record(job).map_err(|e| at_trace(job.trace, e)) {
                    Ok(record) => {
                        if !done(record)? {
                            return self.stop(flying);
                        }
                    }
                    Err(error) => failure = failure.or(Some(error)),
                }
                let finished = |job: &Job<'_>| job.decision(self.rules) != Decision::Open;
                while jobs.front().is_some_and(finished) {
                    jobs.pop_front();
                    first_job += 1;
                }
            }
        }
    }

    fn stop(&mut self, flying: HashMap<AskId, (usize, usize)>) -> Result<bool> {
        flying.into_keys().for_each(|id| self.completer.cancel(id));
        Ok(false)
    }

    /// Reads the thought once; all its cuts start from there.
    fn begin<'t>(&mut self, trace: &'t Trace) -> Result<Job<'t>> {
        let own = extract(&trace.answer, self.rules.answer_kind)
            .ok_or_else(|| TrainError::NoData(format!("trace {} lost its answer", trace.id)))?;
        let thought = trace.thought_ids();
        let cuts = candidate_cuts(self.rules, &self.table, thought);
        let close_ids = match (&self.close_ids, trace.close) {
            (Some(ids), _) => ids.clone(),
            (None, close) => close.map_or(Vec::new(), |c| c.of(&trace.token_ids).to_vec()),
        };
        let before = trace.think.map_or(0, |span| span.start);
        let read = [&trace.prompt_ids[..], &trace.token_ids[..before], thought].concat();
        let prefix = self.completer.prefix(&read).map_err(|e| at_trace(trace, e))?;
        let trials = cuts.iter().map(|_| None).collect();
        Ok(Job { trace, own, close_ids, cuts, trials, submitted: 0, read, prefix })
    }

    fn submit(&mut self, job: &mut Job<'_>) -> Result<(AskId, usize)> {
        let cut = job.submitted;
        job.submitted += 1;
        let ask = Ask {
            prompt: job.closed(cut),
            prefix: job.prefix.clone(),
            phase: Phase::Answer,
            stop_at_close: false,
            max_new_tokens: self.rules.max_answer_tokens,
            sampling: Sampling::greedy(),
            record_logprobs: self.rules.confidence == ConfidenceKind::C1,
        };
        let id = self.completer.submit(ask).map_err(|e| at_trace(job.trace, e))?;
        Ok((id, cut))
    }

    fn judge(&self, job: &Job<'_>, cut: usize, output: &Completion) -> Result<Trial> {
        let text = self.tokenizer.decode(&output.token_ids, true)?;
        let answer = extract(&text, self.rules.answer_kind);
        let at = job.cuts[cut];
        let confidence = match self.rules.confidence {
            ConfidenceKind::C1 => self.answer_confidence(output),
            // Known once it is known which cuts the record tells.
            ConfidenceKind::C3 => None,
            ConfidenceKind::C2 => {
                let from = if cut == 0 { 0 } else { job.cuts[cut - 1] };
                paragraph_confidence(job.trace, from, at)
            }
        };
        Ok(Trial {
            cut: Cut {
                at,
                equal: answer.as_ref().is_some_and(|a| equal(a, &job.own)),
                answer: answer.map(|a| a.text),
                confidence,
                answer_tokens: output.token_ids.len(),
            },
            answer_ids: output.token_ids.clone(),
        })
    }

    /// C1: geometric mean of the probabilities of the trial answer's tokens.
    fn answer_confidence(&self, output: &Completion) -> Option<f32> {
        let ids = &output.token_ids;
        let stop = usize::from(ids.last().is_some_and(|t| self.stop_ids.contains(t)));
        let counted = &output.logprobs[..(ids.len() - stop).min(output.logprobs.len())];
        let skip = usize::from(self.rules.confidence_skip_first);
        geometric_mean(counted.iter().skip(skip).copied())
    }

    /// C3 of the first cuts: geometric mean of the probabilities of the trace's own answer after each.
    fn own_answer_confidences(&mut self, job: &Job<'_>, cuts: usize) -> Result<Vec<Option<f32>>> {
        let answer = job.trace.answer_ids();
        let stop = usize::from(answer.last().is_some_and(|t| self.stop_ids.contains(t)));
        let answer = &answer[..answer.len() - stop];
        if answer.is_empty() {
            return Ok(vec![None; cuts]);
        }
        let scored: Vec<Scored> = (0..cuts)
            .map(|cut| {
                let before = job.closed(cut);
                let tokens = [&before[..], answer].concat();
                Scored { tokens, from: before.len(), prefix: job.prefix.clone() }
            })
            .collect();
        let scores = self.completer.score(&scored)?;
        Ok(scores.into_iter().map(|scores| geometric_mean(scores.into_iter())).collect())
    }

    fn record(&mut self, job: &Job<'_>) -> Result<LabelRecord> {
        let trace = job.trace;
        let thought = trace.thought_ids();
        let (last, sufficient) = match job.decision(self.rules) {
            Decision::Sufficient(cut) => (cut, true),
            _ => (job.cuts.len() - 1, false),
        };
        // Beyond the deciding cuts, how many trials were done is a matter of chance.
        let told = if self.rules.all_cuts {
            job.cuts.len()
        } else {
            job.cuts.len().min(last + 1 + self.rules.stable_k)
        };
        let trials = job.trials[..told].iter().flatten();
        let mut cuts: Vec<Cut> = trials.map(|trial| trial.cut.clone()).collect();
        if self.rules.confidence == ConfidenceKind::C3 {
            let confidences = self.own_answer_confidences(job, told)?;
            for (cut, confidence) in cuts.iter_mut().zip(confidences) {
                cut.confidence = confidence;
            }
        }
        let answer_ids = match job.trials[last].as_ref().filter(|t| t.cut.equal) {
            Some(trial) => trial.answer_ids.clone(),
            None => trace.answer_ids().to_vec(),
        };
        // An opening marker that the target wrote itself belongs to what precedes the thought.
        let before = trace.think.map_or(0, |span| span.start);
        Ok(LabelRecord {
            answer: Some(job.own.text.clone()),
            correct: grade(trace, self.rules.answer_kind),
            full: thought.len(),
            kept: job.cuts[last],
            sufficient,
            cuts,
            prompt_ids: [&trace.prompt_ids[..], &trace.token_ids[..before]].concat(),
            thought_ids: thought[..job.cuts[last]].to_vec(),
            close_ids: job.close_ids.clone(),
            answer_ids,
            rest_ids: trace.token_ids[before + job.cuts[last]..].to_vec(),
            ..empty_record(trace)
        })
    }
}

fn at_trace(trace: &Trace, source: TrainError) -> TrainError {
    TrainError::Question { id: trace.id.clone(), source: Box::new(source) }
}

/// C2: geometric mean of the probabilities of thinking tokens `from..to`; forced ones do not count.
fn paragraph_confidence(trace: &Trace, from: usize, to: usize) -> Option<f32> {
    let start = trace.think?.start;
    let logprobs = trace.logprobs.as_ref()?.get(start + from..start + to)?;
    geometric_mean(logprobs.iter().flatten().copied())
}

/// `exp(mean(logprobs))` over those that are there.
fn geometric_mean(logprobs: impl Iterator<Item = f32>) -> Option<f32> {
    let known: Vec<f64> = logprobs.filter(|p| !p.is_nan()).map(f64::from).collect();
    if known.is_empty() {
        return None;
    }
    Some((known.iter().sum::<f64>() / known.len() as f64).exp() as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_geometric_mean_leaves_out_what_was_forced() {
        let mean = geometric_mean([0.5f32.ln(), f32::NAN, 0.125f32.ln()].into_iter()).unwrap();
        assert!((mean - 0.25).abs() < 1e-6);
        assert_eq!(geometric_mean([f32::NAN].into_iter()), None);
    }
}
