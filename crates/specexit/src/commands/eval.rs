//! `eval`: whole tasks by several methods, and the frontier of all settings.

use std::collections::BTreeMap;
use std::path::Path;

use specexit_engine::Engine;
use specexit_eval::calibrate::{SHIFTED, Shift, shifts};
use specexit_eval::page::{
    ANSWERS_FILE, EVAL_PAGE_FILE, MAKESPANS_FILE, NUMBERS_FILE, SHEET_FILE, TEXTS_FILE,
};
use specexit_eval::replay::{RecordOptions, Recording, Table};
use specexit_eval::{
    CompareOptions, Evaluation, Makespan, Measured, Subject, Task, Together, adaptive, compare,
    frontier, makespans, room, table, write_eval_page, write_texts,
};
use specexit_model::head_file::write_atomically;

use super::compare::{named_head, repeated, tasks};
use super::recorded::recorded;
use crate::high::{self, HeadChoice, engine};
use crate::output::{print, print_json, reporter};

pub(crate) fn eval(args: high::Eval) -> anyhow::Result<()> {
    let model = args.model.load()?;
    let together = args.concurrencies.iter().copied().chain([room(&args.methods)]);
    let together = together.chain(args.record.is_some().then_some(args.batch));
    let batch = together.max().unwrap_or(1);
    let mut engine = engine(&model, args.head.as_ref(), batch)?;
    if adaptive(&args.methods) {
        engine.measure_depth_costs()?;
    }
    let head = args.head.as_ref().map(named_head).transpose()?;
    let calibration = args.head.as_ref().and_then(HeadChoice::calibration).transpose()?;
    let mut found: BTreeMap<String, Measured> = BTreeMap::new();
    for (name, questions) in &args.tasks {
        let tasks = tasks(&model, &engine, &args.style, &args.judging, questions)?;
        let folder = args.out.join(name);
        let subject = Subject { model: &model, head: head.clone() };
        let options = CompareOptions { out: Some(folder.join(ANSWERS_FILE)) };
        let mut progress = reporter();
        let methods = &args.methods;
        let all = repeated(&tasks, args.repeats);
        let comparison =
            compare(&mut engine, &subject, &all, methods, &options, progress.as_mut())?;
        if comparison.questions < all.len() {
            anyhow::bail!(
                "interrupted after {} questions of {name}; repeat the command to go on",
                comparison.questions
            );
        }
        let table = match (&head, args.record.clone()) {
            (Some(head), Some(request)) => {
                let options = RecordOptions { request, batch: args.batch };
                Some(recorded(&mut engine, &model, head, &tasks, &options, &folder)?)
            }
            _ => None,
        };
        let recordings: Vec<&Recording> = table.iter().flat_map(Table::recordings).collect();
        write_texts(&model, questions, &recordings, &folder.join(TEXTS_FILE))?;
        let curves = match (&table, &args.record) {
            (Some(table), Some(base)) => frontier(&mut engine, base, table)?,
            _ => Vec::new(),
        };
        let shifts = calibration
            .as_ref()
            .zip(table.as_ref())
            .map(|(calibration, table)| shifts(&calibration.spreads, &table.signals_at_cuts()));
        let makespans = if args.concurrencies.is_empty() {
            Vec::new()
        } else {
            timed(&args, &mut engine, &subject, &tasks, &folder)?
        };
        found.insert(name.clone(), Measured { comparison, curves, shifts, makespans });
    }
    let Some(evaluation) = Evaluation::new(&found) else { return Ok(()) };
    let text = serde_json::to_string_pretty(&evaluation)? + "\n";
    for (file, text) in [(NUMBERS_FILE, text), (SHEET_FILE, evaluation.csv())] {
        let path = args.out.join(file);
        write_atomically(&path, text.as_bytes())
            .map_err(|e| anyhow::anyhow!("cannot write {}: {e}", path.display()))?;
    }
    let page = args.out.join(EVAL_PAGE_FILE);
    write_eval_page(&args.out, &page, args.page)?;
    if args.json {
        return print_json(&evaluation);
    }
    for (name, of) in &found {
        print(&format!("{name}\n{}\n", table(&of.comparison)))?;
        for m in &of.makespans {
            let Makespan { method, time: Together { concurrency, seconds, tokens_per_s } } = m;
            print(&format!(
                "{concurrency} at a time: {method} {seconds:.2} s, {tokens_per_s:.0} tokens/s\n"
            ))?;
        }
    }
    for (name, shifts) in &evaluation.provenance.drift {
        for Shift { signal, index } in shifts.iter().filter(|shift| shift.index > SHIFTED) {
            print(&format!(
                "{name}: {signal} is not distributed as when the head was calibrated (stability index \
                 {index:.2}, above {SHIFTED}); its promises may not hold here\n"
            ))?;
        }
    }
    Ok(print(&format!("report: {}\n", page.display()))?)
}

/// Times of one task with several questions at a time.
fn timed(
    args: &high::Eval,
    engine: &mut Engine,
    subject: &Subject<'_>,
    tasks: &[Task],
    folder: &Path,
) -> anyhow::Result<Vec<Makespan>> {
    let (out, mut progress) = (folder.join(MAKESPANS_FILE), reporter());
    let (methods, at) = (&args.methods, &args.concurrencies);
    let found = makespans(engine, subject, tasks, methods, at, &out, progress.as_mut())?;
    let asked = |m: &Makespan| at.contains(&m.time.concurrency);
    let found: Vec<Makespan> = found.into_iter().filter(asked).collect();
    let timed = methods.iter().filter(|method| method.rule.is_none()).count();
    if found.len() < timed * at.len() {
        anyhow::bail!("interrupted in measuring makespans; repeat the command to go on");
    }
    Ok(found)
}
