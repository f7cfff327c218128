//! One block of queries: softmax over chunks of positions, merged in order.
//!
//! For each query and each chunk: the scores, their maximum, the exponentials and the weighted sum
//! of the values; then both running maxima are brought to the larger one and added (Milakov and
//! Gimelshein 2018; FlashAttention). Chunks begin at fixed positions and everything within one goes
//! position by position, so that a query's result does not depend on the queries beside it.

use std::ops::Range;

use super::{AttentionSequence, AttentionShape, QUERIES};
use crate::disjoint::Disjoint;
use crate::simd::{LANES, Lanes, Simd, exp, max_of};
use crate::softmax::exp_in_place;

/// Positions of one chunk: with 128 values per head, 256 KiB of keys and values.
const CHUNK: usize = 256;

/// Positions between the one in use and the one being fetched: the keys of one head lie apart, which
/// hardware prefetchers follow badly.
const AHEAD: usize = 32;

/// Queries computed together.
const TILE: usize = 4;

/// Queries `queries` of a sequence that read key head `kv_head`. Query `i` is row
/// `i / (heads / kv_heads)` of the sequence and head `i % (heads / kv_heads)` of the group.
pub(super) struct Block<'a> {
    pub(super) q: &'a [f32],
    pub(super) q_stride: usize,
    pub(super) shape: AttentionShape,
    pub(super) sequence: &'a AttentionSequence<'a>,
    pub(super) kv_head: usize,
    pub(super) queries: Range<usize>,
}

impl Block<'_> {
    /// Row of the call and head of query `i`.
    #[inline(always)]
    fn row_and_head(&self, i: usize) -> (usize, usize) {
        let group = self.shape.heads / self.shape.kv_heads;
        (self.sequence.rows.start + i / group, self.kv_head * group + i % group)
    }

    /// The last position that query `i` sees.
    #[inline(always)]
    fn position(&self, i: usize) -> usize {
        self.sequence.start + i / (self.shape.heads / self.shape.kv_heads)
    }

    #[inline(always)]
    fn query(&self, i: usize) -> &[f32] {
        let (row, head) = self.row_and_head(i);
        &self.q[row * self.q_stride + head * self.shape.head_dim..][..self.shape.head_dim]
    }

    /// Where the result of query `i` belongs.
    #[inline(always)]
    fn target(&self, i: usize) -> Range<usize> {
        let AttentionShape { heads, head_dim, .. } = self.shape;
        let (row, head) = self.row_and_head(i);
        let start = (row * heads + head) * head_dim;
        start..start + head_dim
    }

    /// What `cache` (keys or values) holds for a position.
    #[inline(always)]
    fn at<'c>(&self, cache: &'c [f32], position: usize) -> &'c [f32] {
        let AttentionShape { kv_heads, head_dim, .. } = self.shape;
        &cache[(position * kv_heads + self.kv_head) * head_dim..][..head_dim]
    }
}

/// Fetches columns `column..column + width` of what `cache` will be asked for `AHEAD` positions
/// later.
#[inline(always)]
fn fetch<S: Simd>(
    s: S,
    block: &Block<'_>,
    cache: &[f32],
    position: usize,
    column: usize,
    width: usize,
) {
    let AttentionShape { kv_heads, head_dim, .. } = block.shape;
    let start = ((position + AHEAD) * kv_heads + block.kv_head) * head_dim + column;
    for line in (0..width).step_by(LANES) {
        s.prefetch(cache.as_ptr().wrapping_add(start + line).cast());
    }
}

/// What a query has seen so far; the weighted values so far are in `out`.
#[derive(Clone, Copy)]
struct Seen {
    /// The largest score.
    largest: f32,
    /// The sum of `exp(score - largest)`.
    total: f32,
}

/// Scores, then weights, of a tile of queries over one chunk.
type Scores = [[f32; CHUNK]; TILE];

