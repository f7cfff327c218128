//! A draft head that gets another probe and is otherwise left alone.
//!
//! Whatever is not the probe passes through byte by byte: tensors nobody here knows, their types,
//! `d2t` and `t2d`, every key of the config. So drafting cannot change.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::{ModelError, Result};
use crate::hash::Hasher;
use crate::head_file::{
    HEAD_CONFIG, HEAD_WEIGHTS, HeadConfig, SpecExitConfig, open_weights, read_d2t, read_tensor,
    write_atomically,
};
use crate::probe::{PROBE_ROWS, PROBE_TENSORS, Probe, has_probe};

/// The tensor that holds a probe of rows.
const FC: &str = "fc.weight";
/// Key of a safetensors header that is no tensor.
const METADATA: &str = "__metadata__";
/// Bytes before the header of a safetensors file: its length.
const PREFIX: usize = 8;

/// A head's folder as it lies on disk, checked.
pub struct RawHead {
    folder: PathBuf,
    /// Sizes and provenance.
    pub config: HeadConfig,
    /// The whole config, unknown keys included.
    document: Map<String, Value>,
    /// The text of the config, which counts for the head's identity.
    text: String,
    /// The weights file.
    bytes: Vec<u8>,
    /// What its header says beside tensors.
    metadata: Option<Value>,
    tensors: BTreeMap<String, Stored>,
}

/// A tensor as the header of a safetensors file describes it.
#[derive(Deserialize)]
struct Stored {
    /// Name of the number type.
    dtype: String,
    /// Dimensions.
    shape: Vec<usize>,
    /// Where its bytes lie, counted from the end of the header.
    data_offsets: (usize, usize),
}

/// A tensor to be written.
struct Entry<'a> {
    name: &'a str,
    dtype: &'a str,
    shape: Vec<usize>,
    data: std::borrow::Cow<'a, [u8]>,
}

impl RawHead {
    /// Reads a head's folder.
    ///
    /// # Errors
    /// A missing or broken file, a wrong shape, or weights that are not finite.
    pub fn open(dir: &Path) -> Result<Self> {
        let config = HeadConfig::open(dir)?;
        let weights = open_weights(dir)?;
        for (name, expected) in config.shapes() {
            read_tensor(&weights, name, expected, dir)?;
        }
        read_d2t(&weights, &config, dir)?;
        drop(weights);

        let read = |path: PathBuf| {
            std::fs::read(&path).map_err(|source| ModelError::Io { path: path.clone(), source })
        };
        let path = dir.join(HEAD_CONFIG);
        let broken = |problem: String| ModelError::BadFile { path: path.clone(), problem };
        let text = String::from_utf8(read(path.clone())?).map_err(|e| broken(e.to_string()))?;
        let document = serde_json::from_str(&text).map_err(|e| broken(e.to_string()))?;
        let bytes = read(dir.join(HEAD_WEIGHTS))?;
        let (metadata, tensors) = read_header(&bytes, &dir.join(HEAD_WEIGHTS))?;
        Ok(Self { folder: dir.to_owned(), config, document, text, bytes, metadata, tensors })
    }

    /// Whether there is a probe already, which a new one replaces.
    #[must_use]
    pub fn has_probe(&self) -> bool {
        has_probe(&self.config, |name| self.tensors.get(name).map(|tensor| tensor.shape.clone()))
    }

