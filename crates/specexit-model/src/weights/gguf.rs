//! The header of a GGUF file: metadata and the list of tensors.
//!
//! Read by our own bounds-checked cursor, because candle's reader divides by an alignment taken
//! from the file and has no names for what is wrong. The quantised blocks themselves are candle's.

use std::collections::BTreeMap;
use std::path::Path;

use super::dtype::Dtype;
use super::metadata::{GgufMetadata, GgufValue};
use super::names::{self, RowOrder};
use super::{Bytes, Tensor, Weights};
use crate::error::{ModelError, Result};
use specexit_kernels::MappedFile;

/// Tensor data starts at a multiple of this unless the file says otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;
/// The smallest alignment that the format allows.
const MIN_ALIGNMENT: u64 = 8;
/// As in ggml.
const MAX_DIMENSIONS: u32 = 4;

/// Opens the GGUF file at `path`: its tensors under canonical names, and its metadata.
pub(super) fn open(path: &Path) -> Result<(Weights, GgufMetadata)> {
    let file = MappedFile::open(path)
        .map_err(|source| ModelError::Io { path: path.to_owned(), source })?;
    let mut cursor = Cursor { bytes: &file, at: 0, path };
    let (tensor_count, value_count) = cursor.counts()?;
    let metadata = cursor.metadata(value_count)?;
    if let Some(parts) = metadata.integer("split.count")?
        && parts > 1
    {
        return Err(metadata.unsupported(
            format!("a model split into {parts} files"),
            "join them with `llama-gguf-split --merge`",
        ));
    }
    let listed = cursor.tensors(tensor_count)?;
    let data_start = align(cursor.at as u64, alignment(&metadata)?);

    let row_order = RowOrder::of(&metadata)?;
    let mut tensors = BTreeMap::new();
    for (name, listed) in listed {
        let tensor = listed.place(&name, data_start, file.len(), &metadata, &row_order)?;
        let name = names::canonical(&name);
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(damaged(path, format!("tensor `{name}` is listed twice")));
        }
    }
    Ok((Weights { path: path.to_owned(), files: vec![Bytes::Mapped(file)], tensors }, metadata))
}

/// A tensor as the header lists it.
struct Listed {
    /// Outermost dimension first (the file has it last).
    shape: Vec<usize>,
    /// The type's number in the format.
    dtype: u32,
    /// First byte, counted from the start of the tensor data.
    offset: u64,
}

impl Listed {
    /// Finds the tensor's bytes in a file of `file_len` bytes.
    fn place(
        self,
        name: &str,
        data_start: u64,
        file_len: usize,
        metadata: &GgufMetadata,
        row_order: &RowOrder,
    ) -> Result<Tensor> {
        let dtype = Dtype::from_gguf(self.dtype).map_err(|dtype| {
            metadata.unsupported(
                format!("the type {dtype} of tensor `{name}`"),
                "supported are F32, F16, BF16, Q8_0, Q5_0, Q5_1, Q4_0, Q4_1 and Q2_K to Q6_K",
            )
        })?;
        let Some(len) = dtype.bytes(&self.shape) else {
            return Err(damaged(
                metadata.path(),
                format!(
                    "tensor `{name}` has shape {:?}, impossible for {}",
                    self.shape,
                    dtype.name()
                ),
            ));
        };
        // Blocks are read in place: their 2-byte scales must lie on even addresses.
        if !self.offset.is_multiple_of(MIN_ALIGNMENT) {
            return Err(damaged(
                metadata.path(),
                format!("tensor `{name}` has the unaligned offset {}", self.offset),
            ));
        }
        let start = data_start.checked_add(self.offset).and_then(|at| usize::try_from(at).ok());
        let end = start.and_then(|start| start.checked_add(len));
        match (start, end) {
            (Some(start), Some(end)) if end <= file_len => {
                let unpermute = row_order.heads_to_unpermute(name, &self.shape);
                Ok(Tensor { file: 0, bytes: start..end, dtype, shape: self.shape, unpermute })
            }
            _ => Err(damaged(
                metadata.path(),
                format!(
                    "tensor `{name}` needs {len} bytes at {} after the header, \
                     but the file has only {file_len} bytes in all",
                    self.offset
                ),
            )),
        }
    }
}

