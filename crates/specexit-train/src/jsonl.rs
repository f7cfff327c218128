//! JSONL files that begin with a header record and grow by whole lines.
//!
//! The header says what made the file; a file is only continued by exactly that. A process that is
//! killed leaves at most one incomplete last line, which readers ignore and writers cut off.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use specexit_model::hash::sha256_hex;

use crate::error::{Result, TrainError};

/// Reads the header and hands out the records one by one.
pub struct Reader<R> {
    path: PathBuf,
    lines: BufReader<File>,
    line: usize,
    record: PhantomData<R>,
}

impl<R: DeserializeOwned> Reader<R> {
    /// Opens a file and reads its header, which must say `format` and `version`.
    pub fn open<H: DeserializeOwned>(path: &Path, format: &str, version: u32) -> Result<(H, Self)> {
        let file = File::open(path).map_err(TrainError::io("read", path))?;
        let mut reader = Self {
            path: path.to_owned(),
            lines: BufReader::new(file),
            line: 0,
            record: PhantomData,
        };
        let Some(line) = reader.next_line()? else {
            return Err(TrainError::bad_file(path, format!("it has no {format} header")));
        };
        let header = parse_header(path, &line, format, version)?;
        let header = serde_json::from_value(header)
            .map_err(|e| reader.broken(&format!("the header is broken: {e}")))?;
        Ok((header, reader))
    }

    /// The next whole line, without its newline; `None` at the end or before an incomplete line.
    fn next_line(&mut self) -> Result<Option<String>> {
        let mut line = Vec::new();
        self.lines.read_until(b'\n', &mut line).map_err(TrainError::io("read", &self.path))?;
        if line.pop() != Some(b'\n') {
            return Ok(None);
        }
        self.line += 1;
        let line = String::from_utf8(line);
        line.map(Some).map_err(|_| self.broken("not UTF-8"))
    }

    fn broken(&self, problem: &str) -> TrainError {
        TrainError::Line {
            path: self.path.clone(),
            line: self.line,
            problem: format!("{problem}; delete the line, or make the file anew"),
        }
    }
}

impl<R: DeserializeOwned> Iterator for Reader<R> {
    type Item = Result<R>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = match self.next_line().transpose()? {
            Ok(line) => line,
            Err(e) => return Some(Err(e)),
        };
        Some(serde_json::from_str(&line).map_err(|e| self.broken(&format!("broken record: {e}"))))
    }
}

/// Appends records, one whole line at a time.
pub struct Appender {
    path: PathBuf,
    file: File,
}

impl Appender {
    /// Opens or creates a file for `header`, calling `seen` with each record that is there already.
    ///
    /// An incomplete last line is cut off. The file stays locked against other writers.
    pub fn open<H: Serialize, R: DeserializeOwned>(
        path: &Path,
        format: &str,
        version: u32,
        header: &H,
        mut seen: impl FnMut(R) -> Result<()>,
    ) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(TrainError::io("create", folder))?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(TrainError::io("open", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(TrainError::Locked { path: path.to_owned() });
            }
            // A file system without locks: resuming still works, only the guard is missing.
            Err(TryLockError::Error(_)) => {}
        }
        let whole = whole_lines(&mut file).map_err(TrainError::io("read", path))?;
        file.set_len(whole).map_err(TrainError::io("write", path))?;
        file.seek(SeekFrom::Start(whole)).map_err(TrainError::io("write", path))?;
        if whole == 0 {
            let mut appender = Self { path: path.to_owned(), file };
            appender.append(header)?;
            return Ok(appender);
        }
        let header = header_value(path, header)?;
        let mut lines = BufReader::new(&file);
        lines.seek(SeekFrom::Start(0)).map_err(TrainError::io("read", path))?;
        let mut first = String::new();
        lines.read_line(&mut first).map_err(TrainError::io("read", path))?;
        let found = parse_header(path, &first, format, version)?;
        same_header(path, &found, &header)?;
        drop(lines);
        let (_, reader) = Reader::<R>::open::<Value>(path, format, version)?;
        for record in reader {
            seen(record?)?;
        }
        file.seek(SeekFrom::Start(whole)).map_err(TrainError::io("write", path))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// As [`Appender::open`]; also gives the records that are there already.
    ///
    /// # Errors
    /// As [`Appender::open`].
    pub fn resume<H: Serialize, R: DeserializeOwned>(
        path: &Path,
        format: &str,
        version: u32,
        header: &H,
    ) -> Result<(Self, Vec<R>)> {
        let mut records = Vec::new();
        let file = Self::open(path, format, version, header, |record| {
            records.push(record);
            Ok(())
        })?;
        Ok((file, records))
    }

