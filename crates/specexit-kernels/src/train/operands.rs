//! The two factors of a product.

use half::bf16;

use crate::arena::Buffer;
use crate::disjoint::Disjoint;
use crate::kernels::Kernels;
use crate::linear::{round, round_into};
use crate::simd::{LANES, Simd};

/// Two neighbouring bf16 in one word, the first in the low half: what `vdpbf16ps` multiplies.
pub(super) type Pair = u32;

/// Inner dimensions are padded to a multiple of it.
const BLOCK: usize = 32;

/// Columns of a panel.
pub(super) const PANEL: usize = 2 * LANES;

/// Rows of activations or gradients in bf16, padded with zero columns to a multiple of 32.
///
/// A buffer that is reused: an operation that writes it sets its size.
#[derive(Debug)]
pub struct Bf16Rows {
    rows: usize,
    cols: usize,
    buffer: Buffer,
}

impl Default for Bf16Rows {
    fn default() -> Self {
        Bf16Rows { rows: 0, cols: 0, buffer: Buffer::new(0) }
    }
}

impl Bf16Rows {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns, without padding.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Values from one row to the next.
    pub(super) fn stride(&self) -> usize {
        self.cols.next_multiple_of(BLOCK)
    }

    /// Row `row` `[cols]`.
    ///
    /// # Panics
    ///
    /// If the row does not exist.
    pub fn row(&self, row: usize) -> &[bf16] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        &self.values()[row * self.stride()..][..self.cols]
    }

    /// Takes a new size. Values are unspecified afterwards, padding is zero: operations write whole
    /// rows without their padding, so it stays zero as long as the width stays.
    pub(super) fn resize(&mut self, rows: usize, cols: usize) {
        let same = self.cols == cols;
        (self.rows, self.cols) = (rows, cols);
        let bytes = rows * self.stride() * size_of::<bf16>();
        if !self.buffer.grow(bytes) && !same {
            let all = self.buffer.len();
            self.buffer.slice_mut::<u8>(all).fill(0);
        }
    }

    /// All values with their padding.
    pub(super) fn values(&self) -> &[bf16] {
        self.buffer.slice(self.rows * self.stride())
    }

    /// All values with their padding, to write.
    pub(super) fn values_mut(&mut self) -> &mut [bf16] {
        let count = self.rows * self.stride();
        self.buffer.slice_mut(count)
    }

    /// Rows as pairs of columns, `[rows, stride / 2]`.
    pub(super) fn pairs(&self) -> &[Pair] {
        self.buffer.slice(self.rows * self.stride() / 2)
    }
}

/// A factor `[k, n]` in panels of 32 columns: for each panel and each pair of consecutive k, the 32
/// pairs `(value[2 i][column], value[2 i + 1][column])`.
#[derive(Debug)]
pub struct PairPanels {
    pairs: usize,
    cols: usize,
    buffer: Buffer,
}

impl Default for PairPanels {
    fn default() -> Self {
        PairPanels { pairs: 0, cols: 0, buffer: Buffer::new(0) }
    }
}

impl PairPanels {
    /// Number of pairs, padding included.
    pub(super) fn pairs(&self) -> usize {
        self.pairs
    }

    /// Number of columns, n.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The panel of columns `32 index..`: `[pairs, 32]`.
    #[inline(always)]
    pub(super) fn panel(&self, index: usize) -> &[[Pair; LANES]] {
        let (size, panels) = (2 * self.pairs, self.cols.div_ceil(PANEL));
        &self.buffer.slice::<[Pair; LANES]>(size * panels)[index * size..][..size]
    }

    fn resize(&mut self, pairs: usize, cols: usize) {
        (self.pairs, self.cols) = (pairs, cols);
        let bytes = cols.next_multiple_of(PANEL) * pairs * size_of::<Pair>();
        self.buffer.grow(bytes);
    }

    fn all_mut(&mut self) -> &mut [[Pair; PANEL]] {
        let count = self.cols.div_ceil(PANEL) * self.pairs;
        self.buffer.slice_mut(count)
    }

    /// Inner dimensions are padded as [`Bf16Rows`] are.
    fn size_transposed(&mut self, weight: &[f32], outputs: usize, inputs: usize) {
        assert_eq!(weight.len(), outputs * inputs, "weight of [{outputs}, {inputs}]");
        self.resize(inputs.next_multiple_of(BLOCK) / 2, outputs);
    }

    fn size(&mut self, weight: &[f32], outputs: usize, inputs: usize) {
        assert_eq!(weight.len(), outputs * inputs, "weight of [{outputs}, {inputs}]");
        self.resize(outputs.next_multiple_of(BLOCK) / 2, inputs);
    }
}

/// The panel of `value(i, column) = weight[column, i]` from column `first` on.
fn fill_transposed(
    to: &mut [[Pair; PANEL]],
    first: usize,
    weight: &[f32],
    outputs: usize,
    inputs: usize,
) {
    to.as_flattened_mut().fill(0);
    for column in 0..PANEL.min(outputs - first) {
        let row = &weight[(first + column) * inputs..][..inputs];
        for (to, pair) in to.iter_mut().zip(row.chunks(2)) {
            let odd = pair.get(1).map_or(0, |x| u32::from(round(*x)));
            to[column] = u32::from(round(pair[0])) | odd << 16;
        }
    }
}

