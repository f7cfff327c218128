//! Causal grouped-query attention over the caches of several sequences.
//!
//! The work is cut into blocks of up to 64 queries (rows times heads) that share the keys and values
//! of one key head. A block passes over its positions in chunks of 256; a chunk is small enough to
//! stay in the level-2 cache while all queries of the block use it.

mod block;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::disjoint::Disjoint;
use crate::isa::CheckedIsa;
use crate::pool::Pool;
use block::{Block, attend};

/// Queries of one block.
const QUERIES: usize = 64;

/// Multiply-adds below which a call is computed by the calling thread alone.
const INLINE_WORK: usize = 1 << 16;

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
    /// Keys `[at least start + rows.len(), kv_heads * head_dim]`, rotated.
    pub keys: &'a [f32],
    /// Values, laid out as the keys.
    pub values: &'a [f32],
}

/// See [`Kernels::attention`](crate::Kernels::attention).
pub(crate) fn attention(
    pool: &Pool,
    isa: CheckedIsa,
    out: &mut [f32],
    q: &[f32],
    q_stride: usize,
    shape: AttentionShape,
    sequences: &[AttentionSequence<'_>],
) {
    check(out, q, q_stride, shape, sequences);
    let group = shape.heads / shape.kv_heads;
    let blocks_of = |s: &AttentionSequence<'_>| (s.rows.len() * group).div_ceil(QUERIES);
    let blocks: usize = sequences.iter().map(|s| blocks_of(s) * shape.kv_heads).sum();
    let work: usize = sequences.iter().map(|s| s.rows.len() * (s.start + s.rows.len())).sum();
    let parallel = work * shape.heads * shape.head_dim >= INLINE_WORK && blocks > 1;

    let out = &Disjoint::new(out);
    let run = |index: usize| {
        let mut index = index;
        for sequence in sequences {
            let blocks = blocks_of(sequence) * shape.kv_heads;
            if index < blocks {
                // The longest blocks first: the last rows of a sequence see the most positions.
                let (kv_head, part) = (index % shape.kv_heads, index / shape.kv_heads);
                let first = (blocks_of(sequence) - 1 - part) * QUERIES;
                let queries = first..(first + QUERIES).min(sequence.rows.len() * group);
                let block = &Block { q, q_stride, shape, sequence, kv_head, queries };
                dispatch!(isa, attend(block: &Block<'_>, out: &Disjoint<'_, f32>));
                return;
            }
            index -= blocks;
        }
    };
    if !parallel {
        (0..blocks).for_each(run);
        return;
    }
    // Blocks differ in length and threads in luck: each takes the next one when it is free.
    let next = AtomicUsize::new(0);
    pool.run(|_| {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= blocks {
                return;
            }
            run(index);
        }
    });
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
    let width = heads * head_dim;
    let m = out.len() / width;
    assert_eq!(out.len(), m * width, "out is not whole rows of {width}");
    assert!(q_stride >= width, "heads exceed the row of q");
    assert_eq!(q.len(), m * q_stride, "q is not [{m}, {q_stride}]");
    for sequence in sequences {
        let AttentionSequence { rows, start, keys, values } = sequence;
        assert!(rows.start <= rows.end && rows.end <= m, "rows {rows:?} of {m}");
        let cache = (start + rows.len()) * kv_heads * head_dim;
        assert!(keys.len() >= cache, "keys end before position {}", start + rows.len());
        assert!(values.len() >= cache, "values end before position {}", start + rows.len());
    }
    // Threads write the rows of different sequences at once.
    let apart = |a: &Range<usize>, b: &Range<usize>| a.end <= b.start || b.end <= a.start;
    let in_order = sequences.windows(2).all(|pair| pair[0].rows.end <= pair[1].rows.start);
    let disjoint = in_order
        || sequences.iter().enumerate().all(|(i, a)| {
            sequences[..i]
                .iter()
                .all(|b| a.rows.is_empty() || b.rows.is_empty() || apart(&a.rows, &b.rows))
        });
    assert!(disjoint, "rows of two sequences overlap");
}
