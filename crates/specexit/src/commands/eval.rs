//! `eval`: whole tasks by several methods, and the frontier of all settings.

use std::collections::BTreeMap;

use specexit_eval::calibrate::{SHIFTED, Shift, shifts};
use specexit_eval::page::{ANSWERS_FILE, EVAL_PAGE_FILE, NUMBERS_FILE, SHEET_FILE, TEXTS_FILE};
use specexit_eval::replay::{RecordOptions, Recording, Table};
use specexit_eval::{
    CompareOptions, Comparison, Curve, Evaluation, Subject, compare, frontier, room, table,
    write_eval_page, write_texts,
};
use specexit_model::head_file::write_atomically;

use super::compare::{named_head, tasks};
use super::recorded::recorded;
use crate::high::{self, HeadChoice, engine};
use crate::output::{print, print_json, reporter};

pub(crate) fn eval(args: high::Eval) -> anyhow::Result<()> {
    let model = args.model.load()?;
    let batch = if args.record.is_some() { args.batch } else { 1 }.max(room(&args.methods));
    let mut engine = engine(&model, args.head.as_ref(), batch)?;
    let head = args.head.as_ref().map(named_head).transpose()?;
    let calibration = args.head.as_ref().and_then(HeadChoice::calibration).transpose()?;
    let mut found: BTreeMap<String, (Comparison, Vec<Curve>)> = BTreeMap::new();
    let mut drift: BTreeMap<String, Vec<Shift>> = BTreeMap::new();
    for (name, questions) in &args.tasks {
        let tasks = tasks(&model, &engine, &args.style, &args.judging, questions)?;
        let folder = args.out.join(name);
        let subject = Subject { model: &model, head: head.clone() };
        let options = CompareOptions { out: Some(folder.join(ANSWERS_FILE)) };
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
        if let (Some(calibration), Some(table)) = (&calibration, &table) {
            let shifts = shifts(&calibration.spreads, &table.signals_at_cuts());
            drift.insert(name.clone(), shifts);
        }
        found.insert(name.clone(), (compared, curves));
    }
    let Some(mut evaluation) = Evaluation::new(&found) else { return Ok(()) };
    evaluation.provenance.drift = drift;
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
    Ok(print(&format!("report: {}\n", page.display()))?)
}
