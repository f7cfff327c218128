//! Weights of a linear layer.

mod plain;
mod quantised;

use half::bf16;

use crate::blocks::{self, BlockFormat};
pub(crate) use plain::{Block, PANEL, PlainRows};
pub use quantised::BlocksError;
pub(crate) use quantised::QuantisedRows;

/// A matrix of weights `[rows, cols]`: `rows` outputs, `cols` inputs.
///
/// It consists of sections of consecutive rows, each in bf16 or in one of GGML's block formats, so
/// that projections which read the same inputs can be stacked whatever their formats. Sections from
/// 2 MiB on are backed by huge pages where the system grants them.
#[derive(Debug)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    sections: Vec<Section>,
}

/// Consecutive rows of a matrix.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) first_row: usize,
    pub(crate) weights: SectionWeights,
}

#[derive(Debug)]
pub(crate) enum SectionWeights {
    Plain(PlainRows),
    Quantised(QuantisedRows),
}

impl SectionWeights {
    pub(crate) fn rows(&self) -> usize {
        match self {
            SectionWeights::Plain(rows) => rows.rows(),
            SectionWeights::Quantised(rows) => rows.rows(),
        }
    }

    pub(crate) fn panels(&self) -> usize {
        match self {
            SectionWeights::Plain(rows) => rows.panels(),
            SectionWeights::Quantised(rows) => rows.panels(),
        }
    }

    /// Bytes that one product reads.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            SectionWeights::Plain(rows) => rows.bytes(),
            SectionWeights::Quantised(rows) => rows.bytes(),
        }
    }
}

impl Matrix {
    /// A bf16 matrix of zeros.
    pub fn zeros(rows: usize, cols: usize) -> Matrix {
        Matrix::of_sections(cols, vec![SectionWeights::Plain(PlainRows::zeros(rows, cols))])
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

    /// Quantised weights `[rows, cols]`, kept as they are: `row_bytes(row)` gives the stored blocks of
    /// a row, as a GGUF file has them. They are regrouped on `threads` threads.
    ///
    /// # Errors
    ///
    /// When a row does not hold `cols / format.columns()` whole blocks, or a scale is not finite.
    pub fn from_blocks<'a>(
        format: BlockFormat,
        rows: usize,
        cols: usize,
        threads: usize,
        row_bytes: impl Fn(usize) -> &'a [u8] + Sync,
    ) -> Result<Matrix, BlocksError> {
        let rows = QuantisedRows::load(format, rows, cols, threads, row_bytes)?;
        Ok(Matrix::of_sections(cols, vec![SectionWeights::Quantised(rows)]))
    }

    /// The same weights in 8 bits ([`BlockFormat::Q8_0`]: blocks of 32 with a scale), which a product reads
    /// in about half the time of bf16; each differs by at most 1/254 of the largest of its block, and what
    /// a scale in f16 is rounded by. `None` where rows are no whole blocks, something is quantised
    /// already, or a weight is beyond f16.
    pub fn in_8_bits(&self, threads: usize) -> Option<Matrix> {
        if !self.cols.is_multiple_of(BlockFormat::Q8_0.columns()) || self.is_quantised() {
            return None;
        }
        let len = self.cols / BlockFormat::Q8_0.columns() * BlockFormat::Q8_0.bytes();
        let (mut row, mut blocks) = (vec![0.0; self.cols], Vec::with_capacity(self.rows * len));
        for index in 0..self.rows {
            self.read_row(index, &mut row);
            row.as_chunks().0.iter().for_each(|block| blocks.extend(blocks::q8_0(block)));
        }
        let row_bytes = |row: usize| &blocks[row * len..][..len];
        Matrix::from_blocks(BlockFormat::Q8_0, self.rows, self.cols, threads, row_bytes).ok()
    }

    /// Whether some of its rows are in a block format.
    pub fn is_quantised(&self) -> bool {
        let quantised = |s: &Section| matches!(s.weights, SectionWeights::Quantised(_));
        self.sections.iter().any(quantised)
    }

