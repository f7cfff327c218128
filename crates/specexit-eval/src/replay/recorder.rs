//! Making recordings: every question once to its end, then closed at each boundary.

use std::path::Path;

use serde_json::{Value, json};
use specexit_engine::{Engine, Finish, Method, Output, Phase, Request, TokenId};
use specexit_model::{Model, Target};
use specexit_train::{PROGRAM, Progress, jsonl::Appender};

use super::recording::{Closed, RECORDINGS_FORMAT, RECORDINGS_VERSION, Recording};
use crate::compare::{Task, named, tasks_hash};
use crate::error::{EvalError, Result};
use crate::grading::grade;
use crate::statistics::mean;

/// How recordings are made.
#[derive(Clone)]
pub struct RecordOptions {
    /// Lengths, closing sentence and boundaries (those of its policy) of all requests.
    pub request: Request,
    /// Questions worked on together.
    pub batch: usize,
}

/// Records `tasks` into the file `out`, or goes on with it; those recorded, in the order of the tasks.
/// Fewer than all are there only when the caller cancelled.
///
/// # Errors
/// Sampling instead of greedy decoding, a file begun with other settings, or a failing model.
pub fn record(
    engine: &mut Engine,
    model: &Model,
    tasks: &[Task],
    options: &RecordOptions,
    out: &Path,
    progress: &mut dyn Progress,
) -> Result<Vec<Recording>> {
    if tasks.is_empty() {
        return Err(EvalError::Nothing("there is no question to record".to_owned()));
    }
    if options.request.sampling.temperature > 0.0 {
        let problem = "what a thought would have become can only be recorded under greedy decoding; \
                       set the temperature to 0";
        return Err(EvalError::Nothing(problem.to_owned()));
    }
    let header = header(model, tasks, options);
    let (mut file, mut found): (_, Vec<Recording>) =
        Appender::resume(out, RECORDINGS_FORMAT, RECORDINGS_VERSION, &header)?;
    progress.start("record", "questions", tasks.len() as u64, found.len() as u64);
    let known = |found: &[Recording], task: &Task| found.iter().any(|r| r.question == task.id);
    let open: Vec<&Task> = tasks.iter().filter(|task| !known(&found, task)).collect();
    for together in open.chunks(options.batch.max(1)) {
        for recording in record_together(engine, model, together, options)? {
            file.append(&recording)?;
            found.push(recording);
            progress.advance(found.len() as u64, "");
        }
        if progress.cancelled() {
            break;
        }
    }
    progress.finish();
    let place = |r: &Recording| tasks.iter().position(|task| task.id == r.question);
    found.sort_by_cached_key(place);
    Ok(found)
}

fn record_together(
    engine: &mut Engine,
    model: &Model,
    tasks: &[&Task],
    options: &RecordOptions,
) -> Result<Vec<Recording>> {
    let plain = |task: &&Task| Request {
        prompt: task.prompt.clone(),
        phase: task.phase,
        method: Method::Plain,
        policy: None,
        thinking_budget: None,
        ..options.request.clone()
    };
    let whole = run(engine, tasks.iter().map(plain).collect())?;
    let mut recordings = Vec::with_capacity(tasks.len());
    let (mut cuts, mut requests) = (Vec::new(), Vec::new());
    for (number, (task, output)) in tasks.iter().zip(&whole).enumerate() {
        let of = open_cuts(engine, task, output, &options.request)?;
        if let Some(last) = of.last() {
            // All cuts of a question read the same thought once.
            let read = [&task.prompt[..], &output.token_ids[..last.at]].concat();
            let prefix = Some(engine.prefix(&read)?);
            let answered = of.iter().filter(|cut| cut.room > 0);
            requests.extend(answered.map(|cut| Request {
                prefix: prefix.clone(),
                ..cut.request(task, output, &options.request)
            }));
        }
        cuts.extend(of.into_iter().map(|cut| (number, cut)));
        let graded = grade(model, engine.markers(), task, &output.token_ids)?;
        recordings.push(Recording {
            question: task.id.clone(),
            group: task.group.clone(),
            prompt_ids: task.prompt.clone(),
            phase: task.phase,
            token_ids: output.token_ids.clone(),
            finish: output.finish,
            thinking_tokens: output.thinking_tokens,
            answer: graded.answer,
            correct: graded.correct,
            closed: Vec::new(),
        });
    }
    let mut outputs = run(engine, requests)?.into_iter();
    for (number, cut) in cuts {
        let after = if cut.room > 0 { outputs.next() } else { None };
        let confidence = after.as_ref().and_then(answer_confidence);
        let entropy = after.as_ref().and_then(|output| output.first_entropy);
        let (ids, finish) = after.map_or((Vec::new(), Finish::Length), |o| (o.token_ids, o.finish));
        let mut token_ids = [&cut.forced[..], &ids].concat();
        token_ids.truncate(cut.limit);
        let recording = &mut recordings[number];
        let all = [&recording.token_ids[..cut.at], &token_ids].concat();
        let graded = grade(model, engine.markers(), tasks[number], &all)?;
        recording.closed.push(Closed {
            at: cut.at,
            written: ids.len(),
            token_ids,
            thinking_tokens: cut.thinking_tokens,
            finish,
            answer: graded.answer,
            correct: graded.correct,
            confidence,
            entropy,
        });
    }
    Ok(recordings)
}

