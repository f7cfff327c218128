//! From stored bytes to numbers: plain types here, quantised blocks by candle; and from stored
//! blocks to matrices that keep them.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use candle_core::CpuStorage;
use half::{bf16, f16};
use specexit_kernels::{BlockFormat, BlocksError, Matrix};

use super::dtype::Dtype;
use super::names::interleaved_row;
use super::{Tensor, Weights};
use crate::error::{ModelError, Result};

/// Numbers decoded in one go: small enough for the second-level cache, large enough that handing
/// the chunk over costs nothing.
const CHUNK: usize = 1 << 16;

impl Weights {
    /// The tensor as a matrix; its shape is known to have two dimensions. Formats that the kernels
    /// multiply with stay as they are, everything else becomes bf16.
    pub(super) fn decode_matrix(&self, name: &str, tensor: &Tensor) -> Result<Matrix> {
        self.check_float(name, tensor)?;
        let (rows, cols) = (tensor.rows(), tensor.row_len());
        if rows == 0 || cols == 0 {
            return Ok(Matrix::zeros(rows, cols));
        }
        match tensor.dtype.block_format() {
            Some(format) => self.block_matrix(name, tensor, format),
            None => self.bf16_matrix(name, tensor),
        }
    }

    /// The tensor's blocks, with scales known to be finite.
    fn block_matrix(&self, name: &str, tensor: &Tensor, format: BlockFormat) -> Result<Matrix> {
        let (rows, cols) = (tensor.rows(), tensor.row_len());
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let row_bytes = |row: usize| {
            let stored = tensor.unpermute.map_or(row, |heads| interleaved_row(row, rows, heads));
            self.row_bytes(tensor, stored..stored + 1)
        };
        match Matrix::from_blocks(format, rows, cols, threads, row_bytes) {
            Ok(matrix) => Ok(matrix),
            Err(BlocksError::NotFinite { row }) => {
                let mut values = Vec::with_capacity(cols);
                self.decode_rows(tensor, row..row + 1, &mut values)?;
                let at = values.iter().position(|value| !value.is_finite()).unwrap_or(0);
                let value = values.get(at).copied().unwrap_or(f32::NAN);
                Err(self.not_finite(name, tensor, row * cols + at, value))
            }
            Err(error @ BlocksError::Length { .. }) => Err(ModelError::BadFile {
                path: self.path.clone(),
                problem: format!("tensor `{name}`: {error}"),
            }),
        }
    }

    /// The tensor rounded to bf16.
    ///
    /// Worker threads decode chunks of rows, this thread copies them into place: the decoded form
    /// never exists twice.
    fn bf16_matrix(&self, name: &str, tensor: &Tensor) -> Result<Matrix> {
        let (rows, cols) = (tensor.rows(), tensor.row_len());
        let mut matrix = Matrix::zeros(rows, cols);
        let step = (CHUNK / cols).max(1);
        let chunks = rows.div_ceil(step);
        let workers = thread::available_parallelism().map_or(1, usize::from).min(chunks);

        let next = AtomicUsize::new(0);
        let decode_chunks = |sender: mpsc::SyncSender<(usize, Result<Vec<bf16>>)>| {
            loop {
                let chunk = next.fetch_add(1, Ordering::Relaxed);
                if chunk >= chunks {
                    return;
                }
                let range = chunk * step..((chunk + 1) * step).min(rows);
                let decoded = self.decode_bf16(name, tensor, range);
                if sender.send((chunk, decoded)).is_err() {
                    return;
                }
            }
        };
        let mut failure: Option<(usize, ModelError)> = None;
        thread::scope(|scope| {
            let (sender, receiver) = mpsc::sync_channel(2 * workers);
            for _ in 0..workers {
                let sender = sender.clone();
                scope.spawn(|| decode_chunks(sender));
            }
            drop(sender);
            for (chunk, decoded) in receiver {
                match decoded {
                    Ok(values) => {
                        for (row, values) in (chunk * step..).zip(values.chunks_exact(cols)) {
                            matrix.set_row(row, values);
                        }
                    }
                    // The earliest bad element is reported, whichever thread was faster.
                    Err(error) if failure.as_ref().is_none_or(|(first, _)| chunk < *first) => {
                        failure = Some((chunk, error));
                    }
                    Err(_) => {}
                }
            }
        });
        failure.map_or(Ok(matrix), |(_, error)| Err(error))
    }

