//! `compare`: the same questions by several methods.

use specexit_engine::Engine;
use specexit_eval::{
    CompareOptions, Judge, Named, Subject, Task, adaptive, compare as compare_methods, room, table,
};
use specexit_model::Model;
use specexit_train::Question;

use crate::high::{self, HeadChoice, Judging, PromptStyle, engine};
use crate::output::{print, print_json, reporter};

pub(crate) fn compare(args: high::Compare) -> anyhow::Result<()> {
    let model = args.model.load()?;
    let mut engine = engine(&model, args.head.as_ref(), room(&args.methods))?;
    if adaptive(&args.methods) {
        engine.measure_depth_costs()?;
    }
    let tasks = tasks(&model, &engine, &args.style, &args.judging, &args.questions)?;
    let tasks = repeated(&tasks, args.repeats);
    let head = args.head.as_ref().map(named_head).transpose()?;
    let subject = Subject { model: &model, head };
    let options = CompareOptions { out: args.out };
    let mut progress = reporter();
    let comparison =
        compare_methods(&mut engine, &subject, &tasks, &args.methods, &options, progress.as_mut())?;
    if args.json { print_json(&comparison) } else { Ok(print(&table(&comparison))?) }
}

/// Questions as they are put to the model, and judged.
pub(super) fn tasks(
    model: &Model,
    engine: &Engine,
    style: &PromptStyle,
    judging: &Judging,
    questions: &[Question],
) -> anyhow::Result<Vec<Task>> {
    let task = |(question, judge): (&Question, Judge)| {
        let (prompt, phase) = style.encode(model, engine.markers(), &question.question)?;
        let (id, group) = (question.id.clone(), question.group.clone());
        Ok(Task { id, repeat: 0, prompt, phase, judge, group })
    };
    questions.iter().zip(judging.judges(questions)?).map(task).collect()
}

/// All tasks `times` over, one round after the other.
pub(super) fn repeated(tasks: &[Task], times: usize) -> Vec<Task> {
    let round = |repeat: usize| tasks.iter().map(move |task| Task { repeat, ..task.clone() });
    (0..times).flat_map(round).collect()
}

/// What to call a head, and its identity.
pub(super) fn named_head(head: &HeadChoice) -> anyhow::Result<Named> {
    Ok(Named { name: head.name(), hash: head.hash()? })
}
