//! Causal attention of whole texts, forward and backward.
//!
//! A task is one key head of one text with all query heads that read it. It brings queries, keys
//! and values into padded matrices of its own, where blocks of queries meet all keys up to their
//! last: probabilities exist for one block at a time only, and the backward computes them again from
//! the logarithm of their sum.

use std::ops::Range;

use half::bf16;

use super::f32_product::{Strided, WIDTH, product, transpose};
use super::head::{HeadNorms, Turn};
use super::operands::Bf16Rows;
use crate::disjoint::Disjoint;
use crate::kernels::Kernels;
use crate::linear::round_into;
use crate::rope::RopeTable;
use crate::simd::{LANES, Simd, exp, max_of};
use crate::softmax::exp_in_place;

/// Queries of a block.
pub(super) const BLOCK: usize = 32;

/// Rows from the one that is gathered to the one that is fetched.
pub(super) const AHEAD: usize = 8;

/// Sizes of an attention layer whose rows are `q|k|v`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CausalShape {
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Values per head; even.
    pub head_dim: usize,
}

impl CausalShape {
    /// Values of a row `q|k|v`.
    pub(super) fn stride(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    pub(super) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Values per head with padding.
    pub(super) fn padded(&self) -> usize {
        self.head_dim.next_multiple_of(WIDTH)
    }
}

/// What all tasks of a call share.
struct Call<'a> {
    qkv: &'a [f32],
    shape: CausalShape,
    norms: HeadNorms<'a>,
    rope: &'a RopeTable,
}

/// One task: the rows of a text and a key head.
#[derive(Clone)]
struct Task {
    rows: Range<usize>,
    kv_head: usize,
}

impl Kernels {
    /// `softmax(q · kᵀ / sqrt(head_dim)) · v` for each head over the positions of a text up to the
    /// row's own, where queries and keys pass a norm and the rotary embedding first.
    ///
    /// `qkv` `[m, (heads + 2 kv_heads) * head_dim]` has rows `q|k|v`; `texts` are consecutive ranges
    /// of its rows, each beginning at position 0. `out` becomes `[m, heads * head_dim]`, rounded;
    /// `lse` `[m, heads]` receives the logarithm of each softmax's sum for the backward.
    ///
    /// # Panics
    ///
    /// If the sizes do not fit, or a text is longer than the rotary table.
    pub fn causal_attention(
        &self,
        out: &mut Bf16Rows,
        lse: &mut [f32],
        qkv: &[f32],
        texts: &[Range<usize>],
        shape: CausalShape,
        norms: HeadNorms<'_>,
        rope: &RopeTable,
    ) {
        let call = &Call { qkv, shape, norms, rope };
        let rows = call.check(texts);
        assert_eq!(lse.len(), rows * shape.heads, "lse is not [{rows}, {}]", shape.heads);
        out.resize(rows, shape.heads * shape.head_dim);
        let stride = out.stride();
        let (out, lse) = (&Disjoint::new(out.values_mut()), &Disjoint::new(lse));
        let tasks = tasks(texts, shape);
        self.pool().claim(tasks.len(), |index| {
            let task = &tasks[index].1;
            self.with_scratch(|scratch| {
                let size = call.forward_scratch(task);
                let scratch = sized(scratch, size);
                dispatch!(
                    self.checked_isa(),
                    forward(
                        call: &Call<'_>,
                        task: &Task,
                        scratch: &mut [f32],
                        out: &Disjoint<'_, bf16>,
                        stride: usize,
                        lse: &Disjoint<'_, f32>,
                    )
                );
            });
        });
    }

