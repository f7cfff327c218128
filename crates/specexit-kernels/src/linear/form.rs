//! Activations for plain weights, in the form that the instruction set multiplies.

use std::ops::Range;

use half::bf16;

use super::output::Target;
use super::pack::{pack_bf16, pack_widened};
use super::pack_rows;
use super::plain::plain_panels;
#[cfg(target_arch = "x86_64")]
use super::tiles::{STEP, TILE, TileRow, pack_tiles, tile_panels};
use crate::blocks::Line;
#[cfg(target_arch = "x86_64")]
use crate::dot::PairProducts;
use crate::dot::Widened;
use crate::isa::{CheckedIsa, Isa, Precision};
use crate::matrix::PlainRows;
use crate::pool::Pool;
use crate::simd::Simd;

/// Packed activations: `[m, cols]` as each kernel reads them.
pub(super) enum Plain<'a> {
    /// For weights that are not plain.
    None,
    Widened(&'a [[f32; 2]]),
    Pairs(&'a [[bf16; 2]]),
    #[cfg(target_arch = "x86_64")]
    Tiles {
        rows: &'a [TileRow],
        m: usize,
    },
}

/// The kinds of [`Plain`].
#[derive(Clone, Copy)]
pub(super) enum Form {
    Widened,
    Pairs,
    #[cfg(target_arch = "x86_64")]
    Tiles,
}

impl Form {
    pub(super) fn of(isa: CheckedIsa, precision: Precision) -> Form {
        match (precision, isa.get()) {
            #[cfg(target_arch = "x86_64")]
            (Precision::Bf16, Isa::Amx) => Form::Tiles,
            (Precision::Bf16, Isa::Avx512Bf16) => Form::Pairs,
            _ => Form::Widened,
        }
    }

    /// Lines of scratch for `[m, cols]`.
    pub(super) fn lines(self, m: usize, cols: usize) -> usize {
        let pairs = m * cols.div_ceil(2);
        match self {
            Form::Widened => (pairs * size_of::<[f32; 2]>()).div_ceil(size_of::<Line>()),
            Form::Pairs => (pairs * size_of::<[bf16; 2]>()).div_ceil(size_of::<Line>()),
            #[cfg(target_arch = "x86_64")]
            Form::Tiles => m * cols.div_ceil(STEP),
        }
    }

    /// Packs `x` `[m, cols]` into `scratch` of [`lines`](Self::lines), rounded under
    /// [`Precision::Bf16`].
    pub(super) fn pack<'a>(
        self,
        pool: &Pool,
        isa: CheckedIsa,
        precision: Precision,
        scratch: &'a mut [Line],
        x: &[f32],
        cols: usize,
    ) -> Plain<'a> {
        let m = x.len() / cols;
        let pairs = m * cols.div_ceil(2);
        match self {
            Form::Widened => {
                let round = precision == Precision::Bf16;
                let packed = &mut bytemuck::cast_slice_mut::<Line, [f32; 2]>(scratch)[..pairs];
                pack_rows(pool, packed, x, m, cols, 1, |packed, x| {
                    dispatch!(
                        isa,
                        pack_widened(packed: &mut [[f32; 2]], x: &[f32], cols: usize, round: bool)
                    );
                });
                Plain::Widened(packed)
            }
            Form::Pairs => {
                let packed = &mut bytemuck::cast_slice_mut::<Line, [bf16; 2]>(scratch)[..pairs];
                pack_rows(pool, packed, x, m, cols, 1, |packed, x| {
                    dispatch!(isa, pack_bf16(packed: &mut [[bf16; 2]], x: &[f32], cols: usize));
                });
                Plain::Pairs(packed)
            }
            #[cfg(target_arch = "x86_64")]
            Form::Tiles => {
                let rows = bytemuck::cast_slice_mut::<Line, TileRow>(scratch);
                pack_rows(pool, rows, x, m, cols, TILE, |packed, x| {
                    dispatch!(isa, pack_tiles(packed: &mut [TileRow], x: &[f32], cols: usize));
                });
                Plain::Tiles { rows, m }
            }
        }
    }
}

impl Plain<'_> {
    /// The products with the panels `share` of `w`.
    pub(super) fn product(
        &self,
        isa: CheckedIsa,
        w: &PlainRows,
        share: Range<usize>,
        target: Target<'_>,
    ) {
        match *self {
            Plain::None => unreachable!("nothing was packed for plain weights"),
            Plain::Widened(x) => dispatch!(
                isa,
                widened_plain(
                    x: &[[f32; 2]],
                    w: &PlainRows,
                    share: Range<usize>,
                    target: Target<'_>,
                )
            ),
            #[cfg(target_arch = "x86_64")]
            Plain::Pairs(x) => pair_products(isa, x, w, share, target),
            #[cfg(not(target_arch = "x86_64"))]
            Plain::Pairs(_) => unreachable!("{} was checked on a CPU without it", isa.get()),
            #[cfg(target_arch = "x86_64")]
            Plain::Tiles { rows, m } => tiles(isa, rows, m, w, share, target),
        }
    }
}

/// `plain_panels` on widened weights.
#[inline(always)]
fn widened_plain<S: Simd>(
    s: S,
    x: &[[f32; 2]],
    w: &PlainRows,
    share: Range<usize>,
    target: Target<'_>,
) {
    plain_panels(Widened { s, rounded: false }, x, w, share, target);
}

/// `plain_panels` on dot products of bf16 pairs.
#[cfg(target_arch = "x86_64")]
fn pair_products(
    isa: CheckedIsa,
    x: &[[bf16; 2]],
    w: &PlainRows,
    share: Range<usize>,
    target: Target<'_>,
) {
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    fn inner(x: &[[bf16; 2]], w: &PlainRows, share: Range<usize>, target: Target<'_>) {
        // SAFETY: this function's own features are those of `PairProducts`.
        plain_panels(unsafe { PairProducts::new() }, x, w, share, target);
    }
    assert!(isa.has_pair_products());
    // SAFETY: a `CheckedIsa` with pair products says that the CPU has these features.
    unsafe { inner(x, w, share, target) };
}

/// `tile_panels`.
#[cfg(target_arch = "x86_64")]
pub(super) fn tiles(
    isa: CheckedIsa,
    rows: &[TileRow],
    m: usize,
    w: &PlainRows,
    share: Range<usize>,
    target: Target<'_>,
) {
    use crate::simd::Avx512;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    fn inner(rows: &[TileRow], m: usize, w: &PlainRows, share: Range<usize>, target: Target<'_>) {
        // SAFETY: this function's own features are those of `Avx512`, and its caller checked AMX.
        unsafe { tile_panels(Avx512::new(), rows, m, w, share, target) };
    }
    assert_eq!(isa.get(), Isa::Amx);
    // SAFETY: a `CheckedIsa` of `Amx` says that the CPU has these features and may use tiles.
    unsafe { inner(rows, m, w, share, target) };
}
