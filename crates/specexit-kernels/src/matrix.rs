//! Weights of a linear layer.

use half::bf16;
use half::slice::HalfFloatSliceExt;

use crate::arena::Buffer;

/// Weights per block: the kernels read rows in blocks of 32 bf16, one cache line.
pub(crate) const BLOCK: usize = 32;

/// Rows are padded to a multiple of the widest tile, so that no kernel needs a narrower one.
pub(crate) const ROW_MULTIPLE: usize = 8;

/// A block of consecutive weights of one row.
pub(crate) type Block = [bf16; BLOCK];

/// A matrix of bf16 weights `[rows, cols]` as checkpoints store it: `rows` outputs, `cols` inputs,
/// row after row.
///
/// Each row is padded with zeros to a multiple of 32 weights and starts at a cache line; matrices
/// from 2 MiB on are backed by huge pages where the system grants them.
#[derive(Debug)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    blocks_per_row: usize,
    buffer: Buffer,
}

impl Matrix {
    /// A matrix of zeros.
    pub fn zeros(rows: usize, cols: usize) -> Matrix {
        let blocks_per_row = cols.div_ceil(BLOCK);
        let blocks = blocks_per_row * rows.next_multiple_of(ROW_MULTIPLE);
        let buffer = Buffer::new(blocks * size_of::<Block>());
        Matrix { rows, cols, blocks_per_row, buffer }
    }

    /// Copies `data` `[rows, cols]`.
    ///
    /// # Panics
    ///
    /// If `data` does not have `rows * cols` values.
    pub fn from_bf16(rows: usize, cols: usize, data: &[bf16]) -> Matrix {
        assert_eq!(data.len(), rows * cols, "data of a [{rows}, {cols}] matrix");
        let mut matrix = Matrix::zeros(rows, cols);
        for row in 0..rows {
            matrix.set_row(row, &data[row * cols..][..cols]);
        }
        matrix
    }

    /// Copies `data` `[rows, cols]`, rounded to the nearest bf16 (ties to even).
    ///
    /// # Panics
    ///
    /// If `data` does not have `rows * cols` values.
    pub fn from_f32(rows: usize, cols: usize, data: &[f32]) -> Matrix {
        let mut matrix = Matrix::zeros(rows, cols);
        matrix.copy_from_f32(data);
        matrix
    }

    /// Overwrites all weights with `data` `[rows, cols]`, rounded to the nearest bf16 (ties to
    /// even), for weights that change while they are trained.
    ///
    /// # Panics
    ///
    /// If `data` does not have `rows * cols` values.
    pub fn copy_from_f32(&mut self, data: &[f32]) {
        let (rows, cols) = (self.rows, self.cols);
        assert_eq!(data.len(), rows * cols, "data of a [{rows}, {cols}] matrix");
        for row in 0..rows {
            self.row_mut(row).convert_from_f32_slice(&data[row * cols..][..cols]);
        }
    }

    /// The rows of several matrices of equal width, one matrix after another: `q|k|v`, `gate|up`.
    ///
    /// # Panics
    ///
    /// If `parts` is empty or the widths differ.
    pub fn stack(parts: &[&Matrix]) -> Matrix {
        let cols = parts.first().expect("stacking no matrices").cols;
        assert!(parts.iter().all(|part| part.cols == cols), "stacked matrices differ in width");
        let mut stacked = Matrix::zeros(parts.iter().map(|part| part.rows).sum(), cols);
        let rows = parts.iter().flat_map(|part| (0..part.rows).map(|row| part.row(row)));
        for (row, data) in rows.enumerate() {
            stacked.set_row(row, data);
        }
        stacked
    }

    /// Overwrites row `row` with `data` `[cols]`.
    ///
    /// # Panics
    ///
    /// If the row does not exist or `data` does not have `cols` values.
    pub fn set_row(&mut self, row: usize, data: &[bf16]) {
        self.row_mut(row).copy_from_slice(data);
    }

    /// Number of rows: outputs of the layer.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns: inputs of the layer.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Row `row` `[cols]`.
    ///
    /// # Panics
    ///
    /// If the row does not exist.
    pub fn row(&self, row: usize) -> &[bf16] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        &self.blocks(row).as_flattened()[..self.cols]
    }

    /// Bytes that one product reads: the rows with their padding.
    pub fn bytes(&self) -> usize {
        self.rows * self.blocks_per_row * size_of::<Block>()
    }

    /// Blocks of one row.
    pub(crate) fn blocks_per_row(&self) -> usize {
        self.blocks_per_row
    }

    /// The blocks of row `row`, which may be one of the zero rows behind the last.
    #[inline(always)]
    pub(crate) fn blocks(&self, row: usize) -> &[Block] {
        let all = self.blocks_per_row * self.rows.next_multiple_of(ROW_MULTIPLE);
        &self.buffer.slice::<Block>(all)[row * self.blocks_per_row..][..self.blocks_per_row]
    }

    fn row_mut(&mut self, row: usize) -> &mut [bf16] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        let (start, cols) = (row * self.blocks_per_row * BLOCK, self.cols);
        &mut self.buffer.slice_mut::<bf16>(start + cols)[start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(rows: usize, cols: usize) -> Matrix {
        let data: Vec<f32> = (0..rows * cols).map(|i| i as f32).collect();
        Matrix::from_f32(rows, cols, &data)
    }

    #[test]
    fn rows_keep_their_values_and_are_padded_with_zeros() {
        let matrix = numbered(3, 5);
        assert_eq!(matrix.row(2), [10.0, 11.0, 12.0, 13.0, 14.0].map(bf16::from_f32));
        assert!(matrix.blocks(2)[0][5..].iter().all(|&w| w == bf16::ZERO));
        assert!(matrix.blocks(7)[0].iter().all(|&w| w == bf16::ZERO));
        assert_eq!((matrix.rows(), matrix.cols(), matrix.bytes()), (3, 5, 3 * 64));
    }

    #[test]
    fn rounds_to_nearest_even() {
        let data = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, f32::NAN];
        let matrix = Matrix::from_f32(1, 3, &data);
        assert_eq!(matrix.row(0)[0].to_f32(), 1.0);
        assert_eq!(matrix.row(0)[1].to_f32(), 1.0 + 4.0 / 256.0);
        assert!(matrix.row(0)[2].is_nan());
    }

    #[test]
    fn stacks_rows_in_order() {
        let (a, b) = (numbered(2, 33), numbered(3, 33));
        let stacked = Matrix::stack(&[&a, &b]);
        assert_eq!(stacked.rows(), 5);
        assert_eq!(stacked.row(1), a.row(1));
        assert_eq!(stacked.row(4), b.row(2));
    }

    #[test]
    fn empty_matrices_are_fine() {
        assert_eq!(Matrix::zeros(0, 7).bytes(), 0);
        assert!(Matrix::zeros(2, 0).row(1).is_empty());
    }

    #[test]
    #[should_panic(expected = "row 3 of 3")]
    fn padding_rows_are_not_visible() {
        numbered(3, 5).row(3);
    }
}