/// The panel of `value(i, column) = weight[i, column]` from column `first` on.
fn fill(to: &mut [[Pair; PANEL]], first: usize, weight: &[f32], outputs: usize, inputs: usize) {
    let columns = PANEL.min(inputs - first);
    for (i, to) in to.iter_mut().enumerate() {
        *to = [0; PANEL];
        for (half, row) in (2 * i..outputs.min(2 * i + 2)).enumerate() {
            let row = &weight[row * inputs + first..][..columns];
            for (to, x) in to.iter_mut().zip(row) {
                *to |= u32::from(round(*x)) << (16 * half);
            }
        }
    }
}

impl Kernels {
    /// The factor for `x W^T` of a weight `[outputs, inputs]`: k runs over inputs.
    ///
    /// # Panics
    ///
    /// If `weight` does not have `outputs * inputs` values.
    pub fn pack_transposed(
        &self,
        to: &mut PairPanels,
        weight: &[f32],
        outputs: usize,
        inputs: usize,
    ) {
        to.size_transposed(weight, outputs, inputs);
        self.each_panel(to, |first, panel| fill_transposed(panel, first, weight, outputs, inputs));
    }

    /// The factor for `g W` of a weight `[outputs, inputs]`: k runs over outputs.
    ///
    /// # Panics
    ///
    /// If `weight` does not have `outputs * inputs` values.
    pub fn pack(&self, to: &mut PairPanels, weight: &[f32], outputs: usize, inputs: usize) {
        to.size(weight, outputs, inputs);
        self.each_panel(to, |first, panel| fill(panel, first, weight, outputs, inputs));
    }

    /// Calls `job(first column, panel)` on each panel, on all threads.
    fn each_panel(&self, to: &mut PairPanels, job: impl Fn(usize, &mut [[Pair; PANEL]]) + Sync) {
        let (pairs, panels) = (to.pairs, to.cols.div_ceil(PANEL));
        let all = &Disjoint::new(to.all_mut());
        self.pool().claim(panels, |panel| {
            // SAFETY: each task has its own panel.
            job(panel * PANEL, unsafe { all.part(panel * pairs..(panel + 1) * pairs) });
        });
    }

    /// Rounds `x` `[rows, cols]` to bf16.
    ///
    /// # Panics
    ///
    /// If `x` is not whole rows.
    pub fn round_rows(&self, to: &mut Bf16Rows, x: &[f32], cols: usize) {
        assert!(cols > 0 && x.len().is_multiple_of(cols), "x is not whole rows of {cols}");
        to.resize(x.len() / cols, cols);
        let stride = to.stride();
        self.each_rows(to.values_mut(), stride, |first, to| {
            let x = &x[first * cols..][..to.len() / stride * cols];
            dispatch!(
                self.checked_isa(),
                round_rows(to: &mut [bf16], x: &[f32], stride: usize, cols: usize)
            );
        });
    }

    /// The factor for `g^T x` of the rows of g or x: k runs over rows.
    pub fn interleave(&self, to: &mut PairPanels, rows: &Bf16Rows) {
        to.resize(rows.rows().div_ceil(2), rows.cols());
        let (pairs, panels) = (to.pairs(), to.cols().div_ceil(PANEL));
        let (stride, values) = (rows.stride(), rows.values());
        let to = &Disjoint::new(to.all_mut());
        // Some consecutive rows of all panels at a time, so that each row is read in order.
        self.pool().claim(pairs.div_ceil(super::ROWS_PER_TASK), |task| {
            let first = task * super::ROWS_PER_TASK;
            let last = pairs.min(first + super::ROWS_PER_TASK);
            for panel in 0..panels {
                // SAFETY: each task has its own pairs of each panel.
                let to = unsafe { to.part(panel * pairs + first..panel * pairs + last) };
                let from = &values[2 * first * stride + panel * PANEL..];
                dispatch!(
                    self.checked_isa(),
                    interleave_rows(to: &mut [[Pair; PANEL]], from: &[bf16], stride: usize)
                );
            }
        });
    }

    /// Calls `job(first row, rows)` on groups of rows of `y`, on all threads.
    pub(super) fn each_rows<T: Send>(
        &self,
        y: &mut [T],
        width: usize,
        job: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let rows = y.len() / width;
        let y = &Disjoint::new(y);
        self.pool().claim(rows.div_ceil(super::ROWS_PER_TASK), |task| {
            let first = task * super::ROWS_PER_TASK;
            let last = rows.min(first + super::ROWS_PER_TASK);
            // SAFETY: each task has its own rows.
            job(first, unsafe { y.part(first * width..last * width) });
        });
    }
}

#[inline(always)]
fn round_rows<S: Simd>(_: S, to: &mut [bf16], x: &[f32], stride: usize, cols: usize) {
    for (to, x) in to.chunks_exact_mut(stride).zip(x.chunks_exact(cols)) {
        round_into(&mut to[..cols], x);
    }
}

#[inline(always)]
fn interleave_rows<S: Simd>(_: S, to: &mut [[Pair; PANEL]], from: &[bf16], stride: usize) {
    for (i, to) in to.iter_mut().enumerate() {
        let even = &from[2 * i * stride..][..PANEL];
        // The last of an odd number of rows has no partner.
        let odd = from.get((2 * i + 1) * stride..).and_then(|odd| odd.get(..PANEL));
        let odd = odd.unwrap_or(&[bf16::ZERO; PANEL]);
        for j in 0..PANEL {
            to[j] = u32::from(even[j].to_bits()) | u32::from(odd[j].to_bits()) << 16;
        }
    }
}