/// The alignment of the tensor data: a power of two, so that every block is aligned for its type.
fn alignment(metadata: &GgufMetadata) -> Result<u64> {
    const KEY: &str = "general.alignment";
    let alignment = metadata.integer(KEY)?.unwrap_or(DEFAULT_ALIGNMENT);
    if alignment.is_power_of_two() && (MIN_ALIGNMENT..=1 << 20).contains(&alignment) {
        Ok(alignment)
    } else {
        Err(metadata.bad(KEY, format!("is {alignment}, but must be a power of two from 8")))
    }
}

/// `at` rounded up; neither argument can overflow, being a file position and a checked alignment.
fn align(at: u64, alignment: u64) -> u64 {
    at.div_ceil(alignment) * alignment
}

fn damaged(path: &Path, problem: String) -> ModelError {
    ModelError::BadFile {
        path: path.to_owned(),
        problem: format!("{problem}; the file is damaged or incomplete, fetch it again"),
    }
}

/// A position in the header. Every read is checked against the end of the file.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    path: &'a Path,
}

impl<'a> Cursor<'a> {
    /// The magic, the version, and the numbers of tensors and of metadata values.
    fn counts(&mut self) -> Result<(u64, u64)> {
        if self.bytes.get(..4) != Some(b"GGUF") {
            return Err(ModelError::BadFile {
                path: self.path.to_owned(),
                problem: "it does not start with `GGUF`, so it is no GGUF file (or an unfinished \
                          download); check its name and size"
                    .to_owned(),
            });
        }
        self.at = 4;
        let version = self.u32("version")?;
        if !(2..=3).contains(&version) {
            return Err(ModelError::Unsupported {
                path: self.path.to_owned(),
                what: format!("GGUF version {version}"),
                supported: "supported are little-endian versions 2 and 3".to_owned(),
            });
        }
        Ok((self.u64("tensor count")?, self.u64("metadata count")?))
    }

    fn metadata(&mut self, count: u64) -> Result<GgufMetadata> {
        let mut values = BTreeMap::new();
        // A key takes at least 13 bytes, so the loop ends with the file however large the count.
        for _ in 0..count {
            let key = self.name("metadata key")?;
            let kind = self.u32(&key)?;
            let value = self.value(&key, kind)?;
            if values.insert(key.clone(), value).is_some() {
                return Err(damaged(self.path, format!("the metadata key `{key}` appears twice")));
            }
        }
        Ok(GgufMetadata::new(self.path.to_owned(), values))
    }

    fn value(&mut self, key: &str, kind: u32) -> Result<GgufValue> {
        Ok(match kind {
            0 | 2 | 4 | 10 => GgufValue::Unsigned(self.unsigned(key, kind)?),
            1 | 3 | 5 | 11 => GgufValue::Signed(self.signed(key, kind)?),
            6 | 12 => GgufValue::Float(self.float(key, kind)?),
            7 => GgufValue::Bool(self.array::<1>(key)? != [0]),
            8 => GgufValue::Text(self.text(key)?),
            9 => self.array_value(key)?,
            other => return Err(self.bad_kind(key, other)),
        })
    }

