//! `report`: the page about a training run or an evaluation.

use specexit_eval::page::{EVAL_PAGE_FILE, NUMBERS_FILE};
use specexit_eval::{EvalPageOptions, write_eval_page};
use specexit_train::{PAGE_FILE, write_page};

use crate::failure::usage;
use crate::low::Report;
use crate::output::print;

pub(crate) fn report(args: &Report) -> anyhow::Result<()> {
    let Report { folder, out, thoughts } = args;
    let text = if folder.join(NUMBERS_FILE).exists() {
        let out = out.clone().unwrap_or_else(|| folder.join(EVAL_PAGE_FILE));
        let default = EvalPageOptions::default();
        let options = EvalPageOptions { thoughts: thoughts.unwrap_or(default.thoughts) };
        let page = write_eval_page(folder, &out, options)?;
        format!(
            "{} tasks, {} methods, {} thoughts; report: {}\n",
            page.tasks,
            page.methods,
            page.thoughts,
            out.display()
        )
    } else {
        if thoughts.is_some() {
            return usage(format!(
                "--thoughts does not apply: {} holds no evaluation",
                folder.display()
            ));
        }
        let out = out.clone().unwrap_or_else(|| folder.join(PAGE_FILE));
        let page = write_page(folder, &out)?;
        let state = if page.finished { "finished" } else { "not finished" };
        format!("{} steps, {state}; report: {}\n", page.steps, out.display())
    };
    Ok(print(&text)?)
}