    /// The backward of [`causal_attention`](Self::causal_attention): `d` becomes the gradient of
    /// `qkv`, rounded, given that of `out`, `grad` `[m, heads * head_dim]`; those of the norms'
    /// weights are added to `dq_norm` and `dk_norm`.
    ///
    /// # Panics
    ///
    /// As there.
    pub fn causal_attention_backward(
        &self,
        d: &mut Bf16Rows,
        [dq_norm, dk_norm]: [&mut [f32]; 2],
        grad: &[f32],
        lse: &[f32],
        qkv: &[f32],
        texts: &[Range<usize>],
        shape: CausalShape,
        norms: HeadNorms<'_>,
        rope: &RopeTable,
    ) {
        let call = &Call { qkv, shape, norms, rope };
        let (rows, hd) = (call.check(texts), shape.head_dim);
        assert_eq!(lse.len(), rows * shape.heads, "lse is not [{rows}, {}]", shape.heads);
        assert_eq!(grad.len(), rows * shape.heads * hd, "grad is not [{rows}, heads * head_dim]");
        assert!(dq_norm.len() == hd && dk_norm.len() == hd, "gradients of norms of {hd}");
        d.resize(rows, shape.stride());
        let stride = d.stride();
        let d = &Disjoint::new(d.values_mut());
        let tasks = tasks(texts, shape);
        let mut partial = vec![0.0; tasks.len() * 2 * hd];
        let parts = &Disjoint::new(&mut partial);
        self.pool().claim(tasks.len(), |index| {
            let (number, task) = &tasks[index];
            // SAFETY: each task has its own part.
            let norms = unsafe { parts.part(number * 2 * hd..(number + 1) * 2 * hd) };
            self.with_scratch(|scratch| {
                let size = call.backward_scratch(task);
                let scratch = sized(scratch, size);
                dispatch!(
                    self.checked_isa(),
                    backward(
                        call: &Call<'_>,
                        task: &Task,
                        scratch: &mut [f32],
                        d: &Disjoint<'_, bf16>,
                        stride: usize,
                        norms: &mut [f32],
                        grad: &[f32],
                        lse: &[f32],
                    )
                );
            });
        });
        for part in partial.chunks_exact(2 * hd) {
            let (q, k) = part.split_at(hd);
            dq_norm.iter_mut().zip(q).for_each(|(sum, part)| *sum += part);
            dk_norm.iter_mut().zip(k).for_each(|(sum, part)| *sum += part);
        }
    }
}

pub(super) fn sized(scratch: &mut crate::arena::Buffer, len: usize) -> &mut [f32] {
    scratch.grow(len * size_of::<f32>());
    scratch.slice_mut(len)
}

/// All tasks with their numbers; the longest first, because the last ones decide how long a thread
/// waits.
fn tasks(texts: &[Range<usize>], shape: CausalShape) -> Vec<(usize, Task)> {
    let of_text = |rows: &Range<usize>| {
        (0..shape.kv_heads).map(|kv_head| Task { rows: rows.clone(), kv_head }).collect::<Vec<_>>()
    };
    let mut tasks: Vec<(usize, Task)> = texts.iter().flat_map(of_text).enumerate().collect();
    tasks.sort_by_key(|(_, task)| std::cmp::Reverse(task.rows.len()));
    tasks
}

impl Call<'_> {
    fn check(&self, texts: &[Range<usize>]) -> usize {
        let CausalShape { heads, kv_heads, head_dim } = self.shape;
        assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads) && heads > 0, "{:?}", self.shape);
        assert_eq!(self.rope.head_dim(), head_dim, "rotary table of another width");
        assert!(head_dim > 0 && self.norms.q.len() == head_dim && self.norms.k.len() == head_dim);
        let mut rows = 0;
        for text in texts {
            assert!(text.start == rows && text.end >= rows, "texts are not consecutive");
            assert!(text.len() <= self.rope.max_positions(), "a text beyond the rotary table");
            rows = text.end;
        }
        assert_eq!(self.qkv.len(), rows * self.shape.stride(), "qkv is not whole rows");
        rows
    }

    /// Numbers of a padded matrix of one head, and of a block of probabilities.
    fn sizes(&self, task: &Task) -> (usize, usize) {
        let length = task.rows.len().next_multiple_of(WIDTH);
        (length * self.shape.padded(), BLOCK * length)
    }

    fn forward_scratch(&self, task: &Task) -> usize {
        let (matrix, block) = self.sizes(task);
        3 * matrix + block + BLOCK * self.shape.padded()
    }

    fn backward_scratch(&self, task: &Task) -> usize {
        let (matrix, block) = self.sizes(task);
        7 * matrix + 2 * block + BLOCK * self.shape.padded()
    }

    /// The first value of a head in row `row` of `qkv`.
    #[inline(always)]
    fn raw(&self, row: usize, head: usize) -> &[f32] {
        let hd = self.shape.head_dim;
        &self.qkv[row * self.shape.stride() + head * hd..][..hd]
    }

    /// Norm and angles of the queries, or of the keys, at a position.
    #[inline(always)]
    fn turn(&self, position: usize, queries: bool) -> Turn<'_> {
        let (cos, sin) = self.rope.at(position as u32);
        // Queries carry the factor of the scores.
        let scale = if queries { 1.0 / (self.shape.head_dim as f32).sqrt() } else { 1.0 };
        let weight = if queries { self.norms.q } else { self.norms.k };
        Turn { weight, eps: self.norms.eps, cos, sin, scale }
    }

    /// The normed and rotated rows of a query head, or of a key head, padded with zeros.
    #[inline(always)]
    fn turned<S: Simd>(&self, s: S, to: &mut [f32], task: &Task, head: usize, queries: bool) {
        let (hd, padded) = (self.shape.head_dim, self.shape.padded());
        to.fill(0.0);
        for (position, row) in task.rows.clone().enumerate() {
            // Rows of one head lie far apart: the hardware does not foresee them.
            let ahead = (row + AHEAD).min(task.rows.end - 1);
            let ahead = self.raw(ahead, head);
            s.prefetch(ahead.as_ptr().cast());
            s.prefetch(ahead.as_ptr().wrapping_add(LANES).cast());
            let to = &mut to[position * padded..][..hd];
            self.turn(position, queries).forward(s, to, self.raw(row, head));
        }
    }

    /// The rows of a value head, padded with zeros.
    #[inline(always)]
    fn values(&self, to: &mut [f32], task: &Task) {
        let (hd, padded) = (self.shape.head_dim, self.shape.padded());
        to.fill(0.0);
        for (position, row) in task.rows.clone().enumerate() {
            let raw = self.raw(row, self.shape.heads + self.shape.kv_heads + task.kv_head);
            to[position * padded..][..hd].copy_from_slice(raw);
        }
    }
}

