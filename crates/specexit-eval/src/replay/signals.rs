//! What a head says along recorded thoughts.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;
use specexit_engine::{Engine, Request, Signals};
use specexit_train::{PROGRAM, Progress, jsonl::Appender};

use super::recorder::name_arithmetic;
use super::recording::Recording;
use crate::comparison::Named;
use crate::error::Result;

/// The value of `format` in the header of a signals file.
pub const SIGNALS_FORMAT: &str = "specexit-signals";
/// The version of that format.
pub(crate) const SIGNALS_VERSION: u32 = 1;

/// One line of the file: for each generated token its signals, or nothing where there are none.
#[derive(Serialize, Deserialize)]
pub(crate) struct SignalLine {
    pub(crate) question: String,
    pub(crate) signals: Vec<Option<[f32; 3]>>,
}

/// The signals of the engine's head after every token of `recordings`, kept in the file `out`: what a
/// request that recorded them would have. `base` is the request that they were recorded by.
///
/// # Errors
/// A head without a signal probe, a file begun with another head or other recordings, or a failing model.
pub fn read_signals(
    engine: &mut Engine,
    head: &Named,
    recordings: &[Recording],
    base: &Request,
    out: &Path,
    progress: &mut dyn Progress,
) -> Result<Vec<Vec<Signals>>> {
    let texts = specexit_model::hash::sha256_hex(
        &serde_json::to_vec(&recordings.iter().map(Recording::whole).collect::<Vec<_>>())
            .unwrap_or_default(),
    );
    let boundaries = base.policy.as_ref().map(|policy| &policy.boundaries);
    let mut header = json!({
        "format": SIGNALS_FORMAT,
        "version": SIGNALS_VERSION,
        "program": PROGRAM,
        "head": head,
        "recordings": {"count": recordings.len(), "hash": texts},
        "boundaries": boundaries,
    });
    name_arithmetic(&mut header, engine.target());
    let (mut file, lines): (_, Vec<SignalLine>) =
        Appender::resume(out, SIGNALS_FORMAT, SIGNALS_VERSION, &header)?;
    let unpacked = lines.into_iter().map(|line| line.signals.into_iter().map(unpack).collect());
    let mut found: Vec<Vec<Signals>> = unpacked.collect();
    progress.start("signals", "questions", recordings.len() as u64, found.len() as u64);
    for recording in &recordings[found.len().min(recordings.len())..] {
        let ahead = recording.ahead(engine, base)?;
        let boundaries: Vec<bool> = ahead.iter().map(|ahead| ahead.boundary).collect();
        let signals =
            engine.signals(&recording.whole(), recording.prompt_ids.len(), &boundaries)?;
        let question = recording.question.clone();
        file.append(&SignalLine { question, signals: signals.iter().map(pack).collect() })?;
        found.push(signals);
        progress.advance(found.len() as u64, "");
        if progress.cancelled() {
            break;
        }
    }
    progress.finish();
    Ok(found)
}

fn pack(signals: &Signals) -> Option<[f32; 3]> {
    let all = [signals.confidence, signals.progress, signals.remaining];
    all.iter().all(|signal| signal.is_finite()).then_some(all)
}

/// Signals from their line.
pub(crate) fn unpack(line: Option<[f32; 3]>) -> Signals {
    let [confidence, progress, remaining] = line.unwrap_or([f32::NAN; 3]);
    Signals { confidence, progress, remaining }
}
