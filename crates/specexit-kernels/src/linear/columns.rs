//! A range of output columns for all rows, tile by tile.
//!
//! Weights come from memory once. The first rows of a call (up to eight, or four where registers are
//! few) meet them there: a tile walks over the weights in the order in which they lie and fetches
//! ahead, which on the reference machine reads 1.5 times as fast as walking over eight rows of
//! weights side by side. Further rows find the same weights in the cache and take four columns at a
//! time, which needs fewer loads per product.

use std::ops::Range;

use super::dot::{Dot, Vector};
use super::output::Target;
use crate::matrix::{Block, PlainRows, ROW_MULTIPLE};
use crate::simd::Simd;

/// Columns of a tile.
const WIDTH: usize = ROW_MULTIPLE;

/// Bytes of weights that stay in the level-1 cache while the rows pass.
const PANEL: usize = 32 << 10;

/// Bytes of packed activations that stay in the level-2 cache while the weights pass.
const PASS: usize = 384 << 10;

/// Bytes of packed activations that may lie in the level-1 cache beside passing weights.
const NEAR: usize = if cfg!(miri) { 128 } else { 32 << 10 };

/// Bytes of each piece if a tile's activations are more than `NEAR`.
const PIECE: usize = if cfg!(miri) { 128 } else { 16 << 10 };

/// Blocks (cache lines) of weights between the one in use and the one being fetched.
const AHEAD: usize = 128;

/// Columns `range` of `x · wᵀ`, counted within the section `w`.
///
/// `x` holds the packed rows; `range` starts at a multiple of `WIDTH` and ends at one or at the last
/// column. Every element is accumulated in the same order, block by block along the row onto sixteen
/// lanes and then by `Simd::sum4`, whatever the tile that computes it.
#[inline(always)]
pub(super) fn columns<D: Dot>(
    d: D,
    x: &[D::X],
    w: &PlainRows,
    range: Range<usize>,
    target: Target<'_>,
) {
    let steps = w.blocks_per_row();
    let m = x.len() / steps;
    let call = Call { x, w, target };
    let rows_per_pass = (PASS / (steps * size_of::<D::X>())).next_multiple_of(4).max(8);
    let columns_per_panel = (PANEL / (steps * size_of::<Block>()) / WIDTH * WIDTH).max(WIDTH);
    for first_row in (0..m).step_by(rows_per_pass) {
        let rows = first_row..m.min(first_row + rows_per_pass);
        for panel in range.clone().step_by(columns_per_panel) {
            let panel = panel..range.end.min(panel + columns_per_panel);
            for column in panel.clone().step_by(WIDTH) {
                call.first_rows(d, &rows, column);
            }
            for row in rows.clone().step_by(4).skip(if D::MANY_REGISTERS { 2 } else { 1 }) {
                for column in panel.clone().step_by(4) {
                    call.further_rows(d, row..rows.end, column);
                }
            }
        }
    }
}

/// What all tiles of a call share.
struct Call<'a, X> {
    x: &'a [X],
    w: &'a PlainRows,
    target: Target<'a>,
}

