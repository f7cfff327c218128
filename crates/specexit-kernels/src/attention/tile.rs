//! A few queries that share a key head, over one chunk: scores, their exponentials, weighted values.

use super::block::{Block, CHUNK};
use super::part::{Factors, Seen};
use super::stored::{Cache, Stored};
use crate::disjoint::Disjoint;
use crate::simd::{LANES, Lanes, Simd, max_of};
use crate::softmax::exp_in_place;

/// Queries computed together.
pub(super) const TILE: usize = 4;

/// Positions between the one in use and the one being fetched in the first chunk, which nothing
/// before it could fetch.
const AHEAD: usize = 32;

/// Scores, then weights, of a tile of queries over one chunk.
pub(super) type Scores = [[f32; CHUNK.end]; TILE];

/// The queries of a block that read one key head. Query `i` is row `i / size` of the block and head
/// `i % size` of the group.
pub(super) struct Group<'a, E> {
    pub(super) block: &'a Block<'a>,
    pub(super) cache: Cache<'a, E>,
    pub(super) kv_head: usize,
    pub(super) size: usize,
}

impl<E> Group<'_, E> {
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.block.rows.len() * self.size
    }

    /// Position of query `i`.
    #[inline(always)]
    pub(super) fn position(&self, i: usize) -> usize {
        self.block.sequence.start + self.block.rows.start + i / self.size
    }

    /// Place of query `i` among the queries of the block, ordered as in `out`.
    #[inline(always)]
    fn index(&self, i: usize) -> usize {
        i / self.size * self.block.shape.heads + self.kv_head * self.size + i % self.size
    }

    #[inline(always)]
    fn query(&self, i: usize) -> &[f32] {
        let Block { q, q_stride, shape, sequence, rows } = self.block;
        let row = sequence.rows.start + rows.start + i / self.size;
        let head = self.kv_head * self.size + i % self.size;
        &q[row * q_stride + head * shape.head_dim..][..shape.head_dim]
    }

    /// What `numbers` (keys or values) hold for a position.
    #[inline(always)]
    fn at<'c>(&self, numbers: &'c [E], position: usize) -> &'c [E] {
        let shape = &self.block.shape;
        &numbers[position * shape.kv_width() + self.kv_head * shape.head_dim..][..shape.head_dim]
    }
}

/// A chunk, and what to fetch while it is computed.
#[derive(Clone, Copy)]
pub(super) struct Chunk {
    pub(super) start: usize,
    pub(super) len: usize,
    /// Nothing has fetched this chunk itself.
    pub(super) is_first: bool,
    /// Another chunk comes after it.
    pub(super) has_next: bool,
}

impl Chunk {
    /// Fetches what is needed after columns `column..column + width` of position `j` of the chunk.
    /// The next chunk is fetched in the order in which it lies, though heads read it in strides.
    #[inline(always)]
    fn fetch<S: Simd, E>(
        self,
        s: S,
        group: &Group<'_, E>,
        numbers: &[E],
        j: usize,
        column: usize,
        width: usize,
    ) {
        let shape = &group.block.shape;
        let start = numbers.as_ptr();
        let line = 64 / size_of::<E>();
        if self.has_next {
            let done = (group.kv_head * shape.head_dim + column) * self.len + j * width;
            let next = (self.start + self.len) * shape.kv_width() + done;
            for at in (0..width).step_by(line) {
                s.prefetch_far(start.wrapping_add(next + at).cast());
            }
        }
        if self.is_first {
            let later = (self.start + j + AHEAD) * shape.kv_width();
            let later = later + group.kv_head * shape.head_dim + column;
            for at in (0..width).step_by(line) {
                s.prefetch(start.wrapping_add(later + at).cast());
            }
        }
    }
}

/// Queries of a group from `first` on over one chunk.
pub(super) struct Tile<'a, E> {
    pub(super) group: &'a Group<'a, E>,
    pub(super) chunk: Chunk,
    pub(super) first: usize,
    pub(super) merge: bool,
    pub(super) seen: &'a mut [Seen],
    pub(super) scores: &'a mut Scores,
}