/// Geometric mean of the probabilities of an output's tokens, a final stop token left out.
pub(crate) fn answer_confidence(output: &Output) -> Option<f32> {
    let stop = usize::from(output.finish == Finish::Stop);
    let known = &output.logprobs[..output.logprobs.len().saturating_sub(stop)];
    let known: Vec<f64> = known.iter().filter(|p| !p.is_nan()).map(|p| f64::from(*p)).collect();
    (!known.is_empty()).then(|| mean(&known).exp() as f32)
}

/// Serves all requests; their outputs in order.
fn run(engine: &mut Engine, requests: Vec<Request>) -> Result<Vec<Output>> {
    let mut outputs: Vec<Option<Output>> = requests.iter().map(|_| None).collect();
    engine.run_all(requests, |index, output| outputs[index] = Some(output))?;
    Ok(outputs.into_iter().flatten().collect())
}

/// A boundary at which the thought can be closed.
struct Cut {
    /// Generated tokens that stay.
    at: usize,
    /// Closing sentence and end-of-thinking marker.
    forced: Vec<TokenId>,
    /// Tokens inside the span, those of the closing sentence included.
    thinking_tokens: usize,
    /// Tokens that may follow what stays.
    limit: usize,
    /// Those left for the answer.
    room: usize,
}

impl Cut {
    fn request(&self, task: &Task, output: &Output, base: &Request) -> Request {
        Request {
            prompt: [&task.prompt[..], &output.token_ids[..self.at], &self.forced].concat(),
            phase: Phase::Answer,
            method: Method::Plain,
            policy: None,
            thinking_budget: None,
            max_new_tokens: self.room,
            record_logprobs: true,
            ..base.clone()
        }
    }
}

fn open_cuts(
    engine: &mut Engine,
    task: &Task,
    output: &Output,
    base: &Request,
) -> Result<Vec<Cut>> {
    let Some((&last, run)) = output.token_ids.split_last() else { return Ok(Vec::new()) };
    let asked = Request { prompt: task.prompt.clone(), phase: task.phase, ..base.clone() };
    let thought = engine.thought(&asked)?;
    let config = thought.config();
    let forced = [&config.closing[..], &config.markers.close_ids].concat();
    let context = engine.target().config.max_position_embeddings;
    let most = base.max_new_tokens.min(context.saturating_sub(task.prompt.len()));
    let cuts = thought.ahead(run, last).into_iter().enumerate();
    let cuts = cuts.filter(|(_, ahead)| ahead.boundary && !ahead.closing).map(|(i, ahead)| {
        let limit = most.saturating_sub(i + 1);
        Cut {
            at: i + 1,
            thinking_tokens: ahead.thinking_tokens + config.closing.len(),
            limit,
            room: limit.saturating_sub(forced.len()),
            forced: forced.clone(),
        }
    });
    Ok(cuts.collect())
}

/// Everything that a recording depends on.
fn header(model: &Model, tasks: &[Task], options: &RecordOptions) -> Value {
    let r = &options.request;
    let mut header = json!({
        "format": RECORDINGS_FORMAT,
        "version": RECORDINGS_VERSION,
        "program": PROGRAM,
        "model": named(model),
        "tokenizer_hash": model.tokenizer.hash(),
        "tasks": {"count": tasks.len(), "hash": tasks_hash(tasks)},
        "boundaries": r.policy.as_ref().map(|policy| &policy.boundaries),
        "closing_text": r.closing_text,
        "max_new_tokens": r.max_new_tokens,
    });
    name_arithmetic(&mut header, &model.target);
    header
}

/// Names what `target` computes in, unless that is bf16.
pub(super) fn name_arithmetic(header: &mut Value, target: &Target) {
    if let Some(arithmetic) = target.kernels().arithmetic() {
        header["arithmetic"] = arithmetic.into();
    }
}
