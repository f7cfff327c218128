//! Products with quantised weights, for all rows of a call.
//!
//! Integers are summed exactly within a block of 32 columns; then the block's sums go onto sixteen
//! f32 lanes, one per output, block by block along the row. Every output has this one order whatever
//! tile computes it.

mod activations;
mod dot;
mod kind;
mod tile;
mod widened;

use std::ops::Range;

pub(super) use activations::{QuantisedBlock, quantise};
#[cfg(target_arch = "x86_64")]
pub(super) use dot::ByteProducts;
use dot::DotBytes;
pub(super) use dot::Multiplied;
use kind::{Kind, by_format};
use tile::tile;

use super::output::Target;
use crate::blocks::{Line, PANEL_ROWS};
use crate::matrix::QuantisedRows;
use crate::simd::ByteSimd;

/// Bytes of weights that stay in the level-2 cache while further rows pass.
const GROUP: usize = if cfg!(miri) { 4 << 10 } else { 128 << 10 };

/// Panels `range` of `w` times the packed rows `x`, `stride` blocks each.
#[inline(always)]
pub(super) fn integer_panels<D: DotBytes>(
    d: D,
    x: &[QuantisedBlock],
    stride: usize,
    w: &QuantisedRows,
    range: Range<usize>,
    target: Target<'_>,
) {
    let call = Call { x, stride, w, target };
    by_format!(w.format(), K => call.panels::<D, K>(d, range));
}

/// Panels `range` of `w` times the rows `x`, `cols` f32 each.
#[inline(always)]
pub(super) fn widened_panels<S: ByteSimd>(
    s: S,
    x: &[f32],
    cols: usize,
    w: &QuantisedRows,
    range: Range<usize>,
    target: Target<'_>,
) {
    by_format!(w.format(), K => widened::panels::<S, K>(s, x, cols, w, range, target));
}

/// What all tiles of a call share.
struct Call<'a> {
    x: &'a [QuantisedBlock],
    stride: usize,
    w: &'a QuantisedRows,
    target: Target<'a>,
}

impl Call<'_> {
    /// The first rows meet the weights where they come from memory, in the order in which they lie;
    /// further rows find them in the cache, and take two panels at a time where registers suffice.
    #[inline(always)]
    fn panels<D: DotBytes, K: Kind>(&self, d: D, range: Range<usize>) {
        let m = self.x.len() / self.stride;
        let group = if m <= D::MOST_ROWS { range.len() } else { GROUP / self.w.panel_bytes() };
        let group = group.max(2).next_multiple_of(2);
        for start in range.clone().step_by(group) {
            let panels = start..range.end.min(start + group);
            let mut row = 0;
            while row < m {
                let left = m - row;
                let pairs = D::MOST_ROWS == 8 && row > 0 && (left > 8 || (5..=6).contains(&left));
                let rows = row..m.min(row + if pairs { 6 } else { D::MOST_ROWS });
                let mut panel = panels.start;
                while panel < panels.end {
                    if D::MOST_ROWS == 8 && pairs && panel + 1 < panels.end {
                        self.tile::<D, K, 6, 2>(d, rows.clone(), [panel, panel + 1], false);
                        panel += 2;
                    } else {
                        self.rows::<D, K>(d, rows.clone(), panel, row == 0);
                        panel += 1;
                    }
                }
                row = rows.end;
            }
        }
    }

    /// Rows `rows`, at most `MOST_ROWS`, with one panel, `ahead` fetching what comes after.
    #[inline(always)]
    fn rows<D: DotBytes, K: Kind>(&self, d: D, rows: Range<usize>, panel: usize, ahead: bool) {
        if D::MOST_ROWS == 1 || rows.len() == 1 {
            self.tile::<D, K, 1, 1>(d, rows, [panel], ahead);
        } else if D::MOST_ROWS == 4 || rows.len() <= 4 {
            self.tile::<D, K, 4, 1>(d, rows, [panel], ahead);
        } else if D::MOST_ROWS == 8 && rows.len() <= 6 {
            self.tile::<D, K, 6, 1>(d, rows, [panel], ahead);
        } else if D::MOST_ROWS == 8 {
            self.tile::<D, K, 8, 1>(d, rows, [panel], ahead);
        }
    }

    /// Rows `rows` with `panels`, on a tile of `M` rows. If those are more, the missing ones are the
    /// last one again, which costs less than another tile's code.
    #[inline(always)]
    fn tile<D: DotBytes, K: Kind, const M: usize, const P: usize>(
        &self,
        d: D,
        rows: Range<usize>,
        panels: [usize; P],
        ahead: bool,
    ) {
        let x: [&[QuantisedBlock]; M] = std::array::from_fn(|j| {
            &self.x[(rows.start + j).min(rows.end - 1) * self.stride..][..self.stride]
        });
        let lines: [&[Line]; P] = panels.map(|panel| self.w.panel(panel));
        let sums = tile::<D, K, M, P>(d, x, lines, ahead);
        for p in 0..P {
            for j in 0..rows.len().min(M) {
                let (row, column) = (rows.start + j, panels[p] * PANEL_ROWS);
                // SAFETY: each thread has its own range of panels.
                unsafe { self.target.put(d.simd(), row, column, sums[p][j]) };
            }
        }
    }
}
