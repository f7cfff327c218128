//! Where products go.

use crate::disjoint::Disjoint;
use crate::simd::{LANES, Simd};

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
    /// Writes sixteen products of a row from the section's column `column` on to `y`; those behind its
    /// last column come from padding and are dropped.
    ///
    /// # Safety
    ///
    /// No other thread may use the same columns of `y`.
    #[inline(always)]
    pub(super) unsafe fn put<S: Simd>(&self, s: S, row: usize, column: usize, products: S::F) {
        let width = LANES.min(self.columns.saturating_sub(column));
        let column = self.first + column.min(self.columns);
        let start = row * self.stride + column;
        // SAFETY: the caller has these columns to itself and holds no other part.
        let y = unsafe { self.y.part(start..start + width) };
        let result = match self.output {
            Output::Set => products,
            Output::Biased(bias) => {
                s.add(products, s.load_part(&bias[column..column + width], 0.0))
            }
            Output::Added => s.add(s.load_part(y, 0.0), products),
        };
        s.store_part(result, y);
    }
}
