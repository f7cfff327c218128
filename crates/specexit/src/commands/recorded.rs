//! Recorded thoughts with the signals along them, for the commands that replay.

use std::path::Path;

use specexit_engine::Engine;
use specexit_eval::page::{RECORDINGS_FILE, SIGNALS_FILE};
use specexit_eval::replay::{RecordOptions, Table, read_signals, record};
use specexit_eval::{Named, Task};
use specexit_model::Model;

use crate::output::reporter;

/// Records `tasks` in `folder` and reads what `head` says along them, or goes on with what is there.
pub(super) fn recorded(
    engine: &mut Engine,
    model: &Model,
    head: &Named,
    tasks: &[Task],
    options: &RecordOptions,
    folder: &Path,
) -> anyhow::Result<Table> {
    let (mut progress, base) = (reporter(), &options.request);
    let out = folder.join(RECORDINGS_FILE);
    let recordings = record(engine, model, tasks, options, &out, progress.as_mut())?;
    if recordings.len() < tasks.len() {
        anyhow::bail!(
            "interrupted in recording after {} questions; repeat the command to go on",
            recordings.len()
        );
    }
    let out = folder.join(SIGNALS_FILE);
    let signals = read_signals(engine, head, &recordings, base, &out, progress.as_mut())?;
    if signals.len() < tasks.len() {
        anyhow::bail!("interrupted in reading signals; repeat the command to go on");
    }
    Ok(Table::new(engine, base, recordings, signals)?)
}