    /// SHA-256 over config and weights, every byte of both.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut hasher = Hasher::new();
        hasher.text(&self.text);
        hasher.bytes(&self.bytes);
        hasher.finish()
    }

    /// Refuses a target of another shape, or other weights than the head records.
    ///
    /// # Errors
    /// What differs.
    pub fn check_target(&self, hidden_size: usize, vocab_size: usize, hash: &str) -> Result<()> {
        let wrong =
            |problem: String| Err(ModelError::WrongHead { path: self.folder.clone(), problem });
        self.config.check_target(&self.folder, hidden_size, vocab_size)?;
        let origin = self.config.specexit.as_ref().filter(|o| !o.target_hash.is_empty());
        match origin {
            Some(origin) if origin.target_hash != hash => {
                let short = |hash: &str| hash.chars().take(12).collect::<String>();
                wrong(format!(
                    "it was trained on {} ({}), and this model is {}; name that model",
                    origin.target_name,
                    short(&origin.target_hash),
                    short(hash)
                ))
            }
            _ => Ok(()),
        }
    }

    /// Writes the head with `probe` in place of any it has, and `origin` under `specexit` in its
    /// config. Rows get the type of `fc.weight`, an MLP is f32; all other tensors and keys keep their
    /// bytes. Each file appears whole or not at all.
    ///
    /// # Errors
    /// A probe of another width, a type that cannot hold its rows, or the operating system's refusal
    /// to write.
    pub fn save_with_probe(
        &self,
        dir: &Path,
        probe: &Probe,
        origin: &SpecExitConfig,
    ) -> Result<()> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| ModelError::Io { path: path.clone(), source }
        };
        std::fs::create_dir_all(dir).map_err(io(dir))?;
        let path = dir.join(HEAD_WEIGHTS);
        write_atomically(&path, &self.weights_with(probe)?).map_err(io(&path))?;
        let path = dir.join(HEAD_CONFIG);
        let unwritable = |e: serde_json::Error| ModelError::BadFile {
            path: path.clone(),
            problem: format!("it cannot be written: {e}"),
        };
        let mut document = self.document.clone();
        document.insert("specexit".to_owned(), serde_json::to_value(origin).map_err(unwritable)?);
        let text = serde_json::to_vec_pretty(&document).map_err(unwritable)?;
        write_atomically(&path, &text).map_err(io(&path))
    }

    /// Probe rows in `fc.weight`.
    fn probe_rows(&self) -> usize {
        let rows = self.tensors.get(FC).and_then(|fc| fc.shape.first()).copied().unwrap_or(0);
        rows.saturating_sub(self.config.hidden_size)
    }

    /// Width of the states that the head reads, 3 H_t.
    fn width(&self) -> usize {
        3 * self.config.target_hidden()
    }

    /// The weights file with another probe.
    fn weights_with(&self, probe: &Probe) -> Result<Vec<u8>> {
        let mut entries = Vec::with_capacity(self.tensors.len() + 3);
        for (name, stored) in &self.tensors {
            if PROBE_TENSORS.contains(&name.as_str()) {
                continue;
            }
            let (start, end) = stored.data_offsets;
            let data = self.data(start..end);
            let (dtype, shape) = (&stored.dtype[..], stored.shape.clone());
            entries.push(match name == FC {
                true => self.fc_with(probe, stored, data)?,
                false => Entry { name, dtype, shape, data: data.into() },
            });
        }
        if let Probe::Mlp { up, down, .. } = probe {
            let inner = up.len() / self.width().max(1);
            if up.len() != inner * self.width() || down.len() != PROBE_ROWS * inner {
                return Err(self.misfit(up.len()));
            }
        }
        for (name, shape, numbers) in probe.tensors() {
            let data: Vec<u8> = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
            entries.push(Entry { name, dtype: "F32", shape, data: data.into() });
        }
        Ok(write_tensors(self.metadata.as_ref(), entries))
    }

    /// `fc.weight` with the rows of `probe` below it, if it is made of rows.
    fn fc_with<'a>(&self, probe: &Probe, stored: &'a Stored, data: &'a [u8]) -> Result<Entry<'a>> {
        let rows = self.config.hidden_size;
        let plain = data.len() / (rows + self.probe_rows()) * rows;
        let mut data = data.get(..plain).unwrap_or(data).to_vec();
        let mut shape = vec![rows, self.width()];
        if let Probe::Rows(numbers) = probe {
            if numbers.len() != PROBE_ROWS * self.width() {
                return Err(self.misfit(numbers.len()));
            }
            data.extend(self.as_stored(numbers, &stored.dtype)?);
            shape[0] += PROBE_ROWS;
        }
        Ok(Entry { name: FC, dtype: &stored.dtype, shape, data: data.into() })
    }

    /// Numbers in the type `dtype`.
    fn as_stored(&self, numbers: &[f32], dtype: &str) -> Result<Vec<u8>> {
        let unsupported = |what: String, supported: &str| ModelError::Unsupported {
            path: self.folder.join(HEAD_WEIGHTS),
            what,
            supported: supported.to_owned(),
        };
        let each = numbers.iter().copied();
        Ok(match dtype {
            "F64" => each.flat_map(|v| f64::from(v).to_le_bytes()).collect(),
            "F32" => each.flat_map(f32::to_le_bytes).collect(),
            "BF16" => each.flat_map(|v| bf16::from_f32(v).to_le_bytes()).collect(),
            "F16" => {
                if each.clone().any(|v| !f16::from_f32(v).is_finite()) {
                    let what = "a probe row beyond the largest f16".to_owned();
                    return Err(unsupported(what, "train an MLP probe, which is kept in f32"));
                }
                each.flat_map(|v| f16::from_f32(v).to_le_bytes()).collect()
            }
            other => {
                let what = format!("a probe row of type {other}");
                return Err(unsupported(what, "train an MLP probe, which is kept in f32"));
            }
        })
    }

    fn misfit(&self, numbers: usize) -> ModelError {
        let problem =
            format!("a probe of {numbers} numbers does not read states of width {}", self.width());
        ModelError::BadFile { path: self.folder.join(HEAD_WEIGHTS), problem }
    }

    /// Bytes of the weights file after its header.
    fn data(&self, range: Range<usize>) -> &[u8] {
        let start = header_end(&self.bytes).unwrap_or(self.bytes.len());
        self.bytes.get(start + range.start..start + range.end).unwrap_or_default()
    }
}

