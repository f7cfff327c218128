//! safetensors files: one, or the shards of an index.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use safetensors::tensor::Metadata;
use serde::Deserialize;
use specexit_kernels::MappedFile;

use super::dtype::Dtype;
use super::names::check_name;
use super::{Bytes, Tensor, Weights};
use crate::error::{ModelError, Result, shown};

/// Bytes before the header: its length.
const PREFIX: usize = 8;
/// As in the safetensors library; the largest real headers have a few megabytes.
const MAX_HEADER: u64 = 100_000_000;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The part of `model.safetensors.index.json` that counts.
#[derive(Deserialize)]
struct Index {
    /// Tensor name → file name.
    weight_map: BTreeMap<String, String>,
}

/// Opens a folder's `model.safetensors`, or its shards.
pub(super) fn open_folder(folder: &Path) -> Result<Weights> {
    let single = folder.join(SINGLE);
    if single.is_file() {
        return open_files(folder, &[single]);
    }
    let index_path = folder.join(INDEX);
    if !index_path.is_file() {
        let advice = if folder.join("pytorch_model.bin").is_file() {
            "convert pytorch_model.bin with safetensors' convert.py first"
        } else {
            "a model folder holds its weights as safetensors; for GGUF give the .gguf file itself"
        };
        return Err(ModelError::MissingFile {
            folder: folder.to_owned(),
            file: format!("{SINGLE} (nor {INDEX})"),
            advice: advice.to_owned(),
        });
    }
    let text = std::fs::read_to_string(&index_path)
        .map_err(|source| ModelError::Io { path: index_path.clone(), source })?;
    let index: Index = serde_json::from_str(&text).map_err(|error| ModelError::BadFile {
        path: index_path.clone(),
        problem: format!("it is not an index of safetensors shards ({})", shown(error)),
    })?;
    let shards: BTreeSet<&String> = index.weight_map.values().collect();
    let mut paths = Vec::new();
    for shard in shards {
        paths.push(shard_path(folder, &index_path, shard)?);
    }
    let weights = open_files(folder, &paths)?;
    match index.weight_map.keys().find(|name| !weights.contains(name)) {
        None => Ok(weights),
        Some(name) => {
            Err(ModelError::MissingTensor { path: folder.to_owned(), tensor: name.clone() })
        }
    }
}

/// The path of a shard, which must lie in the folder: an index is data and names no other places.
fn shard_path(folder: &Path, index_path: &Path, shard: &str) -> Result<PathBuf> {
    let mut parts = Path::new(shard).components();
    if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
        return Err(ModelError::BadField {
            path: index_path.to_owned(),
            field: "weight_map".to_owned(),
            problem: format!("names the shard `{}`, which is not a plain file name", shown(shard)),
        });
    }
    let path = folder.join(shard);
    if path.is_file() {
        Ok(path)
    } else {
        Err(ModelError::MissingFile {
            folder: folder.to_owned(),
            file: shard.to_owned(),
            advice: format!("{INDEX} names it as a shard, so download it too"),
        })
    }
}

/// Opens `paths` as one set of tensors; `opened` is what errors about missing tensors name.
pub(super) fn open_files(opened: &Path, paths: &[PathBuf]) -> Result<Weights> {
    let mut files = Vec::new();
    let mut tensors = BTreeMap::new();
    for path in paths {
        let file = MappedFile::open(path)
            .map_err(|source| ModelError::Io { path: path.clone(), source })?;
        for (name, tensor) in read_header(path, &file, files.len())? {
            if tensors.insert(name.clone(), tensor).is_some() {
                return Err(damaged(path, &format!("tensor `{name}` is in another shard too")));
            }
        }
        files.push(Bytes::Mapped(file));
    }
    Ok(Weights { path: opened.to_owned(), files, tensors })
}

/// Reads the contents of one file.
pub(super) fn from_embedded(path: &Path, contents: &'static [u8]) -> Result<Weights> {
    let tensors = read_header(path, contents, 0)?.into_iter().collect();
    Ok(Weights { path: path.to_owned(), files: vec![Bytes::Embedded(contents)], tensors })
}

/// The tensors that the header of a file lists.
fn read_header(path: &Path, file: &[u8], index: usize) -> Result<Vec<(String, Tensor)>> {
    let prefix = file.first_chunk::<PREFIX>().ok_or_else(|| damaged(path, "it has no header"))?;
    let header_len = u64::from_le_bytes(*prefix);
    if header_len > MAX_HEADER {
        return Err(damaged(path, &format!("it claims a header of {header_len} bytes")));
    }
    let data_start = PREFIX + header_len as usize;
    let header = file.get(PREFIX..data_start).ok_or_else(|| {
        damaged(path, &format!("it ends inside its header of {header_len} bytes"))
    })?;
    // Parsed apart from the data, because the library adds up lengths from the file unchecked when
    // it is given both.
    let header: Metadata = serde_json::from_slice(header)
        .map_err(|error| damaged(path, &format!("its header is not valid ({})", shown(error))))?;
    let data_len = file.len() - data_start;
    if header.data_len() != data_len {
        return Err(damaged(
            path,
            &format!(
                "its header lists {} bytes of tensors, but {data_len} follow",
                header.data_len()
            ),
        ));
    }
    let mut tensors = Vec::new();
    for (name, info) in header.tensors() {
        check_name(&name).map_err(|problem| damaged(path, &problem))?;
        let Some(dtype) = Dtype::from_safetensors(info.dtype) else {
            return Err(ModelError::Unsupported {
                path: path.to_owned(),
                what: format!("the type {:?} of tensor `{name}`", info.dtype),
                supported: "supported are F64, F32, F16, BF16, I64, I32, U8 and BOOL".to_owned(),
            });
        };
        let (start, end) = info.data_offsets;
        let bytes = data_start + start..data_start + end;
        // The library checked both; everything that indexes the bytes relies on it, so check again.
        if end > data_len || dtype.bytes(&info.shape) != Some(bytes.len()) {
            return Err(damaged(path, &format!("tensor `{name}` has offsets beyond its data")));
        }
        let shape = info.shape.clone();
        tensors.push((name, Tensor { file: index, bytes, dtype, shape, unpermute: None }));
    }
    Ok(tensors)
}

fn damaged(path: &Path, problem: &str) -> ModelError {
    ModelError::BadFile {
        path: path.to_owned(),
        problem: format!("{problem}; the file is damaged or incomplete, fetch it again"),
    }
}
