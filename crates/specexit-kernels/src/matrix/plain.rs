//! Rows of bf16 weights.

use half::bf16;

use crate::arena::Buffer;
use crate::linear::round;
use crate::simd::LANES;

/// Rows of a panel: two vectors of sums.
pub(crate) const PANEL: usize = 2 * LANES;

/// Two neighbouring weights of sixteen rows, one cache line: `[row 0: k, k + 1][row 1: k, k + 1]…`.
pub(crate) type Block = [bf16; 2 * LANES];

/// Consecutive rows of a matrix in bf16, in panels of 32: for each pair of columns two blocks, of the
/// panel's lower and upper sixteen rows. Rows and columns are padded with zeros.
///
/// A product then keeps the sums of 32 outputs in two vectors and never adds across lanes, and a
/// thread reads memory in order.
#[derive(Debug)]
pub(crate) struct PlainRows {
    rows: usize,
    cols: usize,
    buffer: Buffer,
}

impl PlainRows {
    /// Zeros.
    pub(crate) fn zeros(rows: usize, cols: usize) -> PlainRows {
        let blocks = rows.div_ceil(PANEL) * cols.div_ceil(2) * 2;
        PlainRows { rows, cols, buffer: Buffer::new(blocks * size_of::<Block>()) }
    }

    /// The rows of `parts` of equal width, one after another.
    pub(super) fn stack(parts: &[PlainRows]) -> PlainRows {
        let cols = parts.first().map_or(0, |part| part.cols);
        let mut stacked = PlainRows::zeros(parts.iter().map(|part| part.rows).sum(), cols);
        let mut next = 0;
        for part in parts {
            for row in 0..part.rows {
                let (from, to) = (part.pairs_of(row), stacked.place(next + row));
                let blocks = stacked.blocks_mut();
                for (pair, values) in from.enumerate() {
                    blocks[to.block + 2 * pair][to.lane..to.lane + 2].copy_from_slice(&values);
                }
            }
            next += part.rows;
        }
        stacked
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Pairs of columns, the last of which may be padded.
    pub(crate) fn pairs(&self) -> usize {
        self.cols.div_ceil(2)
    }

    pub(crate) fn panels(&self) -> usize {
        self.rows.div_ceil(PANEL)
    }

    /// Copies row `row` to `to` `[cols]`.
    pub(super) fn read_row(&self, row: usize, to: &mut [f32]) {
        for (to, pair) in to.chunks_mut(2).zip(self.pairs_of(row)) {
            for (to, value) in to.iter_mut().zip(pair) {
                *to = value.to_f32();
            }
        }
    }

    /// Overwrites row `row` with `data` `[cols]`.
    pub(super) fn write_row(&mut self, row: usize, data: &[bf16]) {
        assert_eq!(data.len(), self.cols, "a row of {} columns", self.cols);
        let place = self.place(row);
        let blocks = self.blocks_mut();
        for (pair, values) in data.chunks(2).enumerate() {
            let to = &mut blocks[place.block + 2 * pair][place.lane..];
            to[..values.len()].copy_from_slice(values);
        }
    }

    /// Overwrites row `row` with `data` `[cols]`, rounded to the nearest bf16.
    pub(crate) fn round_row(&mut self, row: usize, data: &[f32]) {
        assert_eq!(data.len(), self.cols, "a row of {} columns", self.cols);
        let place = self.place(row);
        let blocks = self.blocks_mut();
        for (pair, values) in data.chunks(2).enumerate() {
            let to = &mut blocks[place.block + 2 * pair][place.lane..];
            for (to, value) in to.iter_mut().zip(values) {
                *to = bf16::from_bits(round(*value));
            }
        }
    }

    /// Bytes that one product reads: the panels with their padding.
    pub(crate) fn bytes(&self) -> usize {
        self.panels() * self.panel_bytes()
    }

    pub(crate) fn panel_bytes(&self) -> usize {
        self.pairs() * 2 * size_of::<Block>()
    }

    /// Panel `index`: for each pair of columns its two blocks.
    #[inline(always)]
    pub(crate) fn panel(&self, index: usize) -> &[[Block; 2]] {
        let pairs = self.pairs();
        &self.buffer.slice::<[Block; 2]>(self.panels() * pairs)[index * pairs..][..pairs]
    }

    /// The pairs of columns of row `row`.
    fn pairs_of(&self, row: usize) -> impl Iterator<Item = [bf16; 2]> {
        let Place { block, lane } = self.place(row);
        let count = self.panels() * self.pairs() * 2;
        let blocks = self.buffer.slice::<Block>(count)[block..].iter().step_by(2);
        blocks.take(self.pairs()).map(move |block| [block[lane], block[lane + 1]])
    }

    /// Where row `row` begins.
    fn place(&self, row: usize) -> Place {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        let half = row % PANEL / LANES;
        let block = row / PANEL * self.pairs() * 2 + half;
        Place { block, lane: row % LANES * 2 }
    }

    fn blocks_mut(&mut self) -> &mut [Block] {
        let count = self.panels() * self.pairs() * 2;
        self.buffer.slice_mut(count)
    }
}

/// The first pair of a row: its block, of which every second one follows, and its place there.
struct Place {
    block: usize,
    lane: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_values_and_are_padded_with_zeros() {
        let mut rows = PlainRows::zeros(35, 5);
        let values = [10.0, 11.0, 12.0, 13.0, 14.0];
        rows.write_row(2, &values.map(bf16::from_f32));
        rows.round_row(34, &values.map(|value| value * 1.001));
        let read = |row| {
            let mut to = [0.0; 5];
            rows.read_row(row, &mut to);
            to
        };
        assert_eq!((read(2), read(3)), (values, [0.0; 5]));
        assert_eq!(read(34), values, "rounded to eight bits");
        assert_eq!((rows.rows(), rows.panels(), rows.bytes()), (35, 2, 2 * 3 * 2 * 64));
        let sum: f32 = rows.panel(0).as_flattened().as_flattened().iter().map(|x| x.to_f32()).sum();
        assert_eq!(sum, values.iter().sum::<f32>());
        assert_eq!(rows.panel(1)[2][0][4..6], [bf16::from_f32(14.0), bf16::ZERO]);
    }

    #[test]
    fn stacked_rows_follow_one_another() {
        let part = |rows: usize, first: usize| {
            let mut part = PlainRows::zeros(rows, 3);
            for row in 0..rows {
                part.round_row(row, &[(first + row) as f32, 0.5, -((first + row) as f32)]);
            }
            part
        };
        let stacked = PlainRows::stack(&[part(5, 0), part(40, 5), part(1, 45)]);
        let mut to = [0.0; 3];
        for row in 0..46 {
            stacked.read_row(row, &mut to);
            assert_eq!(to, [row as f32, 0.5, -(row as f32)]);
        }
    }

    #[test]
    #[should_panic(expected = "row 3 of 3")]
    fn padding_rows_are_not_visible() {
        PlainRows::zeros(3, 5).read_row(3, &mut [0.0; 5]);
    }
}
