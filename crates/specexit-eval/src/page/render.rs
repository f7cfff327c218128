//! From the folder of an evaluation to its page.

use std::path::Path;

use askama::Template;
use specexit_model::head_file::write_atomically;
use specexit_train::TrainError;
use specexit_train::page::{Fact, Figure, STYLE, Table};

use super::cuts::{Sufficient, distribution};
use super::folder::{TaskFiles, read_numbers};
use super::methods::{answers, costs, makespans};
use super::thoughts::{Thought, thoughts};
use super::{frontier, signals};
use crate::error::{EvalError, Result};
use crate::evaluation::{Evaluation, Provenance};
use crate::statistics::mean;

/// How a page is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvalPageOptions {
    /// Single thoughts of each task at most.
    pub thoughts: usize,
}

impl Default for EvalPageOptions {
    fn default() -> Self {
        Self { thoughts: 40 }
    }
}

/// What a page tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvalPage {
    /// Tasks.
    pub tasks: usize,
    /// Methods.
    pub methods: usize,
    /// Single thoughts to browse, of all tasks.
    pub thoughts: usize,
}

/// A part of a task, with what it is made of.
#[derive(Default)]
struct Part {
    title: &'static str,
    text: String,
    figures: Vec<Figure>,
    tables: Vec<Table>,
}

/// A task on the page.
struct TaskPart {
    name: String,
    questions: usize,
    parts: Vec<Part>,
    thoughts: Vec<Thought>,
    thoughts_text: String,
}

#[derive(Template)]
#[template(path = "eval.html")]
struct Page<'a> {
    style: &'static str,
    target: &'a str,
    facts: Vec<Fact>,
    tasks: Vec<TaskPart>,
}

/// Writes the page about the evaluation in `folder` to the file `out`: one HTML file that needs nothing else.
/// The numbers are those of `eval.json`; of the files beside it, those that are there.
///
/// # Errors
/// A folder without numbers, a file that is broken or of another recording, or a page that cannot be
/// written.
pub fn write_eval_page(folder: &Path, out: &Path, options: EvalPageOptions) -> Result<EvalPage> {
    let evaluation = read_numbers(folder)?;
    let Evaluation { provenance, tasks } = &evaluation;
    let mut parts = Vec::with_capacity(tasks.len());
    for name in tasks.keys() {
        let files = TaskFiles::read(&folder.join(name))?;
        parts.push(task(&evaluation, name, &files, options)?);
    }
    let page = EvalPage {
        tasks: tasks.len(),
        methods: provenance.methods.len(),
        thoughts: parts.iter().map(|task| task.thoughts.len()).sum(),
    };
    let (target, facts) = (provenance.model.name.as_str(), facts(provenance));
    let html = Page { style: STYLE, target, facts, tasks: parts };
    let html = html.render().map_err(|e| TrainError::Page(e.to_string()))?;
    write_atomically(out, html.as_bytes()).map_err(EvalError::io("write", out))?;
    Ok(page)
}

fn facts(of: &Provenance) -> Vec<Fact> {
    let mut facts = vec![
        Fact::new("Target", of.model.name.as_str()),
        Fact::new("Hash of its weights", of.model.hash.as_str()),
    ];
    match &of.head {
        Some(head) => facts.extend([
            Fact::new("Draft head", head.name.as_str()),
            Fact::new("Hash of its weights", head.hash.as_str()),
        ]),
        None => facts.push(Fact::new("Draft head", "none")),
    }
    facts.extend([
        Fact::new("Methods", of.methods.join(", ")),
        Fact::new("Machine", of.machine.to_string()),
        Fact::new("Day", of.date.as_str()),
        Fact::new("Program", format!("specexit {}", of.program)),
    ]);
    facts
}

fn task(
    evaluation: &Evaluation,
    name: &str,
    files: &TaskFiles,
    options: EvalPageOptions,
) -> Result<TaskPart> {
    let methods = &evaluation.provenance.methods;
    let none = std::collections::BTreeMap::new();
    let numbers = evaluation.tasks.get(name).unwrap_or(&none);
    let curves = evaluation.provenance.frontier.get(name).map_or(&[][..], Vec::as_slice);
    let lengths: Vec<f64> = files.recordings.iter().map(|r| r.thinking_tokens as f64).collect();
    let recorded = (!lengths.is_empty()).then(|| mean(&lengths));

    let mut tables = vec![answers(methods, numbers), costs(methods, numbers)];
    let concurrencies = evaluation.concurrencies();
    if !concurrencies.is_empty() {
        tables.push(makespans(methods, numbers, &concurrencies));
    }
    let mut parts = vec![Part {
        title: "Methods",
        text: "Every method answered the same questions. Letters are those of the plots and thoughts below."
            .to_owned(),
        tables,
        ..Part::default()
    }];
    let mut text = String::new();
    if curves.is_empty() {
        text = "No question was recorded, so there are only the settings that were run.".to_owned();
    }
    parts.push(Part {
        title: "Frontier",
        text,
        figures: frontier::figures(methods, numbers, curves, recorded)?,
        tables: if curves.is_empty() { Vec::new() } else { vec![frontier::table(curves)] },
    });
    let mut ends = Part { title: "Where thoughts end", ..Part::default() };
    for sufficient in [Sufficient::First, Sufficient::Lasting] {
        if let Some((figure, table)) = distribution(methods, files, sufficient)? {
            ends.figures.push(figure);
            ends.tables.push(table);
        }
    }
    let mut said = Part { title: "What the signals are worth", ..Part::default() };
    for (figure, table) in signals::diagrams(files)? {
        said.figures.push(figure);
        said.tables.push(table);
    }
    if let Some(shifts) = evaluation.provenance.drift.get(name) {
        said.tables.push(signals::drift(shifts));
    }
    parts.extend([ends, said].into_iter().filter(|part| !part.tables.is_empty()));

    let (thoughts, all) = thoughts(methods, files, options.thoughts);
    let questions = numbers.values().map(|n| n.n).max().unwrap_or(all);
    let thoughts_text = match thoughts.len() {
        0 => "No thought is shown.".to_owned(),
        shown if shown < all => format!("The first {shown} of {all} questions."),
        shown => format!("All {shown} questions."),
    };
    Ok(TaskPart { name: name.to_owned(), questions, parts, thoughts, thoughts_text })
}
