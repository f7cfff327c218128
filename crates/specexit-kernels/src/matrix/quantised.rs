//! Rows of quantised weights.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::arena::Buffer;
use crate::blocks::{self, BlockFormat, Line, NotFiniteScale, PANEL_ROWS};
use crate::disjoint::Disjoint;

/// Panels that a thread takes at a time when rows are loaded.
const PANELS_PER_TASK: usize = 4;

/// Why stored blocks are no matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlocksError {
    /// A row is not as long as the format and the number of columns say.
    Length {
        /// The row.
        row: usize,
    },
    /// A scale or offset of the row is infinite or NaN.
    NotFinite {
        /// The first such row.
        row: usize,
    },
}

impl fmt::Display for BlocksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlocksError::Length { row } => write!(f, "row {row} does not have whole blocks"),
            BlocksError::NotFinite { row } => write!(f, "row {row} has a scale that is not finite"),
        }
    }
}

impl std::error::Error for BlocksError {}

/// Consecutive rows of a matrix in one block format, in panels of sixteen (see [`blocks`]).
#[derive(Debug)]
pub(crate) struct QuantisedRows {
    format: BlockFormat,
    rows: usize,
    cols: usize,
    buffer: Buffer,
}

impl QuantisedRows {
    /// Reads rows of stored blocks, `row_bytes(row)` for each row, on `threads` threads.
    pub(super) fn load<'a>(
        format: BlockFormat,
        rows: usize,
        cols: usize,
        threads: usize,
        row_bytes: impl Fn(usize) -> &'a [u8] + Sync,
    ) -> Result<QuantisedRows, BlocksError> {
        if !cols.is_multiple_of(format.columns()) {
            return Err(BlocksError::Length { row: 0 });
        }
        let len = cols / format.columns() * format.bytes();
        let panels = rows.div_ceil(PANEL_ROWS);
        let panel_lines = format.layout().panel_bytes(cols) / size_of::<Line>();
        let mut buffer = Buffer::new(panels * panel_lines * size_of::<Line>());

        let first_bad = [const { AtomicUsize::new(usize::MAX) }; 2];
        let [short, infinite] = &first_bad;
        let lines = &Disjoint::new(buffer.slice_mut::<Line>(panels * panel_lines));
        let fill = |panel: usize| {
            let first = panel * PANEL_ROWS;
            let count = PANEL_ROWS.min(rows - first);
            let mut bytes: [&[u8]; PANEL_ROWS] = [&[]; PANEL_ROWS];
            for (lane, bytes) in bytes[..count].iter_mut().enumerate() {
                *bytes = row_bytes(first + lane);
                if bytes.len() != len {
                    short.fetch_min(first + lane, Ordering::Relaxed);
                    return;
                }
            }
            // SAFETY: each panel is taken by one thread, once, and panels do not overlap.
            let lines = unsafe { lines.part(panel * panel_lines..(panel + 1) * panel_lines) };
            if let Err(NotFiniteScale(lane)) = blocks::fill_panel(format, &bytes[..count], lines) {
                infinite.fetch_min(first + lane, Ordering::Relaxed);
            }
        };
        let tasks = panels.div_ceil(PANELS_PER_TASK);
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    return;
                }
                let first = task * PANELS_PER_TASK;
                (first..panels.min(first + PANELS_PER_TASK)).for_each(&fill);
            }
        };
        thread::scope(|scope| {
            for _ in 1..threads.min(tasks) {
                scope.spawn(work);
            }
            work();
        });
        let [short, infinite] = first_bad.map(AtomicUsize::into_inner);
        if short != usize::MAX {
            return Err(BlocksError::Length { row: short });
        }
        if infinite != usize::MAX {
            return Err(BlocksError::NotFinite { row: infinite });
        }
        Ok(QuantisedRows { format, rows, cols, buffer })
    }

    pub(crate) fn format(&self) -> BlockFormat {
        self.format
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Number of panels.
    pub(crate) fn panels(&self) -> usize {
        self.rows.div_ceil(PANEL_ROWS)
    }

    /// Bytes of one panel.
    pub(crate) fn panel_bytes(&self) -> usize {
        self.format.layout().panel_bytes(self.cols)
    }

    /// Bytes that one product reads.
    pub(crate) fn bytes(&self) -> usize {
        self.panels() * self.panel_bytes()
    }

    /// Panel `panel`.
    #[inline(always)]
    pub(crate) fn panel(&self, panel: usize) -> &[Line] {
        let lines = self.panel_bytes() / size_of::<Line>();
        &self.buffer.slice::<Line>(self.panels() * lines)[panel * lines..][..lines]
    }

    /// Row `row` as f32.
    pub(super) fn read_row(&self, row: usize, to: &mut [f32]) {
        let panel = self.panel(row / PANEL_ROWS);
        blocks::read_row(self.format, panel, row % PANEL_ROWS, to);
    }
}