/// Computes a block into `out` `[m, heads * head_dim]`.
#[inline(always)]
pub(super) fn attend<S: Simd>(s: S, block: &Block<'_>, out: &Disjoint<'_, f32>) {
    let Range { start: first, end } = block.queries;
    let mut seen = [Seen { largest: f32::NEG_INFINITY, total: 0.0 }; QUERIES];
    let mut scores: Scores = [[0.0; CHUNK]; TILE];
    let width = if S::MANY_REGISTERS { TILE } else { 1 };
    for chunk in (0..=block.position(end - 1)).step_by(CHUNK) {
        for i in (first..end).step_by(width) {
            let seen = &mut seen[i - first..];
            match width.min(end - i) {
                1 => tile::<S, 1>(s, block, chunk, i, seen, &mut scores, out),
                2 => tile::<S, 2>(s, block, chunk, i, seen, &mut scores, out),
                3 => tile::<S, 3>(s, block, chunk, i, seen, &mut scores, out),
                _ => tile::<S, 4>(s, block, chunk, i, seen, &mut scores, out),
            }
        }
    }
    for i in block.queries.clone() {
        // SAFETY: the rows of different sequences and the queries of different blocks are disjoint
        // (`check`, `attention`), and this thread holds no other part.
        let out = unsafe { out.part(block.target(i)) };
        let total = s.splat(seen[i - first].total);
        let (vectors, rest) = out.as_chunks_mut::<LANES>();
        for vector in vectors {
            s.store(s.div(s.load(vector), total), vector);
        }
        s.store_part(s.div(s.load_part(rest, 0.0), total), rest);
    }
}

/// Queries `first..first + N` over the chunk that begins at position `chunk`.
#[inline(always)]
fn tile<S: Simd, const N: usize>(
    s: S,
    block: &Block<'_>,
    chunk: usize,
    first: usize,
    seen: &mut [Seen],
    scores: &mut Scores,
    out: &Disjoint<'_, f32>,
) {
    // A query sees as many positions as the one before it, or more.
    let mut counts = [0; N];
    for n in 0..N {
        counts[n] = (block.position(first + n) + 1).saturating_sub(chunk).min(CHUNK);
    }
    score::<S, N>(s, block, chunk, first, counts[N - 1], scores);

    // Factors that bring the values so far and those of this chunk to the new maximum.
    let mut factors = [(0.0, 0.0); N];
    for n in 0..N {
        if counts[n] == 0 {
            continue;
        }
        let scores = &mut scores[n][..counts[n]];
        let largest = max_of(s, scores);
        let total = exp_in_place(s, scores, s.splat(largest));
        let before = seen[n];
        let merged = if before.largest > largest { before.largest } else { largest };
        let old = s.lanes(exp(s, s.splat(before.largest - merged)))[0];
        let new = s.lanes(exp(s, s.splat(largest - merged)))[0];
        seen[n] = Seen { largest: merged, total: before.total * old + total * new };
        factors[n] = (old, new);
    }

    let sums = Sums { block, chunk, first, counts, scores, factors };
    let mut column = 0;
    while column < block.shape.head_dim {
        let left = block.shape.head_dim - column;
        if left >= 4 * LANES {
            sums.weigh::<S, 4>(s, column, 4 * LANES, out);
            column += 4 * LANES;
        } else {
            sums.weigh::<S, 1>(s, column, left.min(LANES), out);
            column += left.min(LANES);
        }
    }
}

/// The scores of queries `first..first + N` and the first `count` positions of a chunk.
#[inline(always)]
fn score<S: Simd, const N: usize>(
    s: S,
    block: &Block<'_>,
    chunk: usize,
    first: usize,
    count: usize,
    scores: &mut Scores,
) {
    let mut queries: [&[f32]; N] = [&[]; N];
    for n in 0..N {
        queries[n] = block.query(first + n);
    }
    for j in (0..count).step_by(4) {
        if first == block.queries.start {
            for c in 0..4 {
                fetch(s, block, block.sequence.keys, chunk + j + c, 0, block.shape.head_dim);
            }
        }
        let mut keys: [&[f32]; 4] = [&[]; 4];
        for c in 0..4 {
            // Positions behind the last are computed again and not read.
            keys[c] = block.at(block.sequence.keys, chunk + (j + c).min(count - 1));
        }
        let dots = dots(s, queries, keys);
        for n in 0..N {
            for c in 0..4 {
                scores[n][j + c] = dots[n][c] * block.shape.scale;
            }
        }
    }
}

