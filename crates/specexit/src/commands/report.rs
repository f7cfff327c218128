//! `report`: the page about a training run.

use specexit_train::{PAGE_FILE, write_page};

use crate::low::Report;
use crate::output::print;

pub(crate) fn report(args: &Report) -> anyhow::Result<()> {
    let out = args.out.clone().unwrap_or_else(|| args.run.join(PAGE_FILE));
    let page = write_page(&args.run, &out)?;
    let state = if page.finished { "finished" } else { "not finished" };
    Ok(print(&format!("{} steps, {state}; report: {}\n", page.steps, out.display()))?)
}