/// Blocks of queries, each with the number of keys that it meets.
fn blocks(length: usize) -> impl Iterator<Item = (Range<usize>, usize)> {
    (0..length).step_by(BLOCK).map(move |start| {
        let end = length.min(start + BLOCK);
        (start..end, end.next_multiple_of(WIDTH))
    })
}

#[inline(always)]
fn forward<S: Simd>(
    s: S,
    call: &Call<'_>,
    task: &Task,
    scratch: &mut [f32],
    out: &Disjoint<'_, bf16>,
    stride: usize,
    lse: &Disjoint<'_, f32>,
) {
    let shape = call.shape;
    let (hd, width) = (shape.head_dim, shape.padded());
    let length = task.rows.len().next_multiple_of(WIDTH);
    let (matrix, block) = call.sizes(task);
    let (keys, rest) = scratch.split_at_mut(matrix);
    let (values, rest) = rest.split_at_mut(matrix);
    let (queries, rest) = rest.split_at_mut(matrix);
    let (p, o) = rest.split_at_mut(block);
    call.turned(s, queries, task, shape.heads + task.kv_head, false);
    transpose(keys, queries, length, width);
    call.values(values, task);
    for head in task.kv_head * shape.group()..(task.kv_head + 1) * shape.group() {
        call.turned(s, queries, task, head, true);
        for (rows, columns) in blocks(task.rows.len()) {
            let n = rows.len();
            let q = Strided { values: &queries[rows.start * width..], row: width, inner: 1 };
            product(s, p, length, q, keys, length, [n, columns, hd], false);
            let mut inverse = [0.0; BLOCK];
            for i in 0..n {
                let (seen, unseen) = p[i * length..][..columns].split_at_mut(rows.start + i + 1);
                let largest = max_of(s, seen);
                let sum = exp_in_place(s, seen, s.splat(largest));
                unseen.fill(0.0);
                inverse[i] = 1.0 / sum;
                let at = (task.rows.start + rows.start + i) * shape.heads + head;
                // SAFETY: each task has its own rows and heads, and this thread holds no other part.
                let lse = unsafe { lse.part(at..at + 1) };
                lse[0] = largest + sum.ln();
            }
            let p = Strided { values: p, row: length, inner: 1 };
            product(s, o, width, p, values, width, [n, width, columns], false);
            for i in 0..n {
                let o = &mut o[i * width..][..hd];
                for o in o.chunks_mut(LANES) {
                    s.store_part(s.mul(s.load_part(o, 0.0), s.splat(inverse[i])), o);
                }
                let at = (task.rows.start + rows.start + i) * stride + head * hd;
                // SAFETY: as above.
                round_into(unsafe { out.part(at..at + hd) }, o);
            }
        }
    }
}

