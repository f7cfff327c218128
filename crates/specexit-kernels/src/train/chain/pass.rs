//! What one task computes.

use half::bf16;

use super::super::attention::{BLOCK, score_gradients};
use super::super::f32_product::{Strided, product, transpose};
use super::STEPS;
use super::layout::{Call, Task};
use crate::disjoint::Disjoint;
use crate::linear::round_into;
use crate::simd::{LANES, Simd, max_of};
use crate::softmax::exp_in_place;

/// A dot product of padded rows.
#[inline(always)]
fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let ((a, _), (b, _)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sum = s.splat(0.0);
    for (a, b) in a.iter().zip(b) {
        sum = s.fma(s.load(a), s.load(b), sum);
    }
    s.sum(sum)
}

/// `to += scale * from` for padded rows.
#[inline(always)]
fn add_scaled<S: Simd>(s: S, to: &mut [f32], scale: f32, from: &[f32]) {
    let ((to, _), (from, _)) = (to.as_chunks_mut::<LANES>(), from.as_chunks::<LANES>());
    let scale = s.splat(scale);
    for (to, from) in to.iter_mut().zip(from) {
        s.store(s.fma(scale, s.load(from), s.load(to)), to);
    }
}

#[inline(always)]
pub(super) fn forward<S: Simd>(
    s: S,
    call: &Call<'_>,
    task: Task<'_>,
    scratch: &mut [f32],
    out: &Disjoint<'_, bf16>,
    stride: usize,
    lse: &Disjoint<'_, f32>,
) {
    let (shape, steps) = (call.shape, call.step());
    let (hd, width, length) = (shape.head_dim, shape.padded(), task.length());
    let [matrix, rows, block] = call.sizes(task);
    let (turned, rest) = scratch.split_at_mut(matrix);
    let (keys, rest) = rest.split_at_mut(matrix);
    let (values, rest) = rest.split_at_mut(matrix);
    let (queries, rest) = rest.split_at_mut(rows);
    let (own_keys, rest) = rest.split_at_mut(steps * rows);
    let (own_values, rest) = rest.split_at_mut(steps * rows);
    let (p, o) = rest.split_at_mut(block);
    call.gather(s, turned, 0, task.context(), shape.heads + task.kv_head, Some((0, 1.0)));
    transpose(keys, turned, length, width);
    let value_head = shape.heads + shape.kv_heads + task.kv_head;
    call.gather(s, values, 0, task.context(), value_head, None);
    call.own(s, own_keys, own_values, task);
    for head in task.kv_head * shape.group()..(task.kv_head + 1) * shape.group() {
        call.queries(s, queries, task, head);
        for (range, columns) in task.blocks() {
            let n = range.len();
            let block = &queries[range.start * width..];
            let q = Strided { values: block, row: width, inner: 1 };
            product(s, p, length, q, keys, length, [n, columns, hd], false);
            let mut own = [[0.0; STEPS]; BLOCK];
            let mut inverse = [0.0; BLOCK];
            for i in 0..n {
                let row = range.start + i;
                let own = &mut own[i][..steps];
                for (j, own) in own.iter_mut().enumerate() {
                    let at = j * rows + row * width;
                    *own = dot(s, &block[i * width..][..width], &own_keys[at..at + width]);
                }
                let seen = task.sequence.first + row + 1;
                let (seen, unseen) = p[i * length..][..columns].split_at_mut(seen);
                let largest = max_of(s, seen).max(max_of(s, own));
                let sum = exp_in_place(s, seen, s.splat(largest));
                let sum = sum + exp_in_place(s, own, s.splat(largest));
                unseen.fill(0.0);
                inverse[i] = 1.0 / sum;
                let at = (task.sequence.row + row) * shape.heads + head;
                // SAFETY: each task has its own rows and heads, and this thread holds no other part.
                let lse = unsafe { lse.part(at..at + 1) };
                lse[0] = largest + sum.ln();
            }
            let p = Strided { values: p, row: length, inner: 1 };
            product(s, o, width, p, values, width, [n, width, columns], false);
            for i in 0..n {
                let row = range.start + i;
                let o = &mut o[i * width..][..width];
                for j in 0..steps {
                    let at = j * rows + row * width;
                    add_scaled(s, o, own[i][j], &own_values[at..at + width]);
                }
                let (lanes, _) = o.as_chunks_mut::<LANES>();
                for lanes in lanes {
                    s.store(s.mul(s.load(lanes), s.splat(inverse[i])), lanes);
                }
                let at = (task.sequence.row + row) * stride + head * hd;
                // SAFETY: as above.
                round_into(unsafe { out.part(at..at + hd) }, o);
            }
        }
    }
}