/// Where the header of a safetensors file ends.
fn header_end(bytes: &[u8]) -> Option<usize> {
    let length = u64::from_le_bytes(*bytes.first_chunk::<PREFIX>()?);
    PREFIX.checked_add(usize::try_from(length).ok()?).filter(|end| *end <= bytes.len())
}

/// Metadata and tensors of a safetensors file.
fn read_header(bytes: &[u8], path: &Path) -> Result<(Option<Value>, BTreeMap<String, Stored>)> {
    let broken = |problem: String| ModelError::BadFile { path: path.to_owned(), problem };
    // It was sound when its shapes were checked; it may have been replaced since.
    let changed = || broken("it changed while it was read".to_owned());
    let end = header_end(bytes).ok_or_else(changed)?;
    let mut header: Map<String, Value> =
        serde_json::from_slice(&bytes[PREFIX..end]).map_err(|e| broken(e.to_string()))?;
    let metadata = header.shift_remove(METADATA);
    let mut tensors = BTreeMap::new();
    for (name, value) in header {
        let stored: Stored = serde_json::from_value(value).map_err(|e| broken(e.to_string()))?;
        let (from, to) = stored.data_offsets;
        if from > to || to > bytes.len() - end {
            return Err(changed());
        }
        tensors.insert(name, stored);
    }
    Ok((metadata, tensors))
}

/// A safetensors file. The library's writer would put metadata in another order each time.
fn write_tensors(metadata: Option<&Value>, mut entries: Vec<Entry<'_>>) -> Vec<u8> {
    let size = |e: &Entry<'_>| e.data.len() / e.shape.iter().product::<usize>().max(1);
    // Wide numbers first, as the library has it: all stay aligned.
    entries.sort_by(|a, b| size(b).cmp(&size(a)).then(a.name.cmp(b.name)));
    let mut header = Map::new();
    header.extend(metadata.map(|value| (METADATA.to_owned(), value.clone())));
    let mut at = 0;
    for entry in &entries {
        let end = at + entry.data.len();
        let place = json!({"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [at, end]});
        header.insert(entry.name.to_owned(), place);
        at = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(PREFIX), b' ');
    let mut bytes = Vec::with_capacity(PREFIX + header.len() + at);
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header);
    entries.iter().for_each(|entry| bytes.extend_from_slice(&entry.data));
    bytes
}
