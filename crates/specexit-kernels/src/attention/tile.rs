//! Some queries over one chunk: scores, their exponentials, weighted values.
//!
//! Either they share a key head, and each vector of keys or values is read once for all of them; or
//! they are one for each of several key heads, taken together because the sums of a single query would
//! wait for one another.

use std::cell::Cell;

use super::block::{Block, CHUNK, Place};
use super::cache::{KeysValues, Line, PANEL};
use super::part::{Factors, Seen};
use super::products::Products;
use crate::disjoint::Disjoint;
use crate::simd::{LANES, Lanes, Simd, max_of};
use crate::softmax::exp_in_place;

/// Queries of a tile, at most.
pub(super) const MOST: usize = 12;

/// What a thread works in, kept from call to call.
#[derive(Default)]
pub(super) struct Scratch {
    /// Packed queries, each from a line of its own on.
    queries: Vec<Line>,
    /// What a query's scores are multiplied with.
    scales: [f32; MOST],
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

/// Keys and values of a cache, in blocks.
pub(super) struct Cached<'a, P: Products> {
    keys: &'a [P::Block],
    values: &'a [P::Block],
    /// Every line of the keys; those behind the blocks of a head in a panel are scales.
    lines: &'a [Lanes],
    /// Lines of a head in a panel.
    head_lines: usize,
}

impl<'a, P: Products> Cached<'a, P> {
    /// Of a cache with such numbers.
    #[inline(always)]
    pub(super) fn new(cache: &'a KeysValues) -> Cached<'a, P> {
        let [keys, values] = cache.lines();
        Cached {
            keys: bytemuck::cast_slice(keys),
            values: bytemuck::cast_slice(values),
            lines: bytemuck::cast_slice(keys),
            head_lines: cache.head_lines(),
        }
    }

    /// The first `groups` blocks of a head (counted over all panels).
    #[inline(always)]
    fn keys(&self, head: usize, groups: usize) -> &'a [P::Block] {
        let start = head * self.head_lines * (size_of::<Line>() / size_of::<P::Block>());
        &self.keys[start..][..groups]
    }

    /// The scales of a head's keys and values (counted over all panels), if they have any.
    #[inline(always)]
    fn scales(&self, head: usize) -> [&'a Lanes; 2] {
        let lines = &self.lines[..(head + 1) * self.head_lines];
        let [.., keys, values] = lines else { unreachable!("each head has two lines of scales") };
        [keys, values]
    }

    /// The scores of a head's keys (counted over all panels), from sums of products.
    #[inline(always)]
    fn put_scores(
        &self,
        p: P,
        sums: P::Sum,
        scale: <P::S as Simd>::F,
        head: usize,
        to: &mut Lanes,
    ) {
        let s = p.simd();
        let mut scores = s.mul(p.to_float(sums), scale);
        if P::SCALED {
            let [scales, _] = self.scales(head);
            scores = s.mul(scores, s.load(scales));
        }
        s.store(scores, to);
    }
}

/// A part of all positions that begins at a fixed multiple of its length.
#[derive(Clone, Copy)]
pub(super) struct Chunk {
    pub(super) start: usize,
    pub(super) len: usize,
}

/// Queries of a block over one chunk.
pub(super) struct Tile<'a, P: Products> {
    pub(super) p: P,
    pub(super) block: &'a Block<'a>,
    pub(super) cached: &'a Cached<'a, P>,
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

