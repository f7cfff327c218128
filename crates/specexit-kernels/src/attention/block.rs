//! One block of rows: all heads over all its chunks, or over some of them.

use std::ops::Range;

use super::part::Seen;
use super::row::{self, attend_rows};
use super::stored::{Cache, KeysValues, Stored};
use super::tile::{Chunk, Group, Scores, TILE, Tile};
use super::{AttentionSequence, AttentionShape};
use crate::disjoint::Disjoint;
use crate::simd::{LANES, Simd};

/// Positions of a chunk, at most and at least.
pub(super) const CHUNK: Range<usize> = if cfg!(miri) { 4..8 } else { 64..256 };

/// Values of the keys of one chunk: keys and values of this chunk and of the next, which is being
/// fetched, take 512 KiB of the level-2 cache.
const CHUNK_VALUES: usize = 32 << 10;

/// Queries that a block may have: their maxima and totals are kept on the stack.
pub(super) const QUERIES: usize = 1024;

/// Rows `rows` of a sequence, counted from its first.
pub(super) struct Block<'a> {
    pub(super) q: &'a [f32],
    pub(super) q_stride: usize,
    pub(super) shape: AttentionShape,
    pub(super) sequence: &'a AttentionSequence<'a>,
    pub(super) rows: Range<usize>,
}

impl Block<'_> {
    /// Positions of a chunk: a function of the shape alone, since it decides the bits.
    #[inline(always)]
    fn chunk(&self) -> usize {
        let fitting = (CHUNK_VALUES / self.shape.kv_width()).max(1);
        (1 << fitting.ilog2()).clamp(CHUNK.start, CHUNK.end)
    }

    /// The number of chunks up to the last row's position.
    pub(super) fn chunks(&self) -> usize {
        (self.sequence.start + self.rows.end).div_ceil(self.chunk())
    }

    /// Values of the parts of one chunk: weighted values laid out as the block's rows of `out`, then
    /// for each query the largest score and the total.
    pub(super) fn part_len(&self) -> usize {
        self.queries() * (self.shape.head_dim + 2)
    }

    fn queries(&self) -> usize {
        self.rows.len() * self.shape.heads
    }

    /// The block's rows in `out`.
    fn out(&self) -> Range<usize> {
        let first = self.sequence.rows.start;
        (first + self.rows.start) * self.shape.width()..(first + self.rows.end) * self.shape.width()
    }
}

/// Computes a block into `out` `[m, heads * head_dim]`.
#[inline(always)]
pub(super) fn attend<S: Simd>(s: S, block: &Block<'_>, out: &Disjoint<'_, f32>) {
    let mut seen = [Seen::NOTHING; QUERIES];
    let seen = &mut seen[..block.queries()];
    for chunk in 0..block.chunks() {
        attend_chunk(s, block, chunk, 0..block.chunks(), chunk > 0, seen, out, block.out().start);
    }
    // SAFETY: the rows of different sequences and blocks are disjoint (`check`, `Call::blocks`), and
    // this thread holds no other part.
    let out = unsafe { out.part(block.out()) };
    for (out, seen) in out.chunks_exact_mut(block.shape.head_dim).zip(seen) {
        divide(s, out, seen.total);
    }
}

/// Computes the parts of some chunks of a block. The parts of its first chunk begin at `start` of
/// `parts`.
#[inline(always)]
pub(super) fn attend_apart<S: Simd>(
    s: S,
    block: &Block<'_>,
    chunks: Range<usize>,
    parts: &Disjoint<'_, f32>,
    start: usize,
) {
    for chunk in chunks.clone() {
        let mut seen = [Seen::NOTHING; QUERIES];
        let seen = &mut seen[..block.queries()];
        let start = start + chunk * block.part_len();
        attend_chunk(s, block, chunk, chunks.clone(), false, seen, parts, start);
        let values = block.queries() * block.shape.head_dim;
        // SAFETY: each chunk of each block has its own part, and this thread holds no other.
        let scores = unsafe { parts.part(start + values..start + block.part_len()) };
        for (scores, seen) in scores.chunks_exact_mut(2).zip(seen) {
            scores.copy_from_slice(&[seen.largest, seen.total]);
        }
    }
}

