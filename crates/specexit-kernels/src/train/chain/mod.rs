//! The attention of EAGLE-3's training-time test, forward and backward.
//!
//! At step k a query at position t sees the keys of step 0 at positions `0..=t` and of every later
//! step j = 1..=k the one at its own position: what a chain drafted from t would have left in the
//! draft cache. All scores share one softmax. The rotary embedding turns a step-j row at position t
//! by t + j, queries and keys alike (arXiv 2503.01840 and its published training code).
//!
//! A task is one key head of one sequence with all query heads that read it, as in [`super::attention`].
//! Queries meet the step-0 keys block by block; the few own keys of each are met row by row.

mod layout;
mod pass;

use half::bf16;

use self::layout::{Call, Task};
use self::pass::{backward, forward};
use super::attention::{CausalShape, sized};
use super::operands::Bf16Rows;
use crate::disjoint::Disjoint;
use crate::kernels::Kernels;
use crate::rope::RopeTable;
use crate::simd::LANES;

/// Most steps of a chain: the scores of a query's own keys fit one vector.
const STEPS: usize = LANES;

/// One sequence's rows in a step k of the training-time test.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainSequence {
    /// Position t of the first query; queries have consecutive positions.
    pub first: usize,
    /// Number of queries.
    pub queries: usize,
    /// Row of the first query among all queries of the step.
    pub row: usize,
    /// For each step 0..=k, the row among that step's rows of position 0 (step 0) or of the first
    /// query (later ones).
    pub starts: Vec<usize>,
}

impl Kernels {
    /// Attention of step `qkv.len() - 1` of the training-time test, for each head.
    ///
    /// `qkv[j]` holds the rows `q|k|v` of step j, `[rows, (heads + 2 kv_heads) * head_dim]`; those of
    /// step 0 cover each sequence from position 0 to its last query, those of later steps at least
    /// its queries of this step. `out` becomes `[queries, heads * head_dim]`, rounded; `lse`
    /// `[queries, heads]` receives the logarithm of each softmax's sum for the backward.
    ///
    /// # Panics
    ///
    /// If the sizes do not fit, there are more than 16 steps, or a position exceeds the table.
    pub fn chain_attention(
        &self,
        out: &mut Bf16Rows,
        lse: &mut [f32],
        qkv: &[&[f32]],
        sequences: &[ChainSequence],
        shape: CausalShape,
        rope: &RopeTable,
    ) {
        let call = &Call { qkv, sequences, shape, rope };
        let rows = call.check();
        assert_eq!(lse.len(), rows * shape.heads, "lse is not [{rows}, {}]", shape.heads);
        out.resize(rows, shape.heads * shape.head_dim);
        let stride = out.stride();
        let (out, lse) = (&Disjoint::new(out.values_mut()), &Disjoint::new(lse));
        let tasks = call.tasks();
        self.pool().claim(tasks.len(), |index| {
            let task = tasks[index];
            self.with_scratch(|scratch| {
                let scratch = sized(scratch, call.forward_scratch(task));
                dispatch!(
                    self.checked_isa(),
                    forward(
                        call: &Call<'_>,
                        task: Task<'_>,
                        scratch: &mut [f32],
                        out: &Disjoint<'_, bf16>,
                        stride: usize,
                        lse: &Disjoint<'_, f32>,
                    )
                );
            });
        });
    }

    /// The backward of [`chain_attention`](Self::chain_attention): adds the gradients of this step's
    /// queries and of all steps' keys and values to `d`, which is laid out like `qkv`, given that of
    /// `out`, `grad` `[queries, heads * head_dim]`.
    ///
    /// # Panics
    ///
    /// As there.
    pub fn chain_attention_backward(
        &self,
        d: &mut [&mut [f32]],
        grad: &[f32],
        lse: &[f32],
        qkv: &[&[f32]],
        sequences: &[ChainSequence],
        shape: CausalShape,
        rope: &RopeTable,
    ) {
        let call = &Call { qkv, sequences, shape, rope };
        let rows = call.check();
        assert_eq!(lse.len(), rows * shape.heads, "lse is not [{rows}, {}]", shape.heads);
        let width = shape.heads * shape.head_dim;
        assert_eq!(grad.len(), rows * width, "grad is not [{rows}, {width}]");
        let same = d.len() == qkv.len() && d.iter().zip(qkv).all(|(d, x)| d.len() == x.len());
        assert!(same, "d is not laid out like qkv");
        let d: &[Disjoint<'_, f32>] = &d.iter_mut().map(|d| Disjoint::new(d)).collect::<Vec<_>>();
        let tasks = call.tasks();
        self.pool().claim(tasks.len(), |index| {
            let task = tasks[index];
            self.with_scratch(|scratch| {
                let scratch = sized(scratch, call.backward_scratch(task));
                dispatch!(
                    self.checked_isa(),
                    backward(
                        call: &Call<'_>,
                        task: Task<'_>,
                        scratch: &mut [f32],
                        d: &[Disjoint<'_, f32>],
                        grad: &[f32],
                        lse: &[f32],
                    )
                );
            });
        });
    }
}