impl<P: Products> Tile<'_, P> {
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
        let (s, p) = (self.p.simd(), self.p);
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
            let packed = &mut bytemuck::cast_slice_mut(packed)[..shape.head_dim.div_ceil(P::GROUP)];
            let scale = p.pack(packed, &self.block.q[q..][..shape.head_dim]);
            self.scratch.scales[n] = scale * shape.scale;
        }
        if !P::S::MANY_REGISTERS {
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

        let (mut factors, mut scales) = ([Factors::UNUSED; N], [0.0; N]);
        for n in 0..N {
            if counts[n] == 0 {
                continue;
            }
            let scores = &mut self.scratch.scores[n][..counts[n]];
            let largest = max_of(s, scores);
            let total = exp_in_place(s, scores, s.splat(largest));
            let seen = &mut self.seen[seen[n]];
            (*seen, factors[n]) = seen.and(s, Seen { largest, total });
            if P::SCALED {
                self.scale_weights(
                    if SHARED { self.kv_head } else { self.kv_head + n },
                    n,
                    counts[n],
                );
            }
            let scores = &self.scratch.scores[n][..counts[n]];
            let packed = bytemuck::cast_slice_mut(&mut self.scratch.weights[n]);
            scales[n] = p.pack(&mut packed[..counts[n].div_ceil(P::GROUP)], scores);
        }

        let vectors = shape.head_dim.div_ceil(LANES);
        let mut vector = 0;
        while vector < vectors {
            let left = vectors - vector;
            let at =
                At { vector, counts: &counts, factors: &factors, scales: &scales, starts: &starts };
            if P::S::MANY_REGISTERS && left >= 8 && N == 1 {
                self.weigh::<N, 8, SHARED>(at, out);
                vector += 8;
            } else if P::S::MANY_REGISTERS && left >= 4 && N <= 4 {
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
        let (s, p, shape) = (self.p.simd(), self.p, self.block.shape);
        let groups = shape.head_dim.div_ceil(P::GROUP);
        let lines = query_lines(shape.head_dim);
        let Scratch { queries, scores, scales, .. } = &mut *self.scratch;
        let mut packed: [&[P::X]; N] = [&[]; N];
        for n in 0..N {
            let query = &queries[(slot + n) * lines..][..lines];
            packed[n] = &bytemuck::cast_slice(query)[..groups];
        }
        let panels = count.div_ceil(PANEL);
        for first in (0..panels).step_by(B) {
            let (mut heads, mut keys): ([usize; B], [&[P::Block]; B]) = ([0; B], [&[]; B]);
            for b in 0..B {
                // Panels behind the last are computed again and not kept.
                let panel = self.chunk.start / PANEL + (first + b).min(panels - 1);
                heads[b] = panel * shape.kv_heads + kv_head;
                keys[b] = self.cached.keys(heads[b], groups);
            }
            let mut sums = [[p.zero(); B]; N];
            for g in 0..groups {
                let mut blocks = [p.weights(&keys[0][g]); B];
                for b in 1..B {
                    blocks[b] = p.weights(&keys[b][g]);
                }
                for n in 0..N {
                    let x = p.splat(packed[n][g]);
                    for b in 0..B {
                        sums[n][b] = p.step(sums[n][b], x, blocks[b]);
                    }
                }
            }
            for n in 0..N {
                let to = scores[slot + n].as_chunks_mut::<LANES>().0;
                let scale = s.splat(scales[slot + n]);
                for ((sum, head), to) in sums[n].iter().zip(heads).zip(&mut to[first..panels]) {
                    self.cached.put_scores(p, *sum, scale, head, to);
                }
            }
        }
    }

    /// The scores of one query for each of `N` key heads and the first `count` positions of the chunk: panel
    /// by panel, so that keys are read in the order in which they stand.
    #[inline(always)]
    fn score_heads<const N: usize, const B: usize>(&mut self, count: usize) {
        let (s, p, shape) = (self.p.simd(), self.p, self.block.shape);
        let groups = shape.head_dim.div_ceil(P::GROUP);
        let lines = query_lines(shape.head_dim);
        let Scratch { queries, scores, scales, .. } = &mut *self.scratch;
        let mut packed: [&[P::X]; N] = [&[]; N];
        for n in 0..N {
            packed[n] = &bytemuck::cast_slice(&queries[n * lines..][..lines])[..groups];
        }
        let panels = count.div_ceil(PANEL);
        for first in (0..panels).step_by(B) {
            for n in 0..N {
                let (mut heads, mut keys): ([usize; B], [&[P::Block]; B]) = ([0; B], [&[]; B]);
                for b in 0..B {
                    // Panels behind the last are computed again and not kept.
                    let panel = self.chunk.start / PANEL + (first + b).min(panels - 1);
                    heads[b] = panel * shape.kv_heads + self.kv_head + n;
                    keys[b] = self.cached.keys(heads[b], groups);
                }
                let mut sums = [p.zero(); B];
                for g in 0..groups {
                    let x = p.splat(packed[n][g]);
                    for b in 0..B {
                        sums[b] = p.step(sums[b], x, p.weights(&keys[b][g]));
                    }
                }
                let to = scores[n].as_chunks_mut::<LANES>().0;
                let scale = s.splat(scales[n]);
                for ((sum, head), to) in sums.iter().zip(heads).zip(&mut to[first..panels]) {
                    self.cached.put_scores(p, *sum, scale, head, to);
                }
            }
        }
    }

    /// Multiplies the weights of query `n` with the scales of the values that they meet.
    #[inline(always)]
    fn scale_weights(&mut self, kv_head: usize, n: usize, count: usize) {
        let s = self.p.simd();
        let weights = self.scratch.scores[n].as_chunks_mut::<LANES>().0;
        for (panel, weights) in weights[..count.div_ceil(PANEL)].iter_mut().enumerate() {
            let panel = self.chunk.start / PANEL + panel;
            let head = panel * self.block.shape.kv_heads + kv_head;
            let [_, scales] = self.cached.scales(head);
            s.store(s.mul(s.load(weights), s.load(scales)), weights);
        }
    }

    /// The weighted values of `V` vectors of columns.
    #[inline(always)]
    fn weigh<const N: usize, const V: usize, const SHARED: bool>(
        &self,
        at: At<'_, N>,
        out: &Disjoint<'_, f32>,
    ) {
        let (p, shape) = (self.p, self.block.shape);
        let vectors = shape.head_dim.div_ceil(LANES);
        let row = shape.kv_heads * vectors;
        let mut weights: [&[P::X]; N] = [&[]; N];
        for n in 0..N {
            let packed = bytemuck::cast_slice(&self.scratch.weights[n]);
            weights[n] = &packed[..at.counts[n].div_ceil(P::GROUP)];
        }
        let first = self.chunk.start / P::GROUP * row + self.kv_head * vectors + at.vector;
        let values = |j: usize| &self.cached.values[first + j * row..];
        // Heads beside one another take `V` vectors each, which are all that they have.
        let step = if SHARED { 0 } else { V };

        let mut sums = [[p.zero(); V]; N];
        let common = at.counts[0] / P::GROUP;
        for j in 0..common {
            let values = &values(j)[..V + step * (N - 1)];
            let mut blocks = [p.weights(&values[0]); V];
            if SHARED {
                for v in 1..V {
                    blocks[v] = p.weights(&values[v]);
                }
            }
            for n in 0..N {
                let weight = p.splat(weights[n][j]);
                for v in 0..V {
                    let block = if SHARED { blocks[v] } else { p.weights(&values[n * V + v]) };
                    sums[n][v] = p.step(sums[n][v], weight, block);
                }
            }
        }
        for n in 0..N {
            let count = at.counts[n];
            for j in common..count.div_ceil(P::GROUP) {
                let values = &values(j)[step * n..][..V];
                let weight = p.splat(weights[n][j]);
                for v in 0..V {
                    let mut block = p.weights(&values[v]);
                    if (j + 1) * P::GROUP > count {
                        // A position that the query does not see.
                        block = p.first_only(block);
                    }
                    sums[n][v] = p.step(sums[n][v], weight, block);
                }
            }
        }
        for n in 0..N {
            if at.counts[n] > 0 {
                self.put::<V>(at.starts[n], at.vector, at.factors[n], at.scales[n], sums[n], out);
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
        scale: f32,
        sums: [P::Sum; V],
        out: &Disjoint<'_, f32>,
    ) {
        let (s, p, head_dim) = (self.p.simd(), self.p, self.block.shape.head_dim);
        let column = vector * LANES;
        let start = start + column;
        let width = (head_dim - column).min(V * LANES);
        // SAFETY: as in `attend` and `attend_apart`: a query of this block, in `out` or in the part of
        // this chunk, and no other part is held.
        let out = unsafe { out.part(start..start + width) };
        for (sum, out) in sums.into_iter().zip(out.chunks_mut(LANES)) {
            let mut sum = p.to_float(sum);
            if P::SCALED {
                sum = s.mul(sum, s.splat(scale));
            }
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
    /// What the sums of each are multiplied with.
    scales: &'a [f32; N],
    /// Where each begins in `out`.
    starts: &'a [usize; N],
}
