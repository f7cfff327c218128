//! The context every operation runs on.

use std::sync::{Mutex, PoisonError};

use crate::arena::Buffer;
use crate::attention::{self, AttentionSequence, AttentionShape, CacheNumbers};
use crate::disjoint::Disjoint;
use crate::elementwise::{add, largest, narrow, round_bytes, silu_mul_rows};
use crate::isa::{CheckedIsa, Isa, Precision};
use crate::linear::{Output, linear};
use crate::matrix::Matrix;
use crate::matvec::matvec;
use crate::norm::{rms_norm_heads, rms_norm_rows};
use crate::pool::Pool;
use crate::rope::{RopeTable, rope_rows};

/// Values from which an operation value by value is worth a fork-join.
const PARALLEL_VALUES: usize = if cfg!(miri) { 32 } else { 1 << 15 };

/// The name of what is computed in where [`Kernels::arithmetic`] has none.
pub const DEFAULT_ARITHMETIC: &str = "bf16";

/// The operations of a decoder over preallocated slices: a pool of threads, an instruction set and a
/// precision.
///
/// Matrices of activations are row-major `f32`; `m` is the number of rows, taken from the lengths.
/// Every row's result has the same bits whatever the other rows and the number of threads.
#[derive(Debug)]
pub struct Kernels {
    pool: Pool,
    isa: CheckedIsa,
    precision: Precision,
    cache_numbers: CacheNumbers,
    /// Packed activations or parts of attention: one buffer for each call that was ever in flight at the same time.
    scratch: Mutex<Vec<Buffer>>,
}

impl Kernels {
    /// Kernels on `threads` threads (the caller's included) and the CPU's best instruction set.
    ///
    /// # Panics
    ///
    /// If `threads` is 0.
    pub fn new(threads: usize, precision: Precision) -> Kernels {
        Kernels::with_isa(threads, precision, Isa::detect())
    }

    /// Kernels on a given instruction set.
    ///
    /// # Panics
    ///
    /// If `threads` is 0 or the CPU does not have `isa` (see [`Isa::available`]).
    pub fn with_isa(threads: usize, precision: Precision, isa: Isa) -> Kernels {
        let isa = CheckedIsa::new(isa);
        let cache_numbers = precision.into();
        let pool = Pool::new(threads);
        Kernels { pool, isa, precision, cache_numbers, scratch: Mutex::default() }
    }

    /// The same with caches of `numbers` instead of what linear layers multiply with.
    #[must_use]
    pub fn with_cache(self, numbers: CacheNumbers) -> Kernels {
        Kernels { cache_numbers: numbers, ..self }
    }

