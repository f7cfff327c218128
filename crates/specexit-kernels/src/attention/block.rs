//! One block of rows: all heads over all its chunks, or over some of them.

use std::ops::Range;

use super::part::Seen;
use super::products::Products;
use super::tile::{Cached, Chunk, MOST, Scratch, Tile};
use super::{AttentionSequence, AttentionShape};
use crate::disjoint::Disjoint;
use crate::simd::{LANES, Simd};

/// Positions of a chunk, at least and at most: whole panels.
pub(super) const CHUNK: Range<usize> = if cfg!(miri) { 16..32 } else { 64..256 };

/// Values of the keys of one chunk: keys and values of several chunks fit into a level-2 cache.
const CHUNK_VALUES: usize = 64 << 10;

/// Rows up to which heads with one query each are taken together rather than rows.
const FEW_ROWS: usize = 2;

/// Rows `rows` of a sequence, counted from its first, and the queries of key heads `kv_heads`.
pub(super) struct Block<'a> {
    pub(super) q: &'a [f32],
    pub(super) q_stride: usize,
    pub(super) shape: AttentionShape,
    pub(super) sequence: &'a AttentionSequence<'a>,
    pub(super) rows: Range<usize>,
    pub(super) kv_heads: Range<usize>,
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

    /// Queries of each key head and row.
    #[inline(always)]
    pub(super) fn size(&self) -> usize {
        self.shape.heads / self.shape.kv_heads
    }

    /// Queries of a row.
    #[inline(always)]
    pub(super) fn heads(&self) -> usize {
        self.kv_heads.len() * self.size()
    }

    fn queries(&self) -> usize {
        self.rows.len() * self.heads()
    }

    /// Where its weighted values stand in `out`.
    fn in_out(&self) -> Place {
        let row = self.sequence.rows.start + self.rows.start;
        let stride = self.shape.width();
        let column = self.kv_heads.start * self.size() * self.shape.head_dim;
        Place { start: row * stride + column, stride }
    }

    /// Where they stand in a part that begins at `start`.
    fn in_part(&self, start: usize) -> Place {
        Place { start, stride: self.heads() * self.shape.head_dim }
    }
}

/// Where the weighted values of a block's rows stand: the first number, and how far rows are apart.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) start: usize,
    pub(super) stride: usize,
}

/// What is computed of a block.
pub(super) enum Job {
    /// Everything, into `[m, heads * head_dim]`.
    Whole,
    /// The parts of some chunks, to be merged. Those of the block's first chunk begin at `start`.
    Chunks { chunks: Range<usize>, start: usize },
}

/// Computes `job` of a block into `out`.
#[inline(always)]
pub(super) fn attend<P: Products>(p: P, block: &Block<'_>, job: &Job, out: &Disjoint<'_, f32>) {
    match job {
        Job::Whole => attend_whole(p, block, out),
        Job::Chunks { chunks, start } => attend_apart(p, block, chunks.clone(), out, *start),
    }
}

#[inline(always)]
fn attend_whole<P: Products>(p: P, block: &Block<'_>, out: &Disjoint<'_, f32>) {
    let s = p.simd();
    let mut scratch = Scratch::take(block.shape.head_dim);
    let mut seen = scratch.take_seen(block.queries());
    for chunk in 0..block.chunks() {
        attend_chunk(p, block, chunk, chunk > 0, &mut seen, &mut scratch, out, block.in_out());
    }
    for (row, seen) in seen.chunks_exact(block.heads()).enumerate() {
        let queries = row_of(block, row, out).chunks_exact_mut(block.shape.head_dim);
        for (out, seen) in queries.zip(seen) {
            divide(s, out, seen.total);
        }
    }
    scratch.keep_seen(seen);
    scratch.keep();
}

/// What a block computes of its row `row`.
#[allow(clippy::mut_from_ref, reason = "parts of different blocks are disjoint")]
fn row_of<'a>(block: &Block<'_>, row: usize, out: &'a Disjoint<'_, f32>) -> &'a mut [f32] {
    let Place { start, stride } = block.in_out();
    let start = start + row * stride;
    // SAFETY: the rows of different sequences, and rows or heads of different blocks, are disjoint
    // (`check`, `Call::blocks`), and the caller holds no other part.
    unsafe { out.part(start..start + block.heads() * block.shape.head_dim) }
}

