//! Some queries over one chunk: scores, their exponentials, weighted values.
//!
//! Either they share a key head, and each vector of keys or values is read once for all of them; or
//! they are one for each of several key heads, taken together because the sums of a single query would
//! wait for one another.

use std::cell::Cell;

use super::block::{Block, CHUNK, Place};
use super::cache::{Line, PANEL};
use super::part::{Factors, Seen};
use crate::disjoint::Disjoint;
use crate::dot::{Dot, Vector};
use crate::simd::{LANES, Simd, max_of};
use crate::softmax::exp_in_place;

/// Queries of a tile, at most.
pub(super) const MOST: usize = 12;

/// What a thread works in, kept from call to call.
#[derive(Default)]
pub(super) struct Scratch {
    /// Packed queries, each from a line of its own on.
    queries: Vec<Line>,
    /// Scores, then weights, of a tile over a chunk.
    scores: Vec<[f32; CHUNK.end]>,
    /// The weights packed.
    weights: Vec<[Line; CHUNK.end / LANES]>,
    /// What each query of a block has seen.
    seen: Vec<Seen>,
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

impl Scratch {
    /// This thread's, for queries of `head_dim` numbers.
    pub(super) fn take(head_dim: usize) -> Box<Scratch> {
        let mut scratch = SCRATCH.take().unwrap_or_default();
        scratch.scores.resize(MOST, [0.0; CHUNK.end]);
        scratch.weights.resize(MOST, [Line::ZERO; CHUNK.end / LANES]);
        let lines = MOST * query_lines(head_dim);
        if scratch.queries.len() < lines {
            scratch.queries.resize(lines, Line::ZERO);
        }
        scratch
    }

    /// For `queries` that have seen nothing; to be given back.
    pub(super) fn take_seen(&mut self, queries: usize) -> Vec<Seen> {
        let mut seen = std::mem::take(&mut self.seen);
        seen.clear();
        seen.resize(queries, Seen::NOTHING);
        seen
    }

    /// Takes back what `take_seen` gave.
    pub(super) fn keep_seen(&mut self, seen: Vec<Seen>) {
        self.seen = seen;
    }

    /// Keeps it for the next call.
    pub(super) fn keep(self: Box<Scratch>) {
        SCRATCH.set(Some(self));
    }
}

/// Lines that suffice for a packed query, whatever it is packed as.
fn query_lines(head_dim: usize) -> usize {
    head_dim.next_multiple_of(2).div_ceil(LANES)
}

/// Keys and values of a cache, a line for each block.
pub(super) struct Cached<'a, B> {
    pub(super) keys: &'a [B],
    pub(super) values: &'a [B],
}

/// A part of all positions that begins at a fixed multiple of its length.
#[derive(Clone, Copy)]
pub(super) struct Chunk {
    pub(super) start: usize,
    pub(super) len: usize,
}

/// Queries of a block over one chunk.
pub(super) struct Tile<'a, D: Dot> {
    pub(super) d: D,
    pub(super) block: &'a Block<'a>,
    pub(super) cached: &'a Cached<'a, D::Block>,
    pub(super) chunk: Chunk,
    /// The key head of the first query.
    pub(super) kv_head: usize,
    /// Place of the first query among those of its key head, ordered by rows.
    pub(super) first: usize,
    /// Whether there is something to merge with in `out`.
    pub(super) merge: bool,
    pub(super) seen: &'a mut [Seen],
    pub(super) scratch: &'a mut Scratch,
}