impl<X: Copy> Call<'_, X> {
    /// The first rows of `rows`, reading the weights from memory: one column at a time for up to
    /// four rows, two for more, whose loads would outnumber their products otherwise.
    #[inline(always)]
    fn first_rows<D: Dot<X = X>>(&self, d: D, rows: &Range<usize>, column: usize) {
        let row = rows.start;
        match rows.len().min(if D::MANY_REGISTERS { 8 } else { 4 }) {
            1 => self.far_tile::<D, 1, 1>(d, row, column),
            2 => self.far_tile::<D, 2, 1>(d, row, column),
            3 => self.far_tile::<D, 3, 1>(d, row, column),
            4 => self.far_tile::<D, 4, 1>(d, row, column),
            5 => self.far_tile::<D, 5, 2>(d, row, column),
            6 => self.far_tile::<D, 6, 2>(d, row, column),
            7 => self.far_tile::<D, 7, 2>(d, row, column),
            _ => self.far_tile::<D, 8, 2>(d, row, column),
        }
    }

    /// Up to four rows of `rows`, with the weights in a cache.
    #[inline(always)]
    fn further_rows<D: Dot<X = X>>(&self, d: D, rows: Range<usize>, column: usize) {
        let row = rows.start;
        match (rows.len(), D::MANY_REGISTERS) {
            (1, true) => self.near_tile::<D, 1, 4>(d, row, column),
            (2, true) => self.near_tile::<D, 2, 4>(d, row, column),
            (3, true) => self.near_tile::<D, 3, 4>(d, row, column),
            (_, true) => self.near_tile::<D, 4, 4>(d, row, column),
            (1, false) => self.near_tile::<D, 1, 1>(d, row, column),
            (2, false) => self.near_tile::<D, 2, 1>(d, row, column),
            (3, false) => self.near_tile::<D, 3, 1>(d, row, column),
            (_, false) => self.near_tile::<D, 4, 1>(d, row, column),
        }
    }

    /// `M` rows from `row` on times four columns from `column` on, `C` columns at a time.
    #[inline(always)]
    fn near_tile<D: Dot<X = X>, const M: usize, const C: usize>(
        &self,
        d: D,
        row: usize,
        column: usize,
    ) {
        let steps = self.w.blocks_per_row();
        let xs: [&[D::X]; M] = std::array::from_fn(|j| &self.x[(row + j) * steps..][..steps]);
        let mut sums = [[d.simd().splat(0.0); 4]; M];
        for c in (0..4).step_by(C) {
            let ws: [&[Block]; C] = std::array::from_fn(|r| self.w.blocks(column + c + r));
            let zeros = [[d.simd().splat(0.0); C]; M];
            let some = products::<D, M, C, false>(d, xs, ws, zeros, Ahead::NOTHING);
            for j in 0..M {
                sums[j][c..c + C].copy_from_slice(&some[j]);
            }
        }
        for (j, sums) in sums.into_iter().enumerate() {
            self.put(row + j, column, &d.simd().sum4(sums));
        }
    }

    /// `M` rows from `row` on times `WIDTH` columns from `column` on, `C` columns at a time, fetching
    /// what comes after.
    #[inline(always)]
    fn far_tile<D: Dot<X = X>, const M: usize, const C: usize>(
        &self,
        d: D,
        row: usize,
        column: usize,
    ) {
        let s = d.simd();
        let steps = self.w.blocks_per_row();
        let x_block = M * size_of::<D::X>();
        let piece = if steps * x_block <= NEAR { steps } else { (PIECE / x_block).max(1) };
        let mut sums: [[Vector<D>; WIDTH]; M] = [[s.splat(0.0); WIDTH]; M];
        for start in (0..steps).step_by(piece) {
            let blocks = start..steps.min(start + piece);
            let xs: [&[D::X]; M] =
                std::array::from_fn(|j| &self.x[(row + j) * steps..][blocks.clone()]);
            for c in (0..WIDTH).step_by(C) {
                let ws: [&[Block]; C] =
                    std::array::from_fn(|r| &self.w.blocks(column + c + r)[blocks.clone()]);
                let mut some = [[s.splat(0.0); C]; M];
                for j in 0..M {
                    some[j].copy_from_slice(&sums[j][c..c + C]);
                }
                let ahead = self.ahead::<C>(column, c, &blocks, piece);
                let some = products::<D, M, C, true>(d, xs, ws, some, ahead);
                for j in 0..M {
                    sums[j][c..c + C].copy_from_slice(&some[j]);
                }
            }
        }
        for (j, sums) in sums.iter().enumerate() {
            let mut totals = [0.0; WIDTH];
            for (totals, sums) in totals.as_chunks_mut::<4>().0.iter_mut().zip(sums.as_chunks().0) {
                *totals = s.sum4(*sums);
            }
            self.put(row + j, column, &totals);
        }
    }

    /// Where to fetch weights while columns `c..c + C` of the tile at `column` are in use.
    #[inline(always)]
    fn ahead<const C: usize>(
        &self,
        column: usize,
        c: usize,
        blocks: &Range<usize>,
        piece: usize,
    ) -> Ahead {
        let steps = self.w.blocks_per_row();
        let tile = self.w.blocks(column).as_ptr();
        if piece == steps {
            return Ahead { start: tile.wrapping_add(c * steps + AHEAD), stride: 1, each: C };
        }
        // In pieces the weights are not used in the order in which they lie: look up which ones come
        // `AHEAD` blocks later, in the same piece of further columns or in the next piece.
        let (pieces, per_piece) = (steps.div_ceil(piece), WIDTH / C);
        let now = blocks.start / piece * per_piece + c / C;
        let later = now + AHEAD.div_ceil(piece * C);
        let (tiles, later) = (later / (pieces * per_piece), later % (pieces * per_piece));
        let (later_piece, later_columns) = (later / per_piece, later % per_piece * C);
        let start = tiles * WIDTH * steps + later_columns * steps + later_piece * piece;
        Ahead { start: tile.wrapping_add(start), stride: steps, each: 1 }
    }

    /// Writes products of a row from `column` on.
    #[inline(always)]
    fn put(&self, row: usize, column: usize, totals: &[f32]) {
        // SAFETY: each thread has its own range of columns.
        unsafe { self.target.put(row, column, totals) };
    }
}

/// Weights to fetch while others are in use: at step `i` the blocks `start + i * each + r * stride`
/// for each column `r` in use. They may lie behind the last weights.
struct Ahead {
    start: *const Block,
    stride: usize,
    each: usize,
}

impl Ahead {
    const NOTHING: Ahead = Ahead { start: std::ptr::null(), stride: 0, each: 0 };
}

/// Adds the products of each of `xs` with each of `ws` to `sums`, with `FETCH` fetching
/// `ahead`.
#[inline(always)]
fn products<D: Dot, const M: usize, const C: usize, const FETCH: bool>(
    d: D,
    xs: [&[D::X]; M],
    ws: [&[Block]; C],
    mut sums: [[Vector<D>; C]; M],
    ahead: Ahead,
) -> [[Vector<D>; C]; M] {
    for i in 0..ws[0].len() {
        let mut weights = [d.weights(&ws[0][i]); C];
        for r in 1..C {
            weights[r] = d.weights(&ws[r][i]);
        }
        for j in 0..M {
            for r in 0..C {
                sums[j][r] = d.step(sums[j][r], &xs[j][i], weights[r]);
            }
        }
        if FETCH {
            for r in 0..C {
                let block = ahead.start.wrapping_add(i * ahead.each + r * ahead.stride);
                d.simd().prefetch(block.cast());
            }
        }
    }
    sums
}
