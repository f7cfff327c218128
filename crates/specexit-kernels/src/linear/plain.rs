//! Products with bf16 weights: panels of 32 outputs for all rows, tile by tile.
//!
//! A tile keeps the sums of its rows in registers, two vectors each, while it walks along the panel
//! and broadcasts the rows' activations pair by pair. Weights come from memory once: up to eight rows
//! meet them there, further ones find them in the level-2 cache.

use std::ops::Range;

use super::output::Target;
use crate::dot::{Dot, Vector};
use crate::matrix::{Block, PANEL, PlainRows};
use crate::simd::{LANES, Simd};

/// Bytes of weights that stay in the level-2 cache while further rows pass.
const GROUP: usize = if cfg!(miri) { 4 << 10 } else { 128 << 10 };

/// Pairs of columns between the one in use and the one being fetched: 4 KiB.
const AHEAD: usize = 32;

/// Rows of a tile, for whose sums registers suffice.
const fn most_rows<D: Dot>() -> usize {
    if D::S::MANY_REGISTERS { 8 } else { 2 }
}

/// Panels `range` of `w` times the packed rows `x`, `w.pairs()` pairs each.
///
/// Every element is accumulated pair by pair along the row, whatever the tile that computes it.
#[inline(always)]
pub(super) fn plain_panels<D: Dot<Block = Block>>(
    d: D,
    x: &[D::X],
    w: &PlainRows,
    range: Range<usize>,
    target: Target<'_>,
) {
    let pairs = w.pairs();
    let m = x.len() / pairs;
    let group = if m <= most_rows::<D>() { range.len() } else { GROUP / w.panel_bytes() }.max(1);
    for start in range.clone().step_by(group) {
        for row in (0..m).step_by(most_rows::<D>()) {
            let rows = &x[row * pairs..m.min(row + most_rows::<D>()) * pairs];
            for panel in start..range.end.min(start + group) {
                // Further rows find the weights where the first ones left them.
                if row == 0 {
                    some_rows::<D, true>(d, rows, w, panel, row, target);
                } else {
                    some_rows::<D, false>(d, rows, w, panel, row, target);
                }
            }
        }
    }
}

/// At most `MOST_ROWS` rows, the first of which is `row` of `y`.
#[inline(always)]
fn some_rows<D: Dot<Block = Block>, const FETCH: bool>(
    d: D,
    x: &[D::X],
    w: &PlainRows,
    panel: usize,
    row: usize,
    target: Target<'_>,
) {
    let count = x.len() / w.pairs();
    // Known when compiled, so that wide tiles are not even built where registers are few.
    if D::S::MANY_REGISTERS {
        match count {
            1 => tile::<D, 1, FETCH>(d, x, w, panel, row, target),
            2 => tile::<D, 2, FETCH>(d, x, w, panel, row, target),
            3 => tile::<D, 3, FETCH>(d, x, w, panel, row, target),
            4 => tile::<D, 4, FETCH>(d, x, w, panel, row, target),
            5 => tile::<D, 5, FETCH>(d, x, w, panel, row, target),
            6 => tile::<D, 6, FETCH>(d, x, w, panel, row, target),
            7 => tile::<D, 7, FETCH>(d, x, w, panel, row, target),
            _ => tile::<D, 8, FETCH>(d, x, w, panel, row, target),
        }
    } else if count == 1 {
        tile::<D, 1, FETCH>(d, x, w, panel, row, target);
    } else {
        tile::<D, 2, FETCH>(d, x, w, panel, row, target);
    }
}

/// `M` rows times one panel.
#[inline(always)]
fn tile<D: Dot<Block = Block>, const M: usize, const FETCH: bool>(
    d: D,
    x: &[D::X],
    w: &PlainRows,
    panel: usize,
    row: usize,
    target: Target<'_>,
) {
    let s = d.simd();
    let blocks = w.panel(panel);
    let pairs = blocks.len();
    assert_eq!(x.len(), M * pairs);
    let mut sums: [[Vector<D>; 2]; M] = [[s.splat(0.0); 2]; M];
    for (i, [low, high]) in blocks.iter().enumerate() {
        if FETCH {
            let ahead: *const [Block; 2] = blocks.as_ptr().wrapping_add(i + AHEAD);
            s.prefetch(ahead.cast());
            s.prefetch(ahead.cast::<Block>().wrapping_add(1).cast());
        }
        let (low, high) = (d.weights(low), d.weights(high));
        for j in 0..M {
            // SAFETY: `i` is less than `pairs`, and `x` has `M` times as many.
            let x = d.splat(unsafe { *x.get_unchecked(j * pairs + i) });
            sums[j][0] = d.step(sums[j][0], x, low);
            sums[j][1] = d.step(sums[j][1], x, high);
        }
    }
    for j in 0..M {
        for half in 0..2 {
            // SAFETY: each thread has its own range of panels.
            unsafe { target.put(s, row + j, panel * PANEL + half * LANES, sums[j][half]) };
        }
    }
}