#[inline(always)]
fn backward<S: Simd>(
    s: S,
    call: &Call<'_>,
    task: &Task,
    scratch: &mut [f32],
    d: &Disjoint<'_, bf16>,
    stride: usize,
    norms: &mut [f32],
    grad: &[f32],
    lse: &[f32],
) {
    let shape = call.shape;
    let (hd, width) = (shape.head_dim, shape.padded());
    let length = task.rows.len().next_multiple_of(WIDTH);
    let (matrix, block) = call.sizes(task);
    let (keys, rest) = scratch.split_at_mut(matrix);
    let (keys_t, rest) = rest.split_at_mut(matrix);
    let (values_t, rest) = rest.split_at_mut(matrix);
    let (queries, rest) = rest.split_at_mut(matrix);
    let (douts, rest) = rest.split_at_mut(matrix);
    let (dkeys, rest) = rest.split_at_mut(matrix);
    let (dvalues, rest) = rest.split_at_mut(matrix);
    let (p, rest) = rest.split_at_mut(block);
    let (dp, dqueries) = rest.split_at_mut(block);
    let (dq_norm, dk_norm) = norms.split_at_mut(hd);
    call.turned(s, keys, task, shape.heads + task.kv_head, false);
    transpose(keys_t, keys, length, width);
    call.values(queries, task);
    transpose(values_t, queries, length, width);
    dkeys.fill(0.0);
    dvalues.fill(0.0);
    // SAFETY: each task has its own rows and heads, and this thread holds no other part.
    let part = |row: usize, head: usize| unsafe {
        let at = (task.rows.start + row) * stride + head * hd;
        d.part(at..at + hd)
    };
    for head in task.kv_head * shape.group()..(task.kv_head + 1) * shape.group() {
        call.turned(s, queries, task, head, true);
        douts.fill(0.0);
        for (row, douts) in task.rows.clone().zip(douts.chunks_exact_mut(width)) {
            douts[..hd].copy_from_slice(&grad[row * shape.heads * hd + head * hd..][..hd]);
        }
        for (rows, columns) in blocks(task.rows.len()) {
            let n = rows.len();
            let queries = &queries[rows.start * width..];
            let douts = &douts[rows.start * width..];
            let by_rows = |values, row| Strided { values, row, inner: 1 };
            let by_columns = |values| Strided { values, row: 1, inner: length };
            let q = by_rows(queries, width);
            product(s, p, length, q, keys_t, length, [n, columns, hd], false);
            let dout = by_rows(douts, width);
            product(s, dp, length, dout, values_t, length, [n, columns, hd], false);
            for i in 0..n {
                let lse = lse[(task.rows.start + rows.start + i) * shape.heads + head];
                let seen = rows.start + i + 1;
                let (p, dp) = (&mut p[i * length..][..columns], &mut dp[i * length..][..columns]);
                score_gradients(s, p, dp, seen, lse, 0.0);
            }
            let (p, dp): (&[f32], &[f32]) = (p, dp);
            let dims = [n, width, columns];
            product(s, dqueries, width, by_rows(dp, length), keys, width, dims, false);
            let dims = [columns, width, n];
            product(s, dkeys, width, by_columns(dp), queries, width, dims, true);
            product(s, dvalues, width, by_columns(p), douts, width, dims, true);
            for i in 0..n {
                let dq = &mut dqueries[i * width..][..hd];
                let raw = call.raw(task.rows.start + rows.start + i, head);
                call.turn(rows.start + i, true).backward(s, dq, dq_norm, raw);
                round_into(part(rows.start + i, head), dq);
            }
        }
    }
    for position in 0..task.rows.len() {
        let key_head = shape.heads + task.kv_head;
        let dk = &mut dkeys[position * width..][..hd];
        let raw = call.raw(task.rows.start + position, key_head);
        call.turn(position, false).backward(s, dk, dk_norm, raw);
        round_into(part(position, key_head), dk);
        let dv = &dvalues[position * width..][..hd];
        round_into(part(position, key_head + shape.kv_heads), dv);
    }
}

/// Turns a row of scores into probabilities and the gradients `dp` of these into those of the
/// scores, `p (dp - sum(p dp))`; both are zero from column `seen` on. `own` is what keys outside of
/// the row add to that sum, which is returned.
#[inline(always)]
pub(super) fn score_gradients<S: Simd>(
    s: S,
    p: &mut [f32],
    dp: &mut [f32],
    seen: usize,
    lse: f32,
    own: f32,
) -> f32 {
    p[seen..].fill(f32::NEG_INFINITY);
    let (p, _) = p.as_chunks_mut::<LANES>();
    let (dp, _) = dp.as_chunks_mut::<LANES>();
    let lse = s.splat(lse);
    let mut sum = s.splat(0.0);
    for (p, dp) in p.iter_mut().zip(&*dp) {
        let e = exp(s, s.sub(s.load(p), lse));
        s.store(e, p);
        sum = s.fma(e, s.load(dp), sum);
    }
    let mean = s.sum(sum) + own;
    for (p, dp) in p.iter().zip(dp) {
        s.store(s.mul(s.load(p), s.sub(s.load(dp), s.splat(mean))), dp);
    }
    mean
}
