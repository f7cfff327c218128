//! The target's states: as many as may be kept on disk are, the others are computed each time.
//!
//! `states.json` says what they are of; `states.bin` holds one record for each of the first sequences,
//! in order. What a record holds follows from the sequence and from [`Content`]:
//!
//! - *whole*: tapped states `[context, 3 H_t]` in bf16, normed final states `[queries, H_t]` in bf16,
//!   most probable tokens `[queries]` as u32, and a checksum;
//! - *labelled*: tapped states of labelled positions `[labels, 3 H_t]` in bf16, and a checksum.
//!
//! Computed states take the way through the same record, so their bits are those of stored ones. A
//! killed run leaves a partial last record, which is cut off and computed again.

#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use half::bf16;
use half::slice::HalfFloatSliceExt;
use serde::{Deserialize, Serialize};
use specexit_exit::TokenId;
use specexit_model::hash::Hasher;

use super::examples::Example;
use super::source::TargetSource;
use crate::error::{Result, TrainError};
use crate::jsonl::same_header;
use crate::progress::Progress;
use crate::provenance::PROGRAM;

/// Name of the format in the header.
const FORMAT: &str = "specexit-states";
/// Version of the format.
const VERSION: u32 = 1;
/// Bytes of the checksum that ends a record.
const CHECKSUM: usize = 8;

/// What the states are of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct StatesHeader {
    format: String,
    version: u32,
    program: String,
    /// Hash of the target's weights.
    target_hash: String,
    /// Hash of all sequences and their prompts' lengths.
    sequences_hash: String,
    /// Width H_t.
    hidden_size: usize,
    /// What they were computed in; absent for bf16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arithmetic: Option<String>,
    /// What a record holds; absent for whole ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

/// What is kept of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Everything that training a draft layer reads.
    Whole,
    /// What training a probe alone reads.
    Labelled,
}

/// The states of one sequence: a buffer that is read into again and again.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SequenceStates {
    /// Tapped states of positions `0..context`, `[context, 3 H_t]`.
    pub(crate) taps: Vec<f32>,
    /// Normed final states of positions `first + 1..=first + queries`, `[queries, H_t]`.
    pub(crate) hidden: Vec<f32>,
    /// The target's most probable next token at these positions.
    pub(crate) most_probable: Vec<TokenId>,
    /// The record as it lies on disk.
    record: Vec<u8>,
}

/// The tapped states of one sequence's labelled positions: another such buffer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LabelledStates {
    /// In the order of the labels, `[labels, 3 H_t]`.
    pub(crate) taps: Vec<f32>,
    /// A record of the sequence.
    record: Vec<u8>,
}

/// The states of all sequences of a training run.
pub(crate) struct States<'a, S> {
    examples: &'a [Example],
    source: &'a S,
    content: Content,
    path: PathBuf,
    /// Absent when nothing is stored.
    file: Option<File>,
    /// Where the record of each stored sequence begins; those of the first sequences.
    starts: Vec<u64>,
}

impl LabelledStates {
    /// Takes the labelled positions out of states of width 3 `hidden_size` that were read whole.
    pub(crate) fn take_from(
        &mut self,
        example: &Example,
        whole: &SequenceStates,
        hidden_size: usize,
    ) {
        let width = 3 * hidden_size;
        self.taps.clear();
        for labelled in &example.labels {
            self.taps.extend_from_slice(&whole.taps[labelled.position * width..][..width]);
        }
    }
}

impl Content {
    /// Bytes of a sequence's record.
    fn bytes(self, example: &Example, hidden_size: usize) -> usize {
        let (context, queries) = (example.context(), example.queries());
        CHECKSUM
            + match self {
                Self::Whole => 2 * (3 * context + queries) * hidden_size + 4 * queries,
                Self::Labelled => 2 * 3 * example.labels.len() * hidden_size,
            }
    }

    /// Positions whose tapped states a record holds.
    fn positions(self, example: &Example) -> usize {
        match self {
            Self::Whole => example.context(),
            Self::Labelled => example.labels.len(),
        }
    }
}

impl<'a, S: TargetSource> States<'a, S> {
    /// Opens the states in `folder`, computing and storing what is missing of as many sequences as
    /// `cap_gb` (10^9 bytes) has room for.
    ///
    /// # Errors
    /// States of other sequences or another target, or a full disk.
    pub(crate) fn build(
        folder: &Path,
        examples: &'a [Example],
        source: &'a S,
        content: Content,
        target_hash: &str,
        cap_gb: f64,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let hidden_size = source.hidden_size();
        let (mut starts, mut used, mut end) = (Vec::new(), 0, 0u64);
        for example in examples {
            let start = end;
            end += content.bytes(example, hidden_size) as u64;
            if end as f64 <= cap_gb * 1e9 {
                starts.push(start);
                used = end;
            }
        }
        let path = folder.join("states.bin");
        let mut states = Self { examples, source, content, path, file: None, starts };
        let stored = &examples[..states.starts.len()];
        let positions = stored.iter().map(|e| content.positions(e) as u64).sum();
        let done = states.open(folder, target_hash, used)?;
        let ready = stored[..done].iter().map(|e| content.positions(e) as u64).sum();
        progress.start("states", "positions", positions, ready);
        progress.note(&states.mode(used, end));
        states.complete(done, ready, progress)?;
        progress.finish();
        Ok(states)
    }

