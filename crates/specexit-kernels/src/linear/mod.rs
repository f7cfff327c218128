//! Linear layers: rows of activations times bf16 weights.
//!
//! A call has two stages: `pack` brings the activations into the form that the products read (bf16,
//! or f32 with even and odd columns apart), and `columns` computes a range of output columns. Each
//! thread takes one contiguous range of weight rows, so that it reads memory in order.

mod columns;
mod dot;
mod pack;

use std::ops::Range;

use crate::arena::Buffer;
use crate::disjoint::Disjoint;
use crate::isa::{CheckedIsa, Isa, Precision};
use crate::matrix::{BLOCK, Matrix, ROW_MULTIPLE};
use crate::pool::Pool;
use crate::simd::Simd;
use columns::columns;
use dot::Widened;
pub(crate) use pack::round;
use pack::{pack_bf16, pack_widened};

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

/// Multiply-adds, with 8 extra for each weight read, below which a product is computed by the
/// calling thread alone: about what a fork-join costs (1 to 2 µs).
const INLINE_WORK: usize = if cfg!(miri) { 1 << 12 } else { 1 << 19 };

/// Activations from which packing them is worth a fork-join of its own.
const PARALLEL_PACK: usize = if cfg!(miri) { 64 } else { 1 << 16 };

/// `y[m, w.rows()] = x[m, w.cols()] · wᵀ`, with `output` applied.
pub(crate) fn linear(
    pool: &Pool,
    isa: CheckedIsa,
    precision: Precision,
    scratch: &mut Buffer,
    y: &mut [f32],
    x: &[f32],
    w: &Matrix,
    output: Output<'_>,
) {
    let (rows, cols) = (w.rows(), w.cols());
    let m = y.len().checked_div(rows).unwrap_or(0);
    assert_eq!(y.len(), m * rows, "y is not whole rows of {rows}");
    assert_eq!(x.len(), m * cols, "x is not [{m}, {cols}]");
    if let Output::Biased(bias) = output {
        assert_eq!(bias.len(), rows, "bias of {rows} outputs");
    }
    if m == 0 {
        return;
    }
    if cols == 0 {
        match output {
            Output::Set => y.fill(0.0),
            Output::Biased(bias) => y.chunks_exact_mut(rows).for_each(|y| y.copy_from_slice(bias)),
            Output::Added => {}
        }
        return;
    }

    let blocks = m * w.blocks_per_row();
    let pair_products = precision == Precision::Bf16 && isa.get() == Isa::Avx512Bf16;
    let block_bytes = BLOCK * if pair_products { 2 } else { 4 };
    scratch.grow(blocks * block_bytes);
    let work = (m + 8) * rows * cols;
    let tiles = rows.div_ceil(ROW_MULTIPLE);
    let threads = if work < INLINE_WORK { 1 } else { pool.threads().min(tiles) };
    let split = |thread: usize| {
        let tile = |part: usize| part * tiles / threads * ROW_MULTIPLE;
        tile(thread)..tile(thread + 1).min(rows)
    };

    if pair_products {
        #[cfg(target_arch = "x86_64")]
        {
            let packed = scratch.slice_mut::<[half::bf16; BLOCK]>(blocks);
            pack_rows(pool, packed, x, m, cols, |packed, x| {
                dispatch!(isa, pack_bf16(packed: &mut [[half::bf16; BLOCK]], x: &[f32], cols: usize));
            });
            let y = &Disjoint::new(y);
            each_thread(pool, threads, |thread| {
                avx512_bf16_columns(isa, packed, w, split(thread), y, output);
            });
        }
    } else {
        let round = precision == Precision::Bf16;
        let packed = scratch.slice_mut::<[f32; BLOCK]>(blocks);
        pack_rows(pool, packed, x, m, cols, |packed, x| {
            dispatch!(
                isa,
                pack_widened(packed: &mut [[f32; BLOCK]], x: &[f32], cols: usize, round: bool)
            );
        });
        let (y, packed) = (&Disjoint::new(y), &*packed);
        each_thread(pool, threads, |thread| {
            let range = split(thread);
            dispatch!(
                isa,
                widened_columns(
                    packed: &[[f32; BLOCK]],
                    w: &Matrix,
                    range: Range<usize>,
                    y: &Disjoint<'_, f32>,
                    output: Output<'_>,
                )
            );
        });
    }
}

/// Calls `job(thread)` for `thread` in `0..threads`, without a fork-join for one.
fn each_thread(pool: &Pool, threads: usize, job: impl Fn(usize) + Sync) {
    if threads == 1 {
        job(0);
    } else {
        pool.run(|thread| {
            if thread < threads {
                job(thread);
            }
        });
    }
}

/// Calls `pack(packed rows, rows of x)`, for large `x` on all threads.
fn pack_rows<T: Send>(
    pool: &Pool,
    packed: &mut [T],
    x: &[f32],
    m: usize,
    cols: usize,
    pack: impl Fn(&mut [T], &[f32]) + Sync,
) {
    let blocks_per_row = packed.len() / m;
    let threads = if x.len() < PARALLEL_PACK { 1 } else { pool.threads() };
    let packed = Disjoint::new(packed);
    each_thread(pool, threads, |thread| {
        let rows = thread * m / threads..(thread + 1) * m / threads;
        // SAFETY: the row ranges of different threads do not overlap.
        let part = unsafe { packed.part(rows.start * blocks_per_row..rows.end * blocks_per_row) };
        pack(part, &x[rows.start * cols..rows.end * cols]);
    });
}

/// `columns` on widened weights.
#[inline(always)]
fn widened_columns<S: Simd>(
    s: S,
    x: &[[f32; BLOCK]],
    w: &Matrix,
    range: Range<usize>,
    y: &Disjoint<'_, f32>,
    output: Output<'_>,
) {
    columns(Widened(s), x, w, range, y, output);
}

/// `columns` on dot products of bf16 pairs.
#[cfg(target_arch = "x86_64")]
fn avx512_bf16_columns(
    isa: CheckedIsa,
    x: &[[half::bf16; BLOCK]],
    w: &Matrix,
    range: Range<usize>,
    y: &Disjoint<'_, f32>,
    output: Output<'_>,
) {
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    fn inner(
        x: &[[half::bf16; BLOCK]],
        w: &Matrix,
        range: Range<usize>,
        y: &Disjoint<'_, f32>,
        output: Output<'_>,
    ) {
        // SAFETY: this function's own features are those of `PairProducts`.
        columns(unsafe { dot::PairProducts::new() }, x, w, range, y, output);
    }
    assert_eq!(isa.get(), Isa::Avx512Bf16);
    // SAFETY: a `CheckedIsa` of `Avx512Bf16` says that the CPU has these features.
    unsafe { inner(x, w, range, y, output) };
}