    /// Overwrites all weights of a bf16 matrix with `data` `[rows, cols]`, rounded to the nearest
    /// bf16 (ties to even), for weights that change while they are trained.
    ///
    /// # Panics
    ///
    /// If `data` does not have `rows * cols` values, or the matrix is quantised.
    pub fn copy_from_f32(&mut self, data: &[f32]) {
        let (rows, cols) = (self.rows, self.cols);
        assert_eq!(data.len(), rows * cols, "data of a [{rows}, {cols}] matrix");
        for row in 0..rows {
            let (rows, at) = self.plain_mut(row);
            rows.round_row(at, &data[row * cols..][..cols]);
        }
    }

    /// The rows of several matrices of equal width, one matrix after another: `q|k|v`, `gate|up`.
    /// Neighbours in bf16 are copied together; quantised ones are moved.
    ///
    /// # Panics
    ///
    /// If `parts` is empty or the widths differ.
    pub fn stack(parts: Vec<Matrix>) -> Matrix {
        let cols = parts.first().expect("stacking no matrices").cols;
        assert!(parts.iter().all(|part| part.cols == cols), "stacked matrices differ in width");
        let mut stacked = Vec::new();
        let mut plain = Vec::new();
        let join = |plain: &mut Vec<PlainRows>, stacked: &mut Vec<SectionWeights>| match plain.len()
        {
            0 => {}
            1 => stacked.extend(plain.drain(..).map(SectionWeights::Plain)),
            _ => {
                stacked.push(SectionWeights::Plain(PlainRows::stack(plain)));
                plain.clear();
            }
        };
        for section in parts.into_iter().flat_map(|part| part.sections) {
            match section.weights {
                SectionWeights::Plain(rows) => plain.push(rows),
                quantised @ SectionWeights::Quantised(_) => {
                    join(&mut plain, &mut stacked);
                    stacked.push(quantised);
                }
            }
        }
        join(&mut plain, &mut stacked);
        Matrix::of_sections(cols, stacked)
    }

    fn of_sections(cols: usize, parts: Vec<SectionWeights>) -> Matrix {
        let mut rows = 0;
        let sections = parts
            .into_iter()
            .map(|weights| {
                let first_row = rows;
                rows += weights.rows();
                Section { first_row, weights }
            })
            .collect();
        Matrix { rows, cols, sections }
    }

    /// Overwrites row `row` of a bf16 matrix with `data` `[cols]`.
    ///
    /// # Panics
    ///
    /// If the row does not exist or is quantised, or `data` does not have `cols` values.
    pub fn set_row(&mut self, row: usize, data: &[bf16]) {
        let (rows, at) = self.plain_mut(row);
        rows.write_row(at, data);
    }

    /// Copies row `row` as f32 to `to` `[cols]`: exact for bf16, and for quantised weights what their
    /// format says, rounded once where it has an offset.
    ///
    /// # Panics
    ///
    /// If the row does not exist or `to` does not have `cols` values.
    pub fn read_row(&self, row: usize, to: &mut [f32]) {
        assert_eq!(to.len(), self.cols, "a row of a [{}, {}] matrix", self.rows, self.cols);
        let section = &self.sections[self.section_of(row)];
        match &section.weights {
            SectionWeights::Plain(rows) => rows.read_row(row - section.first_row, to),
            SectionWeights::Quantised(rows) => rows.read_row(row - section.first_row, to),
        }
    }

    /// Number of rows: outputs of the layer.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns: inputs of the layer.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes that one product reads: the rows with their padding.
    pub fn bytes(&self) -> usize {
        self.sections.iter().map(|section| section.weights.bytes()).sum()
    }

    pub(crate) fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The index of the section that has row `row`.
    fn section_of(&self, row: usize) -> usize {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        self.sections.partition_point(|section| section.first_row + section.weights.rows() <= row)
    }

