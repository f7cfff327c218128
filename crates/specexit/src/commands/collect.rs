//! `collect`: questions to traces.

use specexit_train::{CollectSummary, collect as collect_traces};

use crate::high;
use crate::output::{print, print_json, reporter};

pub(crate) fn collect(args: high::Collect) -> anyhow::Result<()> {
    let (model, mut completer) = args.decoding.open()?;
    let mut progress = reporter();
    let summary = collect_traces(&args.options, completer.as_mut(), &model, progress.as_mut())?;
    if args.json {
        return print_json(&summary);
    }
    Ok(print(&format!("{}{}\n", text(&summary), args.options.out.display()))?)
}

fn text(summary: &CollectSummary) -> String {
    let CollectSummary { traces, closed, cut_short, graded, correct, waits, .. } = summary;
    let mean = |sum: usize| sum as f64 / (*traces).max(1) as f64;
    let right = if *graded > 0 { format!(", {correct} of {graded} right") } else { String::new() };
    let waits = if *waits > 0 { format!(", {waits} waits put in") } else { String::new() };
    format!(
        "{traces} traces, {closed} with a closed thought, {cut_short} cut short{right}{waits}; \
         {:.1} thinking tokens and {:.1} tokens in all on average: ",
        mean(summary.thinking_tokens),
        mean(summary.tokens)
    )
}