    /// The number of threads, the calling one included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa.get()
    }

    /// What linear layers multiply with.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What is computed in, unless all of it is bf16 ([`DEFAULT_ARITHMETIC`]): `f32`, or `bf16, int8 keys and values`. Files that are
    /// gone on with name it, since results differ.
    pub fn arithmetic(&self) -> Option<String> {
        let (precision, cache) = (self.precision, self.cache_numbers);
        let name = CacheNumbers::from(precision);
        match (precision, cache) {
            (Precision::Bf16, CacheNumbers::Bf16) => None,
            _ if cache == name => Some(name.to_string()),
            _ => Some(format!("{name}, {cache} keys and values")),
        }
    }

    /// In which numbers a model on these kernels keeps keys and values.
    pub fn cache_numbers(&self) -> CacheNumbers {
        self.cache_numbers
    }

    /// The instruction set, with the proof that the CPU has it.
    pub(crate) fn checked_isa(&self) -> CheckedIsa {
        self.isa
    }

    /// The threads.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// `y = x · wᵀ (+ bias)`: `x` `[m, w.cols()]`, `y` `[m, w.rows()]`, `bias` `[w.rows()]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit.
    pub fn linear(&self, y: &mut [f32], x: &[f32], w: &Matrix, bias: Option<&[f32]>) {
        self.product(y, x, w, bias.map_or(Output::Set, Output::Biased));
    }

    /// `y = y + x · wᵀ`, for residual connections: shapes as in [`linear`](Self::linear).
    ///
    /// # Panics
    ///
    /// If the lengths do not fit.
    pub fn linear_add(&self, y: &mut [f32], x: &[f32], w: &Matrix) {
        self.product(y, x, w, Output::Added);
    }

    /// `y = rows · x` in f32 whatever the precision, on the calling thread: `rows` `[y.len(), x.len()]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit.
    pub fn matvec(&self, y: &mut [f32], rows: &[f32], x: &[f32]) {
        assert_eq!(rows.len(), y.len() * x.len(), "rows are not [{}, {}]", y.len(), x.len());
        dispatch!(self.isa, matvec(y: &mut [f32], rows: &[f32], x: &[f32]));
    }

    fn product(&self, y: &mut [f32], x: &[f32], w: &Matrix, output: Output<'_>) {
        self.with_scratch(|scratch| {
            linear(&self.pool, self.isa, self.precision, scratch, y, x, w, output);
        });
    }

    pub(crate) fn with_scratch(&self, operation: impl FnOnce(&mut Buffer)) {
        let kept = self.scratch.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut scratch = kept.unwrap_or_else(|| Buffer::new(0));
        operation(&mut scratch);
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
    }

    /// The rows `ids` of `table` as f32: `y` `[ids.len(), table.cols()]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit or an id is not a row of `table`.
    pub fn embed(&self, y: &mut [f32], ids: &[u32], table: &Matrix) {
        let cols = table.cols();
        assert_eq!(y.len(), ids.len() * cols, "y is not [{}, {cols}]", ids.len());
        if cols == 0 {
            return;
        }
        for (y, &id) in y.chunks_exact_mut(cols).zip(ids) {
            table.read_row(id as usize, y);
        }
    }

    /// `y = x / sqrt(mean(x²) + eps) * weight` row by row: `x` and `y` `[m, weight.len()]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit.
    pub fn rms_norm(&self, y: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
        let width = weight.len();
        assert_eq!(y.len(), x.len(), "y and x differ in length");
        self.each_row(y, width, |first_row, y| {
            let x = &x[first_row * width..][..y.len()];
            dispatch!(
                self.isa,
                rms_norm_rows(y: &mut [f32], x: &[f32], weight: &[f32], eps: f32)
            );
        });
    }

    /// The norm of [`rms_norm`](Self::rms_norm) in place for each of `heads` heads of `weight.len()`
    /// values from column `offset` on: `x` `[m, row_stride]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit or the heads exceed the row.
    pub fn rms_norm_heads(
        &self,
        x: &mut [f32],
        row_stride: usize,
        offset: usize,
        heads: usize,
        weight: &[f32],
        eps: f32,
    ) {
        assert!(offset + heads * weight.len() <= row_stride, "heads exceed the row");
        if heads * weight.len() == 0 {
            return;
        }
        self.each_row(x, row_stride, |_, x| {
            dispatch!(
                self.isa,
                rms_norm_heads(
                    x: &mut [f32],
                    row_stride: usize,
                    offset: usize,
                    heads: usize,
                    weight: &[f32],
                    eps: f32,
                )
            );
        });
    }

    /// Rotates the pairs `(i, i + head_dim / 2)` of each head by the angles of the row's position,
    /// in place: `x` `[positions.len(), row_stride]`, `heads` heads from column `offset` on.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit, the heads exceed the row, or a position exceeds the table.
    pub fn rope(
        &self,
        x: &mut [f32],
        row_stride: usize,
        offset: usize,
        heads: usize,
        positions: &[u32],
        table: &RopeTable,
    ) {
        let m = positions.len();
        assert_eq!(x.len(), m * row_stride, "x is not [{m}, {row_stride}]");
        assert!(offset + heads * table.head_dim() <= row_stride, "heads exceed the row");
        if heads * table.head_dim() == 0 {
            return;
        }
        self.each_row(x, row_stride, |first_row, x| {
            let positions = &positions[first_row..];
            dispatch!(
                self.isa,
                rope_rows(
                    x: &mut [f32],
                    row_stride: usize,
                    offset: usize,
                    heads: usize,
                    positions: &[u32],
                    table: &RopeTable,
                )
            );
        });
    }

    /// Causal attention of several sequences at once: for each row and head
    /// `softmax(scale * q · keysᵀ) · values` over the positions up to the row's own.
    ///
    /// `q` `[m, q_stride]` holds `shape.heads` heads from column 0 on, rotated already; `out`
    /// `[m, heads * head_dim]` has the same rows. Head `h` reads key head `h / (heads / kv_heads)`.
    /// Rows that belong to no sequence are left as they are.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit, `heads` is not a multiple of `kv_heads`, the rows of two sequences
    /// overlap, or a sequence has fewer keys or values than its rows reach.
    pub fn attention(
        &self,
        out: &mut [f32],
        q: &[f32],
        q_stride: usize,
        shape: AttentionShape,
        sequences: &[AttentionSequence<'_>],
    ) {
        self.with_scratch(|scratch| {
            let on = attention::On { isa: self.isa, precision: self.precision };
            attention::attention(&self.pool, on, scratch, out, q, q_stride, shape, sequences);
        });
    }

    /// `y = x`, rounded to the nearest bf16 (ties to even).
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn round(&self, y: &mut [half::bf16], x: &[f32]) {
        assert_eq!(y.len(), x.len(), "y and x differ in length");
        dispatch!(self.isa, narrow(y: &mut [half::bf16], x: &[f32]));
    }

    /// The largest of the absolute values; NaN if there is one, 0 of nothing.
    pub(crate) fn largest(&self, x: &[f32]) -> f32 {
        dispatch!(self.isa, largest(x: &[f32]) -> f32)
    }

    /// The nearest integers to `x * factor`, ties to even, which are less than 2^7.
    pub(crate) fn round_bytes(&self, y: &mut [i8], x: &[f32], factor: f32) {
        dispatch!(self.isa, round_bytes(y: &mut [i8], x: &[f32], factor: f32));
    }

    /// `y = silu(gate) * up`: `gate_up` `[m, 2 * width]` with rows `gate|up`, `y` `[m, width]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit.
    pub fn silu_mul(&self, y: &mut [f32], gate_up: &[f32], width: usize) {
        assert_eq!(gate_up.len(), 2 * y.len(), "gate_up is not twice as long as y");
        self.each_row(y, width, |first_row, y| {
            let gate_up = &gate_up[2 * first_row * width..][..2 * y.len()];
            dispatch!(self.isa, silu_mul_rows(y: &mut [f32], gate_up: &[f32], width: usize));
        });
    }

    /// `y = y + x`.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn add(&self, y: &mut [f32], x: &[f32]) {
        assert_eq!(y.len(), x.len(), "y and x differ in length");
        self.each_row(y, 1, |first, y| {
            let x = &x[first..][..y.len()];
            dispatch!(self.isa, add(y: &mut [f32], x: &[f32]));
        });
    }

    /// Calls `job(first row, rows)` on consecutive rows of `y`, on all threads if there is enough to
    /// do.
    pub(crate) fn each_row(
        &self,
        y: &mut [f32],
        width: usize,
        job: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        if y.is_empty() {
            return;
        }
        assert!(width > 0 && y.len().is_multiple_of(width), "not whole rows of {width}");
        let (m, values) = (y.len() / width, y.len());
        let threads = self.threads().min(m);
        if values < PARALLEL_VALUES || threads == 1 {
            job(0, y);
            return;
        }
        let y = Disjoint::new(y);
        self.pool.run(|thread| {
            if thread < threads {
                let rows = thread * m / threads..(thread + 1) * m / threads;
                // SAFETY: the row ranges of different threads do not overlap.
                job(rows.start, unsafe { y.part(rows.start * width..rows.end * width) });
            }
        });
    }
}
