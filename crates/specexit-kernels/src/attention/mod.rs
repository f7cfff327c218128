//! Causal grouped-query attention over the caches of several sequences.
//!
//! Positions are taken in chunks that begin at fixed multiples. A query's weighted values over one
//! chunk form a [`part`], and its parts are merged in the order of the chunks; so the same bits come
//! out whether one thread goes through all chunks or several threads share them.
//!
//! The work is cut by rows into blocks. When there are enough blocks of like length for all threads each
//! is done by one; otherwise (few rows, as in decoding) the chunks of a block are shared and merged
//! afterwards, or, where those are few too, its heads are.

mod block;
mod cache;
mod on;
mod part;
mod products;
mod tile;

use std::ops::Range;

use crate::arena::Buffer;
use crate::disjoint::Disjoint;
use crate::pool::Pool;
use block::{Block, Job, merge};
pub use cache::{CacheNumbers, KeysValues, ParseCacheNumbersError};
pub(crate) use on::On;

/// Rows of a block, at most; fewer if they have many heads.
const BLOCK_ROWS: usize = if cfg!(miri) { 2 } else { 32 };

/// Queries (rows times heads) of a block, unless a single row has more.
const BLOCK_QUERIES: usize = 512;

/// Multiply-adds below which a call is computed by the calling thread alone.
const INLINE_WORK: usize = if cfg!(miri) { 1 << 8 } else { 1 << 14 };

/// Bytes of unmerged parts that a call may keep.
const PARTS: usize = 32 << 20;

/// Sizes of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// Factor of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
}

impl AttentionShape {
    /// Values of all query heads.
    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Values of all key heads.
    fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// The rows of a call that belong to one sequence, and the sequence's cache.
///
/// Row `rows.start + i` sits at position `start + i` and sees positions `0..=start + i`, so the keys
/// and values of the rows themselves must be in the cache already.
#[derive(Debug, Clone)]
pub struct AttentionSequence<'a> {
    /// Rows of `q` and `out`.
    pub rows: Range<usize>,
    /// Position of the first row.
    pub start: usize,
    /// Keys and values of at least `start + rows.len()` positions.
    pub cache: &'a KeysValues,
}

/// What all blocks of a call share.
struct Call<'a> {
    q: &'a [f32],
    q_stride: usize,
    shape: AttentionShape,
    sequences: &'a [AttentionSequence<'a>],
    rows_per_block: usize,
    /// Blocks that share the heads of the same rows.
    splits: usize,
}

impl Call<'_> {
    /// All blocks; of each sequence the last first, because it sees the most positions.
    fn blocks(&self) -> impl Iterator<Item = Block<'_>> {
        self.sequences.iter().flat_map(move |sequence| {
            let starts = (0..sequence.rows.len()).step_by(self.rows_per_block).rev();
            starts.flat_map(move |start| {
                let end = sequence.rows.len().min(start + self.rows_per_block);
                let (q, q_stride, shape) = (self.q, self.q_stride, self.shape);
                let bound = move |split: usize| split * shape.kv_heads / self.splits;
                (0..self.splits).map(move |split| {
                    let kv_heads = bound(split)..bound(split + 1);
                    Block { q, q_stride, shape, sequence, rows: start..end, kv_heads }
                })
            })
        })
    }
}

