//! Sequences grouped into training steps, and the tensors of one step.

use std::collections::HashMap;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use specexit_exit::TokenId;
use specexit_kernels::{Kernels, Matrix};

use super::examples::Example;
use super::source::TargetSource;
use super::states::{LabelledStates, SequenceStates, States};
use crate::error::Result;
use crate::net::draft::{DraftBatch, DraftSequence};
use crate::net::probe::{Basis, Moments, SignalLabel};
use crate::ops::{Gemm, Products, Projection, tensor, with_numbers};
use crate::provenance::derived_seed;
use crate::random::shuffle;

/// The order of one epoch: a shuffle of `indices` that depends on seed and epoch only, cut into
/// steps of at most `batch_tokens` tokens (a longer sequence is a step of its own).
pub(crate) fn epoch_steps(
    examples: &[Example],
    indices: &[usize],
    batch_tokens: usize,
    seed: u64,
    epoch: u64,
) -> Vec<Vec<usize>> {
    let mut order = indices.to_vec();
    let seed = derived_seed(seed, &["epoch", &epoch.to_string()]);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    shuffle(&mut random, &mut order);
    let mut steps: Vec<Vec<usize>> = Vec::new();
    let mut tokens = usize::MAX;
    for index in order {
        let length = examples[index].context();
        tokens = tokens.saturating_add(length);
        match steps.last_mut() {
            Some(step) if tokens <= batch_tokens => step.push(index),
            _ => {
                steps.push(vec![index]);
                tokens = length;
            }
        }
    }
    steps
}

/// What a step of the probe reads: a buffer that is loaded into again and again.
#[derive(Default)]
pub(crate) struct LabelBatch {
    /// Labelled states in the probe's coordinates, `[labels, 3 H_t + 1]`.
    pub(crate) coordinates: Vec<f32>,
    /// Their labels.
    pub(crate) labels: Vec<SignalLabel>,
    /// Labelled states of the sequence last read.
    states: LabelledStates,
}

/// Everything a joint step reads: another such buffer.
#[derive(Default)]
pub(crate) struct Batch {
    /// For the draft layer.
    pub(crate) draft: DraftBatch,
    /// For the probe.
    pub(crate) labelled: LabelBatch,
    /// Tokens read.
    pub(crate) tokens: usize,
    /// The states of the sequence last read.
    states: SequenceStates,
    /// Normed final states of all drafted positions, `[positions, H_t]`.
    hidden: Vec<f32>,
}

/// Makes batches for the probe.
pub(crate) struct LabelLoader<'a, S> {
    pub(crate) examples: &'a [Example],
    pub(crate) states: &'a States<'a, S>,
    pub(crate) basis: &'a Basis,
    pub(crate) kernels: Arc<Kernels>,
}

/// Makes batches for draft layer and probe.
pub(crate) struct Loader<'a, S> {
    labelled: &'a LabelLoader<'a, S>,
    source: &'a S,
    /// Draft id of each target id that has one.
    draft_ids: HashMap<TokenId, u32>,
    /// Draft vocabulary V_d.
    vocab: usize,
    output_rows: OutputRows,
}

/// Rows of the target's output projection for the draft vocabulary, `[V_d, H_t]`.
enum OutputRows {
    Exact(Projection),
    Rounded(Matrix),
}

/// Means over the states from which the target generated, of some sequences.
pub(crate) struct Statistics {
    /// Of the tapped states.
    pub(crate) basis: Basis,
    /// Root mean square of each dimension of the normed final states.
    pub(crate) final_rms: Vec<f32>,
}

