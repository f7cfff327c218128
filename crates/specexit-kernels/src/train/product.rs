//! Products of bf16 factors with f32 sums, as outer products of pairs.
//!
//! [`linear`](crate::linear) reads weights that stay and adds up along the row, which suits few rows.
//! Here both factors are new every step and the inner dimension may be as short as a hidden state or
//! as long as a batch: a tile of the result stays in registers while one factor is broadcast pair by
//! pair, so that no sum across lanes is needed and no factor is transposed.

use half::bf16;

use super::operands::{Bf16Rows, PANEL, Pair, PairPanels};
use crate::disjoint::Disjoint;
use crate::isa::Isa;
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
        if isa.get() == Isa::Avx512Bf16 {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn inner(block: &Block<'_>, w: &PairPanels) {
                    // SAFETY: this function's own features are those of `Avx512Pairs`.
                    all_panels(unsafe { avx512::Avx512Pairs::new() }, block, w);
                }
                // SAFETY: a `CheckedIsa` of `Avx512Bf16` says that the CPU has these features.
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
    all_panels(Widened(s), block, w);
}

#[inline(always)]
fn all_panels<P: Pairs>(p: P, block: &Block<'_>, w: &PairPanels) {
    let pairs = w.pairs();
    for start in (0..pairs).step_by(CHUNK) {
        let chunk = start..pairs.min(start + CHUNK);
        let add = block.add || start > 0;
        for panel in 0..w.cols().div_ceil(PANEL) {
            let b = &w.panel(panel)[2 * chunk.start..2 * chunk.end];
            let block = Block { column: panel * PANEL, add, ..*block };
            for row in (0..block.rows).step_by(TILE) {
                match (block.rows - row).min(TILE) {
                    1 => tile::<P, 1>(p, &block, row, chunk.start, b),
                    2 => tile::<P, 2>(p, &block, row, chunk.start, b),
                    3 => tile::<P, 3>(p, &block, row, chunk.start, b),
                    4 => tile::<P, 4>(p, &block, row, chunk.start, b),
                    5 => tile::<P, 5>(p, &block, row, chunk.start, b),
                    6 => tile::<P, 6>(p, &block, row, chunk.start, b),
                    7 => tile::<P, 7>(p, &block, row, chunk.start, b),
                    _ => tile::<P, 8>(p, &block, row, chunk.start, b),
                }
            }
        }
    }
}

/// `M` rows from `row` on times one panel, over the pairs of `b`, the first of which is `start`.
#[inline(always)]
fn tile<P: Pairs, const M: usize>(
    p: P,
    block: &Block<'_>,
    row: usize,
    start: usize,
    b: &[[Pair; LANES]],
) {
    let s = p.simd();
    let a = block.a;
    let count = b.len() / 2;
    let origin = row * a.row + start * a.pair;
    // One check for the whole tile instead of one for every pair.
    assert!(origin + (M - 1) * a.row + (count - 1) * a.pair < a.pairs.len());
    let mut sums = [[s.splat(0.0); 2]; M];
    for i in 0..count {
        let (low, high) = (p.load(&b[2 * i]), p.load(&b[2 * i + 1]));
        for j in 0..M {
            // SAFETY: at most the index that was asserted above.
            let pair = unsafe { *a.pairs.get_unchecked(origin + j * a.row + i * a.pair) };
            let x = p.splat(pair);
            sums[j][0] = p.step(sums[j][0], x, low);
            sums[j][1] = p.step(sums[j][1], x, high);
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

/// How pairs are multiplied.
trait Pairs: Copy {
    type S: Simd;
    /// Sixteen pairs in registers.
    type W: Copy;

    fn simd(self) -> Self::S;
    fn load(self, pairs: &[Pair; LANES]) -> Self::W;
    fn splat(self, pair: Pair) -> Self::W;
    /// Adds both products of each pair to its lane.
    fn step(self, sum: <Self::S as Simd>::F, a: Self::W, b: Self::W) -> <Self::S as Simd>::F;
}

/// Pairs widened to f32.
#[derive(Clone, Copy)]
struct Widened<S>(S);

impl<S: Simd> Pairs for Widened<S> {
    type S = S;
    type W = (S::F, S::F);

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn load(self, pairs: &[Pair; LANES]) -> (S::F, S::F) {
        self.0.widen(bytemuck::cast_ref::<[Pair; LANES], [bf16; 2 * LANES]>(pairs))
    }

    #[inline(always)]
    fn splat(self, pair: Pair) -> (S::F, S::F) {
        let (low, high) = (f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000));
        (self.0.splat(low), self.0.splat(high))
    }

    #[inline(always)]
    fn step(self, sum: S::F, a: (S::F, S::F), b: (S::F, S::F)) -> S::F {
        self.0.fma(a.0, b.0, self.0.fma(a.1, b.1, sum))
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32,
    };

    use super::*;
    use crate::simd::Avx512;

    /// `vdpbf16ps`.
    #[derive(Clone, Copy)]
    pub(super) struct Avx512Pairs(Avx512);

    impl Avx512Pairs {
        /// # Safety
        ///
        /// The CPU must have AVX-512 F, BW, DQ, VL and BF16.
        #[inline(always)]
        pub(super) unsafe fn new() -> Avx512Pairs {
            // SAFETY: the caller promises it.
            Avx512Pairs(unsafe { Avx512::new() })
        }
    }

    #[inline(always)]
    fn as_pairs(vector: __m512i) -> __m512bh {
        // SAFETY: both types are plain bits of one register.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(vector) }
    }

    impl Pairs for Avx512Pairs {
        type S = Avx512;
        type W = __m512bh;

        #[inline(always)]
        fn simd(self) -> Avx512 {
            self.0
        }

        #[inline(always)]
        fn load(self, pairs: &[Pair; LANES]) -> __m512bh {
            // SAFETY: the CPU has AVX-512 F (`new`), and sixteen pairs are 64 bytes.
            as_pairs(unsafe { _mm512_loadu_si512(pairs.as_ptr().cast()) })
        }

        #[inline(always)]
        fn splat(self, pair: Pair) -> __m512bh {
            // SAFETY: the CPU has AVX-512 F (`new`).
            as_pairs(unsafe { _mm512_set1_epi32(pair.cast_signed()) })
        }

        #[inline(always)]
        fn step(self, sum: __m512, a: __m512bh, b: __m512bh) -> __m512 {
            // SAFETY: the CPU has AVX-512 BF16 (`new`).
            unsafe { _mm512_dpbf16_ps(sum, a, b) }
        }
    }
}
