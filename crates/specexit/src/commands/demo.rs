//! `demo`: the built-in reasoner with and without SpecExit.

use std::io::{self, IsTerminal};

use serde_json::{Value, json};
use specexit_answer::AnswerKind;
use specexit_engine::{Engine, Output, Request};
use specexit_eval::{
    CompareOptions, Comparison, Judge, MethodSpec, Named, Subject, Task, compare, table,
};
use specexit_model::Model;
use specexit_problems::Problem;

use crate::high::{self, PromptStyle, engine};
use crate::output::{ShadedThought, print, print_json, reporter};

pub(crate) fn demo(args: high::Demo) -> anyhow::Result<()> {
    let model = args.model.load()?;
    let mut engine = engine(&model, Some(&args.head), 1)?;
    let style = PromptStyle::default();
    let tasks = args.problems.iter().map(|problem| task(&model, &engine, &style, problem));
    let tasks = tasks.collect::<anyhow::Result<Vec<_>>>()?;
    if !args.json {
        show_thought(&mut engine, &model, &args, &tasks)?;
    }
    let head = Some(Named { name: args.head.name(), hash: args.head.hash()? });
    let subject = Subject { model: &model, head };
    let options = CompareOptions::default();
    let mut progress = reporter();
    let comparison =
        compare(&mut engine, &subject, &tasks, &args.methods, &options, progress.as_mut())?;
    if args.json {
        return print_json(&report(&comparison));
    }
    print(&table(&comparison))?;
    Ok(print(&closing_words(&comparison))?)
}

fn task(
    model: &Model,
    engine: &Engine,
    style: &PromptStyle,
    problem: &Problem,
) -> anyhow::Result<Task> {
    let (prompt, phase) = style.encode(model, engine.markers(), &problem.question)?;
    let judge = Judge::Answer { gold: problem.answer.clone(), kind: AnswerKind::Auto };
    let group = Some(problem.family.to_string());
    Ok(Task { id: problem.id(), repeat: 0, prompt, phase, judge, group })
}

/// One thought, whole, with the place where SpecExit ended it.
fn show_thought(
    engine: &mut Engine,
    model: &Model,
    args: &high::Demo,
    tasks: &[Task],
) -> anyhow::Result<()> {
    // Of the first few problems the one that shows most: solved both ways, and most spared.
    let mut best: Option<(usize, &Problem, Output, Output)> = None;
    for (problem, task) in args.problems.iter().zip(tasks).take(SHOWN_FROM) {
        let mut run = |name: &str| run(engine, &args.methods, name, task);
        let (whole, cut) = (run("eagle3")?, run("specexit")?);
        let spared = whole.thinking_tokens.saturating_sub(cut.thinking_tokens);
        if whole.thinking_tokens <= MOST_SHOWN && best.as_ref().is_none_or(|b| spared > b.0) {
            best = Some((spared, problem, whole, cut));
        }
    }
    let Some((_, problem, whole, cut)) = best else { return Ok(()) };
    let shaded = ShadedThought::new(model, engine.markers(), io::stdout().is_terminal());
    print(&format!(
        "A problem that the reasoner has never seen ({}, difficulty {}):\n\n{}\n\n",
        problem.family,
        problem.difficulty.level(),
        problem.question
    ))?;
    print(&shaded.render(&whole, &cut))?;
    let verdict = |output: &Output| -> anyhow::Result<&str> {
        let text = model.tokenizer.decode(&output.token_ids, true)?;
        Ok(if problem.is_right(&text) { "right" } else { "wrong" })
    };
    let answer = |output: &Output| answer_text(model, output);
    print(&format!(
        "\nWhole thought: {} thinking tokens, {:.2} s, \"{}\" ({})\nSpecExit:      {} thinking tokens, \
         {:.2} s, \"{}\" ({})\n\n",
        whole.thinking_tokens,
        whole.wall_s,
        answer(&whole)?,
        verdict(&whole)?,
        cut.thinking_tokens,
        cut.wall_s,
        answer(&cut)?,
        verdict(&cut)?
    ))?;
    Ok(print(&format!("The same comparison on {} problems:\n\n", args.problems.len()))?)
}

/// Problems among which the shown one is chosen.
const SHOWN_FROM: usize = 6;
/// Longest thought that is shown: about a screen.
const MOST_SHOWN: usize = 450;

fn run(
    engine: &mut Engine,
    methods: &[MethodSpec],
    name: &str,
    task: &Task,
) -> anyhow::Result<Output> {
    let Some(method) = methods.iter().find(|m| m.name == name) else {
        anyhow::bail!("no method is called {name}")
    };
    let request = Request {
        prompt: task.prompt.clone(),
        phase: task.phase,
        record_signals: true,
        ..method.request.clone()
    };
    Ok(engine.run(request)?)
}

/// What was said after the thought.
fn answer_text(model: &Model, output: &Output) -> anyhow::Result<String> {
    let text = model.tokenizer.decode(&output.token_ids, true)?;
    Ok(text.rsplit("</think>").next().unwrap_or_default().trim().to_owned())
}

/// What the table says about SpecExit, in words.
fn closing_words(comparison: &Comparison) -> String {
    let of = |name: &str| comparison.methods.iter().find(|m| m.method == name);
    let (Some(eagle), Some(specexit)) = (of("eagle3"), of("specexit")) else {
        return String::new();
    };
    let fewer = 100.0 * (1.0 - specexit.thinking_tokens / eagle.thinking_tokens.max(1e-9));
    format!(
        "\nAgainst EAGLE-3 with the same draft head, SpecExit thought {fewer:.0} % less and took 1/{:.1} of \
         the time; {} against {} answers of {} were right.\n",
        eagle.wall_sum_s / specexit.wall_sum_s.max(1e-9),
        specexit.accuracy.count,
        eagle.accuracy.count,
        comparison.questions
    )
}

fn report(comparison: &Comparison) -> Value {
    let methods: Vec<Value> = comparison
        .methods
        .iter()
        .map(|m| {
            json!({
                "name": m.method,
                "accuracy": m.accuracy.rate,
                "thinking_tokens_mean": m.thinking_tokens,
                "total_tokens_mean": m.total_tokens,
                "tau": m.tau,
                "wall_s": m.wall_sum_s,
                "exits": m.exits,
            })
        })
        .collect();
    json!({
        "program": comparison.program,
        "date": comparison.date,
        "machine": comparison.machine,
        "model": comparison.model,
        "head": comparison.head,
        "problems": comparison.questions,
        "methods": methods,
    })
}
