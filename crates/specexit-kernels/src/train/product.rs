//! Products of bf16 factors with f32 sums, as outer products of pairs.
//!
//! [`linear`](crate::linear) reads weights that stay and adds up along the row, which suits few rows.
//! Here both factors are new every step and the inner dimension may be as short as a hidden state or
//! as long as a batch: a tile of the result stays in registers while one factor is broadcast pair by
//! pair, so that no sum across lanes is needed and no factor is transposed.

use half::bf16;

use super::operands::{Bf16Rows, PANEL, Pair, PairPanels};
use crate::disjoint::Disjoint;
#[cfg(target_arch = "x86_64")]
use crate::dot::PairProducts;
use crate::dot::{OfPairs, Widened};
use crate::kernels::Kernels;
use crate::simd::{LANES, Simd};

/// Rows of a tile; divides the width of a panel.
const TILE: usize = 8;

/// Rows that one task takes: their broadcast factor stays in the level-2 cache while panels pass.
const ROWS: usize = if cfg!(miri) { 16 } else { 128 };

/// Pairs that are added up before the next ones begin: the panels of both factors stay in the
/// level-1 cache.
const CHUNK: usize = if cfg!(miri) { 4 } else { 128 };

impl Kernels {
    /// `y = x · w`, or `y = base + x · w`: `x` `[m, k]`, `w` `[k, n]`, `y` and `base` `[m, n]`.
    ///
    /// # Panics
    ///
    /// If the sizes do not fit.
    pub fn multiply(&self, y: &mut [f32], x: &Bf16Rows, w: &PairPanels, base: Option<&[f32]>) {
        let (m, n, pairs) = (x.rows(), w.cols(), w.pairs());
        assert_eq!(y.len(), m * n, "y is not [{m}, {n}]");
        assert!(base.is_none_or(|base| base.len() == y.len()), "base and y differ in length");
        assert_eq!(x.stride() / 2, pairs, "factors differ in their inner dimension");
        let y = &Disjoint::new(y);
        self.pool().claim(m.div_ceil(ROWS), |task| {
            let first = task * ROWS;
            let a = Broadcast { pairs: &x.pairs()[first * pairs..], row: pairs, pair: 1 };
            let rows = ROWS.min(m - first);
            self.panels(&Block { a, rows, y, first, width: n, column: 0, base, add: false }, w);
        });
    }

    /// `y += a^T b`: `a` `[k, m]`, `b` `[k, n]`, `y` `[m, n]`.
    ///
    /// # Panics
    ///
    /// If the sizes do not fit.
    pub fn multiply_transposed(&self, y: &mut [f32], a: &PairPanels, b: &PairPanels) {
        let (m, n) = (a.cols(), b.cols());
        assert_eq!(y.len(), m * n, "y is not [{m}, {n}]");
        assert_eq!(a.pairs(), b.pairs(), "factors differ in their inner dimension");
        let y = &Disjoint::new(y);
        self.pool().claim(m.div_ceil(PANEL), |panel| {
            let first = panel * PANEL;
            let a = Broadcast { pairs: a.panel(panel).as_flattened(), row: 1, pair: PANEL };
            let rows = PANEL.min(m - first);
            self.panels(
                &Block { a, rows, y, first, width: n, column: 0, base: None, add: true },
                b,
            );
        });
    }

    fn panels(&self, block: &Block<'_>, w: &PairPanels) {
        let isa = self.checked_isa();
        if isa.has_pair_products() {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn inner(block: &Block<'_>, w: &PairPanels) {
                    // SAFETY: this function's own features are those of `PairProducts`.
                    all_panels(unsafe { PairProducts::new() }, block, w);
                }
                // SAFETY: a `CheckedIsa` with pair products says that the CPU has these features.
                unsafe { inner(block, w) };
            }
        } else {
            dispatch!(isa, widened_panels(block: &Block<'_>, w: &PairPanels));
        }
    }
}

/// The factor that is broadcast.
#[derive(Clone, Copy)]
struct Broadcast<'a> {
    pairs: &'a [Pair],
    /// Pairs from one row of the result to the next.
    row: usize,
    /// Pairs from one inner pair to the next.
    pair: usize,
}

