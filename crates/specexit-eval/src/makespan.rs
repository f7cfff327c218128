//! How long all questions take when several are answered at a time.

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use specexit_engine::{Engine, Event, Request};
use specexit_train::Progress;
use specexit_train::jsonl::Appender;

use crate::compare::{Subject, Task, settings, warm_up};
use crate::error::{EvalError, Result};
use crate::evaluation::Together;
use crate::method::MethodSpec;

/// The value of `format` in the header of a file of makespans.
const FORMAT: &str = "specexit-makespans";
/// The version of that format.
const VERSION: u32 = 1;

/// A method's time for all questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Makespan {
    /// The method.
    pub method: String,
    /// Its time.
    #[serde(flatten)]
    pub time: Together,
}

/// Answers all `tasks` by each of `methods`, so many at a time as each of `concurrencies` says, and keeps the
/// times in the file `out`; those that it holds are not measured again. Methods that probe are left out:
/// their trials are requests beside the thought, and what is at a time would mean something else.
///
/// Fewer times than asked for are there only when the caller cancelled.
///
/// # Errors
/// No question at a time, or more than the engine has room for; a file begun with other settings, or a
/// failing model.
pub fn makespans(
    engine: &mut Engine,
    subject: &Subject<'_>,
    tasks: &[Task],
    methods: &[MethodSpec],
    concurrencies: &[usize],
    out: &Path,
    progress: &mut dyn Progress,
) -> Result<Vec<Makespan>> {
    let room = engine.max_batch();
    if let Some(bad) = concurrencies.iter().find(|n| **n == 0 || **n > room) {
        return Err(EvalError::Nothing(format!(
            "{bad} questions at a time were asked for, and the engine has room for 1 to {room}"
        )));
    }
    let header = settings(engine, subject, tasks, methods, FORMAT, VERSION);
    let (mut file, mut found): (_, Vec<Makespan>) =
        Appender::resume(out, FORMAT, VERSION, &header)?;
    let methods: Vec<&MethodSpec> = methods.iter().filter(|method| method.rule.is_none()).collect();
    let total = (methods.len() * concurrencies.len()) as u64;
    progress.start("makespan", "runs", total, found.len() as u64);
    let mut warm = false;
    for (&concurrency, &method) in
        concurrencies.iter().flat_map(|n| methods.iter().map(move |m| (n, m)))
    {
        let same = |m: &Makespan| m.time.concurrency == concurrency && m.method == method.name;
        if found.iter().any(same) {
            continue;
        }
        if progress.cancelled() {
            break;
        }
        if !warm {
            warm_up(engine, &tasks[0], methods.iter().copied())?;
            warm = true;
        }
        let (seconds, tokens) = all(engine, tasks, method, concurrency)?;
        let tokens_per_s = tokens as f64 / seconds;
        let time = Together { concurrency, seconds, tokens_per_s };
        let makespan = Makespan { method: method.name.clone(), time };
        file.append(&makespan)?;
        found.push(makespan);
        progress.advance(found.len() as u64, "");
    }
    progress.finish();
    Ok(found)
}

/// Seconds and tokens of all answers.
fn all(
    engine: &mut Engine,
    tasks: &[Task],
    method: &MethodSpec,
    concurrency: usize,
) -> Result<(f64, usize)> {
    let mut waiting = tasks.iter();
    let (mut running, mut tokens) = (0, 0);
    let started = Instant::now();
    loop {
        while running < concurrency
            && let Some(task) = waiting.next()
        {
            engine.submit(Request {
                prompt: task.prompt.clone(),
                phase: task.phase,
                ..method.request.clone()
            })?;
            running += 1;
        }
        if running == 0 {
            return Ok((started.elapsed().as_secs_f64(), tokens));
        }
        for event in engine.step()? {
            if let Event::Done(output) = event {
                running -= 1;
                tokens += output.token_ids.len();
            }
        }
    }
}