    /// All numbers of the tensor as f32, row after row.
    pub(super) fn decode_f32(&self, name: &str, tensor: &Tensor) -> Result<Vec<f32>> {
        self.check_float(name, tensor)?;
        let (rows, cols) = (tensor.rows(), tensor.row_len());
        if rows == 0 || cols == 0 {
            return Ok(Vec::new());
        }
        let mut values = Vec::with_capacity(rows * cols);
        let step = (CHUNK / cols).max(1);
        for start in (0..rows).step_by(step) {
            self.decode_rows(tensor, start..(start + step).min(rows), &mut values)?;
        }
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(at) => Err(self.not_finite(name, tensor, at, values[at])),
        }
    }

    /// The integers of a vector.
    pub(super) fn decode_integers(&self, name: &str, tensor: &Tensor) -> Result<Vec<i64>> {
        let bytes = self.bytes(tensor);
        match tensor.dtype {
            Dtype::I64 => Ok(numbers(bytes, i64::from_le_bytes).collect()),
            Dtype::I32 => Ok(numbers(bytes, |b| i64::from(i32::from_le_bytes(b))).collect()),
            _ => Err(self.wrong_type(name, tensor, "I64 or I32")),
        }
    }

    /// The flags of a vector.
    pub(super) fn decode_booleans(&self, name: &str, tensor: &Tensor) -> Result<Vec<bool>> {
        let bytes = self.bytes(tensor);
        match (tensor.dtype, bytes.iter().find(|byte| **byte > 1)) {
            (Dtype::Flag, None) => Ok(bytes.iter().map(|byte| *byte == 1).collect()),
            (Dtype::Flag, Some(_)) => {
                Err(self.wrong_type(name, tensor, "BOOL (every byte 0 or 1)"))
            }
            _ => Err(self.wrong_type(name, tensor, "BOOL")),
        }
    }

    /// Rows `range` as bf16, every number of them finite.
    fn decode_bf16(&self, name: &str, tensor: &Tensor, range: Range<usize>) -> Result<Vec<bf16>> {
        let first = range.start * tensor.row_len();
        if let (Dtype::BF16, None) = (tensor.dtype, tensor.unpermute) {
            // The common checkpoint: nothing to convert.
            let values: Vec<bf16> =
                numbers(self.row_bytes(tensor, range), bf16::from_le_bytes).collect();
            return match values.iter().position(|value| !value.is_finite()) {
                None => Ok(values),
                Some(at) => Err(self.not_finite(name, tensor, first + at, values[at].to_f32())),
            };
        }
        let mut values = Vec::with_capacity(range.len() * tensor.row_len());
        self.decode_rows(tensor, range, &mut values)?;
        round_to_bf16(&values).map_err(|at| self.not_finite(name, tensor, first + at, values[at]))
    }

    /// Appends rows `range` (in checkpoint order) as f32.
    fn decode_rows(&self, tensor: &Tensor, range: Range<usize>, out: &mut Vec<f32>) -> Result<()> {
        let Some(heads) = tensor.unpermute else {
            return self.decode_stored(tensor.dtype, self.row_bytes(tensor, range), out);
        };
        for row in range {
            let stored = interleaved_row(row, tensor.rows(), heads);
            self.decode_stored(tensor.dtype, self.row_bytes(tensor, stored..stored + 1), out)?;
        }
        Ok(())
    }

    /// Appends the numbers in `bytes`, which hold whole rows.
    fn decode_stored(&self, dtype: Dtype, bytes: &[u8], out: &mut Vec<f32>) -> Result<()> {
        match dtype {
            Dtype::F64 => out.extend(numbers(bytes, |b| f64::from_le_bytes(b) as f32)),
            Dtype::F32 => out.extend(numbers(bytes, f32::from_le_bytes)),
            Dtype::F16 => out.extend(numbers(bytes, |b| f16::from_le_bytes(b).to_f32())),
            Dtype::BF16 => out.extend(numbers(bytes, |b| bf16::from_le_bytes(b).to_f32())),
            Dtype::I64 | Dtype::I32 | Dtype::Flag => {}
            Dtype::Block(block) => {
                let count = bytes.len() / block.type_size() * block.block_size();
                // candle reads the blocks in place and asserts their alignment; that was made sure of
                // when the file was opened (`gguf::Listed::place`).
                match block.from_data(Cow::Borrowed(bytes)).dequantize(count) {
                    Ok(CpuStorage::F32(values)) => out.extend_from_slice(&values),
                    Ok(_) | Err(_) => {
                        return Err(ModelError::BadFile {
                            path: self.path.clone(),
                            problem: format!("its {} blocks cannot be decoded", dtype.name()),
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// The bytes of stored rows `range`.
    fn row_bytes(&self, tensor: &Tensor, range: Range<usize>) -> &[u8] {
        let row = tensor.row_len() / tensor.dtype.block_len() * tensor.dtype.block_bytes();
        self.bytes(tensor).get(range.start * row..range.end * row).unwrap_or_default()
    }

    fn check_float(&self, name: &str, tensor: &Tensor) -> Result<()> {
        if tensor.dtype.is_float() {
            Ok(())
        } else {
            Err(self.wrong_type(name, tensor, "a floating-point type"))
        }
    }

    /// The error for the element at flat position `at`.
    fn not_finite(&self, name: &str, tensor: &Tensor, at: usize, value: f32) -> ModelError {
        let mut index = vec![0; tensor.shape.len()];
        let mut rest = at;
        for (slot, size) in index.iter_mut().zip(&tensor.shape).rev() {
            (*slot, rest) = (rest % size, rest / size);
        }
        ModelError::NotFinite { path: self.path.clone(), tensor: name.to_owned(), index, value }
    }
}

/// The numbers rounded to the nearest bf16, ties to even, or the position of the first that is not
/// finite after rounding.
///
/// Without branches, so that the compiler vectorises it: `bf16::from_f32` took most of the loading.
fn round_to_bf16(values: &[f32]) -> std::result::Result<Vec<bf16>, usize> {
    const INFINITE: u32 = 0x7f80_0000;
    let round = |bits: u32| bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let rounded =
        values.iter().map(|value| bf16::from_bits(round(value.to_bits()) as u16)).collect();
    let is_bad = |value: &f32| {
        let bits = value.to_bits();
        // Rounding can carry a large number to infinity, and a NaN beyond it.
        (bits & INFINITE == INFINITE) | (round(bits) << 16 & INFINITE == INFINITE)
    };
    if values.iter().fold(false, |bad, value| bad | is_bad(value)) {
        return Err(values.iter().position(is_bad).unwrap_or(0));
    }
    Ok(rounded)
}

/// The little-endian numbers in `bytes`.
fn numbers<const N: usize, T>(
    bytes: &[u8],
    read: impl Fn([u8; N]) -> T,
) -> impl Iterator<Item = T> {
    bytes.as_chunks::<N>().0.iter().map(move |chunk| read(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_the_library() {
        // Every exponent and sign with mantissas around the ties.
        for high in 0..=u16::MAX {
            for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let value = f32::from_bits(u32::from(high) << 16 | low);
                let expected = bf16::from_f32(value);
                match round_to_bf16(&[0.0, value]) {
                    Ok(rounded) => {
                        assert_eq!(rounded[1].to_bits(), expected.to_bits(), "{value:e}");
                    }
                    Err(at) => assert!(at == 1 && !expected.is_finite(), "{value:e}"),
                }
            }
        }
    }
}
