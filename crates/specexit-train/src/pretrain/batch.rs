//! The texts of a step.

use rayon::prelude::*;

use super::options::{Corpus, Sample};
use crate::error::{Result, TrainError};
use crate::net::decoder::{DecoderShape, TextBatch};

/// Rows that go through the network together: enough for the products to be worth their packing,
/// few enough for activations to stay in the last-level cache from one operation to the next.
const ROWS: usize = 2048;

/// Texts that are made at once.
const TEXTS: u64 = 8;

/// The texts of one step.
pub(super) struct Step {
    pub(super) batches: Vec<TextBatch>,
    /// Number of texts.
    pub(super) samples: u64,
    /// Tokens of these texts.
    pub(super) tokens: u64,
}

/// Takes texts from number `first` on until the next would exceed `tokens`; at least one.
pub(super) fn next_step(
    corpus: &dyn Corpus,
    shape: &DecoderShape,
    first: u64,
    progress: f64,
    tokens: usize,
) -> Result<Step> {
    let mut taken: Vec<Sample> = Vec::new();
    let mut total = 0;
    'fill: for start in (first..).step_by(TEXTS as usize) {
        let made: Vec<Sample> =
            (start..start + TEXTS).into_par_iter().map(|i| corpus.sample(i, progress)).collect();
        for (sample, index) in made.into_iter().zip(start..) {
            if !taken.is_empty() && total + sample.tokens.len() > tokens {
                break 'fill;
            }
            check(&sample, shape).map_err(|problem| {
                TrainError::option("corpus", format!("makes text {index}, which {problem}"))
            })?;
            total += sample.tokens.len();
            taken.push(sample);
        }
    }
    Ok(Step { batches: batches(&taken), samples: taken.len() as u64, tokens: total as u64 })
}

/// The held-out texts.
pub(super) fn held_out(corpus: &dyn Corpus, shape: &DecoderShape) -> Result<Vec<TextBatch>> {
    let samples = corpus.held_out();
    for (index, sample) in samples.iter().enumerate() {
        check(sample, shape).map_err(|problem| {
            TrainError::option("corpus", format!("holds out text {index}, which {problem}"))
        })?;
    }
    Ok(batches(&samples))
}

fn batches(samples: &[Sample]) -> Vec<TextBatch> {
    TextBatch::group(samples.iter().map(|s| (&s.tokens[..], s.loss_from)), ROWS)
}

/// Says why a text cannot be trained on, if it cannot.
fn check(sample: &Sample, shape: &DecoderShape) -> std::result::Result<(), String> {
    let (length, limit) = (sample.tokens.len(), shape.max_position_embeddings);
    if length < 2 || length > limit {
        return Err(format!("has {length} tokens; it must have from 2 to {limit}"));
    }
    if sample.loss_from >= length {
        let from = sample.loss_from;
        return Err(format!("carries loss from token {from} on, but has only {length}"));
    }
    match sample.tokens.iter().find(|&&t| t as usize >= shape.vocab_size) {
        Some(id) => Err(format!("has token {id}, outside the vocabulary of {}", shape.vocab_size)),
        None => Ok(()),
    }
}
