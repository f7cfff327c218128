//! `problems`: generated questions with their answers.

use serde_json::json;
use specexit_model::head_file::write_atomically;

use crate::high;
use crate::output::print;

pub(crate) fn problems(args: high::Problems) -> anyhow::Result<()> {
    let mut text = String::new();
    let mut written = 0;
    for problem in args.draw.take(args.count) {
        let line = json!({
            "id": problem.id(),
            "question": problem.question,
            "answer": problem.answer,
            "answer_kind": problem.kind,
            "family": problem.family,
            "difficulty": problem.difficulty.level(),
        });
        text.push_str(&format!("{line}\n"));
        written += 1;
    }
    match &args.out {
        None => print(&text)?,
        Some(path) => write_atomically(path, text.as_bytes())
            .map_err(|e| anyhow::anyhow!("cannot write {}: {e}", path.display()))?,
    }
    if written < args.count {
        anyhow::bail!("only {written} of {} problems exist or could be found", args.count);
    }
    Ok(())
}
