//! Products with activations as they are: each code becomes the weight that it stands for.

use std::ops::Range;

use super::kind::{Kind, block_scales, chunk_scales, codes};
use super::{PANEL_ROWS, Target};
use crate::blocks::{BLOCK_COLUMNS, Line};
use crate::matrix::QuantisedRows;
use crate::simd::ByteSimd;

/// Rows of a tile.
const ROWS: usize = 2;

/// Sums that a row has for each output, by column modulo 4, so that they need not wait for each other.
const PARTS: usize = 4;

/// Panels `range` of `w` times the rows `x`, `cols` f32 each.
#[inline(always)]
pub(super) fn panels<S: ByteSimd, K: Kind>(
    s: S,
    x: &[f32],
    cols: usize,
    w: &QuantisedRows,
    range: Range<usize>,
    target: Target<'_>,
) {
    for panel in range {
        let lines = w.panel(panel);
        for (tile, x) in x.chunks(ROWS * cols).enumerate() {
            let count = x.len() / cols;
            // A missing row is the last one again.
            let second = &x[(count - 1) * cols..];
            let sums = rows::<S, K>(s, [x, second], cols, lines);
            for j in 0..count {
                // SAFETY: each thread has its own range of panels.
                unsafe { target.put(s, tile * ROWS + j, panel * PANEL_ROWS, sums[j]) };
            }
        }
    }
}

/// Some rows times a panel.
#[inline(always)]
fn rows<S: ByteSimd, K: Kind>(
    s: S,
    x: [&[f32]; ROWS],
    cols: usize,
    panel: &[Line],
) -> [S::F; ROWS] {
    let layout = K::LAYOUT;
    let mut sums = [[s.splat(0.0); PARTS]; ROWS];
    for (c, chunk) in panel.chunks_exact(layout.lines()).enumerate() {
        let common = chunk_scales::<_, K>(s, chunk);
        let blocks = (cols / BLOCK_COLUMNS - c * layout.blocks).min(layout.blocks);
        for b in 0..blocks {
            let lines = &chunk[layout.header + b * layout.payload..][..layout.payload];
            let (first, second) = block_scales::<_, K>(s, chunk, common, b);
            let column = (c * layout.blocks + b) * BLOCK_COLUMNS;
            sums = groups::<S, K>(s, x, column, lines, 0, (first, second), sums);
            sums = groups::<S, K>(s, x, column, lines, 1, (first, second), sums);
            let scales = if K::HALVES { (second, second) } else { (first, second) };
            sums = groups::<S, K>(s, x, column, lines, 2, scales, sums);
            sums = groups::<S, K>(s, x, column, lines, 3, scales, sums);
        }
    }
    let mut totals = [s.splat(0.0); ROWS];
    for j in 0..ROWS {
        let [a, b, c, d] = sums[j];
        totals[j] = s.add(s.add(a, b), s.add(c, d));
    }
    totals
}

/// Adds the products of groups `2 l` and `2 l + 1` of the block at `column`.
#[inline(always)]
fn groups<S: ByteSimd, K: Kind>(
    s: S,
    x: [&[f32]; ROWS],
    column: usize,
    lines: &[Line],
    l: usize,
    (scale, offset): (S::F, S::F),
    mut sums: [[S::F; PARTS]; ROWS],
) -> [[S::F; PARTS]; ROWS] {
    let (first, second) = codes::<_, K>(s, lines, l);
    let column = column + 8 * l;
    sums = group::<S, K>(s, x, column, first, (scale, offset), sums);
    group::<S, K>(s, x, column + 4, second, (scale, offset), sums)
}

/// Adds the products of the group of four columns at `column`.
#[inline(always)]
fn group<S: ByteSimd, K: Kind>(
    s: S,
    x: [&[f32]; ROWS],
    column: usize,
    codes: S::B,
    (scale, offset): (S::F, S::F),
    mut sums: [[S::F; PARTS]; ROWS],
) -> [[S::F; PARTS]; ROWS] {
    let zero = s.splat(K::LAYOUT.zero as f32);
    for part in 0..PARTS {
        let code = s.byte(codes, part);
        // Exact, but for one rounding where there is an offset.
        let weight = if K::LAYOUT.offset {
            s.fma(code, scale, offset)
        } else {
            s.mul(s.sub(code, zero), scale)
        };
        for j in 0..ROWS {
            let x = s.splat(x[j][column + part]);
            sums[j][part] = s.fma(x, weight, sums[j][part]);
        }
    }
    sums
}
