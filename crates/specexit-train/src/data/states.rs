//! The target's states, computed once and kept on disk.
//!
//! `states.json` says what they are of; `states.bin` holds one record per training sequence, in
//! order, whose sizes follow from the sequences: tapped states `[context, 3 H_t]` in bf16, normed
//! final states `[queries, H_t]` in bf16, most probable tokens `[queries]` as u32, and a checksum.
//! A killed run leaves a partial last record, which is cut off and computed again.

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

/// Where one sequence's record lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: u64,
    context: usize,
    queries: usize,
}

/// The states of all sequences of a training run.
#[derive(Debug)]
pub(crate) struct StatesCache {
    path: PathBuf,
    file: File,
    places: Vec<Place>,
    hidden_size: usize,
}

impl Place {
    fn bytes(&self, hidden_size: usize) -> usize {
        2 * (3 * self.context + self.queries) * hidden_size + 4 * self.queries + CHECKSUM
    }
}

impl StatesCache {
    /// Opens the cache in `folder`, computing what is missing.
    ///
    /// # Errors
    /// Too little room under `cap_gb` (told before anything is computed), a cache of other sequences
    /// or another target, or a full disk.
    pub(crate) fn build(
        folder: &Path,
        examples: &[Example],
        source: &mut impl TargetSource,
        target_hash: &str,
        cap_gb: f64,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let hidden_size = source.hidden_size();
        let mut places = Vec::with_capacity(examples.len());
        let mut end = 0u64;
        for example in examples {
            let place =
                Place { start: end, context: example.context(), queries: example.queries() };
            end += place.bytes(hidden_size) as u64;
            places.push(place);
        }
        let needed_gb = end as f64 / 1e9;
        let positions: usize = examples.iter().map(Example::context).sum();
        if needed_gb > cap_gb {
            return Err(TrainError::CacheTooLarge { positions, needed_gb, cap_gb });
        }
        check_header(folder, examples, target_hash, hidden_size)?;
        let path = folder.join("states.bin");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(TrainError::io("open", &path))?;
        let mut cache = Self { path, file, places, hidden_size };
        cache.complete(examples, source, positions as u64, progress)?;
        Ok(cache)
    }

    fn complete(
        &mut self,
        examples: &[Example],
        source: &mut impl TargetSource,
        positions: u64,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let length = self.file.metadata().map_err(TrainError::io("read", &self.path))?.len();
        let whole = |p: &&Place| p.start + p.bytes(self.hidden_size) as u64 <= length;
        let done = self.places.iter().take_while(whole).count();
        let end = self.places.get(done).map(|p| p.start);
        if let Some(end) = end {
            self.file.set_len(end).map_err(TrainError::io("write", &self.path))?;
            self.file.seek(SeekFrom::Start(end)).map_err(TrainError::io("write", &self.path))?;
        }
        let mut ready: u64 = self.places[..done].iter().map(|p| p.context as u64).sum();
        progress.start("states", "tokens", positions, ready);
        for (place, example) in self.places[done..].iter().zip(&examples[done..]) {
            let record = encode(place, example, source)?;
            self.file.write_all(&record).map_err(TrainError::io("write", &self.path))?;
            ready += place.context as u64;
            progress.advance(ready, "");
            if progress.cancelled() {
                break;
            }
        }
        progress.finish();
        Ok(())
    }

    /// Reads the states of sequence `index`.
    pub(crate) fn read(&self, index: usize, to: &mut SequenceStates) -> Result<()> {
        let place = self.places[index];
        to.record.resize(place.bytes(self.hidden_size), 0);
        self.file
            .read_exact_at(&mut to.record, place.start)
            .map_err(TrainError::io("read", &self.path))?;
        let (body, sum) = to.record.split_at(to.record.len() - CHECKSUM);
        if checksum(body).to_le_bytes() != sum {
            return Err(TrainError::bad_file(
                &self.path,
                format!(
                    "the states of sequence {index} are damaged; delete it to compute them again"
                ),
            ));
        }
        let (taps, rest) = body.split_at(2 * 3 * place.context * self.hidden_size);
        let (hidden, most_probable) = rest.split_at(2 * place.queries * self.hidden_size);
        widen(&mut to.taps, taps);
        widen(&mut to.hidden, hidden);
        to.most_probable.clear();
        let ids = most_probable.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b));
        to.most_probable.extend(ids);
        Ok(())
    }
}