/// Consecutive rows of the result.
struct Block<'a> {
    a: Broadcast<'a>,
    rows: usize,
    y: &'a Disjoint<'a, f32>,
    /// First of the rows in `y`.
    first: usize,
    /// Columns of `y`.
    width: usize,
    /// First column of the panel.
    column: usize,
    /// What the product is added to, if anything.
    base: Option<&'a [f32]>,
    /// Whether it is added to `y` itself.
    add: bool,
}

#[inline(always)]
fn widened_panels<S: Simd>(s: S, block: &Block<'_>, w: &PairPanels) {
    all_panels(Widened { s, rounded: true }, block, w);
}

#[inline(always)]
fn all_panels<D: OfPairs>(d: D, block: &Block<'_>, w: &PairPanels) {
    let pairs = w.pairs();
    for start in (0..pairs).step_by(CHUNK) {
        let chunk = start..pairs.min(start + CHUNK);
        let add = block.add || start > 0;
        for panel in 0..w.cols().div_ceil(PANEL) {
            let b = &w.panel(panel)[2 * chunk.start..2 * chunk.end];
            let block = Block { column: panel * PANEL, add, ..*block };
            for row in (0..block.rows).step_by(TILE) {
                match (block.rows - row).min(TILE) {
                    1 => tile::<D, 1>(d, &block, row, chunk.start, b),
                    2 => tile::<D, 2>(d, &block, row, chunk.start, b),
                    3 => tile::<D, 3>(d, &block, row, chunk.start, b),
                    4 => tile::<D, 4>(d, &block, row, chunk.start, b),
                    5 => tile::<D, 5>(d, &block, row, chunk.start, b),
                    6 => tile::<D, 6>(d, &block, row, chunk.start, b),
                    7 => tile::<D, 7>(d, &block, row, chunk.start, b),
                    _ => tile::<D, 8>(d, &block, row, chunk.start, b),
                }
            }
        }
    }
}

/// `M` rows from `row` on times one panel, over the pairs of `b`, the first of which is `start`.
#[inline(always)]
fn tile<D: OfPairs, const M: usize>(
    d: D,
    block: &Block<'_>,
    row: usize,
    start: usize,
    b: &[[Pair; LANES]],
) {
    let b: &[[bf16; 2 * LANES]] = bytemuck::cast_slice(b);
    let s = d.simd();
    let a = block.a;
    let count = b.len() / 2;
    let origin = row * a.row + start * a.pair;
    // One check for the whole tile instead of one for every pair.
    assert!(origin + (M - 1) * a.row + (count - 1) * a.pair < a.pairs.len());
    let mut sums = [[s.splat(0.0); 2]; M];
    for i in 0..count {
        let (low, high) = (d.weights(&b[2 * i]), d.weights(&b[2 * i + 1]));
        for j in 0..M {
            // SAFETY: at most the index that was asserted above.
            let pair = unsafe { *a.pairs.get_unchecked(origin + j * a.row + i * a.pair) };
            let x = d.splat_pair(pair);
            sums[j][0] = d.step_back(sums[j][0], x, low);
            sums[j][1] = d.step_back(sums[j][1], x, high);
        }
    }
    let columns = (block.width - block.column).min(PANEL);
    for j in 0..M {
        let at = (block.first + row + j) * block.width + block.column;
        // SAFETY: each task has its own rows, and this thread holds no other part.
        let y = unsafe { block.y.part(at..at + columns) };
        let base = block.base.filter(|_| !block.add).map(|base| &base[at..at + columns]);
        for (half, y) in y.chunks_mut(LANES).enumerate() {
            let mut sum = sums[j][half];
            if let Some(base) = base {
                let base = &base[half * LANES..][..y.len()];
                sum = s.add(s.load_part(base, 0.0), sum);
            }
            if block.add {
                sum = s.add(s.load_part(y, 0.0), sum);
            }
            s.store_part(sum, y);
        }
    }
}
