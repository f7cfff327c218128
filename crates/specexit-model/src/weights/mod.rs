//! The tensors of a checkpoint behind one face, whatever file they lie in.
//!
//! Tensors have the names of the Hugging Face checkpoint (`model.layers.0.self_attn.q_proj.weight`)
//! and are converted when asked for, so that no second copy of the model is ever held. Files are
//! mapped, never read whole.

mod decode;
mod dtype;
mod gguf;
mod identity;
mod metadata;
mod names;
mod safetensors;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use specexit_kernels::{MappedFile, Matrix};

use crate::error::{ModelError, Result};
use dtype::Dtype;

pub use metadata::{GgufMetadata, GgufValue};

/// The tensors of one checkpoint: safetensors file(s) or a GGUF file.
#[derive(Debug)]
pub struct Weights {
    /// The folder or file they were opened from.
    path: PathBuf,
    files: Vec<Bytes>,
    tensors: BTreeMap<String, Tensor>,
}

/// The bytes of a file.
#[derive(Debug)]
enum Bytes {
    /// On disk.
    Mapped(MappedFile),
    /// In the program.
    Embedded(&'static [u8]),
}

impl Bytes {
    fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        match self {
            Self::Mapped(file) => file.get(range),
            Self::Embedded(bytes) => bytes.get(range),
        }
    }
}

/// Where and how a tensor is stored. Its bytes are known to lie inside the file and to be as many
/// as type and shape need.
#[derive(Debug)]
struct Tensor {
    /// Index into [`Weights::files`].
    file: usize,
    bytes: Range<usize>,
    dtype: Dtype,
    /// Outermost dimension first.
    shape: Vec<usize>,
    /// Number of heads whose rows llama.cpp interleaved, where it did.
    unpermute: Option<usize>,
}

impl Tensor {
    /// Numbers per row: the innermost dimension.
    fn row_len(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Rows: the product of the other dimensions.
    fn rows(&self) -> usize {
        let (_, outer) = self.shape.split_last().unwrap_or((&1, &[]));
        outer.iter().product()
    }
}

impl Weights {
    /// Opens `model.safetensors` of a folder, or the shards that `model.safetensors.index.json` lists.
    ///
    /// # Errors
    /// When the folder has neither, a shard is missing, or a file is damaged.
    pub fn open_safetensors(folder: &Path) -> Result<Self> {
        safetensors::open_folder(folder)
    }

    /// Opens one safetensors file.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub fn open_safetensors_file(path: &Path) -> Result<Self> {
        safetensors::open_files(path, &[path.to_owned()])
    }

    /// Reads a safetensors file that stands in the program itself; `path` is what messages name.
    ///
    /// # Errors
    /// When the contents are damaged.
    pub fn from_embedded(path: &Path, contents: &'static [u8]) -> Result<Self> {
        safetensors::from_embedded(path, contents)
    }

    /// Opens a GGUF file. Tensor names and the row order of `llama`'s q and k are translated back to
    /// those of the Hugging Face checkpoint; tensors of unknown names keep theirs.
    ///
    /// # Errors
    /// When the file cannot be read, is damaged, or uses a feature that specexit does not read.
    pub fn open_gguf(path: &Path) -> Result<(Self, GgufMetadata)> {
        gguf::open(path)
    }

    /// The folder or file the weights were opened from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a tensor of that name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The tensor's shape, outermost dimension first.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|tensor| tensor.shape.clone())
    }

    /// All tensor names, in alphabetical order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    /// How the tensor's numbers are stored: `BF16`, `F32`, `Q4_K`, …
    #[must_use]
    pub fn dtype(&self, name: &str) -> Option<String> {
        self.tensors.get(name).map(|tensor| tensor.dtype.name().to_owned())
    }

    /// Bytes that all tensors take in their files.
    #[must_use]
    pub fn stored_bytes(&self) -> usize {
        self.tensors.values().map(|tensor| tensor.bytes.len()).sum()
    }

    /// A weight matrix `[rows, cols]`, read on all cores. GGML's Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K,
    /// Q5_K and Q6_K stay as they are, everything else is rounded to bf16.
    ///
    /// # Errors
    /// When the tensor is missing, has another shape, holds no floats, or holds a number that is not
    /// finite in the type that it gets.
    pub fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        let tensor = self.tensor(name, Some(&[rows, cols]))?;
        self.decode_matrix(name, tensor)
    }

    /// A vector `[len]` as f32.
    ///
    /// # Errors
    /// As [`Self::matrix`].
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let tensor = self.tensor(name, Some(&[len]))?;
        self.decode_f32(name, tensor)
    }

    /// A tensor of any shape as f32, row after row, with its shape.
    ///
    /// # Errors
    /// As [`Self::matrix`], but for the shape.
    pub fn f32(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let tensor = self.tensor(name, None)?;
        Ok((tensor.shape.clone(), self.decode_f32(name, tensor)?))
    }

    /// A vector `[len]` of integers (I64 or I32): `d2t`.
    ///
    /// # Errors
    /// When the tensor is missing, has another shape or holds no integers.
    pub fn integers(&self, name: &str, len: usize) -> Result<Vec<i64>> {
        let tensor = self.tensor(name, Some(&[len]))?;
        self.decode_integers(name, tensor)
    }

    /// A vector `[len]` of flags (BOOL, or U8 holding 0 and 1): `t2d`.
    ///
    /// # Errors
    /// When the tensor is missing, has another shape or holds no flags.
    pub fn booleans(&self, name: &str, len: usize) -> Result<Vec<bool>> {
        let tensor = self.tensor(name, Some(&[len]))?;
        self.decode_booleans(name, tensor)
    }

    /// The identity of the weights: a SHA-256 over names, shapes, types and a sample of the bytes of
    /// every tensor, in hexadecimal. The same for the same file anywhere; takes milliseconds.
    #[must_use]
    pub fn hash(&self) -> String {
        self.identity()
    }

    /// The tensor of that name, of that shape if one is given.
    fn tensor(&self, name: &str, shape: Option<&[usize]>) -> Result<&Tensor> {
        let Some(tensor) = self.tensors.get(name) else {
            return Err(ModelError::MissingTensor {
                path: self.path.clone(),
                tensor: name.to_owned(),
            });
        };
        match shape {
            Some(shape) if shape != tensor.shape => Err(ModelError::TensorShape {
                path: self.path.clone(),
                tensor: name.to_owned(),
                expected: shape.to_vec(),
                found: tensor.shape.clone(),
            }),
            _ => Ok(tensor),
        }
    }

    /// The tensor's bytes in its file.
    fn bytes(&self, tensor: &Tensor) -> &[u8] {
        self.files
            .get(tensor.file)
            .and_then(|file| file.get(tensor.bytes.clone()))
            .unwrap_or_default()
    }

    fn wrong_type(&self, name: &str, tensor: &Tensor, expected: &str) -> ModelError {
        ModelError::TensorType {
            path: self.path.clone(),
            tensor: name.to_owned(),
            expected: expected.to_owned(),
            found: tensor.dtype.name().to_owned(),
        }
    }
}