    fn array_value(&mut self, key: &str) -> Result<GgufValue> {
        let kind = self.u32(key)?;
        let count = self.u64(key)?;
        let smallest: u64 = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => {
                return Err(ModelError::Unsupported {
                    path: self.path.to_owned(),
                    what: format!("the metadata key `{key}`, an array of arrays,"),
                    supported: "only flat arrays are".to_owned(),
                });
            }
            other => return Err(self.bad_kind(key, other)),
        };
        let left = (self.bytes.len() - self.at) as u64;
        if count.checked_mul(smallest).is_none_or(|needed| needed > left) {
            return Err(damaged(
                self.path,
                format!(
                    "the metadata key `{key}` claims {count} elements, but {left} bytes follow"
                ),
            ));
        }
        let items = 0..count;
        Ok(match kind {
            0 | 2 | 4 | 10 => GgufValue::Integers(
                // Larger than i64::MAX only in nonsense; kept as -1, which no reader accepts as an id.
                items
                    .map(|_| self.unsigned(key, kind).map(|n| i64::try_from(n).unwrap_or(-1)))
                    .collect::<Result<_>>()?,
            ),
            1 | 3 | 5 | 11 => {
                GgufValue::Integers(items.map(|_| self.signed(key, kind)).collect::<Result<_>>()?)
            }
            6 | 12 => GgufValue::Floats(
                items.map(|_| self.float(key, kind).map(|n| n as f32)).collect::<Result<_>>()?,
            ),
            7 => GgufValue::Bools(
                items.map(|_| Ok(self.array::<1>(key)? != [0])).collect::<Result<_>>()?,
            ),
            _ => GgufValue::Texts(items.map(|_| self.text(key)).collect::<Result<_>>()?),
        })
    }

    fn tensors(&mut self, count: u64) -> Result<Vec<(String, Listed)>> {
        let mut tensors = Vec::new();
        for _ in 0..count {
            let name = self.name("tensor name")?;
            let dimensions = self.u32(&name)?;
            if dimensions > MAX_DIMENSIONS {
                return Err(damaged(
                    self.path,
                    format!("tensor `{name}` claims {dimensions} dimensions, the format allows 4"),
                ));
            }
            let mut shape = (0..dimensions)
                .map(|_| {
                    let size = self.u64(&name)?;
                    usize::try_from(size).map_err(|_| {
                        damaged(self.path, format!("tensor `{name}` has a dimension of {size}"))
                    })
                })
                .collect::<Result<Vec<_>>>()?;
            shape.reverse();
            let dtype = self.u32(&name)?;
            let offset = self.u64(&name)?;
            tensors.push((name, Listed { shape, dtype, offset }));
        }
        Ok(tensors)
    }

    fn unsigned(&mut self, key: &str, kind: u32) -> Result<u64> {
        Ok(match kind {
            0 => u64::from(u8::from_le_bytes(self.array(key)?)),
            2 => u64::from(u16::from_le_bytes(self.array(key)?)),
            4 => u64::from(self.u32(key)?),
            _ => self.u64(key)?,
        })
    }

    fn signed(&mut self, key: &str, kind: u32) -> Result<i64> {
        Ok(match kind {
            1 => i64::from(i8::from_le_bytes(self.array(key)?)),
            3 => i64::from(i16::from_le_bytes(self.array(key)?)),
            5 => i64::from(i32::from_le_bytes(self.array(key)?)),
            _ => i64::from_le_bytes(self.array(key)?),
        })
    }

    fn float(&mut self, key: &str, kind: u32) -> Result<f64> {
        Ok(match kind {
            6 => f64::from(f32::from_le_bytes(self.array(key)?)),
            _ => f64::from_le_bytes(self.array(key)?),
        })
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn text(&mut self, what: &str) -> Result<String> {
        let len = self.u64(what)?;
        let bytes = self.take(len, what)?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    /// A metadata key or a tensor name.
    fn name(&mut self, what: &str) -> Result<String> {
        let name = self.text(what)?;
        names::check_name(&name).map_err(|problem| damaged(self.path, problem))?;
        Ok(name)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let bytes = self.take(N as u64, what)?;
        bytes.try_into().map_err(|_| self.ended(N as u64, what))
    }

    fn take(&mut self, len: u64, what: &str) -> Result<&'a [u8]> {
        let end = usize::try_from(len).ok().and_then(|len| self.at.checked_add(len));
        match end.and_then(|end| self.bytes.get(self.at..end)) {
            Some(bytes) => {
                self.at += bytes.len();
                Ok(bytes)
            }
            None => Err(self.ended(len, what)),
        }
    }

    fn ended(&self, len: u64, what: &str) -> ModelError {
        damaged(
            self.path,
            format!(
                "the header ends inside `{what}`: {len} bytes wanted at byte {}, the file has {}",
                self.at,
                self.bytes.len()
            ),
        )
    }

    fn bad_kind(&self, key: &str, kind: u32) -> ModelError {
        damaged(self.path, format!("the metadata key `{key}` has the unknown value type {kind}"))
    }
}
