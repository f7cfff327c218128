//! Rows whose heads have keys of their own, over one chunk: models without grouped queries.
//!
//! A row has one query for every key, so loads and the latency of sums decide. Heads are taken
//! together, as many as have their sums in registers: their keys lie side by side, and their sums do
//! not wait for one another.

use std::cell::Cell;

use super::block::{Block, CHUNK};
use super::part::{Factors, Seen};
use super::stored::{Cache, Stored};
use super::tile::Chunk;
use crate::disjoint::Disjoint;
use crate::simd::{LANES, Lanes, Simd, max_of};
use crate::softmax::exp_in_place;

/// Vectors of a position that have a sum each in registers.
const SUMS: usize = 12;

/// Scores, then weights, of heads over one chunk.
pub(super) type HeadScores = [[f32; CHUNK.end]; SUMS];

thread_local! {
    /// Kept, because filling so many with zeros takes as long as a short chunk.
    static SCORES: Cell<Option<Box<HeadScores>>> = const { Cell::new(None) };
}

/// Scores of anything.
pub(super) fn take_scores() -> Box<HeadScores> {
    SCORES.take().unwrap_or_else(|| Box::new([[0.0; CHUNK.end]; SUMS]))
}

/// Keeps what [`take_scores`] gave.
pub(super) fn keep_scores(scores: Box<HeadScores>) {
    SCORES.set(Some(scores));
}

/// Whether heads of `block` are for this file: no shared keys, heads of whole vectors. (Where registers
/// are few a tile does as well.)
#[inline(always)]
pub(super) fn fits(block: &Block<'_>) -> bool {
    let shape = &block.shape;
    shape.heads == shape.kv_heads
        && matches!(shape.head_dim / LANES, 1 | 2 | 4)
        && shape.head_dim.is_multiple_of(LANES)
}

/// All heads of a block over a chunk, whose weighted values go to `out` from `start` on, merged with
/// what is there if `merge`.
#[inline(always)]
pub(super) fn attend_rows<S: Simd, E: Stored>(
    s: S,
    block: &Block<'_>,
    cache: Cache<'_, E>,
    chunk: Chunk,
    merge: bool,
    seen: &mut [Seen],
    scores: &mut HeadScores,
    out: &Disjoint<'_, f32>,
    start: usize,
) {
    let width = block.shape.width();
    for index in 0..block.rows.len() {
        let position = block.sequence.start + block.rows.start + index;
        if position < chunk.start {
            continue;
        }
        let count = (position + 1 - chunk.start).min(chunk.len);
        let seen = &mut seen[index * block.shape.heads..][..block.shape.heads];
        let start = start + index * width;
        let row = &mut Row { block, index, cache, chunk, count, merge, seen, scores };
        match block.shape.head_dim / LANES {
            1 => row.heads::<S, 1, SUMS>(s, out, start),
            2 => row.heads::<S, 2, { SUMS / 2 }>(s, out, start),
            _ => row.heads::<S, 4, { SUMS / 4 }>(s, out, start),
        }
    }
}

struct Row<'a, E> {
    block: &'a Block<'a>,
    /// Place of the row in the block.
    index: usize,
    cache: Cache<'a, E>,
    chunk: Chunk,
    /// Positions of the chunk that the row sees, at least one.
    count: usize,
    merge: bool,
    seen: &'a mut [Seen],
    scores: &'a mut HeadScores,
}

impl<'a, E: Stored> Row<'a, E> {
    /// All heads of `V` vectors, `H` at a time while there are so many.
    #[inline(always)]
    fn heads<S: Simd, const V: usize, const H: usize>(
        &mut self,
        s: S,
        out: &Disjoint<'_, f32>,
        start: usize,
    ) {
        let heads = self.block.shape.heads;
        let together = heads / H * H;
        for head in (0..together).step_by(H) {
            self.attend::<S, V, H>(s, head, out, start);
        }
        for head in together..heads {
            self.attend::<S, V, 1>(s, head, out, start);
        }
    }

    #[inline(always)]
    fn attend<S: Simd, const V: usize, const H: usize>(
        &mut self,
        s: S,
        head: usize,
        out: &Disjoint<'_, f32>,
        start: usize,
    ) {
        self.score::<S, V, H>(s, head);
        let mut factors = [Factors::UNUSED; H];
        for h in 0..H {
            let scores = &mut self.scores[h][..self.count];
            let largest = max_of(s, scores);
            let total = exp_in_place(s, scores, s.splat(largest));
            let seen = &mut self.seen[head + h];
            (*seen, factors[h]) = seen.and(s, Seen { largest, total });
        }
        let mut sums = self.weigh::<S, V, H>(s, head);
        let start = start + head * V * LANES;
        // SAFETY: as in `Tile::weigh`: `start` is where this head of this row or of this chunk's part
        // begins, and no other part is held.
        let out = unsafe { out.part(start..start + H * V * LANES) };
        let out = out.as_chunks_mut::<LANES>().0;
        for h in 0..H {
            for v in 0..V {
                let out = &mut out[h * V + v];
                if self.merge {
                    sums[h][v] = factors[h].merge(s, s.load(out), sums[h][v]);
                }
                s.store(sums[h][v], out);
            }
        }
    }

    /// What `numbers` (keys or values) hold for `H` heads from `head` on at place `j` of the chunk.
    #[inline(always)]
    fn at<const V: usize, const H: usize>(
        &self,
        numbers: &'a [E],
        head: usize,
        j: usize,
    ) -> &'a [[[E; LANES]; V]; H] {
        let start = (self.chunk.start + j) * self.block.shape.kv_width() + head * V * LANES;
        let vectors = numbers[start..][..H * V * LANES].as_chunks().0;
        vectors.as_chunks().0.try_into().expect("as many as were sliced")
    }

    /// The scores of `H` heads from `head` on.
    #[inline(always)]
    fn score<S: Simd, const V: usize, const H: usize>(&mut self, s: S, head: usize) {
        let Block { q, q_stride, shape, sequence, rows } = self.block;
        let row = sequence.rows.start + rows.start + self.index;
        let start = row * q_stride + head * V * LANES;
        let query: &[[Lanes; V]] = q[start..][..H * V * LANES].as_chunks().0.as_chunks().0;
        for j in (0..self.count).step_by(4) {
            let mut keys = [self.at::<V, H>(self.cache.keys, head, j); 4];
            for c in 1..4 {
                // Positions behind the last are computed again and not read.
                keys[c] = self.at(self.cache.keys, head, (j + c).min(self.count - 1));
            }
            for h in 0..H {
                let mut sums = [s.splat(0.0); 4];
                for v in 0..V {
                    let query = s.load(&query[h][v]);
                    for c in 0..4 {
                        sums[c] = s.fma(query, E::load(s, &keys[c][h][v]), sums[c]);
                    }
                }
                let dots = s.sum4(sums);
                for c in 0..4 {
                    self.scores[h][j + c] = dots[c] * shape.scale;
                }
            }
        }
    }

    /// The weighted values of `H` heads from `head` on.
    #[inline(always)]
    fn weigh<S: Simd, const V: usize, const H: usize>(&self, s: S, head: usize) -> [[S::F; V]; H] {
        let mut sums = [[s.splat(0.0); V]; H];
        for j in 0..self.count {
            let values = self.at::<V, H>(self.cache.values, head, j);
            for h in 0..H {
                let weight = s.splat(self.scores[h][j]);
                for v in 0..V {
                    sums[h][v] = s.fma(weight, E::load(s, &values[h][v]), sums[h][v]);
                }
            }
        }
        sums
    }
}
