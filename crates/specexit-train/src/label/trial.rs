//! Trial answers: forcing the end of thinking at cuts, several traces at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use specexit_answer::{Answer, equal, extract};
use specexit_engine::{Engine, Event, Output, Prefix, Request, RequestId};
use specexit_exit::{BoundaryTable, Phase, TokenId};
use specexit_model::{Model, Tokenizer};

use super::cuts::{Decision, candidate_cuts, decide};
use super::record::{ConfidenceKind, Cut, LabelRecord};
use super::{LabelOptions, LabelRules, dropped, empty_record, grade};
use crate::collect::Trace;
use crate::error::{Result, TrainError};

/// Trial answers of one trace in flight beyond the first open cut: more would often be in vain.
const AHEAD: usize = 4;

/// The labelling loop.
pub(crate) struct Labeller<'a> {
    rules: &'a LabelRules,
    batch: usize,
    engine: &'a mut Engine,
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
    prefix: Arc<Prefix>,
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
        engine: &'a mut Engine,
        model: &Model,
    ) -> Result<Self> {
        let rules = &options.rules;
        let bytes = model.tokenizer.token_bytes(model.target.config.vocab_size);
        let table = BoundaryTable::new(&rules.boundaries, &bytes);
        let marker = String::from_utf8_lossy(&engine.markers().close).into_owned();
        if rules.close_text.as_ref().is_some_and(|text| !text.contains(&marker)) {
            let problem = format!("does not contain the end marker {marker}");
            return Err(TrainError::option("close_text", problem));
        }
        let close_ids =
            rules.close_text.as_ref().map(|t| model.tokenizer.encode(t, false)).transpose()?;
        Ok(Self {
            rules,
            batch: options.batch.max(1),
            engine,
            tokenizer: Arc::clone(&model.tokenizer),
            table,
            stop_ids: model.target.config.eos_token_ids.clone(),
            close_ids,
        })
    }

    /// Labels all traces; `done` takes each record and says whether to go on. True at the end.
    pub(crate) fn run(
        &mut self,
        traces: &[&Trace],
        mut done: impl FnMut(LabelRecord) -> Result<bool>,
    ) -> Result<bool> {
        let mut waiting = traces.iter();
        let mut jobs: VecDeque<Job<'_>> = VecDeque::new();
        let mut flying: HashMap<RequestId, (usize, usize)> = HashMap::new();
        // Jobs are known by a number that outlives their place in the queue.
        let mut first_job = 0;
        loop {
            while flying.len() < self.batch {
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
                return Ok(true);
            }
            for event in self.engine.step()? {
                let Event::Done(output) = event else { continue };
                let Some((number, cut)) = flying.remove(&output.id) else { continue };
                let job = &mut jobs[number - first_job];
                job.trials[cut] = Some(self.judge(job, cut, &output)?);
                if job.decision(self.rules) == Decision::Open {
                    continue;
                }
                // What is still in flight for this trace cannot change its record any more.
                let vain: Vec<RequestId> =
                    flying.iter().filter(|(_, (n, _))| *n == number).map(|(id, _)| *id).collect();
                for id in vain {
                    flying.remove(&id);
                    self.cancel(id);
                }
                job.submitted = job.cuts.len();
                if !done(self.record(job))? {
                    return self.stop(flying);
                }
                let finished = |job: &Job<'_>| job.decision(self.rules) != Decision::Open;
                while jobs.front().is_some_and(finished) {
                    jobs.pop_front();
                    first_job += 1;
                }
            }
        }
    }

    fn stop(&mut self, flying: HashMap<RequestId, (usize, usize)>) -> Result<bool> {
        flying.into_keys().for_each(|id| self.cancel(id));
        Ok(false)
    }

    /// Drops a request; one that ended in this very step is gone already.
    fn cancel(&mut self, id: RequestId) {
        let _ = self.engine.cancel(id);
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
        let prompt = [&trace.prompt_ids[..], &trace.token_ids[..before], thought].concat();
        let prefix = self.engine.prefix(&prompt).map_err(|e| at_trace(trace, e.into()))?;
        let trials = cuts.iter().map(|_| None).collect();
        Ok(Job { trace, own, close_ids, cuts, trials, submitted: 0, prefix })
    }

    fn submit(&mut self, job: &mut Job<'_>) -> Result<(RequestId, usize)> {
        let cut = job.submitted;
        job.submitted += 1;
        let thought = job.trace.thought_ids().len();
        let read = job.prefix.tokens();
        let kept = &read[..read.len() - thought + job.cuts[cut]];
        let prompt = [kept, &job.close_ids].concat();
        let request = Request {
            prefix: Some(Arc::clone(&job.prefix)),
            phase: Phase::Answer,
            record_logprobs: self.rules.confidence == ConfidenceKind::C1,
            ..Request::new(prompt, self.rules.max_answer_tokens)
        };
        let id = self.engine.submit(request).map_err(|e| at_trace(job.trace, e.into()))?;
        Ok((id, cut))
    }

    fn judge(&self, job: &Job<'_>, cut: usize, output: &Output) -> Result<Trial> {
        let text = self.tokenizer.decode(&output.token_ids, true)?;
        let answer = extract(&text, self.rules.answer_kind);
        let at = job.cuts[cut];
        let confidence = match self.rules.confidence {
            ConfidenceKind::C1 => self.answer_confidence(output),
            _ => {
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
    fn answer_confidence(&self, output: &Output) -> Option<f32> {
        let ids = &output.token_ids;
        let stop = usize::from(ids.last().is_some_and(|t| self.stop_ids.contains(t)));
        let counted = &output.logprobs[..(ids.len() - stop).min(output.logprobs.len())];
        let skip = usize::from(self.rules.confidence_skip_first);
        geometric_mean(counted.iter().skip(skip).copied())
    }

    fn record(&self, job: &Job<'_>) -> LabelRecord {
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
        let trials: Vec<&Trial> = job.trials[..told].iter().flatten().collect();
        let answer_ids = match job.trials[last].as_ref().filter(|t| t.cut.equal) {
            Some(trial) => trial.answer_ids.clone(),
            None => trace.answer_ids().to_vec(),
        };
        // An opening marker that the target wrote itself belongs to what precedes the thought.
        let before = trace.think.map_or(0, |span| span.start);
        LabelRecord {
            answer: Some(job.own.text.clone()),
            correct: grade(trace, self.rules.answer_kind),
            full: thought.len(),
            kept: job.cuts[last],
            sufficient,
            cuts: trials.iter().map(|t| t.cut.clone()).collect(),
            prompt_ids: [&trace.prompt_ids[..], &trace.token_ids[..before]].concat(),
            thought_ids: thought[..job.cuts[last]].to_vec(),
            close_ids: job.close_ids.clone(),
            answer_ids,
            rest_ids: trace.token_ids[before + job.cuts[last]..].to_vec(),
            ..empty_record(trace)
        }
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
