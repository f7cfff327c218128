//! `train`: labels to a draft head.

use std::fmt::Write;

use specexit_train::{Quality, TrainSummary, train as train_head};

use crate::high;
use crate::output::{print, print_json, reporter};

pub(crate) fn train(args: high::Train) -> anyhow::Result<()> {
    let model = args.model.load()?;
    let mut progress = reporter();
    let summary = train_head(&args.options, &model, progress.as_mut())?;
    if args.json { print_json(&summary.report) } else { Ok(print(&text(&summary))?) }
}

fn text(summary: &TrainSummary) -> String {
    let Some(report) = &summary.report else {
        return format!("stopped after {} of {} steps\n", summary.steps, summary.total_steps);
    };
    let data = &report.data;
    let mut text = format!(
        "{} numbers trained in {} steps on {} sequences with {} labelled tokens; {} held out\n",
        report.run.parameters,
        report.run.steps,
        data.train_sequences,
        data.train_labels,
        data.held_out_sequences
    );
    if let Some(quality) = &report.held_out {
        text.push_str(&held_out(quality));
    }
    for warning in &report.verdict.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text.push_str(&format!("head: {}\n", summary.head.display()));
    text.push_str(&format!("report: {}\n", summary.page.display()));
    text
}

/// One line for the draft where it was trained, one per signal.
fn held_out(quality: &Quality) -> String {
    let taus = quality.draft.tau_per_chain.iter().map(|tau| format!("{tau:.2}"));
    let taus: Vec<String> = taus.collect();
    let mut text = String::new();
    if !taus.is_empty() {
        text = format!("held-out τ for chains of 1, 2, …: {}\n", taus.join(" "));
    }
    for signal in &quality.signals {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "held-out {}: mean absolute error {:.3}, correlation {:.2}, of ranks {:.2}",
            signal.signal, signal.mae, signal.correlation, signal.rank_correlation
        );
    }
    text
}
