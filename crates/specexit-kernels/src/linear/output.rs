//! Where products go.

use crate::disjoint::Disjoint;

/// What becomes of a product.
#[derive(Clone, Copy)]
pub(crate) enum Output<'a> {
    /// `y = product`
    Set,
    /// `y = product + bias`, one bias per column.
    Biased(&'a [f32]),
    /// `y = y + product`
    Added,
}

/// The columns of `y` that a section of the weights computes.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) y: &'a Disjoint<'a, f32>,
    pub(super) output: Output<'a>,
    /// Columns of `y`.
    pub(super) stride: usize,
    /// The section's first column.
    pub(super) first: usize,
    /// The section's number of columns.
    pub(super) columns: usize,
}

impl Target<'_> {
    /// Writes products of a row from the section's column `column` on to `y`; those behind its last
    /// column come from padding and are dropped.
    ///
    /// # Safety
    ///
    /// No other thread may use the same columns of `y`.
    pub(super) unsafe fn put(&self, row: usize, column: usize, totals: &[f32]) {
        let width = totals.len().min(self.columns.saturating_sub(column));
        let column = self.first + column.min(self.columns);
        let start = row * self.stride + column;
        // SAFETY: the caller has these columns to itself and holds no other part.
        let y = unsafe { self.y.part(start..start + width) };
        match self.output {
            Output::Set => y.copy_from_slice(&totals[..width]),
            Output::Biased(bias) => {
                for ((y, total), bias) in y.iter_mut().zip(totals).zip(&bias[column..]) {
                    *y = total + bias;
                }
            }
            Output::Added => {
                for (y, total) in y.iter_mut().zip(totals) {
                    *y += total;
                }
            }
        }
    }
}
