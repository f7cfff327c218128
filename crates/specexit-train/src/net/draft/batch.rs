//! Sequences laid out for the draft layer.

use specexit_kernels::ChainSequence;

/// One sequence of a batch.
#[derive(Clone, Debug, Default)]
pub(crate) struct DraftSequence {
    /// Positions whose states are used: `0..context`.
    pub(crate) context: usize,
    /// First position that drafts: the prompt's last.
    pub(crate) first: usize,
    /// Positions that draft at step 0; step k has k fewer.
    pub(crate) queries: usize,
    /// Embeddings of tokens `0..context + 1`, `[tokens, H]`.
    pub(crate) embeddings: Vec<f32>,
}

/// What the target would say at each drafted position.
#[derive(Clone, Debug, Default)]
pub(crate) struct Targets {
    /// Softmax of the target's logits over the draft vocabulary, `[positions, V_d]`.
    pub(crate) probs: Vec<f32>,
    /// The target's most probable token as a draft id; `None` where the draft lacks it.
    pub(crate) argmax: Vec<Option<u32>>,
}

/// Rows of several sequences.
#[derive(Clone, Debug, Default)]
pub(crate) struct DraftBatch {
    /// Scaled tapped states of all sequences' contexts, `[rows, 3 H_t]`.
    pub(crate) taps: Vec<f32>,
    /// The sequences.
    pub(crate) sequences: Vec<DraftSequence>,
    /// For each sequence in turn, its `queries` rows: row i of a sequence is what the target says
    /// after position `first + 1 + i`. Row i of step k is compared with number i + k.
    pub(crate) targets: Targets,
    /// Rows of step 0, ascending, whose normed outputs a probe reads; none for a probe of other states.
    pub(crate) probed: Vec<usize>,
}

impl DraftBatch {
    /// Positions that draft at step `step`, per sequence.
    fn queries(&self, step: usize) -> impl Iterator<Item = usize> {
        self.sequences.iter().map(move |s| s.queries.saturating_sub(step))
    }

    /// Number of rows of step `step`.
    pub(crate) fn rows(&self, step: usize) -> usize {
        self.queries(step).sum()
    }

    /// For each row of step `step`, the row of [`Targets`] it is compared with.
    pub(crate) fn target_rows(&self, step: usize) -> Vec<usize> {
        let mut start = 0;
        let mut rows = Vec::new();
        for (sequence, queries) in self.sequences.iter().zip(self.queries(step)) {
            rows.extend(start + step..start + step + queries);
            start += sequence.queries;
        }
        rows
    }

    /// Where each sequence's rows of step `step` lie among those of this step and of those before.
    pub(crate) fn geometry(&self, step: usize) -> Vec<ChainSequence> {
        let (mut row, mut starts) = (0, vec![0; step + 1]);
        let mut found = Vec::with_capacity(self.sequences.len());
        for (s, queries) in self.sequences.iter().zip(self.queries(step)) {
            found.push(ChainSequence { first: s.first, queries, row, starts: starts.clone() });
            row += queries;
            for (j, start) in starts.iter_mut().enumerate() {
                *start += if j == 0 { s.context } else { s.queries.saturating_sub(j) };
            }
        }
        found
    }

    /// Rows of all contexts.
    pub(crate) fn context(&self) -> usize {
        self.sequences.iter().map(|s| s.context).sum()
    }

    /// Embeddings that go with the rows of a step: of token t+1+step for all positions t of the
    /// contexts at step 0, for those that draft later on.
    pub(crate) fn embeddings(&self, out: &mut Vec<f32>, step: usize, width: usize) {
        out.clear();
        for (s, queries) in self.sequences.iter().zip(self.queries(step)) {
            // The tokens that would go with a sequence that is done do not exist.
            if step > 0 && queries == 0 {
                continue;
            }
            let positions = if step == 0 { 0..s.context } else { s.first..s.first + queries };
            let tokens = positions.start + 1 + step..positions.end + 1 + step;
            out.extend_from_slice(&s.embeddings[tokens.start * width..tokens.end * width]);
        }
    }

    /// The weight of each row of step `step`, given the rows of [`Targets`] they are compared with.
    ///
    /// Rows whose most probable target token the draft cannot name teach it nothing useful.
    pub(crate) fn weights(&self, target_rows: &[usize]) -> Vec<f32> {
        let (weight, argmax) = (1.0 / target_rows.len() as f32, &self.targets.argmax);
        target_rows.iter().map(|&r| if argmax[r].is_some() { weight } else { 0.0 }).collect()
    }
}