/// Writes the header of a new cache, or compares it with that of an existing one.
fn check_header(
    folder: &Path,
    examples: &[Example],
    target_hash: &str,
    hidden_size: usize,
) -> Result<()> {
    let mut hasher = Hasher::new();
    for example in examples {
        hasher.number(example.prompt as u64);
        hasher.bytes(bytemuck::cast_slice(&example.tokens));
    }
    let header = StatesHeader {
        format: FORMAT.to_owned(),
        version: VERSION,
        program: PROGRAM.to_owned(),
        target_hash: target_hash.to_owned(),
        sequences_hash: hasher.finish(),
        hidden_size,
    };
    let path = folder.join("states.json");
    let unwritable =
        |e: serde_json::Error| TrainError::bad_file(&path, format!("it cannot be written: {e}"));
    let header = serde_json::to_value(&header).map_err(unwritable)?;
    if path.exists() {
        let text = std::fs::read(&path).map_err(TrainError::io("read", &path))?;
        let found = serde_json::from_slice(&text)
            .map_err(|e| TrainError::bad_file(&path, format!("it is broken: {e}; delete it")))?;
        return same_header(&path, &found, &header);
    }
    // States without a header are of nobody knows what.
    let data = folder.join("states.bin");
    if data.exists() {
        std::fs::remove_file(&data).map_err(TrainError::io("remove", &data))?;
    }
    let text = serde_json::to_vec_pretty(&header).map_err(unwritable)?;
    specexit_model::head_file::write_atomically(&path, &text)
        .map_err(TrainError::io("write", &path))
}

fn encode(place: &Place, example: &Example, source: &mut impl TargetSource) -> Result<Vec<u8>> {
    let width = source.hidden_size();
    // The last token's state is never used.
    let (taps, hidden) = source.states(&example.tokens[..example.tokens.len() - 1])?;
    let drafted = example.first() + 1..example.first() + 1 + place.queries;
    let hidden = &hidden[drafted.start * width..drafted.end * width];
    let most_probable = source.most_probable(hidden);
    let mut record = narrow(&taps[..place.context * 3 * width]);
    record.extend(narrow(hidden));
    record.extend(most_probable.iter().flat_map(|id| id.to_le_bytes()));
    let sum = checksum(&record);
    record.extend(sum.to_le_bytes());
    Ok(record)
}

fn narrow(numbers: &[f32]) -> Vec<u8> {
    let mut out = vec![bf16::ZERO; numbers.len()];
    out.convert_from_f32_slice(numbers);
    bytemuck::cast_slice(&out).to_vec()
}

fn widen(to: &mut Vec<f32>, bytes: &[u8]) {
    to.clear();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{ToySource, toy_examples};
    use crate::progress::Silent;

    fn build(folder: &Path, hash: &str, cap: f64) -> Result<StatesCache> {
        let mut source = ToySource::new(8, 30);
        StatesCache::build(folder, &toy_examples(5), &mut source, hash, cap, &mut Silent)
    }

    fn read(cache: &StatesCache, index: usize) -> Result<SequenceStates> {
        let mut states = SequenceStates::default();
        // A longer one before must leave nothing behind.
        cache.read(4, &mut states)?;
        cache.read(index, &mut states)?;
        Ok(states)
    }

    #[test]
    fn a_cut_file_is_completed_to_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let cache = build(folder.path(), "h", 1.0).unwrap();
        let third = read(&cache, 3).unwrap();
        drop(cache);
        let path = folder.path().join("states.bin");
        let whole = std::fs::read(&path).unwrap();
        for keep in [0, 1, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..keep]).unwrap();
            let cache = build(folder.path(), "h", 1.0).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), whole);
            assert_eq!(read(&cache, 3).unwrap(), third);
        }
    }

    #[test]
    fn another_target_a_small_cap_and_damage_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = build(folder.path(), "h", 1e-6).unwrap_err().to_string();
        assert!(error.contains("more than cache_gb = 0.000001"), "{error}");
        drop(build(folder.path(), "h", 1.0).unwrap());
        let error = build(folder.path(), "other", 1.0).unwrap_err().to_string();
        assert!(error.contains("target_hash = \"h\", but now it is \"other\""), "{error}");
        let path = folder.path().join("states.bin");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[5] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let error = read(&build(folder.path(), "h", 1.0).unwrap(), 0).unwrap_err().to_string();
        assert!(error.contains("sequence 0 are damaged"), "{error}");
    }
}