impl<D: Dot> Tile<'_, D> {
    /// Row of the block, and head of the model, of query `n`.
    #[inline(always)]
    fn query<const SHARED: bool>(&self, n: usize) -> [usize; 2] {
        if SHARED {
            let (query, size) = (self.first + n, self.block.size());
            [query / size, self.kv_head * size + query % size]
        } else {
            [self.first, self.kv_head + n]
        }
    }

    /// `N` queries: of one key head from `first` on, or of `N` key heads with one query each.
    #[inline(always)]
    pub(super) fn attend<const N: usize, const SHARED: bool>(
        &mut self,
        out: &Disjoint<'_, f32>,
        place: Place,
    ) {
        let (s, d) = (self.d.simd(), self.d);
        let Block { q_stride, shape, sequence, rows, .. } = self.block;
        let lines = query_lines(shape.head_dim);
        // A query sees as many positions of the chunk as the one before it, or more.
        let (mut counts, mut starts, mut seen) = ([0; N], [0; N], [0; N]);
        for n in 0..N {
            let [row, head] = self.query::<SHARED>(n);
            let position = sequence.start + rows.start + row;
            counts[n] = (position + 1).saturating_sub(self.chunk.start).min(self.chunk.len);
            let in_block = head - self.block.kv_heads.start * self.block.size();
            starts[n] = place.start + row * place.stride + in_block * shape.head_dim;
            seen[n] = row * self.block.heads() + in_block;
            let q = (sequence.rows.start + rows.start + row) * q_stride + head * shape.head_dim;
            let packed = &mut self.scratch.queries[n * lines..][..lines];
            let packed = &mut bytemuck::cast_slice_mut(packed)[..shape.head_dim.div_ceil(D::GROUP)];
            d.pack(packed, &self.block.q[q..][..shape.head_dim]);
        }
        if !D::S::MANY_REGISTERS {
            self.score::<1, 2>(self.kv_head, 0, counts[0]);
        } else if SHARED && N > 4 {
            self.score::<N, 2>(self.kv_head, 0, counts[N - 1]);
        } else if SHARED && N > 1 {
            self.score::<N, 4>(self.kv_head, 0, counts[N - 1]);
        } else if SHARED {
            self.score::<1, 8>(self.kv_head, 0, counts[0]);
        } else {
            // Queries of one row, which see the same positions.
            self.score_heads::<N, 2>(counts[0]);
        }

        let mut factors = [Factors::UNUSED; N];
        for n in 0..N {
            if counts[n] == 0 {
                continue;
            }
            let scores = &mut self.scratch.scores[n][..counts[n]];
            let largest = max_of(s, scores);
            let total = exp_in_place(s, scores, s.splat(largest));
            let seen = &mut self.seen[seen[n]];
            (*seen, factors[n]) = seen.and(s, Seen { largest, total });
            let packed = bytemuck::cast_slice_mut(&mut self.scratch.weights[n]);
            d.pack(&mut packed[..counts[n].div_ceil(D::GROUP)], scores);
        }

        let vectors = shape.head_dim.div_ceil(LANES);
        let mut vector = 0;
        while vector < vectors {
            let left = vectors - vector;
            let at = At { vector, counts: &counts, factors: &factors, starts: &starts };
            if D::S::MANY_REGISTERS && left >= 8 && N == 1 {
                self.weigh::<N, 8, SHARED>(at, out);
                vector += 8;
            } else if D::S::MANY_REGISTERS && left >= 4 && N <= 4 {
                self.weigh::<N, 4, SHARED>(at, out);
                vector += 4;
            } else if left >= 2 && N <= 6 {
                self.weigh::<N, 2, SHARED>(at, out);
                vector += 2;
            } else {
                self.weigh::<N, 1, SHARED>(at, out);
                vector += 1;
            }
        }
    }

    /// The scores of `N` queries, from place `slot` of the scratch on, and the first `count` positions of
    /// the chunk, `B` panels at a time.
    #[inline(always)]
    fn score<const N: usize, const B: usize>(&mut self, kv_head: usize, slot: usize, count: usize) {
        let (s, d, shape) = (self.d.simd(), self.d, self.block.shape);
        let groups = shape.head_dim.div_ceil(D::GROUP);
        let lines = query_lines(shape.head_dim);
        let Scratch { queries, scores, .. } = &mut *self.scratch;
        let mut packed: [&[D::X]; N] = [&[]; N];
        for n in 0..N {
            let query = &queries[(slot + n) * lines..][..lines];
            packed[n] = &bytemuck::cast_slice(query)[..groups];
        }
        let panels = count.div_ceil(PANEL);
        let scale = s.splat(shape.scale);
        for first in (0..panels).step_by(B) {
            let mut keys: [&[D::Block]; B] = [&[]; B];
            for b in 0..B {
                // Panels behind the last are computed again and not kept.
                let panel = self.chunk.start / PANEL + (first + b).min(panels - 1);
                let start = (panel * shape.kv_heads + kv_head) * groups;
                keys[b] = &self.cached.keys[start..][..groups];
            }
            let mut sums = [[s.splat(0.0); B]; N];
            for g in 0..groups {
                let mut blocks = [d.weights(&keys[0][g]); B];
                for b in 1..B {
                    blocks[b] = d.weights(&keys[b][g]);
                }
                for n in 0..N {
                    let x = d.splat(packed[n][g]);
                    for b in 0..B {
                        sums[n][b] = d.step(sums[n][b], x, blocks[b]);
                    }
                }
            }
            for n in 0..N {
                let to = scores[slot + n].as_chunks_mut::<LANES>().0;
                for (sum, to) in sums[n].iter().zip(&mut to[first..panels]) {
                    s.store(s.mul(*sum, scale), to);
                }
            }
        }
    }

    /// The scores of one query for each of `N` key heads and the first `count` positions of the chunk: panel
    /// by panel, so that keys are read in the order in which they stand.
    #[inline(always)]
    fn score_heads<const N: usize, const B: usize>(&mut self, count: usize) {
        let (s, d, shape) = (self.d.simd(), self.d, self.block.shape);
        let groups = shape.head_dim.div_ceil(D::GROUP);
        let lines = query_lines(shape.head_dim);
        let Scratch { queries, scores, .. } = &mut *self.scratch;
        let mut packed: [&[D::X]; N] = [&[]; N];
        for n in 0..N {
            packed[n] = &bytemuck::cast_slice(&queries[n * lines..][..lines])[..groups];
        }
        let scale = s.splat(shape.scale);
        let panels = count.div_ceil(PANEL);
        for first in (0..panels).step_by(B) {
            for n in 0..N {
                let mut keys: [&[D::Block]; B] = [&[]; B];
                for b in 0..B {
                    // Panels behind the last are computed again and not kept.
                    let panel = self.chunk.start / PANEL + (first + b).min(panels - 1);
                    let start = panel * shape.kv_heads + self.kv_head + n;
                    keys[b] = &self.cached.keys[start * groups..][..groups];
                }
                let mut sums = [s.splat(0.0); B];
                for g in 0..groups {
                    let x = d.splat(packed[n][g]);
                    for b in 0..B {
                        sums[b] = d.step(sums[b], x, d.weights(&keys[b][g]));
                    }
                }
                let to = scores[n].as_chunks_mut::<LANES>().0;
                for (sum, to) in sums.iter().zip(&mut to[first..panels]) {
                    s.store(s.mul(*sum, scale), to);
                }
            }
        }
    }

    /// The weighted values of `V` vectors of columns.
    #[inline(always)]
    fn weigh<const N: usize, const V: usize, const SHARED: bool>(
        &self,
        at: At<'_, N>,
        out: &Disjoint<'_, f32>,
    ) {
        let (s, d, shape) = (self.d.simd(), self.d, self.block.shape);
        let vectors = shape.head_dim.div_ceil(LANES);
        let row = shape.kv_heads * vectors;
        let mut weights: [&[D::X]; N] = [&[]; N];
        for n in 0..N {
            let packed = bytemuck::cast_slice(&self.scratch.weights[n]);
            weights[n] = &packed[..at.counts[n].div_ceil(D::GROUP)];
        }
        let first = self.chunk.start / D::GROUP * row + self.kv_head * vectors + at.vector;
        let values = |j: usize| &self.cached.values[first + j * row..];
        // Heads beside one another take `V` vectors each, which are all that they have.
        let step = if SHARED { 0 } else { V };

        let mut sums = [[s.splat(0.0); V]; N];
        let common = at.counts[0] / D::GROUP;
        for j in 0..common {
            let values = &values(j)[..V + step * (N - 1)];
            let mut blocks = [d.weights(&values[0]); V];
            if SHARED {
                for v in 1..V {
                    blocks[v] = d.weights(&values[v]);
                }
            }
            for n in 0..N {
                let weight = d.splat(weights[n][j]);
                for v in 0..V {
                    let block = if SHARED { blocks[v] } else { d.weights(&values[n * V + v]) };
                    sums[n][v] = d.step(sums[n][v], weight, block);
                }
            }
        }
        for n in 0..N {
            let count = at.counts[n];
            for j in common..count.div_ceil(D::GROUP) {
                let values = &values(j)[step * n..][..V];
                let weight = d.splat(weights[n][j]);
                for v in 0..V {
                    let mut block = d.weights(&values[v]);
                    if (j + 1) * D::GROUP > count {
                        // A position that the query does not see.
                        block = d.first_only(block);
                    }
                    sums[n][v] = d.step(sums[n][v], weight, block);
                }
            }
        }
        for n in 0..N {
            if at.counts[n] > 0 {
                self.put::<V>(at.starts[n], at.vector, at.factors[n], sums[n], out);
            }
        }
    }

    /// Puts weighted values into `out`, or merges them with what is there.
    #[inline(always)]
    fn put<const V: usize>(
        &self,
        start: usize,
        vector: usize,
        factors: Factors,
        sums: [Vector<D>; V],
        out: &Disjoint<'_, f32>,
    ) {
        let (s, head_dim) = (self.d.simd(), self.block.shape.head_dim);
        let column = vector * LANES;
        let start = start + column;
        let width = (head_dim - column).min(V * LANES);
        // SAFETY: as in `attend` and `attend_apart`: a query of this block, in `out` or in the part of
        // this chunk, and no other part is held.
        let out = unsafe { out.part(start..start + width) };
        for (sum, out) in sums.into_iter().zip(out.chunks_mut(LANES)) {
            let sum = if self.merge { factors.merge(s, s.load_part(out, 0.0), sum) } else { sum };
            s.store_part(sum, out);
        }
    }
}

/// What the weighted values of a tile depend on beside the tile.
#[derive(Clone, Copy)]
struct At<'a, const N: usize> {
    /// The first vector of columns.
    vector: usize,
    /// Positions that each query sees.
    counts: &'a [usize; N],
    factors: &'a [Factors; N],
    /// Where each begins in `out`.
    starts: &'a [usize; N],
}