#[inline(always)]
fn attend_apart<P: Products>(
    p: P,
    block: &Block<'_>,
    chunks: Range<usize>,
    parts: &Disjoint<'_, f32>,
    start: usize,
) {
    let mut scratch = Scratch::take(block.shape.head_dim);
    for chunk in chunks {
        let mut seen = scratch.take_seen(block.queries());
        let start = start + chunk * block.part_len();
        attend_chunk(p, block, chunk, false, &mut seen, &mut scratch, parts, block.in_part(start));
        let values = block.queries() * block.shape.head_dim;
        // SAFETY: each chunk of each block has its own part, and this thread holds no other.
        let scores = unsafe { parts.part(start + values..start + block.part_len()) };
        for (scores, seen) in scores.chunks_exact_mut(2).zip(&seen) {
            scores.copy_from_slice(&[seen.largest, seen.total]);
        }
        scratch.keep_seen(seen);
    }
    scratch.keep();
}

/// Merges the parts of all chunks of a block, in their order, into `out`.
#[inline(always)]
pub(super) fn merge<S: Simd>(s: S, block: &Block<'_>, parts: &[f32], out: &Disjoint<'_, f32>) {
    let head_dim = block.shape.head_dim;
    for query in 0..block.queries() {
        let (row, head) = (query / block.heads(), query % block.heads());
        let out = &mut row_of(block, row, out)[head * head_dim..][..head_dim];
        let position = block.sequence.start + block.rows.start + row;
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

/// All queries of a block over one chunk. Their weighted values go to `place` of `out`, merged with what
/// is there if `merge`; `seen` is merged always.
#[inline(always)]
fn attend_chunk<P: Products>(
    p: P,
    block: &Block<'_>,
    chunk: usize,
    merge: bool,
    seen: &mut [Seen],
    scratch: &mut Scratch,
    out: &Disjoint<'_, f32>,
    place: Place,
) {
    let chunk = Chunk { start: chunk * block.chunk(), len: block.chunk() };
    let cached = &Cached::new(block.sequence.cache);
    let Block { shape, sequence, rows, .. } = block;
    let size = block.size();
    let vectors = shape.head_dim.div_ceil(LANES);
    let sees = |row: usize| sequence.start + rows.start + row >= chunk.start;
    let mut kv_head = block.kv_heads.start;
    if P::S::MANY_REGISTERS && size == 1 && rows.len() <= FEW_ROWS {
        // Heads with one query each, as many together as have their sums in registers.
        loop {
            let together = match (vectors, block.kv_heads.end - kv_head) {
                (1, MOST..) => MOST,
                (1 | 2, 6..) => 6,
                (1 | 2 | 4, 3..) => 3,
                _ => break,
            };
            for first in (0..rows.len()).filter(|&row| sees(row)) {
                let tile =
                    &mut Tile { p, block, cached, chunk, kv_head, first, merge, seen, scratch };
                match together {
                    MOST => tile.attend::<MOST, false>(out, place),
                    6 => tile.attend::<6, false>(out, place),
                    _ => tile.attend::<3, false>(out, place),
                }
            }
            kv_head += together;
        }
    }
    let queries = rows.len() * size;
    let most = match vectors {
        _ if !P::S::MANY_REGISTERS => 1,
        1..4 => 6,
        _ => 4,
    };
    // Tiles of like size: a single query left over would take as long as a whole tile.
    let tiles = queries.div_ceil(most);
    for kv_head in kv_head..block.kv_heads.end {
        for tile in 0..tiles {
            let (first, end) = (tile * queries / tiles, (tile + 1) * queries / tiles);
            if !sees((end - 1) / size) {
                continue;
            }
            let tile = &mut Tile { p, block, cached, chunk, kv_head, first, merge, seen, scratch };
            // Known when compiled, so that wide tiles are not even built where registers are few.
            if P::S::MANY_REGISTERS {
                match end - first {
                    1 => tile.attend::<1, true>(out, place),
                    2 => tile.attend::<2, true>(out, place),
                    3 => tile.attend::<3, true>(out, place),
                    4 => tile.attend::<4, true>(out, place),
                    5 => tile.attend::<5, true>(out, place),
                    _ => tile.attend::<6, true>(out, place),
                }
            } else {
                tile.attend::<1, true>(out, place);
            }
        }
    }
}
