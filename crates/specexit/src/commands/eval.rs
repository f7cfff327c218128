//! `eval`: whole tasks by several methods, and the frontier of all settings.

use std::collections::BTreeMap;
use std::path::Path;

use specexit_engine::Engine;
use specexit_eval::calibrate::{SHIFTED, Shift, shifts};
use specexit_eval::replay::{RecordOptions, Table, read_signals, record};
use specexit_eval::{
    CompareOptions, Comparison, Curve, Evaluation, Named, Subject, Task, compare, frontier, room,
    table,
};
use specexit_model::Model;
use specexit_model::head_file::write_atomically;

use super::calibrate::{RECORDINGS, SIGNALS};
use super::compare::{named_head, task};
use crate::high::{self, HeadChoice, engine};
use crate::output::{print, print_json, reporter};

/// Files of the folder.
const ANSWERS: &str = "answers.jsonl";
const NUMBERS: &str = "eval.json";
const SHEET: &str = "eval.csv";

pub(crate) fn eval(args: high::Eval) -> anyhow::Result<()> {
    let model = args.model.load()?;
    let batch = if args.record.is_some() { args.batch } else { 1 }.max(room(&args.methods));
    let mut engine = engine(&model, args.head.as_ref(), batch)?;
    let head = args.head.as_ref().map(named_head).transpose()?;
    let calibration = args.head.as_ref().and_then(HeadChoice::calibration).transpose()?;
    let mut found: BTreeMap<String, (Comparison, Vec<Curve>)> = BTreeMap::new();
    let mut drift: BTreeMap<String, Vec<Shift>> = BTreeMap::new();
    for (name, questions) in &args.tasks {
        let of = |question| task(&model, &engine, &args.style, question);
        let tasks = questions.iter().map(of).collect::<anyhow::Result<Vec<_>>>()?;
        let folder = args.out.join(name);
        let subject = Subject { model: &model, head: head.clone() };
        let (kind, out) = (args.answer_kind, Some(folder.join(ANSWERS)));
        let options = CompareOptions { answer_kind: kind, out };
        let mut progress = reporter();
        let methods = &args.methods;
        let compared =
            compare(&mut engine, &subject, &tasks, methods, &options, progress.as_mut())?;
        if compared.questions < tasks.len() {
            anyhow::bail!(
                "interrupted after {} questions of {name}; repeat the command to go on",
                compared.questions
            );
        }
        let table = match &head {
            Some(head) => recorded(&args, &mut engine, &model, head, &tasks, &folder)?,
            None => None,
        };
        let curves = match (&table, &args.record) {
            (Some(table), Some(base)) => frontier(&mut engine, base, table)?,
            _ => Vec::new(),
        };
        if let (Some(calibration), Some(table)) = (&calibration, &table) {
            let shifts = shifts(&calibration.spreads, &table.signals_at_cuts());
            drift.insert(name.clone(), shifts);
        }
        found.insert(name.clone(), (compared, curves));
    }
    let Some(mut evaluation) = Evaluation::new(&found) else { return Ok(()) };
    evaluation.provenance.drift = drift;
    let text = serde_json::to_string_pretty(&evaluation)? + "\n";
    for (file, text) in [(NUMBERS, text), (SHEET, evaluation.csv())] {
        let path = args.out.join(file);
        write_atomically(&path, text.as_bytes())
            .map_err(|e| anyhow::anyhow!("cannot write {}: {e}", path.display()))?;
    }
    if args.json {
        return print_json(&evaluation);
    }
    for (name, (compared, _)) in &found {
        print(&format!("{name}\n{}\n", table(compared)))?;
    }
    for (name, shifts) in &evaluation.provenance.drift {
        for Shift { signal, index } in shifts.iter().filter(|shift| shift.index > SHIFTED) {
            print(&format!(
                "{name}: {signal} is not distributed as when the head was calibrated (stability index \
                 {index:.2}, above {SHIFTED}); its promises may not hold here\n"
            ))?;
        }
    }
    Ok(())
}

/// What one task is replayed from, where there is to be a frontier.
fn recorded(
    args: &high::Eval,
    engine: &mut Engine,
    model: &Model,
    head: &Named,
    tasks: &[Task],
    folder: &Path,
) -> anyhow::Result<Option<Table>> {
    let Some(request) = args.record.clone() else { return Ok(None) };
    let options = RecordOptions { request, answer_kind: args.answer_kind, batch: args.batch };
    let mut progress = reporter();
    let (out, base) = (folder.join(RECORDINGS), &options.request);
    let recordings = record(engine, model, tasks, &options, &out, progress.as_mut())?;
    let out = folder.join(SIGNALS);
    let signals = read_signals(engine, head, &recordings, base, &out, progress.as_mut())?;
    if signals.len() < tasks.len() {
        anyhow::bail!("interrupted in recording; repeat the command to go on");
    }
    Ok(Some(Table::new(engine, base, recordings, signals)?))
}
