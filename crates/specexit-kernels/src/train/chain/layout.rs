//! Where the rows of a step lie, and how a task gathers those of one head.

use std::ops::Range;

use super::super::attention::{AHEAD, BLOCK, CausalShape};
use super::super::f32_product::WIDTH;
use super::super::head::Rotation;
use super::{ChainSequence, STEPS};
use crate::rope::RopeTable;
use crate::simd::{LANES, Simd};

/// What all tasks of a call share.
pub(super) struct Call<'a> {
    /// Rows `q|k|v` of each step 0..=k.
    pub(super) qkv: &'a [&'a [f32]],
    pub(super) sequences: &'a [ChainSequence],
    pub(super) shape: CausalShape,
    pub(super) rope: &'a RopeTable,
}

/// One task: a sequence and a key head.
#[derive(Clone, Copy)]
pub(super) struct Task<'a> {
    pub(super) sequence: &'a ChainSequence,
    pub(super) kv_head: usize,
}

impl Call<'_> {
    /// The number of queries.
    pub(super) fn check(&self) -> usize {
        let CausalShape { heads, kv_heads, head_dim } = self.shape;
        assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads) && heads > 0, "{:?}", self.shape);
        assert!(head_dim > 0 && self.rope.head_dim() == head_dim, "rotary table of another width");
        let (steps, stride) = (self.qkv.len(), self.shape.stride());
        assert!((1..=STEPS).contains(&steps), "{steps} steps; 1 to {STEPS} can be");
        assert!(self.qkv.iter().all(|x| x.len().is_multiple_of(stride)), "qkv is not whole rows");
        let mut row = 0;
        // Rows of a step that belong to the sequences before: no two tasks may write the same row.
        let mut ends = [0; STEPS];
        for s in self.sequences {
            assert!(s.row == row && s.starts.len() == steps, "sequences do not follow each other");
            row += s.queries;
            assert!(
                s.first + s.queries + steps - 1 <= self.rope.max_positions(),
                "a sequence beyond the rotary table"
            );
            for (j, (&start, end)) in s.starts.iter().zip(&mut ends).enumerate() {
                assert!(start >= *end, "sequences overlap");
                *end = start + s.queries + if j == 0 { s.first } else { 0 };
                assert!(
                    *end * stride <= self.qkv[j].len(),
                    "a sequence beyond the rows of step {j}"
                );
            }
        }
        row
    }

    /// All tasks, the longest first, because the last ones decide how long a thread waits.
    pub(super) fn tasks(&self) -> Vec<Task<'_>> {
        let mut tasks: Vec<Task<'_>> = self
            .sequences
            .iter()
            .filter(|s| s.queries > 0)
            .flat_map(|sequence| {
                (0..self.shape.kv_heads).map(move |kv_head| Task { sequence, kv_head })
            })
            .collect();
        tasks.sort_by_key(|task| std::cmp::Reverse(task.sequence.queries));
        tasks
    }

    /// The step k.
    pub(super) fn step(&self) -> usize {
        self.qkv.len() - 1
    }

    /// Numbers of a padded matrix of all step-0 keys, of one of all queries, and of a block of
    /// probabilities.
    pub(super) fn sizes(&self, task: Task<'_>) -> [usize; 3] {
        let padded = self.shape.padded();
        [task.length() * padded, task.sequence.queries * padded, BLOCK * task.length()]
    }

    pub(super) fn forward_scratch(&self, task: Task<'_>) -> usize {
        let [keys, queries, block] = self.sizes(task);
        3 * keys + (1 + 2 * self.step()) * queries + block + BLOCK * self.shape.padded()
    }

    pub(super) fn backward_scratch(&self, task: Task<'_>) -> usize {
        let [keys, queries, block] = self.sizes(task);
        6 * keys + (2 + 3 * self.step()) * queries + 2 * block + BLOCK * self.shape.padded()
    }

    /// A head in row `row` of step `step`.
    #[inline(always)]
    pub(super) fn raw(&self, step: usize, row: usize, head: usize) -> &[f32] {
        let hd = self.shape.head_dim;
        &self.qkv[step][row * self.shape.stride() + head * hd..][..hd]
    }

    #[inline(always)]
    pub(super) fn rotation(&self, position: usize, scale: f32) -> Rotation<'_> {
        let (cos, sin) = self.rope.at(position as u32);
        Rotation { cos, sin, scale }
    }

    /// What queries are scaled by.
    pub(super) fn scale(&self) -> f32 {
        1.0 / (self.shape.head_dim as f32).sqrt()
    }

    /// The rows of a head of step `step` from row `start` on, each rotated by its position where the
    /// first one's is given with a factor, padded with zeros.
    #[inline(always)]
    pub(super) fn gather<S: Simd>(
        &self,
        s: S,
        to: &mut [f32],
        step: usize,
        rows: Range<usize>,
        head: usize,
        position: Option<(usize, f32)>,
    ) {
        let (hd, padded) = (self.shape.head_dim, self.shape.padded());
        to.fill(0.0);
        for (i, row) in rows.clone().enumerate() {
            // Rows of one head lie far apart: the hardware does not foresee them.
            let ahead = self.raw(step, (row + AHEAD).min(rows.end - 1), head);
            s.prefetch(ahead.as_ptr().cast());
            s.prefetch(ahead.as_ptr().wrapping_add(LANES).cast());
            let (to, raw) = (&mut to[i * padded..][..hd], self.raw(step, row, head));
            match position {
                Some((first, scale)) => self.rotation(first + i, scale).forward(s, to, raw),
                None => to.copy_from_slice(raw),
            }
        }
    }

    /// The rotated queries of a head.
    #[inline(always)]
    pub(super) fn queries<S: Simd>(&self, s: S, to: &mut [f32], task: Task<'_>, head: usize) {
        let start = task.query_row(self.step());
        let rows = start..start + task.sequence.queries;
        let position = Some((task.sequence.first + self.step(), self.scale()));
        self.gather(s, to, self.step(), rows, head, position);
    }

    /// Rotated keys, and values, of the steps from 1 on, `[step, queries, padded]` each.
    #[inline(always)]
    pub(super) fn own<S: Simd>(&self, s: S, keys: &mut [f32], values: &mut [f32], task: Task<'_>) {
        let CausalShape { heads, kv_heads, .. } = self.shape;
        let sequence = task.sequence;
        let size = sequence.queries * self.shape.padded();
        for j in 1..=self.step() {
            let part = (j - 1) * size..j * size;
            let rows = sequence.starts[j]..sequence.starts[j] + sequence.queries;
            let (key, value) = (heads + task.kv_head, heads + kv_heads + task.kv_head);
            let position = Some((sequence.first + j, 1.0));
            self.gather(s, &mut keys[part.clone()], j, rows.clone(), key, position);
            self.gather(s, &mut values[part], j, rows, value, None);
        }
    }
}

impl Task<'_> {
    /// Step-0 keys, padded.
    pub(super) fn length(&self) -> usize {
        (self.sequence.first + self.sequence.queries).next_multiple_of(WIDTH)
    }

    /// Rows of its step-0 keys.
    pub(super) fn context(&self) -> Range<usize> {
        let start = self.sequence.starts[0];
        start..start + self.sequence.first + self.sequence.queries
    }

    /// Row of its first query among the rows of step `step`.
    pub(super) fn query_row(&self, step: usize) -> usize {
        self.sequence.starts[step] + if step == 0 { self.sequence.first } else { 0 }
    }

    /// Blocks of queries, each with the number of step-0 keys that it meets.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (Range<usize>, usize)> {
        let (first, queries) = (self.sequence.first, self.sequence.queries);
        (0..queries).step_by(BLOCK).map(move |start| {
            let end = queries.min(start + BLOCK);
            (start..end, (first + end).next_multiple_of(WIDTH))
        })
    }
}