    /// Writes one record; when this returns, the operating system has all of it.
    pub fn append<R: Serialize>(&mut self, record: &R) -> Result<()> {
        let mut line = serde_json::to_vec(record).map_err(|e| {
            TrainError::bad_file(&self.path, format!("a record cannot be written: {e}"))
        })?;
        line.push(b'\n');
        // One write of the whole line: a kill leaves it out or leaves its beginning, never a gap.
        self.file.write_all(&line).map_err(TrainError::io("write", &self.path))
    }

    /// Puts the records into `order` (smallest key first), so that a finished file does not depend
    /// on which record was done first. The new file replaces the old one in one step.
    pub(crate) fn sort_by_key<R, K>(mut self, order: impl Fn(&R) -> K) -> Result<()>
    where
        R: DeserializeOwned,
        K: Ord,
    {
        let path = self.path.clone();
        let mut text = String::new();
        self.file.seek(SeekFrom::Start(0)).map_err(TrainError::io("read", &path))?;
        self.file.read_to_string(&mut text).map_err(TrainError::io("read", &path))?;
        let mut lines = text.split_inclusive('\n');
        let header = lines.next().unwrap_or_default();
        let mut keyed = Vec::new();
        for (number, line) in lines.enumerate() {
            let record: R = serde_json::from_str(line).map_err(|e| TrainError::Line {
                path: path.clone(),
                line: number + 2,
                problem: format!("broken record: {e}"),
            })?;
            keyed.push((order(&record), line));
        }
        if keyed.is_sorted_by(|a, b| a.0 <= b.0) {
            return Ok(());
        }
        keyed.sort_by(|a, b| a.0.cmp(&b.0));
        let sorted: String = std::iter::once(header).chain(keyed.iter().map(|(_, l)| *l)).collect();
        specexit_model::head_file::write_atomically(&path, sorted.as_bytes())
            .map_err(TrainError::io("write", &path))
    }
}

/// Length of the file up to and including its last newline.
fn whole_lines(file: &mut File) -> std::io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = vec![0; 1 << 16];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|&b| b == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn parse_header(path: &Path, line: &str, format: &str, version: u32) -> Result<Value> {
    let header: Value = serde_json::from_str(line).map_err(|e| {
        TrainError::bad_file(path, format!("its first line is not a {format} header: {e}"))
    })?;
    let found = header.get("format").and_then(Value::as_str);
    if found != Some(format) {
        let found = found.unwrap_or("something else");
        return Err(TrainError::bad_file(path, format!("it holds {found}, not {format}")));
    }
    match header.get("version").and_then(Value::as_u64) {
        Some(found) if found == u64::from(version) => Ok(header),
        found => Err(TrainError::bad_file(
            path,
            format!(
                "it has version {} of {format}, this program reads version {version}; \
                 use the program that wrote it, or make it anew",
                found.map_or("?".to_owned(), |v| v.to_string())
            ),
        )),
    }
}

/// A header as it reads once written: an f32 has other digits in a text than as a value.
fn header_value<H: Serialize>(path: &Path, header: &H) -> Result<Value> {
    serde_json::to_string(header)
        .and_then(|text| serde_json::from_str(&text))
        .map_err(|e| TrainError::bad_file(path, format!("its header cannot be written: {e}")))
}

/// Refuses to go on where the recorded header is not the one that would be written now.
pub(crate) fn same_header(path: &Path, found: &Value, expected: &Value) -> Result<()> {
    let Some((field, found, expected)) = first_difference("", found, expected) else {
        return Ok(());
    };
    Err(TrainError::Mismatch {
        path: path.to_owned(),
        field,
        found,
        expected,
        advice: "repeat the earlier setting to go on, or choose another output".to_owned(),
    })
}

