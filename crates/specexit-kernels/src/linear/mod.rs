//! Linear layers: rows of activations times weights in bf16 or a block format.
//!
//! A call has two stages: the activations are brought into the forms that the products read (bf16 or
//! f32 for bf16 weights; 8-bit integers for quantised ones), then each thread computes the products of
//! one contiguous share of the weights, so that it reads memory in order.

mod form;
mod output;
mod pack;
mod panels;
mod plain;
#[cfg(target_arch = "x86_64")]
mod tiles;

use std::ops::Range;

use crate::arena::Buffer;
use crate::blocks::{BLOCK_COLUMNS, Line};
use crate::disjoint::Disjoint;
use crate::isa::{CheckedIsa, Precision};
use crate::matrix::{Matrix, QuantisedRows, Section, SectionWeights};
use crate::pool::Pool;
use crate::simd::ByteSimd;
use form::{Form, Plain};
pub(crate) use output::Output;
use output::Target;
pub(crate) use pack::{round, round_into};
use panels::{Multiplied, QuantisedBlock, integer_panels, quantise, widened_panels};

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

    let packed = Packed::new(pool, isa, precision, scratch, x, w);
    let y = &Disjoint::new(y);
    let work = (m + 8) * rows * cols;
    let threads = if work < INLINE_WORK { 1 } else { pool.threads() };
    each_thread(pool, threads, |thread| {
        let mut start = 0;
        for section in w.sections() {
            let weights = &section.weights;
            let columns = weights.rows();
            let share = share(thread, threads, w.bytes(), start, weights.bytes(), weights.panels());
            start += weights.bytes();
            if !share.is_empty() {
                let target = Target { y, output, stride: rows, first: section.first_row, columns };
                packed.product(isa, section, share, target);
            }
        }
    });
}

/// Which of the `panels` of a section, `bytes` from `start` of `total` on, thread `thread` takes:
/// those that begin in its share of the bytes.
fn share(
    thread: usize,
    threads: usize,
    total: usize,
    start: usize,
    bytes: usize,
    panels: usize,
) -> Range<usize> {
    let bound = |thread: usize| {
        if thread == threads {
            return panels;
        }
        let bytes_before = (thread * total / threads).saturating_sub(start);
        (bytes_before * panels).div_ceil(bytes.max(1)).min(panels)
    };
    bound(thread)..bound(thread + 1)
}

/// The activations of a call, in the forms that the sections of its weights read.
struct Packed<'a> {
    x: &'a [f32],
    cols: usize,
    /// For plain weights.
    plain: Plain<'a>,
    /// For quantised weights, unless they read `x` itself.
    integers: &'a [QuantisedBlock],
    /// Blocks of a row of `integers`: whole chunks of every format.
    stride: usize,
}

impl<'a> Packed<'a> {
    fn new(
        pool: &Pool,
        isa: CheckedIsa,
        precision: Precision,
        scratch: &'a mut Buffer,
        x: &'a [f32],
        w: &Matrix,
    ) -> Packed<'a> {
        let cols = w.cols();
        let m = x.len() / cols;
        let is_plain = |section: &Section| matches!(section.weights, SectionWeights::Plain(_));
        let form = Form::of(isa, precision);
        let mut packed = Packed { x, cols, plain: Plain::None, integers: &[], stride: 0 };

