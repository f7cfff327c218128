//! `collect`: questions to traces.
//!
//! The target answers each question, thinking as long as it likes, or longer: with *budget forcing*
//! (s1, Muennighoff et al. 2025), whenever it wants to close its thought or end its output, the
//! marker is dropped and the thought goes on with a sentence such as "Wait, let me check.", up to W
//! times. The trace records where.

mod budget;
mod prompt;
mod record;
mod spans;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use specexit_answer::{AnswerKind, matches_gold};
use specexit_engine::Sampling;
use specexit_model::ModelText;

use self::budget::{Forcing, Growing, Next};
use self::spans::Spans;
use crate::completer::{AskId, Completer, Needs};
use crate::error::{Result, TrainError};
use crate::jsonl::Appender;
use crate::progress::Progress;
use crate::provenance::{ModelId, PROGRAM, derived_seed};
use crate::questions::{Question, read_questions};

pub use record::{Dropped, Span, Trace, TraceFile, TraceHeader, Wait};

/// How many waits a sample gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitCount {
    /// Always the largest number.
    #[default]
    Fixed,
    /// Drawn for each sample from 0 to the largest number, w with a weight of 1 / (w + 1): few
    /// thoughts get long, as in a true overthinker's output.
    Drawn,
}

/// How traces are made: everything that decides what a record says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CollectRules {
    /// System message, if any.
    pub system: Option<String>,
    /// Put after each question, on a line of its own.
    pub user_suffix: Option<String>,
    /// Open the thought in the prompt (`<think>` and a newline) when the template does not.
    pub think_open: bool,
    /// Passed to templates that can switch thinking on and off.
    pub enable_thinking: Option<bool>,
    /// Zero is greedy.
    pub temperature: f32,
    /// Smallest set of most probable tokens that reach this sum; 1 keeps all.
    pub top_p: f32,
    /// So many most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Tokens at least this share of the most probable one's probability; 0 keeps all.
    pub min_p: f32,
    /// Most tokens after the prompt, forced ones included.
    pub max_new_tokens: usize,
    /// A thought that is still open after so many tokens is closed with `close_text`, and the target
    /// answers: an endless thought becomes a long one with an answer to compare cuts with.
    pub max_thinking_tokens: Option<usize>,
    /// Largest number of waits W; 0 leaves the target alone.
    pub waits: usize,
    /// Whether every sample gets W waits or a number drawn for it.
    pub wait_count: WaitCount,
    /// What the thought goes on with.
    pub wait_text: String,
    /// When the target ends its output inside the thought and no wait is left: force `close_text` and
    /// let it answer.
    pub force_close: bool,
    /// What is forced then.
    pub close_text: String,
    /// Record the log probability of every token.
    pub record_logprobs: bool,
    /// Seed of sampling and of drawn waits.
    pub seed: u64,
}

impl Default for CollectRules {
    fn default() -> Self {
        Self {
            system: None,
            user_suffix: None,
            think_open: false,
            enable_thinking: None,
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            max_new_tokens: 4096,
            max_thinking_tokens: None,
            waits: 0,
            wait_count: WaitCount::default(),
            wait_text: "Wait, let me check.".to_owned(),
            force_close: true,
            close_text: "\n</think>\n\n".to_owned(),
            record_logprobs: false,
            seed: 0,
        }
    }
}

impl CollectRules {
    fn sampling(&self, seed: u64) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            seed,
        }
    }
}

/// What to collect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CollectOptions {
    /// JSONL file of questions, see [`read_questions`].
    pub questions: PathBuf,
    /// The trace file; one that exists is completed.
    pub out: PathBuf,
    /// Questions left out at the beginning.
    pub offset: usize,
    /// Most questions; all when absent.
    pub limit: Option<usize>,
    /// Samples per question.
    pub samples: usize,
    /// Samples generated together.
    pub batch: usize,
    /// Which answers count as equal to the known ones, for the summary only.
    pub answer_kind: AnswerKind,
    /// How traces are made; a file is only completed under the same rules.
    pub rules: CollectRules,
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self {
            questions: PathBuf::new(),
            out: PathBuf::new(),
            offset: 0,
            limit: None,
            samples: 1,
            batch: 8,
            answer_kind: AnswerKind::default(),
            rules: CollectRules::default(),
        }
    }
}

/// What a trace file holds after [`collect`], earlier runs included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CollectSummary {
    /// False when the caller cancelled; the same call goes on.
    pub finished: bool,
    /// Traces.
    pub traces: usize,
    /// Traces whose thought is closed.
    pub closed: usize,
    /// Traces that hit the length limit.
    pub cut_short: usize,
    /// Traces of questions with a known answer.
    pub graded: usize,
    /// Of these, right.
    pub correct: usize,
    /// All tokens after prompts.
    pub tokens: usize,
    /// All thinking tokens.
    pub thinking_tokens: usize,
    /// All waits put in.
    pub waits: usize,
}