/// Writes the identity `header` of a new run to `path`, or compares it with that of the run found
/// there; its hash is the run's name.
pub(crate) fn identify(path: &Path, header: &Value) -> Result<String> {
    let broken = |e: serde_json::Error| TrainError::bad_file(path, format!("it is broken: {e}"));
    let text = serde_json::to_vec_pretty(header).map_err(broken)?;
    if path.exists() {
        let found = std::fs::read(path).map_err(TrainError::io("read", path))?;
        let found: Value = serde_json::from_slice(&found).map_err(broken)?;
        // Through text on both sides, so that numbers are compared as they were written.
        let header: Value = serde_json::from_slice(&text).map_err(broken)?;
        same_header(path, &found, &header)?;
    } else {
        specexit_model::head_file::write_atomically(path, &text)
            .map_err(TrainError::io("write", path))?;
    }
    Ok(sha256_hex(&text))
}

/// The first field in which two JSON values differ: its dotted path and both values as text.
fn first_difference(at: &str, a: &Value, b: &Value) -> Option<(String, String, String)> {
    if let (Value::Object(x), Value::Object(y)) = (a, b) {
        let keys = x.keys().chain(y.keys().filter(|k| !x.contains_key(*k)));
        let null = Value::Null;
        return keys.into_iter().find_map(|key| {
            let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            first_difference(&at, x.get(key).unwrap_or(&null), y.get(key).unwrap_or(&null))
        });
    }
    (a != b).then(|| (at.to_owned(), a.to_string(), b.to_string()))
}

/// The SHA-256 of a file, in hexadecimal.
pub(crate) fn file_hash(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(TrainError::io("read", path))?;
    Ok(sha256_hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, temperature: f32, seen: &mut Vec<u64>) -> Result<Appender> {
        #[derive(Serialize)]
        struct Header {
            format: &'static str,
            version: u32,
            options: std::collections::BTreeMap<&'static str, f32>,
        }
        let options = [("temperature", temperature)].into();
        let header = Header { format: "numbers", version: 1, options };
        Appender::open(path, "numbers", 1, &header, |n: u64| {
            seen.push(n);
            Ok(())
        })
    }

    #[test]
    fn an_incomplete_last_line_is_cut_off_and_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/numbers.jsonl");
        let mut seen = Vec::new();
        let mut file = open(&path, 0.0, &mut seen).unwrap();
        [11, 12, 13].iter().for_each(|n| file.append(n).unwrap());
        drop(file);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            seen.clear();
            let mut file = open(&path, 0.0, &mut seen).unwrap();
            (11 + seen.len() as u64..14).for_each(|n| file.append(&n).unwrap());
            drop(file);
            assert_eq!(std::fs::read(&path).unwrap(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn another_header_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("numbers.jsonl");
        drop(open(&path, 0.1, &mut Vec::new()).unwrap());
        drop(open(&path, 0.1, &mut Vec::new()).unwrap());
        let error = open(&path, 0.7, &mut Vec::new()).err().unwrap().to_string();
        assert!(error.contains("options.temperature = 0.1, but now it is 0.7"), "{error}");
    }

    #[test]
    fn two_writers_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("numbers.jsonl");
        let first = open(&path, 0.0, &mut Vec::new()).unwrap();
        assert!(matches!(open(&path, 0.0, &mut Vec::new()), Err(TrainError::Locked { .. })));
        drop(first);
        assert!(open(&path, 0.0, &mut Vec::new()).is_ok());
    }

    #[test]
    fn sorting_keeps_the_lines_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("numbers.jsonl");
        let mut file = open(&path, 0.0, &mut Vec::new()).unwrap();
        [3, 1, 2].iter().for_each(|n| file.append(n).unwrap());
        file.sort_by_key(|n: &u64| *n).unwrap();
        let (_, reader) = Reader::<u64>::open::<Value>(&path, "numbers", 1).unwrap();
        assert_eq!(reader.map(Result::unwrap).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn broken_lines_and_other_versions_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("numbers.jsonl");
        let read = || {
            Reader::<u64>::open::<Value>(&path, "numbers", 1)
                .and_then(|(_, reader)| reader.collect::<Result<Vec<_>>>())
        };
        std::fs::write(&path, "{\"format\":\"numbers\",\"version\":1}\n5\nsix\n").unwrap();
        let error = read().err().unwrap().to_string();
        assert!(error.contains("numbers.jsonl:3: broken record"), "{error}");
        std::fs::write(&path, "{\"format\":\"numbers\",\"version\":2}\n").unwrap();
        let error = read().err().unwrap().to_string();
        assert!(error.contains("version 2 of numbers, this program reads version 1"), "{error}");
        std::fs::write(&path, "{\"question\":\"?\"}\n").unwrap();
        assert!(read().err().unwrap().to_string().contains("not numbers"));
    }
}
