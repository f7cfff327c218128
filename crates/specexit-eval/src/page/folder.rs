//! The files of an evaluation, read back.

use std::collections::HashMap;
use std::path::{Component, Path};

use serde::de::DeserializeOwned;
use serde_json::Value;
use specexit_engine::Signals;
use specexit_train::jsonl::Reader;

use crate::error::{EvalError, Result};
use crate::evaluation::Evaluation;
use crate::record::Record;
use crate::records_file::read_records;
use crate::replay::{
    RECORDINGS_FORMAT, RECORDINGS_VERSION, Recording, SIGNALS_FORMAT, SIGNALS_VERSION, SignalLine,
    unpack,
};
use crate::texts::{TEXTS_FORMAT, TEXTS_VERSION, Text};

/// All numbers, in the folder of an evaluation.
pub const NUMBERS_FILE: &str = "eval.json";
/// The same as a sheet.
pub const SHEET_FILE: &str = "eval.csv";
/// The page, in the same folder.
pub const EVAL_PAGE_FILE: &str = "report.html";
/// Every answer of every method, in the folder of a task.
pub const ANSWERS_FILE: &str = "answers.jsonl";
/// Times with several questions at a time, in the same folder.
pub const MAKESPANS_FILE: &str = "makespans.jsonl";
/// The recordings of a task.
pub const RECORDINGS_FILE: &str = "recordings.jsonl";
/// What the head says along them.
pub const SIGNALS_FILE: &str = "signals.jsonl";
/// What their tokens read as.
pub const TEXTS_FILE: &str = "texts.jsonl";

/// What is known of a task beside its numbers; what has no file is empty.
#[derive(Default)]
pub(super) struct TaskFiles {
    pub(super) records: Vec<Record>,
    pub(super) recordings: Vec<Recording>,
    /// After each token of a question's recording.
    pub(super) signals: HashMap<String, Vec<Signals>>,
    pub(super) texts: HashMap<String, Text>,
}

/// Reads `eval.json`.
pub(super) fn read_numbers(folder: &Path) -> Result<Evaluation> {
    let path = folder.join(NUMBERS_FILE);
    let text = std::fs::read_to_string(&path).map_err(EvalError::io("read", &path))?;
    let evaluation: Evaluation = serde_json::from_str(&text).map_err(|e| EvalError::Line {
        path: path.clone(),
        line: e.line(),
        problem: format!("these are no numbers of an evaluation: {e}; repeat `eval`"),
    })?;
    for task in evaluation.tasks.keys() {
        // A task is a folder beside the numbers and nothing else.
        let mut parts = Path::new(task).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            return Err(EvalError::Nothing(format!(
                "{} has a task called `{task}`, which names no folder beside it; repeat `eval`",
                path.display()
            )));
        }
    }
    Ok(evaluation)
}

impl TaskFiles {
    /// Reads the folder of a task.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let answers = folder.join(ANSWERS_FILE);
        let records = if answers.exists() { read_records(&answers)?.1 } else { Vec::new() };
        let path = folder.join(RECORDINGS_FILE);
        let recordings: Vec<Recording> = lines(&path, RECORDINGS_FORMAT, RECORDINGS_VERSION)?;
        let path = folder.join(SIGNALS_FILE);
        let signals: Vec<SignalLine> = lines(&path, SIGNALS_FORMAT, SIGNALS_VERSION)?;
        let unpacked = |line: SignalLine| {
            (line.question, line.signals.into_iter().map(unpack).collect::<Vec<_>>())
        };
        let signals: HashMap<_, _> = signals.into_iter().map(unpacked).collect();
        let texts: Vec<Text> = lines(&folder.join(TEXTS_FILE), TEXTS_FORMAT, TEXTS_VERSION)?;
        let texts: HashMap<_, _> = texts.into_iter().map(|t| (t.question.clone(), t)).collect();
        for Recording { question, token_ids, closed, .. } in &recordings {
            let tokens = token_ids.len();
            let signals = signals.get(question).map(Vec::len);
            let pieces = texts.get(question).map(|text| text.pieces.len()).filter(|n| *n > 0);
            for (file, found) in [(SIGNALS_FILE, signals), (TEXTS_FILE, pieces)] {
                if let Some(found) = found.filter(|found| *found != tokens) {
                    return Err(other(folder, file, question, found, tokens));
                }
            }
            if let Some(cut) = closed.iter().find(|cut| cut.at > tokens) {
                return Err(other(folder, RECORDINGS_FILE, question, cut.at, tokens));
            }
        }
        Ok(Self { records, recordings, signals, texts })
    }

    /// The recording of a question.
    pub(super) fn recording(&self, question: &str) -> Option<&Recording> {
        self.recordings.iter().find(|recording| recording.question == question)
    }
}

/// All whole records of a file; none where there is no file.
fn lines<R: DeserializeOwned>(path: &Path, format: &str, version: u32) -> Result<Vec<R>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let (_, reader) = Reader::<R>::open::<Value>(path, format, version)?;
    Ok(reader.collect::<std::result::Result<_, _>>()?)
}

fn other(folder: &Path, file: &str, question: &str, found: usize, tokens: usize) -> EvalError {
    EvalError::Nothing(format!(
        "{} tells of {found} tokens of question {question}, whose recording has {tokens}; delete the file and \
         repeat `eval`",
        folder.join(file).display()
    ))
}
