//! `label`: traces to labels.

use specexit_train::{LabelSummary, label as label_traces};

use crate::high;
use crate::output::{print, print_json, reporter};

pub(crate) fn label(args: high::Label) -> anyhow::Result<()> {
    let (model, mut completer) = args.decoding.open()?;
    let mut progress = reporter();
    let summary = label_traces(&args.options, completer.as_mut(), &model, progress.as_mut())?;
    if args.json {
        return print_json(&summary);
    }
    Ok(print(&format!("{}{}\n", text(&summary)?, args.options.out.display()))?)
}

fn text(summary: &LabelSummary) -> anyhow::Result<String> {
    let LabelSummary { traces, labelled, shortened, thinking_tokens, kept_tokens, cuts, .. } =
        summary;
    let mut dropped = String::new();
    for (reason, count) in &summary.dropped {
        let reason = serde_json::to_value(reason)?;
        dropped.push_str(&format!(", {count} dropped ({})", reason.as_str().unwrap_or_default()));
    }
    let share = 100.0 * *kept_tokens as f64 / (*thinking_tokens).max(1) as f64;
    Ok(format!(
        "{labelled} of {traces} traces labelled{dropped}; {cuts} cuts tried, {shortened} thoughts \
         can end early, {share:.1} % of {thinking_tokens} thinking tokens kept: "
    ))
}