        let plain_lines = if w.sections().iter().any(is_plain) { form.lines(m, cols) } else { 0 };
        let integer_lines = if precision == Precision::Bf16 && !w.sections().iter().all(is_plain) {
            // Chunks have 2 blocks, or 8, of which such rows are a multiple.
            packed.stride = (cols / BLOCK_COLUMNS).next_multiple_of(2);
            m * packed.stride
        } else {
            0
        };
        scratch.grow((plain_lines + integer_lines) * size_of::<Line>());
        let (plain, integers) =
            scratch.slice_mut::<Line>(plain_lines + integer_lines).split_at_mut(plain_lines);
        if plain_lines > 0 {
            packed.plain = form.pack(pool, isa, precision, plain, x, cols);
        }
        if integer_lines > 0 {
            let stride = packed.stride;
            let integers = bytemuck::cast_slice_mut::<Line, QuantisedBlock>(integers);
            pack_rows(pool, integers, x, m, cols, 1, |packed, x| {
                dispatch!(
                    isa,
                    quantise(packed: &mut [QuantisedBlock], stride: usize, x: &[f32], cols: usize)
                );
            });
            packed.integers = integers;
        }
        packed
    }

    /// The products with the tiles of rows, or the panels, `share` of `section`.
    fn product(&self, isa: CheckedIsa, section: &Section, share: Range<usize>, target: Target<'_>) {
        match &section.weights {
            SectionWeights::Plain(w) => self.plain.product(isa, w, share, target),
            SectionWeights::Quantised(w) if self.integers.is_empty() => {
                let (x, cols) = (self.x, self.cols);
                dispatch!(
                    isa,
                    widened_panels(
                        x: &[f32],
                        cols: usize,
                        w: &QuantisedRows,
                        share: Range<usize>,
                        target: Target<'_>,
                    )
                );
            }
            SectionWeights::Quantised(w) => {
                let (x, stride) = (self.integers, self.stride);
                #[cfg(target_arch = "x86_64")]
                if isa.has_pair_products() {
                    return avx512_vnni_panels(isa, x, stride, w, share, target);
                }
                dispatch!(
                    isa,
                    multiplied_panels(
                        x: &[QuantisedBlock],
                        stride: usize,
                        w: &QuantisedRows,
                        share: Range<usize>,
                        target: Target<'_>,
                    )
                );
            }
        }
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

/// Calls `pack(packed rows, rows of x)`, for large `x` on all threads, `together` rows at a time.
fn pack_rows<T: Send>(
    pool: &Pool,
    packed: &mut [T],
    x: &[f32],
    m: usize,
    cols: usize,
    together: usize,
    pack: impl Fn(&mut [T], &[f32]) + Sync,
) {
    let per_row = packed.len() / m;
    let threads = if x.len() < PARALLEL_PACK { 1 } else { pool.threads() };
    let packed = Disjoint::new(packed);
    each_thread(pool, threads, |thread| {
        let bound = |thread: usize| (thread * m / threads).next_multiple_of(together).min(m);
        let rows = bound(thread)..bound(thread + 1);
        // SAFETY: the row ranges of different threads do not overlap.
        let part = unsafe { packed.part(rows.start * per_row..rows.end * per_row) };
        pack(part, &x[rows.start * cols..rows.end * cols]);
    });
}

/// `integer_panels` on the instruction set's ordinary multiplications.
#[inline(always)]
fn multiplied_panels<S: ByteSimd>(
    s: S,
    x: &[QuantisedBlock],
    stride: usize,
    w: &QuantisedRows,
    share: Range<usize>,
    target: Target<'_>,
) {
    integer_panels(Multiplied(s), x, stride, w, share, target);
}

/// `integer_panels` on dot products of bytes.
#[cfg(target_arch = "x86_64")]
fn avx512_vnni_panels(
    isa: CheckedIsa,
    x: &[QuantisedBlock],
    stride: usize,
    w: &QuantisedRows,
    share: Range<usize>,
    target: Target<'_>,
) {
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    fn inner(
        x: &[QuantisedBlock],
        stride: usize,
        w: &QuantisedRows,
        share: Range<usize>,
        target: Target<'_>,
    ) {
        // SAFETY: this function's own features are those of `ByteProducts`.
        let products = unsafe { panels::ByteProducts::new() };
        integer_panels(products, x, stride, w, share, target);
    }
    assert!(isa.has_pair_products());
    // SAFETY: a `CheckedIsa` with pair products says that the CPU has these features.
    unsafe { inner(x, stride, w, share, target) };
}
