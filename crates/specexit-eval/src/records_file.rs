//! The answers of a comparison on disk, so that a killed one goes on where it was.
//!
//! JSONL: a header with everything that the numbers depend on, then one record per line. The
//! records of a question are written together once all methods have answered it, and a question
//! that is not complete is asked anew: so the times compared with each other come from the same minutes.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{EvalError, Result};
use crate::record::Record;

/// The value of `format` in the header.
pub const RECORDS_FORMAT: &str = "specexit-comparison";
/// The version of that format.
pub const RECORDS_VERSION: u32 = 1;

/// An open records file.
pub(crate) struct RecordsFile {
    path: PathBuf,
    file: File,
}

impl RecordsFile {
    /// Opens or creates the file for `header`; also gives the records of complete questions, of
    /// which each has one record per entry of `methods`.
    pub(crate) fn open(
        path: &Path,
        header: &Value,
        methods: &[&str],
    ) -> Result<(Self, Vec<Record>)> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(EvalError::io("create", folder))?;
        }
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(EvalError::io("read", path)(e)),
        };
        let records = complete_questions(read(path, &text, header)?, methods);
        let mut whole = serialise(header);
        records.iter().for_each(|record| whole.push_str(&serialise(record)));
        if whole != text {
            specexit_model::head_file::write_atomically(path, whole.as_bytes())
                .map_err(EvalError::io("write", path))?;
        }
        let file = OpenOptions::new().append(true).open(path);
        let file = file.map_err(EvalError::io("open", path))?;
        Ok((Self { path: path.to_owned(), file }, records))
    }

    /// Adds the records of one question; when this returns, the operating system has them.
    pub(crate) fn append(&mut self, records: &[Record]) -> Result<()> {
        let lines: String = records.iter().map(serialise).collect();
        self.file.write_all(lines.as_bytes()).map_err(EvalError::io("write", &self.path))
    }
}

/// Reads a records file: its header and all its whole records, complete questions or not.
///
/// # Errors
/// A file that is missing or of another kind, or its first broken line.
pub fn read_records(path: &Path) -> Result<(Value, Vec<Record>)> {
    let text = std::fs::read_to_string(path).map_err(EvalError::io("read", path))?;
    let first = text.lines().next().unwrap_or_default();
    let header: Value = serde_json::from_str(first).unwrap_or_default();
    if header.get("format").and_then(Value::as_str) != Some(RECORDS_FORMAT) {
        let problem = format!("not a {RECORDS_FORMAT} header; choose another file");
        return Err(EvalError::Line { path: path.to_owned(), line: 1, problem });
    }
    let records = read(path, &text, &header)?;
    Ok((header, records))
}

/// A value as one line. Records and headers hold only what JSON can write.
pub(crate) fn serialise(value: &impl serde::Serialize) -> String {
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}

/// The records of a file, after checking that it was begun with `header`. An incomplete last line,
/// the trace of a kill, is left out.
fn read(path: &Path, text: &str, header: &Value) -> Result<Vec<Record>> {
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    let mut lines = whole.lines();
    let Some(first) = lines.next() else { return Ok(Vec::new()) };
    let line = |line, problem| EvalError::Line { path: path.to_owned(), line, problem };
    let found: Value = serde_json::from_str(first)
        .map_err(|e| line(1, format!("not a {RECORDS_FORMAT} header: {e}; choose another file")))?;
    if let Some((field, found, expected)) = first_difference("", &found, header) {
        return Err(EvalError::Mismatch { path: path.to_owned(), field, found, expected });
    }
    let parse = |(index, text): (usize, &str)| {
        serde_json::from_str(text)
            .map_err(|e| line(index + 2, format!("broken record: {e}; delete the line")))
    };
    lines.enumerate().map(parse).collect()
}

/// The records of the questions that all methods have answered, in order.
fn complete_questions(mut records: Vec<Record>, methods: &[&str]) -> Vec<Record> {
    let mut counts: BTreeMap<(String, usize), usize> = BTreeMap::new();
    let key = |record: &Record| (record.question.clone(), record.repeat);
    records.iter().for_each(|record| *counts.entry(key(record)).or_default() += 1);
    records.retain(|record| counts.get(&key(record)) == Some(&methods.len()));
    records
}

/// The first field in which two JSON values differ: its dotted path and both values as text.
fn first_difference(at: &str, a: &Value, b: &Value) -> Option<(String, String, String)> {
    let below = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let keys = x.keys().chain(y.keys().filter(|key| !x.contains_key(*key)));
            keys.into_iter().find_map(|key| {
                let (a, b) = (x.get(key), y.get(key));
                first_difference(&below(key), a.unwrap_or(&Value::Null), b.unwrap_or(&Value::Null))
            })
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            let pairs = x.iter().zip(y).enumerate();
            pairs.into_iter().find_map(|(i, (a, b))| first_difference(&below(&i.to_string()), a, b))
        }
        _ => (a != b).then(|| (at.to_owned(), a.to_string(), b.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use specexit_engine::Finish;

    fn record(question: &str, method: &str) -> Record {
        Record {
            repeat: 0,
            question: question.to_owned(),
            group: None,
            method: method.to_owned(),
            correct: true,
            thinking_tokens: 3,
            total_tokens: 5,
            probe_tokens: 0,
            wall_s: 0.25,
            first_answer_s: None,
            tau: 1.0,
            rounds: 4,
            drafted: 0,
            accepted: 0,
            exit: None,
            finish: Finish::Length,
            answer: None,
            text: "a\n\nb".to_owned(),
        }
    }

    fn open(path: &Path, limit: u32) -> Result<(RecordsFile, Vec<Record>)> {
        let header = json!({"format": RECORDS_FORMAT, "version": 1, "methods": [{"limit": limit}]});
        RecordsFile::open(path, &header, &["plain", "eagle3"])
    }

    #[test]
    fn a_file_cut_anywhere_keeps_its_complete_questions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/records.jsonl");
        let questions = ["x", "y", "z"].map(|q| [record(q, "plain"), record(q, "eagle3")]);
        let (mut file, none) = open(&path, 1).unwrap();
        assert!(none.is_empty());
        questions.iter().for_each(|q| file.append(q).unwrap());
        let whole = std::fs::read(&path).unwrap();
        // Every byte would take a minute: each step syncs a file.
        for cut in (0..whole.len()).step_by(37).chain([whole.len() - 1, whole.len()]) {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (mut file, done) = open(&path, 1).unwrap();
            assert!(done.len().is_multiple_of(2), "cut at {cut}");
            assert_eq!(done, questions.as_flattened()[..done.len()]);
            questions[done.len() / 2..].iter().for_each(|q| file.append(q).unwrap());
            assert_eq!(std::fs::read(&path).unwrap(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn another_setting_and_a_broken_line_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.jsonl");
        let (mut file, _) = open(&path, 1).unwrap();
        file.append(&[record("x", "plain")]).unwrap();
        let error = open(&path, 2).err().unwrap().to_string();
        assert!(error.contains("methods.0.limit = 1, but now it is 2"), "{error}");
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("{\"question\": 5}\n");
        std::fs::write(&path, text).unwrap();
        let error = open(&path, 1).err().unwrap().to_string();
        assert!(error.contains("records.jsonl:3: broken record"), "{error}");
    }
}
