//! The attention of EAGLE-3's training-time test.
//!
//! At step k a query at position t sees the keys of step 0 at positions 0..=t and, for every later
//! step j = 1..=k, only the key at its own position: what a chain drafted from t would have left in
//! the draft cache. All scores share one softmax. RoPE turns the query and its own step-k key by
//! t + k, a step-j key by t + j, a step-0 key by its position (the attention of EAGLE-3's training-time test).

use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use specexit_kernels::{RopeTable, View, small_product};

use super::{add_scaled, dot, slice, tensor, with_numbers};

/// Queries that are scored together: bounds the score matrix to this many rows.
const BLOCK: usize = 256;

/// Where one sequence's rows lie in the operands.
#[derive(Clone, Debug)]
pub(crate) struct SequenceRows {
    /// Position t of the first query; queries have consecutive positions.
    pub(crate) first: usize,
    /// Number of queries.
    pub(crate) queries: usize,
    /// Row of the first query in `q`.
    pub(crate) query_row: usize,
    /// Row in `k` and `v`, for each step 0..=k, of position 0 (step 0) or of the first query.
    pub(crate) key_rows: Vec<usize>,
}

/// One step's geometry.
#[derive(Clone, Debug)]
pub(crate) struct AttentionStep {
    /// Query heads.
    pub(crate) heads: usize,
    /// Key/value heads; divides `heads`.
    pub(crate) kv_heads: usize,
    /// Width of a head; even.
    pub(crate) head_dim: usize,
    /// Cosines and sines of all positions that occur.
    pub(crate) rope: Arc<RopeTable>,
    /// The step k, from 0.
    pub(crate) step: usize,
    /// The sequences of the batch.
    pub(crate) sequences: Vec<SequenceRows>,
}

/// Attention of `q` `[queries, heads * head_dim]` over `k` and `v` `[keys, kv_heads * head_dim]`,
/// the concatenated keys and values of steps 0..=k, before RoPE.
pub(crate) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    geometry: AttentionStep,
) -> Result<Tensor> {
    q.apply_op3(k, v, geometry)
}

/// One key/value head of one sequence, gathered and rotated.
struct Head<'a> {
    sequence: &'a SequenceRows,
    kv_head: usize,
    /// Step-0 keys and values of positions `0..first + queries`, `[positions, head_dim]`.
    keys: Vec<f32>,
    values: Vec<f32>,
    /// Keys and values of each later step, `[queries, head_dim]` each.
    own_keys: Vec<Vec<f32>>,
    own_values: Vec<Vec<f32>>,
}

/// Softmax of a block of queries: over step-0 keys `[rows, columns]` and own keys `[rows, step]`.
struct Probabilities {
    columns: usize,
    shared: Vec<f32>,
    own: Vec<f32>,
}

/// Gradients of one [`Head`], laid out like it, and of the queries of its group, head by head.
struct HeadGradients {
    queries: Vec<Vec<f32>>,
    keys: Vec<f32>,
    values: Vec<f32>,
    own_keys: Vec<Vec<f32>>,
    own_values: Vec<Vec<f32>>,
}

impl AttentionStep {
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// Every (sequence, key/value head) pair: the tasks that run in parallel.
    fn tasks(&self) -> Vec<(&SequenceRows, usize)> {
        self.sequences.iter().flat_map(|s| (0..self.kv_heads).map(move |h| (s, h))).collect()
    }

