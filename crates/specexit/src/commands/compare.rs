//! `compare`: the same questions by several methods.

use specexit_engine::Engine;
use specexit_eval::{
    CompareOptions, Named, Subject, Task, compare as compare_methods, room, table,
};
use specexit_model::Model;
use specexit_train::Question;

use crate::high::{self, HeadChoice, PromptStyle, engine};
use crate::output::{print, print_json, reporter};

pub(crate) fn compare(args: high::Compare) -> anyhow::Result<()> {
    let model = args.model.load()?;
    let mut engine = engine(&model, args.head.as_ref(), room(&args.methods))?;
    let task = |question| task(&model, &engine, &args.style, question);
    let tasks = args.questions.iter().map(task).collect::<anyhow::Result<Vec<_>>>()?;
    let head = args.head.as_ref().map(named_head).transpose()?;
    let subject = Subject { model: &model, head };
    let options = CompareOptions { answer_kind: args.answer_kind, out: args.out };
    let mut progress = reporter();
    let comparison =
        compare_methods(&mut engine, &subject, &tasks, &args.methods, &options, progress.as_mut())?;
    if args.json { print_json(&comparison) } else { Ok(print(&table(&comparison))?) }
}

/// A question as it is put to the model.
pub(super) fn task(
    model: &Model,
    engine: &Engine,
    style: &PromptStyle,
    question: &Question,
) -> anyhow::Result<Task> {
    let (prompt, phase) = style.encode(model, engine.markers(), &question.question)?;
    let gold = question.gold.clone().unwrap_or_default();
    let group = question.group.clone();
    Ok(Task { id: question.id.clone(), prompt, phase, gold, group })
}

/// What to call a head, and its identity.
pub(super) fn named_head(head: &HeadChoice) -> anyhow::Result<Named> {
    Ok(Named { name: head.name(), hash: head.hash()? })
}