/// One pass over the states of `indices`.
///
/// Only positions where the target generated count: the very first position of a sequence holds
/// states a thousand times larger than all others (an attention sink) and would hide them.
pub(crate) fn statistics<S: TargetSource>(
    examples: &[Example],
    indices: &[usize],
    cache: &States<'_, S>,
    hidden_size: usize,
) -> Result<Statistics> {
    let mut taps = Moments::new(3 * hidden_size);
    let mut hidden = Moments::new(hidden_size);
    let mut states = SequenceStates::default();
    for &index in indices {
        cache.read(index, &mut states)?;
        taps.add(&states.taps[examples[index].first() * 3 * hidden_size..]);
        hidden.add(&states.hidden);
    }
    let final_rms = hidden.basis().inverse_rms.iter().map(|x| 1.0 / x).collect();
    Ok(Statistics { basis: taps.basis(), final_rms })
}

/// The coordinates of a probe that is trained alone: from labelled states only, where it speaks.
pub(crate) fn labelled_basis<S: TargetSource>(
    indices: &[usize],
    states: &States<'_, S>,
    hidden_size: usize,
) -> Result<Basis> {
    let mut taps = Moments::new(3 * hidden_size);
    let mut read = LabelledStates::default();
    for &index in indices {
        states.read_labelled(index, &mut read)?;
        taps.add(&read.taps);
    }
    Ok(taps.basis())
}

/// Rows of the target's output projection for `vocabulary`, `[V_d, H_t]`.
pub(crate) fn output_rows(source: &impl TargetSource, vocabulary: &[TokenId]) -> Vec<f32> {
    let width = source.hidden_size();
    let mut rows = vec![0f32; vocabulary.len() * width];
    for (row, &token) in rows.chunks_exact_mut(width).zip(vocabulary) {
        source.output_row(token, row);
    }
    rows
}

impl<S: TargetSource> LabelLoader<'_, S> {
    /// Loads labelled states of the sequences `indices` and their labels.
    pub(crate) fn load(&self, indices: &[usize], batch: &mut LabelBatch) -> Result<()> {
        batch.clear();
        for &index in indices {
            self.states.read_labelled(index, &mut batch.states)?;
            self.add(&self.examples[index], batch);
        }
        Ok(())
    }

    /// Appends the states last read in the probe's coordinates, and their labels.
    fn add(&self, example: &Example, batch: &mut LabelBatch) {
        batch.labels.extend(example.labels.iter().map(|labelled| labelled.label));
        self.basis.coordinates(&self.kernels, &mut batch.coordinates, &batch.states.taps);
    }
}

impl LabelBatch {
    fn clear(&mut self) {
        self.coordinates.clear();
        self.labels.clear();
    }
}

impl<'a, S: TargetSource> Loader<'a, S> {
    /// A loader for the draft vocabulary whose output rows are given.
    pub(crate) fn new(
        labelled: &'a LabelLoader<'a, S>,
        source: &'a S,
        vocabulary: &[TokenId],
        output_rows: &[f32],
        products: Products,
    ) -> Result<Self> {
        let (rows, width) = (vocabulary.len(), source.hidden_size());
        let draft_ids = vocabulary.iter().enumerate().map(|(d, t)| (*t, d as u32)).collect();
        let output_rows = match products {
            Products::F32 => {
                let weight = tensor(output_rows.to_vec(), (rows, width))?;
                OutputRows::Exact(Projection::new(weight, &Gemm::Candle)?)
            }
            Products::Bf16 => OutputRows::Rounded(Matrix::from_f32(rows, width, output_rows)),
        };
        Ok(Self { labelled, source, draft_ids, vocab: rows, output_rows })
    }

    /// Loads what a joint step on the sequences `indices` reads.
    pub(crate) fn load(&self, indices: &[usize], batch: &mut Batch) -> Result<()> {
        let LabelLoader { examples, states: all, basis, kernels } = self.labelled;
        let width = self.source.hidden_size();
        let Batch { draft, labelled, tokens, states, hidden } = batch;
        draft.taps.clear();
        draft.targets.argmax.clear();
        draft.sequences.resize_with(indices.len(), DraftSequence::default);
        labelled.clear();
        hidden.clear();
        *tokens = 0;
        for (&index, sequence) in indices.iter().zip(&mut draft.sequences) {
            let example = &examples[index];
            all.read(index, states)?;
            labelled.states.take_from(example, states, width);
            self.labelled.add(example, labelled);
            draft.taps.extend_from_slice(&states.taps);
            hidden.extend_from_slice(&states.hidden);
            let ids = states.most_probable.iter();
            draft.targets.argmax.extend(ids.map(|id| self.draft_ids.get(id).copied()));
            self.sequence(sequence, example, width);
            *tokens += example.context();
        }
        kernels.scale_columns(&mut draft.taps, &basis.inverse_rms);
        self.distributions(&mut draft.targets.probs, hidden)
    }