impl CollectSummary {
    fn add(&mut self, trace: &Trace, kind: AnswerKind) {
        self.traces += 1;
        self.closed += usize::from(trace.close.is_some());
        self.cut_short += usize::from(trace.finish == specexit_engine::Finish::Length);
        self.tokens += trace.token_ids.len();
        self.thinking_tokens += trace.thought_ids().len();
        self.waits += trace.waits.len();
        if let Some(gold) = &trace.gold {
            let text = if trace.answer.is_empty() { &trace.thinking } else { &trace.answer };
            self.graded += 1;
            self.correct += usize::from(matches_gold(text, gold, kind) == Some(true));
        }
    }
}

/// A sample that is still to be generated.
struct Job {
    question: usize,
    sample: usize,
}

/// Records the target's outputs for a file of questions.
///
/// Records are appended as they are done, so a killed run loses only samples in flight; the same
/// call then goes on. What a record says does not depend on what was generated beside it, and once
/// all are there the file is put into the order of the questions.
///
/// # Errors
/// A broken question file, a trace file made under other rules (named), a full disk, or a completer
/// that cannot do what the rules ask for or fails for good. Finished traces are kept.
pub fn collect(
    options: &CollectOptions,
    completer: &mut dyn Completer,
    model: &ModelText,
    progress: &mut dyn Progress,
) -> Result<CollectSummary> {
    let questions = chosen_questions(options)?;
    let order: HashMap<&str, usize> =
        questions.iter().enumerate().map(|(i, q)| (q.id.as_str(), i)).collect();
    let rules = &options.rules;
    let needs = Needs {
        logprobs: rules.record_logprobs.then_some("record_logprobs"),
        token_limit: rules.max_thinking_tokens.map(|_| "max_thinking_tokens"),
        scores: false,
        sampling: rules.sampling(rules.seed),
    };
    let endpoint = completer.prepare(needs)?;
    let header = TraceHeader {
        format: record::FORMAT.to_owned(),
        version: record::VERSION,
        program: PROGRAM.to_owned(),
        model: ModelId::of_text(model),
        endpoint,
        arithmetic: completer.arithmetic(),
        options: rules.clone(),
    };
    let mut summary = CollectSummary::default();
    let mut done = HashSet::new();
    let seen = |trace: Trace| {
        check_question(options, &questions, &order, &trace)?;
        summary.add(&trace, options.answer_kind);
        done.insert((trace.id, trace.sample));
        Ok(())
    };
    let mut file = Appender::open(&options.out, record::FORMAT, record::VERSION, &header, seen)?;
    let mut jobs = Vec::new();
    for (question, q) in questions.iter().enumerate() {
        let samples = (0..options.samples).filter(|&s| !done.contains(&(q.id.clone(), s)));
        jobs.extend(samples.map(|sample| Job { question, sample }));
    }
    let total = questions.len() * options.samples;
    let mut ready = (total - jobs.len()) as u64;
    progress.start("collect", "traces", total as u64, ready);
    let mut collector = Collector::new(options, completer, model, &questions)?;
    collector.run(&jobs, |trace| {
        file.append(&trace)?;
        summary.add(&trace, options.answer_kind);
        ready += 1;
        progress.advance(
            ready,
            &format!("{} tokens, {} waits", trace.token_ids.len(), trace.waits.len()),
        );
        Ok(!progress.cancelled())
    })?;
    progress.finish();
    summary.finished = collector.finished;
    if summary.finished {
        let last = questions.len();
        file.sort_by_key(|trace: &Trace| {
            // Traces of questions outside the chosen range come last, by id.
            let at = order.get(trace.id.as_str()).copied().unwrap_or(last);
            (at, trace.id.clone(), trace.sample)
        })?;
    }
    Ok(summary)
}

fn chosen_questions(options: &CollectOptions) -> Result<Vec<Question>> {
    let all = read_questions(&options.questions)?;
    let count = all.len();
    let limit = options.limit.unwrap_or(usize::MAX);
    let chosen: Vec<Question> = all.into_iter().skip(options.offset).take(limit).collect();
    if chosen.is_empty() || options.samples == 0 {
        return Err(TrainError::NoData(format!(
            "offset {} and limit {limit} with {} samples leave nothing of the {count} questions in {}",
            options.offset,
            options.samples,
            options.questions.display()
        )));
    }
    Ok(chosen)
}

/// A trace of a question that now reads differently would be silently mixed in otherwise.
fn check_question(
    options: &CollectOptions,
    questions: &[Question],
    order: &HashMap<&str, usize>,
    trace: &Trace,
) -> Result<()> {
    match order.get(trace.id.as_str()) {
        Some(&at) if questions[at].question != trace.question => Err(TrainError::Mismatch {
            path: options.out.clone(),
            field: format!("question {}", trace.id),
            found: format!("{:?}", trace.question),
            expected: format!("{:?}", questions[at].question),
            advice: "these are other questions under the same ids; choose another output"
                .to_owned(),
        }),
        _ => Ok(()),
    }
}

