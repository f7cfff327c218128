//! Sequences grouped into training steps, and the tensors of one step.

use std::collections::HashMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;
use specexit_exit::TokenId;

use super::examples::Example;
use super::source::TargetSource;
use super::states::StatesCache;
use crate::error::Result;
use crate::net::draft::{DraftBatch, DraftSequence, Targets};
use crate::net::probe::{Basis, Moments, SignalLabel};
use crate::ops::{Gemm, Projection, tensor, with_numbers};
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

/// Everything a training step reads.
pub(crate) struct Batch {
    /// For the draft layer.
    pub(crate) draft: DraftBatch,
    /// Labelled states in the probe's coordinates, `[labels, 3 H_t + 1]`.
    pub(crate) coordinates: Vec<f32>,
    /// Their labels.
    pub(crate) labels: Vec<SignalLabel>,
    /// Tokens read.
    pub(crate) tokens: usize,
}

/// Makes batches from cached states.
pub(crate) struct Loader<'a, S> {
    examples: &'a [Example],
    cache: &'a StatesCache,
    source: &'a S,
    basis: &'a Basis,
    /// Draft id of each target id that has one.
    draft_ids: HashMap<TokenId, u32>,
    /// Rows of the target's output projection for the draft vocabulary, `[V_d, H_t]`.
    output_rows: Projection,
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
pub(crate) fn statistics(
    examples: &[Example],
    indices: &[usize],
    cache: &StatesCache,
    hidden_size: usize,
) -> Result<Statistics> {
    let mut taps = Moments::new(3 * hidden_size);
    let mut hidden = Moments::new(hidden_size);
    for &index in indices {
        let states = cache.read(index)?;
        taps.add(&states.taps[examples[index].first() * 3 * hidden_size..]);
        hidden.add(&states.hidden);
    }
    let final_rms = hidden.basis().inverse_rms.iter().map(|x| 1.0 / x).collect();
    Ok(Statistics { basis: taps.basis(), final_rms })
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

impl<'a, S: TargetSource> Loader<'a, S> {
    /// A loader for the draft vocabulary whose output rows are given.
    pub(crate) fn new(
        examples: &'a [Example],
        cache: &'a StatesCache,
        source: &'a S,
        basis: &'a Basis,
        vocabulary: &[TokenId],
        output_rows: &[f32],
        gemm: &Gemm,
    ) -> Result<Self> {
        let shape = (vocabulary.len(), source.hidden_size());
        let draft_ids = vocabulary.iter().enumerate().map(|(d, t)| (*t, d as u32)).collect();
        let output_rows = Projection::new(tensor(output_rows.to_vec(), shape)?, gemm)?;
        Ok(Self { examples, cache, source, basis, draft_ids, output_rows })
    }

    /// The tensors for the sequences `indices`.
    pub(crate) fn load(&self, indices: &[usize]) -> Result<Batch> {
        let width = self.source.hidden_size();
        let (mut taps, mut hidden) = (Vec::new(), Vec::new());
        let (mut argmax, mut sequences) = (Vec::new(), Vec::new());
        let (mut labelled, mut labels, mut tokens) = (Vec::new(), Vec::new(), 0);
        for &index in indices {
            let example = &self.examples[index];
            let states = self.cache.read(index)?;
            gather(example, &states.taps, 3 * width, &mut labelled, &mut labels);
            taps.extend(states.taps);
            hidden.extend(states.hidden);
            argmax.extend(states.most_probable.iter().map(|id| self.draft_ids.get(id).copied()));
            sequences.push(self.sequence(example));
            tokens += example.context();
        }
        let coordinates = self.basis.coordinates(&labelled);
        taps.par_chunks_mut(3 * width).for_each(|row| {
            row.iter_mut().zip(&self.basis.inverse_rms).for_each(|(x, scale)| *x *= scale);
        });
        let targets = Targets { probs: self.distributions(hidden)?, argmax };
        let draft = DraftBatch { taps, sequences, targets };
        Ok(Batch { draft, coordinates, labels, tokens })
    }

    /// Labelled states of the sequences `indices` in the probe's coordinates, with their labels.
    pub(crate) fn load_labelled(&self, indices: &[usize]) -> Result<(Vec<f32>, Vec<SignalLabel>)> {
        let width = 3 * self.source.hidden_size();
        let (mut labelled, mut labels) = (Vec::new(), Vec::new());
        for &index in indices {
            let example = &self.examples[index];
            let taps = self.cache.read(index)?.taps;
            gather(example, &taps, width, &mut labelled, &mut labels);
        }
        Ok((self.basis.coordinates(&labelled), labels))
    }

    fn sequence(&self, example: &Example) -> DraftSequence {
        let width = self.source.hidden_size();
        let tokens = &example.tokens[..example.context() + 1];
        let mut embeddings = vec![0f32; tokens.len() * width];
        for (row, &token) in embeddings.chunks_exact_mut(width).zip(tokens) {
            self.source.embedding(token, row);
        }
        DraftSequence {
            context: example.context(),
            first: example.first(),
            queries: example.queries(),
            embeddings,
        }
    }

    /// What the target says after each final state, restricted to the draft vocabulary and
    /// renormalised, `[rows, V_d]`.
    fn distributions(&self, hidden: Vec<f32>) -> Result<Vec<f32>> {
        let width = self.source.hidden_size();
        let rows = hidden.len() / width;
        let logits = self.output_rows.apply(&tensor(hidden, (rows, width))?)?;
        let vocab = logits.dims2()?.1;
        let probs = with_numbers(&logits, |logits| {
            let mut probs = logits.to_vec();
            probs.par_chunks_mut(vocab).for_each(softmax);
            Ok(probs)
        })?;
        Ok(probs)
    }
}

/// Appends the states of the labelled tokens, from those of all positions `[context, width]`.
fn gather(
    example: &Example,
    taps: &[f32],
    width: usize,
    states: &mut Vec<f32>,
    labels: &mut Vec<SignalLabel>,
) {
    for labelled in &example.labels {
        states.extend_from_slice(&taps[labelled.position * width..][..width]);
        labels.push(labelled.label);
    }
}

fn softmax(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for x in row.iter_mut() {
        *x = (*x - max).exp();
        sum += *x;
    }
    row.iter_mut().for_each(|x| *x /= sum);
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