/// See [`Kernels::attention`](crate::Kernels::attention).
pub(crate) fn attention(
    pool: &Pool,
    on: On,
    scratch: &mut Buffer,
    out: &mut [f32],
    q: &[f32],
    q_stride: usize,
    shape: AttentionShape,
    sequences: &[AttentionSequence<'_>],
) {
    check(out, q, q_stride, shape, sequences);
    let rows_per_block = (BLOCK_QUERIES / shape.heads).clamp(1, BLOCK_ROWS);
    let mut call = Call { q, q_stride, shape, sequences, rows_per_block, splits: 1 };
    let blocks = call.blocks().count();
    let chunks: usize = call.blocks().map(|block| block.chunks()).sum();
    let longest = call.blocks().map(|block| block.chunks()).max().unwrap_or(0);
    let parts: usize = call.blocks().map(|block| block.chunks() * block.part_len()).sum();
    let work: usize = sequences.iter().map(|s| s.rows.len() * (s.start + s.rows.len())).sum();
    let out = &Disjoint::new(out);

    let threads = pool.threads();
    if work * shape.width() < INLINE_WORK || threads == 1 {
        call.blocks().for_each(|block| on.attend(&block, &Job::Whole, out));
    } else if blocks >= 2 * threads
        || (longest * threads <= chunks && blocks >= threads)
        || (longest < 2 * threads && shape.kv_heads >= threads)
        || parts * size_of::<f32>() > PARTS
    {
        if blocks < 2 * threads {
            call.splits = threads.min(shape.kv_heads);
        }
        pool.claim(blocks * call.splits, |index| {
            let block = &call.blocks().nth(index).expect("claimed below the number of blocks");
            on.attend(block, &Job::Whole, out);
        });
    } else {
        share_chunks(pool, on, scratch, out, &call, parts);
    }
}

/// Computes the parts of all blocks, several runs of chunks per block, then merges them.
fn share_chunks(
    pool: &Pool,
    on: On,
    scratch: &mut Buffer,
    out: &Disjoint<'_, f32>,
    call: &Call<'_>,
    parts: usize,
) {
    scratch.grow(parts * size_of::<f32>());
    let parts = scratch.slice_mut::<f32>(parts);
    let runs_of = |block: &Block<'_>| block.chunks().min(2 * pool.threads());
    let runs = call.blocks().map(|block| runs_of(&block)).sum();
    {
        let parts = &Disjoint::new(&mut *parts);
        pool.claim(runs, |index| {
            let (mut run, mut start) = (index, 0);
            for block in call.blocks() {
                let (runs, chunks) = (runs_of(&block), block.chunks());
                if run < runs {
                    let chunks = run * chunks / runs..(run + 1) * chunks / runs;
                    return on.attend(&block, &Job::Chunks { chunks, start }, parts);
                }
                run -= runs;
                start += chunks * block.part_len();
            }
        });
    }
    let mut rest = &*parts;
    for block in call.blocks() {
        let (parts, behind) = rest.split_at(block.chunks() * block.part_len());
        let block = &block;
        let isa = on.isa;
        dispatch!(isa, merge(block: &Block<'_>, parts: &[f32], out: &Disjoint<'_, f32>));
        rest = behind;
    }
}

fn check(
    out: &[f32],
    q: &[f32],
    q_stride: usize,
    shape: AttentionShape,
    sequences: &[AttentionSequence<'_>],
) {
    let AttentionShape { heads, kv_heads, head_dim, .. } = shape;
    assert!(heads > 0 && kv_heads > 0 && head_dim > 0, "empty {shape:?}");
    assert!(heads.is_multiple_of(kv_heads), "heads that share no whole key head: {shape:?}");
    let width = shape.width();
    let m = out.len() / width;
    assert_eq!(out.len(), m * width, "out is not whole rows of {width}");
    assert!(q_stride >= width, "heads exceed the row of q");
    assert_eq!(q.len(), m * q_stride, "q is not [{m}, {q_stride}]");
    for sequence in sequences {
        let AttentionSequence { rows, start, cache } = sequence;
        assert!(rows.start <= rows.end && rows.end <= m, "rows {rows:?} of {m}");
        let (positions, held) = (start + rows.len(), cache.len());
        assert!(held >= positions, "keys and values end at {held}, before position {positions}");
        assert_eq!(cache.heads(), [kv_heads, head_dim], "heads of a cache for {shape:?}");
    }
    // Threads write the rows of different sequences at once.
    let apart = |a: &Range<usize>, b: &Range<usize>| {
        a.is_empty() || b.is_empty() || a.end <= b.start || b.end <= a.start
    };
    let in_order = sequences.windows(2).all(|pair| pair[0].rows.end <= pair[1].rows.start);
    let disjoint = in_order
        || sequences
            .iter()
            .enumerate()
            .all(|(i, a)| sequences[..i].iter().all(|b| apart(&a.rows, &b.rows)));
    assert!(disjoint, "rows of two sequences overlap");
}
