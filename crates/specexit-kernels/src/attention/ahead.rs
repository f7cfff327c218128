//! What is fetched while something else is computed: values while scores are, the next chunk's keys while
//! values are weighted. Heads are read in strides, which no hardware foresees from one to the next.

use crate::simd::Simd;

/// Lines to fetch, in the order in which they lie.
pub(super) struct Ahead<'a, B> {
    lines: &'a [B],
    /// Lines that are read of every so many.
    run: usize,
    stride: usize,
    /// The next: rows of `stride` lines before it, and lines of its own row.
    row: usize,
    column: usize,
    /// Lines to fetch at a time.
    step: usize,
}

impl<'a, B> Ahead<'a, B> {
    /// The first `run` of each `stride` lines, in about `turns` turns.
    #[inline(always)]
    pub(super) fn new(lines: &'a [B], run: usize, stride: usize, turns: usize) -> Self {
        let rows = lines.len().div_ceil(stride.max(1));
        let step = (rows * run).div_ceil(turns.max(1));
        Ahead { lines, run, stride, row: 0, column: 0, step }
    }

    /// Fetches what is due in one turn.
    #[inline(always)]
    pub(super) fn turn<S: Simd>(&mut self, s: S) {
        for _ in 0..self.step {
            let at = self.row + self.column;
            if at >= self.lines.len() {
                return;
            }
            s.prefetch(self.lines.as_ptr().wrapping_add(at).cast());
            self.column += 1;
            if self.column == self.run {
                (self.row, self.column) = (self.row + self.stride, 0);
            }
        }
    }
}