/// The generating loop.
struct Collector<'a> {
    options: &'a CollectOptions,
    completer: &'a mut dyn Completer,
    model: &'a ModelText,
    questions: &'a [Question],
    forcing: Forcing,
    spans: Spans,
    finished: bool,
}

impl<'a> Collector<'a> {
    fn new(
        options: &'a CollectOptions,
        completer: &'a mut dyn Completer,
        model: &'a ModelText,
        questions: &'a [Question],
    ) -> Result<Self> {
        let markers = completer.markers();
        let forcing = Forcing::new(&options.rules, model, markers, completer.context())?;
        let spans = Spans::new(model, markers)?;
        Ok(Self { options, completer, model, questions, forcing, spans, finished: false })
    }

    /// Generates all jobs, `batch` at a time; `done` takes each trace and says whether to go on.
    ///
    /// When one sample fails, no other is begun, but those whose end is in sight are kept.
    fn run(&mut self, jobs: &[Job], mut done: impl FnMut(Trace) -> Result<bool>) -> Result<()> {
        let mut waiting = jobs.iter();
        let mut running: HashMap<AskId, (&Job, Growing)> = HashMap::new();
        let mut failure = None;
        loop {
            while running.len() < self.options.batch.max(1) && failure.is_none() {
                let Some(job) = waiting.next() else { break };
                let begun = self.begin(job).map(|growing| (job, growing));
                failure = begun.and_then(|begun| self.submit(begun, &mut running)).err();
            }
            if running.is_empty() {
                self.finished = failure.is_none();
                return failure.map_or(Ok(()), Err);
            }
            for (id, completion) in self.completer.finished()? {
                let Some((job, mut growing)) = running.remove(&id) else { continue };
                let next = completion
                    .and_then(|completion| self.forcing.advance(&mut growing, &completion))
                    .map_err(|e| self.at_question(job, e));
                match next {
                    Ok(Next::Segment) if failure.is_none() => {
                        failure = self.submit((job, growing), &mut running).err();
                    }
                    Ok(Next::Segment) => {}
                    Ok(Next::Finished(finish)) => {
                        let trace = self.trace(job, growing, finish)?;
                        if !done(trace)? {
                            running.into_keys().for_each(|id| self.completer.cancel(id));
                            return Ok(());
                        }
                    }
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
        }
    }

    fn begin(&self, job: &Job) -> Result<Growing> {
        let question = &self.questions[job.question];
        let rules = &self.options.rules;
        let prompt = prompt::render(rules, self.model, self.completer.markers(), question)?;
        let sample = job.sample.to_string();
        let seed = derived_seed(rules.seed, &[&question.id, &sample]);
        Ok(Growing::new(prompt, seed, rules))
    }

    fn submit<'j>(
        &mut self,
        (job, growing): (&'j Job, Growing),
        running: &mut HashMap<AskId, (&'j Job, Growing)>,
    ) -> Result<()> {
        let ask = self.forcing.ask(&growing);
        let id = self.completer.submit(ask).map_err(|e| self.at_question(job, e))?;
        running.insert(id, (job, growing));
        Ok(())
    }

    fn at_question(&self, job: &Job, source: TrainError) -> TrainError {
        let id = self.questions[job.question].id.clone();
        TrainError::Question { id, source: Box::new(source) }
    }

    fn trace(&self, job: &Job, growing: Growing, finish: specexit_engine::Finish) -> Result<Trace> {
        let question = &self.questions[job.question];
        let found = self.spans.find(&growing.token_ids, growing.prompt.phase)?;
        let text = |ids: &[u32]| self.model.tokenizer.decode(ids, true);
        let think = found.think.map_or(&[][..], |span| span.of(&growing.token_ids));
        let answer = match (found.think, found.close) {
            (_, Some(close)) => &growing.token_ids[close.end..],
            (None, None) => &growing.token_ids[..],
            (Some(_), None) => &[],
        };
        Ok(Trace {
            id: question.id.clone(),
            sample: job.sample,
            question: question.question.clone(),
            gold: question.gold.clone(),
            thinking: text(think)?,
            answer: text(answer)?,
            think: found.think,
            close: found.close,
            prompt: growing.prompt.text,
            prompt_ids: growing.prompt.ids,
            token_ids: growing.token_ids,
            finish,
            waits_wanted: growing.waits_wanted,
            waits: growing.waits,
            forced_close: growing.forced_close,
            logprobs: self.options.rules.record_logprobs.then_some(growing.logprobs),
        })
    }
}