/// Dot products of `N` queries with four keys, vector by vector onto sixteen lanes.
#[inline(always)]
fn dots<S: Simd, const N: usize>(s: S, queries: [&[f32]; N], keys: [&[f32]; 4]) -> [[f32; 4]; N] {
    let vectors = queries[0].len() / LANES;
    let mut whole_queries: [&[Lanes]; N] = [&[]; N];
    let mut whole_keys: [&[Lanes]; 4] = [&[]; 4];
    for n in 0..N {
        whole_queries[n] = &queries[n].as_chunks().0[..vectors];
    }
    for c in 0..4 {
        whole_keys[c] = &keys[c].as_chunks().0[..vectors];
    }
    let mut sums = [[s.splat(0.0); 4]; N];
    for d in 0..vectors {
        let mut keys = [s.splat(0.0); 4];
        for c in 0..4 {
            keys[c] = s.load(&whole_keys[c][d]);
        }
        for n in 0..N {
            let query = s.load(&whole_queries[n][d]);
            for c in 0..4 {
                sums[n][c] = s.fma(query, keys[c], sums[n][c]);
            }
        }
    }
    let rest = vectors * LANES;
    if rest < queries[0].len() {
        for n in 0..N {
            let query = s.load_part(&queries[n][rest..], 0.0);
            for c in 0..4 {
                sums[n][c] = s.fma(query, s.load_part(&keys[c][rest..], 0.0), sums[n][c]);
            }
        }
    }
    let mut dots = [[0.0; 4]; N];
    for n in 0..N {
        dots[n] = s.sum4(sums[n]);
    }
    dots
}

/// The weighted values of one tile and chunk.
struct Sums<'a, const N: usize> {
    block: &'a Block<'a>,
    chunk: usize,
    /// The first query of the tile.
    first: usize,
    /// How many positions of the chunk each query sees.
    counts: [usize; N],
    /// `exp(score - largest of the chunk)`
    scores: &'a Scores,
    factors: [(f32, f32); N],
}

impl<const N: usize> Sums<'_, N> {
    /// Adds the weighted values of `width` columns from `column` on, `V` vectors or a part of one,
    /// to `out`.
    #[inline(always)]
    fn weigh<S: Simd, const V: usize>(
        &self,
        s: S,
        column: usize,
        width: usize,
        out: &Disjoint<'_, f32>,
    ) {
        let &Sums { block, chunk, first, counts, scores, factors } = self;
        let mut sums = [[s.splat(0.0); V]; N];
        for j in 0..counts[0] {
            if first == block.queries.start {
                fetch(s, block, block.sequence.values, chunk + j, column, width);
            }
            let values = block.at(block.sequence.values, chunk + j);
            let values = load_vectors::<S, V>(s, &values[column..][..width]);
            for n in 0..N {
                let weight = s.splat(scores[n][j]);
                for v in 0..V {
                    sums[n][v] = s.fma(weight, values[v], sums[n][v]);
                }
            }
        }
        for n in 1..N {
            for j in counts[0]..counts[n] {
                let values = block.at(block.sequence.values, chunk + j);
                let values = load_vectors::<S, V>(s, &values[column..][..width]);
                let weight = s.splat(scores[n][j]);
                for v in 0..V {
                    sums[n][v] = s.fma(weight, values[v], sums[n][v]);
                }
            }
        }
        for n in 0..N {
            if counts[n] == 0 {
                continue;
            }
            let start = block.target(first + n).start + column;
            // SAFETY: the rows of different sequences and the queries of different blocks are
            // disjoint (`check`, `attention`), and this thread holds no other part.
            let out = unsafe { out.part(start..start + width) };
            if chunk > 0 {
                let (old, new) = (s.splat(factors[n].0), s.splat(factors[n].1));
                let before = load_vectors::<S, V>(s, out);
                for v in 0..V {
                    sums[n][v] = s.fma(before[v], old, s.mul(sums[n][v], new));
                }
            }
            store_vectors(s, sums[n], out);
        }
    }
}

/// `V` vectors, or for `V` = 1 a part of one.
#[inline(always)]
fn load_vectors<S: Simd, const V: usize>(s: S, from: &[f32]) -> [S::F; V] {
    let (whole, rest) = from.as_chunks();
    let mut vectors = [s.splat(0.0); V];
    if V == 1 && whole.is_empty() {
        vectors[0] = s.load_part(rest, 0.0);
    } else {
        let whole = &whole[..V];
        for v in 0..V {
            vectors[v] = s.load(&whole[v]);
        }
    }
    vectors
}

#[inline(always)]
fn store_vectors<S: Simd, const V: usize>(s: S, vectors: [S::F; V], to: &mut [f32]) {
    let (whole, rest) = to.as_chunks_mut();
    if V == 1 && whole.is_empty() {
        s.store_part(vectors[0], rest);
    } else {
        let whole = &mut whole[..V];
        for v in 0..V {
            s.store(vectors[v], &mut whole[v]);
        }
    }
}