#[inline(always)]
pub(super) fn backward<S: Simd>(
    s: S,
    call: &Call<'_>,
    task: Task<'_>,
    scratch: &mut [f32],
    d: &[Disjoint<'_, f32>],
    grad: &[f32],
    lse: &[f32],
) {
    let (shape, steps, sequence) = (call.shape, call.step(), task.sequence);
    let (hd, width, length) = (shape.head_dim, shape.padded(), task.length());
    let [matrix, rows, block] = call.sizes(task);
    let (keys, rest) = scratch.split_at_mut(matrix);
    let (values, rest) = rest.split_at_mut(matrix);
    let (keys_t, rest) = rest.split_at_mut(matrix);
    let (values_t, rest) = rest.split_at_mut(matrix);
    let (dkeys, rest) = rest.split_at_mut(matrix);
    let (dvalues, rest) = rest.split_at_mut(matrix);
    let (queries, rest) = rest.split_at_mut(rows);
    let (douts, rest) = rest.split_at_mut(rows);
    let (own_keys, rest) = rest.split_at_mut(steps * rows);
    let (own_values, rest) = rest.split_at_mut(steps * rows);
    let (down_keys, rest) = rest.split_at_mut(steps * rows);
    let (p, rest) = rest.split_at_mut(block);
    let (dp, dqueries) = rest.split_at_mut(block);
    let key_head = shape.heads + task.kv_head;
    let value_head = key_head + shape.kv_heads;
    call.gather(s, keys, 0, task.context(), key_head, Some((0, 1.0)));
    transpose(keys_t, keys, length, width);
    call.gather(s, values, 0, task.context(), value_head, None);
    transpose(values_t, values, length, width);
    call.own(s, own_keys, own_values, task);
    dkeys.fill(0.0);
    dvalues.fill(0.0);
    down_keys.fill(0.0);
    // SAFETY: each task has its own rows and heads of every step, and this thread holds no other part.
    let part = |step: usize, row: usize, head: usize| unsafe {
        let at = row * shape.stride() + head * hd;
        d[step].part(at..at + hd)
    };
    for head in task.kv_head * shape.group()..(task.kv_head + 1) * shape.group() {
        call.queries(s, queries, task, head);
        douts.fill(0.0);
        for (row, dout) in douts.chunks_exact_mut(width).enumerate() {
            let at = (sequence.row + row) * shape.heads * hd + head * hd;
            dout[..hd].copy_from_slice(&grad[at..at + hd]);
        }
        for (range, columns) in task.blocks() {
            let n = range.len();
            let queries = &queries[range.start * width..];
            let douts = &douts[range.start * width..];
            let by_rows = |values, row| Strided { values, row, inner: 1 };
            let by_columns = |values| Strided { values, row: 1, inner: length };
            let q = by_rows(queries, width);
            product(s, p, length, q, keys_t, length, [n, columns, hd], false);
            let dout = by_rows(douts, width);
            product(s, dp, length, dout, values_t, length, [n, columns, hd], false);
            let mut slopes = [[0.0; STEPS]; BLOCK];
            for i in 0..n {
                let row = range.start + i;
                let lse = lse[(sequence.row + row) * shape.heads + head];
                let query = &queries[i * width..][..width];
                let dout = &douts[i * width..][..width];
                let (mut own, mut down) = ([0.0; STEPS], [0.0; STEPS]);
                for j in 0..steps {
                    let at = j * rows + row * width;
                    own[j] = dot(s, query, &own_keys[at..at + width]);
                    down[j] = dot(s, dout, &own_values[at..at + width]);
                }
                exp_in_place(s, &mut own[..steps], s.splat(lse));
                let sum: f32 = own.iter().zip(&down).map(|(p, dp)| p * dp).sum();
                let seen = sequence.first + row + 1;
                let (p, dp) = (&mut p[i * length..][..columns], &mut dp[i * length..][..columns]);
                let mean = score_gradients(s, p, dp, seen, lse, sum);
                for j in 0..steps {
                    slopes[i][j] = own[j] * (down[j] - mean);
                    let at = j * rows + row * width;
                    add_scaled(s, &mut down_keys[at..at + width], slopes[i][j], query);
                    let dvalue = part(j + 1, sequence.starts[j + 1] + row, value_head);
                    for (sum, dout) in dvalue.iter_mut().zip(dout) {
                        *sum += own[j] * dout;
                    }
                }
            }
            let (p, dp): (&[f32], &[f32]) = (p, dp);
            let dims = [n, width, columns];
            product(s, dqueries, width, by_rows(dp, length), keys, width, dims, false);
            let dims = [columns, width, n];
            product(s, dkeys, width, by_columns(dp), queries, width, dims, true);
            product(s, dvalues, width, by_columns(p), douts, width, dims, true);
            for i in 0..n {
                let row = range.start + i;
                let dquery = &mut dqueries[i * width..][..width];
                for j in 0..steps {
                    let at = j * rows + row * width;
                    add_scaled(s, dquery, slopes[i][j], &own_keys[at..at + width]);
                }
                let rotation = call.rotation(sequence.first + row + steps, call.scale());
                let to = part(steps, task.query_row(steps) + row, head);
                rotation.backward(s, to, &dquery[..hd]);
            }
        }
    }
    for (position, row) in task.context().enumerate() {
        let dkey = &dkeys[position * width..][..hd];
        call.rotation(position, 1.0).backward(s, part(0, row, key_head), dkey);
        let dvalue = &dvalues[position * width..][..hd];
        let to = part(0, row, value_head);
        to.iter_mut().zip(dvalue).for_each(|(to, d)| *to += d);
    }
    for j in 1..=steps {
        for row in 0..sequence.queries {
            let dkey = &down_keys[(j - 1) * rows + row * width..][..hd];
            let to = part(j, sequence.starts[j] + row, key_head);
            call.rotation(sequence.first + row + j, 1.0).backward(s, to, dkey);
        }
    }
}