/// Merges the parts of all chunks of a block, in their order, into `out`.
#[inline(always)]
pub(super) fn merge<S: Simd>(s: S, block: &Block<'_>, parts: &[f32], out: &Disjoint<'_, f32>) {
    let head_dim = block.shape.head_dim;
    // SAFETY: the rows of different sequences and blocks are disjoint (`check`, `Call::blocks`), and
    // this thread holds no other part.
    let out = unsafe { out.part(block.out()) };
    for (query, out) in out.chunks_exact_mut(head_dim).enumerate() {
        let position = block.sequence.start + block.rows.start + query / block.shape.heads;
        let mut seen = Seen::NOTHING;
        for (chunk, part) in parts.chunks_exact(block.part_len()).enumerate() {
            if chunk * block.chunk() > position {
                break;
            }
            let (values, scores) = part.split_at(block.queries() * head_dim);
            let new = Seen { largest: scores[2 * query], total: scores[2 * query + 1] };
            let (merged, factors) = seen.and(s, new);
            seen = merged;
            let values = &values[query * head_dim..][..head_dim];
            for (out, values) in out.chunks_mut(LANES).zip(values.chunks(LANES)) {
                let mut sum = s.load_part(values, 0.0);
                if chunk > 0 {
                    sum = factors.merge(s, s.load_part(out, 0.0), sum);
                }
                s.store_part(sum, out);
            }
        }
        divide(s, out, seen.total);
    }
}

#[inline(always)]
fn divide<S: Simd>(s: S, values: &mut [f32], total: f32) {
    for values in values.chunks_mut(LANES) {
        let quotient = s.div(s.load_part(values, 0.0), s.splat(total));
        s.store_part(quotient, values);
    }
}

/// All queries of a block over one chunk. Their weighted values go to `out` from `start` on, merged
/// with what is there if `merge`; `seen` is merged always.
#[inline(always)]
fn attend_chunk<S: Simd>(
    s: S,
    block: &Block<'_>,
    chunk: usize,
    chunks: Range<usize>,
    merge: bool,
    seen: &mut [Seen],
    out: &Disjoint<'_, f32>,
    start: usize,
) {
    match block.sequence.cache {
        KeysValues::F32 { keys, values } => {
            let cache = Cache { keys, values };
            attend_stored(s, block, cache, chunk, chunks, merge, seen, out, start);
        }
        KeysValues::Bf16 { keys, values } => {
            let cache = Cache { keys, values };
            attend_stored(s, block, cache, chunk, chunks, merge, seen, out, start);
        }
    }
}

#[inline(always)]
fn attend_stored<S: Simd, E: Stored>(
    s: S,
    block: &Block<'_>,
    cache: Cache<'_, E>,
    chunk: usize,
    chunks: Range<usize>,
    merge: bool,
    seen: &mut [Seen],
    out: &Disjoint<'_, f32>,
    start: usize,
) {
    let chunk = Chunk {
        start: chunk * block.chunk(),
        len: block.chunk(),
        is_first: chunk == chunks.start,
        has_next: chunk + 1 < chunks.end,
    };
    if S::MANY_REGISTERS && row::fits(block) {
        let mut scores = row::take_scores();
        attend_rows(s, block, cache, chunk, merge, seen, &mut scores, out, start);
        row::keep_scores(scores);
        return;
    }
    let mut scores: Scores = [[0.0; CHUNK.end]; TILE];
    let width = if S::MANY_REGISTERS { TILE } else { 1 };
    for kv_head in 0..block.shape.kv_heads {
        let size = block.shape.heads / block.shape.kv_heads;
        let group = &Group { block, cache, kv_head, size };
        for first in (0..group.len()).step_by(width) {
            let end = group.len().min(first + width);
            if group.position(end - 1) < chunk.start {
                continue;
            }
            let tile = &mut Tile { group, chunk, first, merge, seen, scores: &mut scores };
            // Known when compiled, so that wide tiles are not even built where registers are few.
            if S::MANY_REGISTERS {
                match end - first {
                    1 => tile.attend::<S, 1>(s, out, start),
                    2 => tile.attend::<S, 2>(s, out, start),
                    3 => tile.attend::<S, 3>(s, out, start),
                    _ => tile.attend::<S, 4>(s, out, start),
                }
            } else {
                tile.attend::<S, 1>(s, out, start);
            }
        }
    }
}