    /// Loads what the draft layer needs for its outputs at the labels of the sequences `indices`, and
    /// these labels.
    pub(crate) fn load_probed(&self, indices: &[usize], batch: &mut Batch) -> Result<()> {
        let LabelLoader { examples, states: all, basis, kernels } = self.labelled;
        let Batch { draft, labelled, states, .. } = batch;
        draft.taps.clear();
        draft.probed.clear();
        draft.sequences.resize_with(indices.len(), DraftSequence::default);
        labelled.clear();
        let mut rows = 0;
        for (&index, sequence) in indices.iter().zip(&mut draft.sequences) {
            let example = &examples[index];
            all.read(index, states)?;
            draft.taps.extend_from_slice(&states.taps);
            self.sequence(sequence, example, self.source.hidden_size());
            // The row of position t - 1 has read token t; the prompt's last position is row 0.
            let row = |position| rows + position - 1 - example.first();
            draft.probed.extend(example.labels.iter().map(|labelled| row(labelled.position)));
            labelled.labels.extend(example.labels.iter().map(|labelled| labelled.label));
            rows += example.queries();
        }
        kernels.scale_columns(&mut draft.taps, &basis.inverse_rms);
        Ok(())
    }

    fn sequence(&self, to: &mut DraftSequence, example: &Example, width: usize) {
        let tokens = &example.tokens[..example.context() + 1];
        to.embeddings.resize(tokens.len() * width, 0.0);
        for (row, &token) in to.embeddings.chunks_exact_mut(width).zip(tokens) {
            self.source.embedding(token, row);
        }
        (to.context, to.first, to.queries) =
            (example.context(), example.first(), example.queries());
    }

    /// What the target says after each final state, restricted to the draft vocabulary and
    /// renormalised, `[rows, V_d]`.
    fn distributions(&self, probs: &mut Vec<f32>, hidden: &[f32]) -> Result<()> {
        let width = self.source.hidden_size();
        let (rows, vocab) = (hidden.len() / width, self.vocab);
        probs.resize(rows * vocab, 0.0);
        match &self.output_rows {
            OutputRows::Exact(weight) => {
                let logits = weight.apply(&tensor(hidden.to_vec(), (rows, width))?)?;
                with_numbers(&logits, |logits| {
                    probs.copy_from_slice(logits);
                    Ok(())
                })?;
            }
            OutputRows::Rounded(weight) => {
                self.labelled.kernels.linear(probs, hidden, weight, None);
            }
        }
        self.labelled.kernels.softmax_rows(probs, vocab);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::toy_examples;

    #[test]
    fn an_epoch_visits_every_sequence_once_in_steps_of_limited_size() {
        let examples = toy_examples(20);
        let indices: Vec<usize> = (3..20).collect();
        let steps = epoch_steps(&examples, &indices, 30, 1, 0);
        let mut seen: Vec<usize> = steps.concat();
        seen.sort_unstable();
        assert_eq!(seen, indices);
        for step in &steps {
            let tokens: usize = step.iter().map(|&i| examples[i].context()).sum();
            assert!(tokens <= 30 || step.len() == 1);
        }
        assert_eq!(steps, epoch_steps(&examples, &indices, 30, 1, 0));
        assert_ne!(steps, epoch_steps(&examples, &indices, 30, 1, 1));
    }
}
