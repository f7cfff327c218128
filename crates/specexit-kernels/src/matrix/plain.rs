//! Rows of bf16 weights.

use half::bf16;

use crate::arena::Buffer;

/// Weights per block: the kernels read rows in blocks of 32 bf16, one cache line.
pub(crate) const BLOCK: usize = 32;

/// Rows are padded to a multiple of the widest tile, so that no kernel needs a narrower one.
pub(crate) const ROW_MULTIPLE: usize = 8;

/// A block of consecutive weights of one row.
pub(crate) type Block = [bf16; BLOCK];

/// Consecutive rows of a matrix in bf16, row after row. Each is padded with zeros to a multiple of 32
/// weights and starts at a cache line.
#[derive(Debug)]
pub(crate) struct PlainRows {
    rows: usize,
    cols: usize,
    blocks_per_row: usize,
    buffer: Buffer,
}

impl PlainRows {
    /// Zeros.
    pub(super) fn zeros(rows: usize, cols: usize) -> PlainRows {
        let blocks_per_row = cols.div_ceil(BLOCK);
        let blocks = blocks_per_row * rows.next_multiple_of(ROW_MULTIPLE);
        let buffer = Buffer::new(blocks * size_of::<Block>());
        PlainRows { rows, cols, blocks_per_row, buffer }
    }

    /// The rows of `parts` of equal width, one after another.
    pub(super) fn stack(parts: &[PlainRows]) -> PlainRows {
        let cols = parts.first().map_or(0, |part| part.cols);
        let mut stacked = PlainRows::zeros(parts.iter().map(|part| part.rows).sum(), cols);
        let rows = parts.iter().flat_map(|part| (0..part.rows).map(|row| part.row(row)));
        for (row, data) in rows.enumerate() {
            stacked.row_mut(row).copy_from_slice(data);
        }
        stacked
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Row `row` `[cols]`.
    pub(super) fn row(&self, row: usize) -> &[bf16] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        &self.blocks(row).as_flattened()[..self.cols]
    }

    /// Row `row` `[cols]`, to write.
    pub(super) fn row_mut(&mut self, row: usize) -> &mut [bf16] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        let (start, cols) = (row * self.blocks_per_row * BLOCK, self.cols);
        &mut self.buffer.slice_mut::<bf16>(start + cols)[start..]
    }

    /// Bytes that one product reads: the rows with their padding.
    pub(crate) fn bytes(&self) -> usize {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_values_and_are_padded_with_zeros() {
        let mut rows = PlainRows::zeros(3, 5);
        let values = [10.0, 11.0, 12.0, 13.0, 14.0].map(bf16::from_f32);
        rows.row_mut(2).copy_from_slice(&values);
        assert_eq!(rows.row(2), values);
        assert!(rows.blocks(2)[0][5..].iter().all(|&w| w == bf16::ZERO));
        assert!(rows.blocks(7)[0].iter().all(|&w| w == bf16::ZERO));
        assert_eq!((rows.rows(), rows.bytes()), (3, 3 * 64));
    }

    #[test]
    #[should_panic(expected = "row 3 of 3")]
    fn padding_rows_are_not_visible() {
        PlainRows::zeros(3, 5).row(3);
    }
}