    /// Opens the file of `used` bytes, without what is too much or torn; how many records are there.
    fn open(&mut self, folder: &Path, target_hash: &str, used: u64) -> Result<usize> {
        if self.starts.is_empty() {
            remove(&self.path)?;
            remove(&folder.join("states.json"))?;
            return Ok(0);
        }
        self.check_header(folder, target_hash)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.path)
            .map_err(TrainError::io("open", &self.path))?;
        let length = file.metadata().map_err(TrainError::io("read", &self.path))?.len();
        let ends = self.starts[1..].iter().copied().chain([used]);
        let done = ends.take_while(|end| *end <= length).count();
        let end = self.starts.get(done).copied().unwrap_or(used);
        file.set_len(end).map_err(TrainError::io("write", &self.path))?;
        file.seek(SeekFrom::Start(end)).map_err(TrainError::io("write", &self.path))?;
        self.file = Some(file);
        Ok(done)
    }

    /// Stores all records after the first `done`, which have `ready` positions.
    fn complete(&mut self, done: usize, ready: u64, progress: &mut dyn Progress) -> Result<()> {
        let (mut record, mut ready) = (Vec::new(), ready);
        for index in done..self.starts.len() {
            self.compute(index, self.content, &mut record)?;
            let sum = checksum(&record);
            record.extend(sum.to_le_bytes());
            if let Some(file) = &mut self.file {
                file.write_all(&record).map_err(TrainError::io("write", &self.path))?;
            }
            ready += self.content.positions(&self.examples[index]) as u64;
            progress.advance(ready, "");
            if progress.cancelled() {
                break;
            }
        }
        Ok(())
    }

    /// What is stored, in a line.
    fn mode(&self, used: u64, needed: u64) -> String {
        let of = match self.content {
            Content::Whole => "states",
            Content::Labelled => "states of labelled positions",
        };
        let gb = |bytes: u64| format!("{:.3}", bytes as f64 / 1e9);
        match (self.starts.len(), self.examples.len()) {
            (0, _) => format!(
                "{of}: none on disk (all would take {} GB); the target computes them each time they \
                 are read",
                gb(needed)
            ),
            (stored, all) if stored == all => {
                format!("{of}: all {all} sequences on disk, {} GB", gb(used))
            }
            (stored, all) => format!(
                "{of}: {stored} of {all} sequences on disk, {} of {} GB; the target computes the \
                 others each time they are read",
                gb(used),
                gb(needed)
            ),
        }
    }

    /// Puts a record of sequence `index` into `record`, without its checksum; what it holds is
    /// `wanted` if it had to be computed.
    fn record(&self, index: usize, wanted: Content, record: &mut Vec<u8>) -> Result<Content> {
        let (Some(file), Some(start)) = (&self.file, self.starts.get(index)) else {
            self.compute(index, wanted, record)?;
            return Ok(wanted);
        };
        let length = self.content.bytes(&self.examples[index], self.source.hidden_size());
        record.resize(length, 0);
        file.read_exact_at(record, *start).map_err(TrainError::io("read", &self.path))?;
        let sum = record.split_off(length - CHECKSUM);
        if checksum(record).to_le_bytes() != sum[..] {
            return Err(TrainError::bad_file(
                &self.path,
                format!(
                    "the states of sequence {index} are damaged; delete it to compute them again"
                ),
            ));
        }
        Ok(self.content)
    }

    /// Reads the states of sequence `index`; only where whole ones are kept.
    pub(crate) fn read(&self, index: usize, to: &mut SequenceStates) -> Result<()> {
        let (example, width) = (&self.examples[index], self.source.hidden_size());
        self.record(index, Content::Whole, &mut to.record)?;
        let (taps, rest) = to.record.split_at(2 * 3 * example.context() * width);
        let (hidden, most_probable) = rest.split_at(2 * example.queries() * width);
        widen(&mut to.taps, taps);
        widen(&mut to.hidden, hidden);
        to.most_probable.clear();
        let ids = most_probable.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b));
        to.most_probable.extend(ids);
        Ok(())
    }

    /// Reads the tapped states of the labelled positions of sequence `index`.
    pub(crate) fn read_labelled(&self, index: usize, to: &mut LabelledStates) -> Result<()> {
        let (example, row) = (&self.examples[index], 2 * 3 * self.source.hidden_size());
        match self.record(index, Content::Labelled, &mut to.record)? {
            Content::Labelled => widen(&mut to.taps, &to.record),
            Content::Whole => {
                to.taps.clear();
                for labelled in &example.labels {
                    widen_onto(&mut to.taps, &to.record[labelled.position * row..][..row]);
                }
            }
        }
        Ok(())
    }

    /// Lets the target read a sequence, as far as `content` needs it.
    fn compute(&self, index: usize, content: Content, record: &mut Vec<u8>) -> Result<()> {
        let (example, width) = (&self.examples[index], self.source.hidden_size());
        record.clear();
        // The last token's state is never used; of labelled positions, none after the last one.
        let read = match content {
            Content::Whole => example.tokens.len() - 1,
            Content::Labelled => example.labels.last().map_or(0, |last| last.position + 1),
        };
        if read == 0 {
            return Ok(());
        }
        let (taps, hidden) = self.source.states(&example.tokens[..read])?;
        match content {
            Content::Whole => {
                let drafted = example.first() + 1..example.first() + 1 + example.queries();
                let hidden = &hidden[drafted.start * width..drafted.end * width];
                narrow(record, &taps[..example.context() * 3 * width]);
                narrow(record, hidden);
                let most_probable = self.source.most_probable(hidden);
                record.extend(most_probable.iter().flat_map(|id| id.to_le_bytes()));
            }
            Content::Labelled => {
                for labelled in &example.labels {
                    narrow(record, &taps[labelled.position * 3 * width..][..3 * width]);
                }
            }
        }
        Ok(())
    }

    /// Writes the header of new states, or compares it with that of those found.
    fn check_header(&self, folder: &Path, target_hash: &str) -> Result<()> {
        let mut hasher = Hasher::new();
        for example in self.examples {
            hasher.number(example.prompt as u64);
            hasher.bytes(bytemuck::cast_slice(&example.tokens));
            if self.content == Content::Labelled {
                hasher.number(example.labels.len() as u64);
                example.labels.iter().for_each(|l| hasher.number(l.position as u64));
            }
        }
        let header = StatesHeader {
            format: FORMAT.to_owned(),
            version: VERSION,
            program: PROGRAM.to_owned(),
            target_hash: target_hash.to_owned(),
            sequences_hash: hasher.finish(),
            hidden_size: self.source.hidden_size(),
            arithmetic: self.source.arithmetic(),
            content: (self.content == Content::Labelled).then(|| "labelled".to_owned()),
        };
        let path = folder.join("states.json");
        let unwritable = |e: serde_json::Error| {
            TrainError::bad_file(&path, format!("it cannot be written: {e}"))
        };
        let header = serde_json::to_value(&header).map_err(unwritable)?;
        if path.exists() {
            let text = std::fs::read(&path).map_err(TrainError::io("read", &path))?;
            let found = serde_json::from_slice(&text).map_err(|e| {
                TrainError::bad_file(&path, format!("it is broken: {e}; delete it"))
            })?;
            return same_header(&path, &found, &header);
        }
        // States without a header are of nobody knows what.
        remove(&self.path)?;
        let text = serde_json::to_vec_pretty(&header).map_err(unwritable)?;
        specexit_model::head_file::write_atomically(&path, &text)
            .map_err(TrainError::io("write", &path))
    }
}

/// Removes a file that may not be there.
fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(TrainError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Appends numbers rounded to bf16.
fn narrow(to: &mut Vec<u8>, numbers: &[f32]) {
    let mut out = vec![bf16::ZERO; numbers.len()];
    out.convert_from_f32_slice(numbers);
    to.extend_from_slice(bytemuck::cast_slice(&out));
}

fn widen(to: &mut Vec<f32>, bytes: &[u8]) {
    to.clear();
    widen_onto(to, bytes);
}

fn widen_onto(to: &mut Vec<f32>, bytes: &[u8]) {
    // In a form that vectorises, which `bf16::to_f32` is not.
    let wide = |b: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
    to.extend(bytes.as_chunks::<2>().0.iter().map(wide));
}

/// Tells a damaged record from a whole one; not meant against malice.
fn checksum(bytes: &[u8]) -> u64 {
    let (words, tail) = bytes.as_chunks::<8>();
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    let sum = words.iter().fold(bytes.len() as u64, |sum, w| mix(sum, u64::from_le_bytes(*w)));
    tail.iter().fold(sum, |sum, b| mix(sum, u64::from(*b)))
}
