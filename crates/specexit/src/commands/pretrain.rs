//! `pretrain`: a recipe to a small reasoner.

use serde_json::json;
use specexit_train::pretrain as train_reasoner;

use crate::high;
use crate::output::{print, print_json, reporter};

pub(crate) fn pretrain(args: high::Pretrain) -> anyhow::Result<()> {
    let mut progress = reporter();
    let summary = train_reasoner(&args.options, &args.corpus, progress.as_mut())?;
    if args.json {
        return print_json(&json!({
            "finished": summary.finished,
            "steps": summary.steps,
            "tokens": summary.tokens,
            "held_out_loss": summary.held_out_loss,
            "model": summary.model,
        }));
    }
    let loss = summary.held_out_loss.map(|loss| format!(", held-out loss {loss:.4}"));
    Ok(print(&format!(
        "{} steps, {} tokens{}\nmodel: {}\n",
        summary.steps,
        summary.tokens,
        loss.unwrap_or_default(),
        summary.model.display()
    ))?)
}