    /// The bf16 section that has row `row`, and the row's place there.
    fn plain_mut(&mut self, row: usize) -> (&mut PlainRows, usize) {
        let section = self.section_of(row);
        let section = &mut self.sections[section];
        match &mut section.weights {
            SectionWeights::Plain(rows) => (rows, row - section.first_row),
            SectionWeights::Quantised(_) => panic!("row {row} is quantised"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(rows: usize, cols: usize) -> Matrix {
        let data: Vec<f32> = (0..rows * cols).map(|i| i as f32).collect();
        Matrix::from_f32(rows, cols, &data)
    }

    fn row(matrix: &Matrix, row: usize) -> Vec<f32> {
        let mut values = vec![0.0; matrix.cols()];
        matrix.read_row(row, &mut values);
        values
    }

    #[test]
    fn rounds_to_nearest_even() {
        let data = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, f32::NAN];
        let values = row(&Matrix::from_f32(1, 3, &data), 0);
        assert_eq!(values[..2], [1.0, 1.0 + 4.0 / 256.0]);
        assert!(values[2].is_nan());
    }

    #[test]
    fn stacks_rows_in_order() {
        let (a, b) = (numbered(2, 33), numbered(3, 33));
        let expected = [row(&a, 1), row(&b, 2)];
        let stacked = Matrix::stack(vec![a, b]);
        assert_eq!((stacked.rows(), stacked.sections.len()), (5, 1));
        assert_eq!([row(&stacked, 1), row(&stacked, 4)], expected);
    }

    #[test]
    fn stacks_formats_beside_each_other() {
        let blocks = |rows: usize| {
            // Scale 1 (f16) and codes that count.
            let data: Vec<u8> = [0, 0x3c].into_iter().chain(0..32).collect();
            Matrix::from_blocks(BlockFormat::Q8_0, rows, 32, 2, |_| data.as_slice()).unwrap()
        };
        let quantised = blocks(17).bytes();
        let stacked =
            Matrix::stack(vec![numbered(2, 32), numbered(1, 32), blocks(17), numbered(2, 32)]);
        assert_eq!((stacked.rows(), stacked.sections.len()), (22, 3));
        assert_eq!(row(&stacked, 1)[0], 32.0);
        assert_eq!(row(&stacked, 2)[1], 1.0);
        assert_eq!(row(&stacked, 3)[..4], [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(row(&stacked, 19)[31], 31.0);
        assert_eq!(row(&stacked, 21)[1], 33.0);
        assert_eq!(stacked.bytes(), 2 * (32 * 64) + quantised);
    }

    #[test]
    fn weights_in_8_bits_are_near_and_zeros_stay() {
        let data: Vec<f32> =
            (0..40 * 64).map(|i| (i as f32 * 0.37).sin() * (i % 7) as f32).collect();
        let mut matrix = Matrix::from_f32(40, 64, &data);
        matrix.set_row(3, &[bf16::ZERO; 64]);
        let rounded = matrix.in_8_bits(2).unwrap();
        assert!(rounded.is_quantised() && !matrix.is_quantised());
        for index in 0..40 {
            let (exact, near) = (row(&matrix, index), row(&rounded, index));
            for (exact, near) in exact.chunks(32).zip(near.chunks(32)) {
                let largest = exact.iter().fold(0f32, |a, b| a.max(b.abs()));
                for (a, b) in exact.iter().zip(near) {
                    assert!(
                        (a - b).abs() <= largest * (1.0 / 254.0 + 1e-3),
                        "{a} {b} of {largest}"
                    );
                }
            }
        }
        assert!(rounded.in_8_bits(1).is_none() && numbered(2, 33).in_8_bits(1).is_none());
        assert!(Matrix::from_f32(1, 32, &[1e30; 32]).in_8_bits(1).is_none());
    }

    #[test]
    fn refuses_blocks_that_do_not_fit_and_scales_that_are_not_finite() {
        let load = |cols, data: &[u8]| {
            Matrix::from_blocks(BlockFormat::Q8_0, 20, cols, 2, |_| data)
                .map(|matrix| matrix.rows())
        };
        let mut data = [0; 34];
        assert_eq!(load(32, &data), Ok(20));
        assert_eq!(load(31, &data), Err(BlocksError::Length { row: 0 }));
        assert_eq!(load(64, &data), Err(BlocksError::Length { row: 0 }));
        data[1] = 0x7c;
        assert_eq!(load(32, &data), Err(BlocksError::NotFinite { row: 0 }));
    }

    #[test]
    fn empty_matrices_are_fine() {
        assert_eq!(Matrix::zeros(0, 7).bytes(), 0);
        assert!(row(&Matrix::zeros(2, 0), 1).is_empty());
        assert_eq!(Matrix::from_blocks(BlockFormat::Q4_K, 0, 256, 1, |_| &[]).unwrap().bytes(), 0);
    }
}