impl<E: Stored> Tile<'_, E> {
    #[inline(always)]
    pub(super) fn attend<S: Simd, const N: usize>(
        &mut self,
        s: S,
        out: &Disjoint<'_, f32>,
        start: usize,
    ) {
        let Tile { group, chunk, first, .. } = *self;
        // A query sees as many positions as the one before it, or more.
        let mut counts = [0; N];
        for n in 0..N {
            counts[n] = (group.position(first + n) + 1).saturating_sub(chunk.start).min(chunk.len);
        }
        self.score::<S, N>(s, counts[N - 1]);

        let mut factors = [Factors::UNUSED; N];
        for n in 0..N {
            if counts[n] > 0 {
                let scores = &mut self.scores[n][..counts[n]];
                let largest = max_of(s, scores);
                let total = exp_in_place(s, scores, s.splat(largest));
                let seen = &mut self.seen[group.index(first + n)];
                (*seen, factors[n]) = seen.and(s, Seen { largest, total });
            }
        }

        let head_dim = group.block.shape.head_dim;
        let mut column = 0;
        while column < head_dim {
            let left = head_dim - column;
            if left >= 4 * LANES {
                self.weigh::<S, N, 4>(s, column, 4 * LANES, &counts, &factors, out, start);
                column += 4 * LANES;
            } else if left >= 2 * LANES {
                self.weigh::<S, N, 2>(s, column, 2 * LANES, &counts, &factors, out, start);
                column += 2 * LANES;
            } else {
                let width = left.min(LANES);
                self.weigh::<S, N, 1>(s, column, width, &counts, &factors, out, start);
                column += width;
            }
        }
    }

    /// The scores of `N` queries and the first `count` positions of the chunk.
    #[inline(always)]
    fn score<S: Simd, const N: usize>(&mut self, s: S, count: usize) {
        let Tile { group, chunk, first, .. } = *self;
        let (keys, shape) = (group.cache.keys, group.block.shape);
        let mut queries: [&[f32]; N] = [&[]; N];
        for n in 0..N {
            queries[n] = group.query(first + n);
        }
        for j in (0..count).step_by(4) {
            let mut four: [&[E]; 4] = [&[]; 4];
            for c in 0..4 {
                // Positions behind the last are computed again and not read.
                four[c] = group.at(keys, chunk.start + (j + c).min(count - 1));
                if first == 0 {
                    chunk.fetch(s, group, keys, j + c, 0, shape.head_dim);
                }
            }
            let dots = dots(s, queries, four);
            for n in 0..N {
                for c in 0..4 {
                    self.scores[n][j + c] = dots[n][c] * shape.scale;
                }
            }
        }
    }

    /// The weighted values of `width` columns from `column` on, `V` vectors or a part of one.
    #[inline(always)]
    fn weigh<S: Simd, const N: usize, const V: usize>(
        &self,
        s: S,
        column: usize,
        width: usize,
        counts: &[usize; N],
        factors: &[Factors; N],
        out: &Disjoint<'_, f32>,
        start: usize,
    ) {
        let Tile { group, chunk, first, merge, ref scores, .. } = *self;
        let values = group.cache.values;
        let mut sums = [[s.splat(0.0); V]; N];
        for j in 0..counts[0] {
            if first == 0 {
                chunk.fetch(s, group, values, j, column, width);
            }
            let values = &group.at(values, chunk.start + j)[column..][..width];
            let values = load_vectors::<S, E, V>(s, values);
            for n in 0..N {
                let weight = s.splat(scores[n][j]);
                for v in 0..V {
                    sums[n][v] = s.fma(weight, values[v], sums[n][v]);
                }
            }
        }
        for n in 1..N {
            for j in counts[0]..counts[n] {
                let values = &group.at(values, chunk.start + j)[column..][..width];
                let values = load_vectors::<S, E, V>(s, values);
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
            let start = start + group.index(first + n) * group.block.shape.head_dim + column;
            // SAFETY: as in `attend` and `attend_apart`: `start` is where this block's rows or this
            // chunk's part begin, and no other part is held.
            let out = unsafe { out.part(start..start + width) };
            if merge {
                let before = load_vectors::<S, f32, V>(s, out);
                for v in 0..V {
                    sums[n][v] = factors[n].merge(s, before[v], sums[n][v]);
                }
            }
            store_vectors(s, sums[n], out);
        }
    }
}

/// Dot products of `N` queries with four keys, vector by vector onto sixteen lanes.
#[inline(always)]
fn dots<S: Simd, E: Stored, const N: usize>(
    s: S,
    queries: [&[f32]; N],
    keys: [&[E]; 4],
) -> [[f32; 4]; N] {
    let vectors = queries[0].len() / LANES;
    let mut whole_queries: [&[Lanes]; N] = [&[]; N];
    let mut whole_keys: [&[[E; LANES]]; 4] = [&[]; 4];
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
            keys[c] = E::load(s, &whole_keys[c][d]);
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
                sums[n][c] = s.fma(query, E::load_part(s, &keys[c][rest..]), sums[n][c]);
            }
        }
    }
    let mut dots = [[0.0; 4]; N];
    for n in 0..N {
        dots[n] = s.sum4(sums[n]);
    }
    dots
}

/// `V` vectors, or for `V` = 1 a part of one.
#[inline(always)]
fn load_vectors<S: Simd, E: Stored, const V: usize>(s: S, from: &[E]) -> [S::F; V] {
    let (whole, rest) = from.as_chunks();
    let mut vectors = [s.splat(0.0); V];
    if V == 1 && whole.is_empty() {
        vectors[0] = E::load_part(s, rest);
    } else {
        let whole = &whole[..V];
        for v in 0..V {
            vectors[v] = E::load(s, &whole[v]);
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