    /// Turns a row by `position`, or back when `sign` is -1.
    fn rotate(&self, row: &mut [f32], position: usize, sign: f32) {
        let (cos, sin) = self.rope.at(position as u32);
        let (low, high) = row.split_at_mut(self.head_dim / 2);
        for ((a, b), (cos, sin)) in low.iter_mut().zip(high).zip(cos.iter().zip(sin)) {
            let sin = sin * sign;
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }

    /// Copies head `head` of `count` rows from `first_row` on, rotated from `position` on if given.
    fn gather(
        &self,
        from: &[f32],
        heads: usize,
        head: usize,
        rows: Range<usize>,
        position: Option<usize>,
    ) -> Vec<f32> {
        let (width, hd) = (heads * self.head_dim, self.head_dim);
        let mut out = Vec::with_capacity(rows.len() * hd);
        for row in rows {
            out.extend_from_slice(&from[row * width + head * hd..][..hd]);
        }
        if let Some(position) = position {
            for (i, row) in out.chunks_exact_mut(hd).enumerate() {
                self.rotate(row, position + i, 1.0);
            }
        }
        out
    }

    /// Adds rows back to where [`Self::gather`] took them, unrotated.
    fn scatter(
        &self,
        to: &mut [f32],
        heads: usize,
        head: usize,
        first_row: usize,
        position: Option<usize>,
        rows: &mut [f32],
    ) {
        let (width, hd) = (heads * self.head_dim, self.head_dim);
        for (i, row) in rows.chunks_exact_mut(hd).enumerate() {
            if let Some(position) = position {
                self.rotate(row, position + i, -1.0);
            }
            add_scaled(&mut to[(first_row + i) * width + head * hd..][..hd], 1.0, row);
        }
    }

    fn head<'a>(&self, k: &[f32], v: &[f32], s: &'a SequenceRows, kv_head: usize) -> Head<'a> {
        let heads = self.kv_heads;
        let context = s.key_rows[0]..s.key_rows[0] + s.first + s.queries;
        let own = |from: &[f32], rotate: bool| {
            let steps = s.key_rows.iter().enumerate().skip(1);
            let gathered = steps.map(|(j, &row)| {
                let position = rotate.then_some(s.first + j);
                self.gather(from, heads, kv_head, row..row + s.queries, position)
            });
            gathered.collect()
        };
        Head {
            sequence: s,
            kv_head,
            keys: self.gather(k, heads, kv_head, context.clone(), Some(0)),
            values: self.gather(v, heads, kv_head, context, None),
            own_keys: own(k, true),
            own_values: own(v, false),
        }
    }

    /// The rotated queries of the `member`-th query head of a group.
    fn queries(&self, q: &[f32], head: &Head<'_>, member: usize) -> Vec<f32> {
        let s = head.sequence;
        let rows = s.query_row..s.query_row + s.queries;
        let query_head = head.kv_head * self.group() + member;
        self.gather(q, self.heads, query_head, rows, Some(s.first + self.step))
    }

    fn probabilities(
        &self,
        head: &Head<'_>,
        queries: &[f32],
        block: &Range<usize>,
    ) -> Probabilities {
        let (hd, scale) = (self.head_dim, self.scale());
        let (rows, columns) = (block.len(), head.sequence.first + block.end);
        let queries = &queries[block.start * hd..block.end * hd];
        let keys = View::new(&head.keys[..columns * hd], columns, hd);
        let mut shared = small_product(View::new(queries, rows, hd), keys.transposed());
        let mut own = vec![0f32; rows * self.step];
        for (r, scores) in shared.chunks_exact_mut(columns).enumerate() {
            let query = &queries[r * hd..(r + 1) * hd];
            let own = &mut own[r * self.step..(r + 1) * self.step];
            for (own, keys) in own.iter_mut().zip(&head.own_keys) {
                *own = dot(query, &keys[(block.start + r) * hd..][..hd]);
            }
            let (seen, unseen) = scores.split_at_mut(head.sequence.first + block.start + r + 1);
            let max = seen.iter().chain(own.iter()).copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            for p in seen.iter_mut().chain(own.iter_mut()) {
                *p = ((*p - max) * scale).exp();
                sum += *p;
            }
            seen.iter_mut().chain(own.iter_mut()).for_each(|p| *p /= sum);
            unseen.fill(0.0);
        }
        Probabilities { columns, shared, own }
    }

    /// Output of one group, head by head: `[group][queries, head_dim]`.
    fn forward_head(&self, q: &[f32], head: &Head<'_>) -> Vec<Vec<f32>> {
        let hd = self.head_dim;
        let mut outputs = Vec::with_capacity(self.group());
        for member in 0..self.group() {
            let queries = self.queries(q, head, member);
            let mut output = Vec::with_capacity(queries.len());
            for block in blocks(head.sequence.queries) {
                let p = self.probabilities(head, &queries, &block);
                let values = View::new(&head.values[..p.columns * hd], p.columns, hd);
                let shared = View::new(&p.shared, block.len(), p.columns);
                let mut out = small_product(shared, values);
                for (r, out) in out.chunks_exact_mut(hd).enumerate() {
                    let at = (block.start + r) * hd;
                    for (j, values) in head.own_values.iter().enumerate() {
                        add_scaled(out, p.own[r * self.step + j], &values[at..at + hd]);
                    }
                }
                output.extend(out);
            }
            outputs.push(output);
        }
        outputs
    }

    fn backward_head(&self, q: &[f32], grad: &[f32], head: &Head<'_>) -> HeadGradients {
        let (hd, s, scale) = (self.head_dim, head.sequence, self.scale());
        let zeros = |rows: usize| vec![0f32; rows * hd];
        let mut g = HeadGradients {
            queries: Vec::with_capacity(self.group()),
            keys: zeros(s.first + s.queries),
            values: zeros(s.first + s.queries),
            own_keys: vec![zeros(s.queries); self.step],
            own_values: vec![zeros(s.queries); self.step],
        };
        for member in 0..self.group() {
            let queries = self.queries(q, head, member);
            let query_head = head.kv_head * self.group() + member;
            let rows = s.query_row..s.query_row + s.queries;
            let douts = self.gather(grad, self.heads, query_head, rows, None);
            let mut dqueries = Vec::with_capacity(queries.len());
            for block in blocks(s.queries) {
                let mut p = self.probabilities(head, &queries, &block);
                let (n, columns) = (block.len(), p.columns);
                let dout = &douts[block.start * hd..block.end * hd];
                let query = &queries[block.start * hd..block.end * hd];
                let values = &head.values[..columns * hd];
                let out_rows = View::new(dout, n, hd);
                let mut dp = small_product(out_rows, View::new(values, columns, hd).transposed());
                let shared = View::new(&p.shared, n, columns).transposed();
                let dvalues = small_product(shared, out_rows);
                add_scaled(&mut g.values[..columns * hd], 1.0, &dvalues);
                // From here on `p.own` turns into the gradient of the own scores, row by row, and
                // `dp` into that of the shared ones.
                for r in 0..n {
                    let at = (block.start + r) * hd;
                    let dout = &dout[r * hd..(r + 1) * hd];
                    let own = &mut p.own[r * self.step..(r + 1) * self.step];
                    let shared = &p.shared[r * columns..(r + 1) * columns];
                    let dshared = &mut dp[r * columns..(r + 1) * columns];
                    let mut mean = dot(shared, dshared);
                    let mut down = vec![0f32; self.step];
                    for (j, own) in own.iter().enumerate() {
                        down[j] = dot(dout, &head.own_values[j][at..at + hd]);
                        mean += own * down[j];
                        add_scaled(&mut g.own_values[j][at..at + hd], *own, dout);
                    }
                    for (own, down) in own.iter_mut().zip(down) {
                        *own *= (down - mean) * scale;
                    }
                    for (d, p) in dshared.iter_mut().zip(shared) {
                        *d = p * (*d - mean) * scale;
                    }
                }
                let keys = &head.keys[..columns * hd];
                let scores = View::new(&dp, n, columns);
                let mut dquery = small_product(scores, View::new(keys, columns, hd));
                let dkeys = small_product(scores.transposed(), View::new(query, n, hd));
                add_scaled(&mut g.keys[..columns * hd], 1.0, &dkeys);
                for r in 0..n {
                    let at = (block.start + r) * hd;
                    for j in 0..self.step {
                        let d = p.own[r * self.step + j];
                        let own_key = &head.own_keys[j][at..at + hd];
                        add_scaled(&mut dquery[r * hd..(r + 1) * hd], d, own_key);
                        let query = &query[r * hd..(r + 1) * hd];
                        add_scaled(&mut g.own_keys[j][at..at + hd], d, query);
                    }
                }
                dqueries.extend(dquery);
            }
            g.queries.push(dqueries);
        }
        g
    }

    /// The attended values.
    pub(crate) fn forward(&self, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
        let tasks = self.tasks();
        let outputs: Vec<_> =
            tasks.par_iter().map(|&(s, h)| self.forward_head(q, &self.head(k, v, s, h))).collect();
        let mut y = vec![0f32; q.len()];
        for (&(s, h), mut outputs) in tasks.iter().zip(outputs) {
            for (member, rows) in outputs.iter_mut().enumerate() {
                let head = h * self.group() + member;
                self.scatter(&mut y, self.heads, head, s.query_row, None, rows);
            }
        }
        y
    }

    /// Gradients of q, k and v.
    pub(crate) fn backward(
        &self,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        grad: &[f32],
    ) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let tasks = self.tasks();
        let gradients: Vec<HeadGradients> = tasks
            .par_iter()
            .map(|&(s, h)| self.backward_head(q, grad, &self.head(k, v, s, h)))
            .collect();
        let (mut dq, mut dk, mut dv) =
            (vec![0f32; q.len()], vec![0f32; k.len()], vec![0f32; v.len()]);
        for (&(s, h), mut g) in tasks.iter().zip(gradients) {
            for (member, rows) in g.queries.iter_mut().enumerate() {
                let head = h * self.group() + member;
                let position = Some(s.first + self.step);
                self.scatter(&mut dq, self.heads, head, s.query_row, position, rows);
            }
            let (heads, row) = (self.kv_heads, s.key_rows[0]);
            self.scatter(&mut dk, heads, h, row, Some(0), &mut g.keys);
            self.scatter(&mut dv, heads, h, row, None, &mut g.values);
            for (j, &row) in s.key_rows.iter().enumerate().skip(1) {
                let position = Some(s.first + j);
                self.scatter(&mut dk, heads, h, row, position, &mut g.own_keys[j - 1]);
                self.scatter(&mut dv, heads, h, row, None, &mut g.own_values[j - 1]);
            }
        }
        (dq, dk, dv)
    }
}

/// Ranges of at most [`BLOCK`] rows that cover `0..rows`.
fn blocks(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(BLOCK).map(move |start| start..rows.min(start + BLOCK))
}

impl CustomOp3 for AttentionStep {
    fn name(&self) -> &'static str {
        "training-time-test-attention"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let y = self.forward(slice(s1, l1)?, slice(s2, l2)?, slice(s3, l3)?);
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dq, dk, dv) = with_numbers(q, |q| {
            with_numbers(k, |k| {
                with_numbers(v, |v| with_numbers(grad, |g| Ok(self.backward(q, k, v, g))))
            })
        })?;
        Ok((
            Some(tensor(dq, q.shape())?),
            Some(tensor(dk, k.shape())?),
            Some(tensor(dv, v.shape())?),
        ))
    }
}

#[cfg(test)]
mod tests;
