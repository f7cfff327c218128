//! The same questions, several methods, one engine.

use std::path::PathBuf;

use serde_json::{Value, json};
use specexit_engine::{Engine, Phase, TokenId};
use specexit_model::{Model, hash::Hasher};
use specexit_train::Progress;

use crate::comparison::{Comparison, Named};
use crate::error::{EvalError, Result};
use crate::grading::{Judge, grade};
use crate::machine::{Machine, today};
use crate::method::{MethodSpec, check_methods, room};
use crate::prober::run_probing;
use crate::record::Record;
use crate::records_file::{RECORDS_FORMAT, RECORDS_VERSION, RecordsFile};
use crate::summary::{by_group, summarise};

/// A question, ready to be asked.
#[derive(Clone, Debug)]
pub struct Task {
    /// Identifies it in records.
    pub id: String,
    /// How often it is asked before this, by the same methods with other seeds.
    pub repeat: usize,
    /// The whole prompt, template and all.
    pub prompt: Vec<TokenId>,
    /// Where in a thought the prompt ends.
    pub phase: Phase,
    /// How answers are judged.
    pub judge: Judge,
    /// What kind of question it is: accuracy is also given by kind.
    pub group: Option<String>,
}

/// What is compared, and with what.
pub struct Subject<'a> {
    /// The target, as the engine serves it.
    pub model: &'a Model,
    /// The draft head, if one is loaded.
    pub head: Option<Named>,
}

/// How a comparison is run.
#[derive(Clone, Debug, Default)]
pub struct CompareOptions {
    /// Keep every answer in this file, and go on from what it holds.
    pub out: Option<PathBuf>,
}

/// Tokens generated before anything is timed, so that no method pays for cold memory.
const WARM_UP_TOKENS: usize = 8;

/// Answers every task by every method, alone in the batch, and sums up.
///
/// The methods take turns question by question, and their order rotates, so that a machine that
/// slows down slows all of them. With `options.out`, complete questions are kept in that file as
/// they come, and those that it already holds are not asked again.
///
/// # Errors
/// Methods that the engine cannot serve, a file begun with other settings, or a failing model.
pub fn compare(
    engine: &mut Engine,
    subject: &Subject<'_>,
    tasks: &[Task],
    methods: &[MethodSpec],
    options: &CompareOptions,
    progress: &mut dyn Progress,
) -> Result<Comparison> {
    check_methods(methods)?;
    if engine.max_batch() < room(methods) {
        // Trials would wait for the end of the thought that they are to end.
        let problem = "methods that probe need an engine for two sequences at a time";
        return Err(EvalError::Nothing(problem.to_owned()));
    }
    if tasks.is_empty() {
        return Err(EvalError::Nothing("there is no question to answer".to_owned()));
    }
    let machine = Machine::of(engine.target());
    let names: Vec<&str> = methods.iter().map(|m| m.name.as_str()).collect();
    let (mut file, mut records) = match &options.out {
        Some(path) => {
            let header = settings(engine, subject, tasks, methods, RECORDS_FORMAT, RECORDS_VERSION);
            let (file, records) = RecordsFile::open(path, &header, &names)?;
            (Some(file), records)
        }
        None => (None, Vec::new()),
    };
    let total = tasks.len() * methods.len();
    progress.start("compare", "answers", total as u64, records.len() as u64);
    let resumed = records.len() / methods.len();
    let mut warm = false;
    for (index, task) in tasks.iter().enumerate() {
        if records.iter().any(|record| record.key() == (&task.id, task.repeat)) {
            continue;
        }
        let mut answers = Vec::with_capacity(methods.len());
        for turn in 0..methods.len() {
            let method = &methods[(index + turn) % methods.len()];
            if !warm {
                warm_up(engine, task, methods.iter())?;
                warm = true;
            }
            answers.push(answer(engine, subject.model, task, method)?);
            let done = records.len() + answers.len();
            progress.advance(done as u64, &format!("{} {}", task.id, method.name));
        }
        if let Some(file) = &mut file {
            file.append(&answers)?;
        }
        records.append(&mut answers);
        if progress.cancelled() {
            break;
        }
    }
    progress.finish();
    Ok(Comparison {
        program: env!("CARGO_PKG_VERSION").to_owned(),
        date: today(),
        machine,
        model: named(subject.model),
        head: subject.head.clone(),
        questions: records.len() / methods.len(),
        resumed,
        methods: summarise(&names, &records),
        groups: by_group(&names, &records),
        records,
    })
}

/// The beginning of every method on one task, so that all buffers have been touched.
pub(crate) fn warm_up<'a>(
    engine: &mut Engine,
    task: &Task,
    methods: impl Iterator<Item = &'a MethodSpec>,
) -> Result<()> {
    for method in methods {
        let mut request = method.request.clone();
        request.prompt.clone_from(&task.prompt);
        request.phase = task.phase;
        request.max_new_tokens = request.max_new_tokens.min(WARM_UP_TOKENS);
        engine.run(request)?;
    }
    Ok(())
}

fn answer(engine: &mut Engine, model: &Model, task: &Task, method: &MethodSpec) -> Result<Record> {
    let mut request = method.request.clone();
    request.prompt.clone_from(&task.prompt);
    request.phase = task.phase;
    request.sampling.seed = request.sampling.seed.wrapping_add(task.repeat as u64);
    let (output, probe_tokens) = match method.rule {
        Some(rule) => {
            let (tokenizer, boundaries) = (&model.tokenizer, &method.boundaries);
            let probed = run_probing(engine, tokenizer, request, rule, boundaries, &task.judge)?;
            (probed.output, probed.probe_tokens)
        }
        None => (engine.run(request)?, 0),
    };
    let graded = grade(model, engine.markers(), task, &output.token_ids)?;
    let record = Record::new(task, &method.name, &output, graded);
    Ok(Record { probe_tokens, ..record })
}

/// What to call a model, and its identity.
#[must_use]
pub fn named(model: &Model) -> Named {
    Named { name: model.name.clone(), hash: model.hash.clone() }
}

/// Everything that the numbers of a file depend on: its header.
pub(crate) fn settings(
    engine: &Engine,
    subject: &Subject<'_>,
    tasks: &[Task],
    methods: &[MethodSpec],
    format: &str,
    version: u32,
) -> Value {
    json!({
        "format": format,
        "version": version,
        "program": env!("CARGO_PKG_VERSION"),
        "machine": Machine::of(engine.target()),
        "model": named(subject.model),
        "tokenizer_hash": subject.model.tokenizer.hash(),
        "head": subject.head,
        "tasks": {"count": tasks.len(), "hash": tasks_hash(tasks)},
        "methods": methods.iter().map(MethodSpec::settings).collect::<Vec<_>>(),
    })
}

/// Identity of the tasks: questions, prompts and what answers are judged by.
#[must_use]
pub fn tasks_hash(tasks: &[Task]) -> String {
    let mut hasher = Hasher::new();
    for task in tasks {
        hasher.text(&task.id);
        hasher.number(task.repeat as u64);
        task.judge.hash(&mut hasher);
        hasher.number(task.prompt.len() as u64);
        task.prompt.iter().for_each(|&id| hasher.number(u64::from(id)));
    }
    hasher.finish()
}
