//! A toy target for tests: small, random, and predictable enough to be learned.

use specexit_exit::TokenId;

use super::examples::{Example, Labelled};
use super::source::TargetSource;
use crate::error::Result;
use crate::net::probe::SignalLabel;
use crate::ops::check::numbers;

/// A "target" whose next token is a fixed function of the current one.
pub(crate) struct ToySource {
    width: usize,
    vocab: usize,
    embeddings: Vec<f32>,
}

impl ToySource {
    pub(crate) fn new(width: usize, vocab: usize) -> Self {
        Self { width, vocab, embeddings: numbers(17, width * vocab) }
    }

    fn next(&self, token: TokenId) -> TokenId {
        (token * 7 + 3) % self.vocab as u32
    }

    fn row(&self, token: TokenId) -> &[f32] {
        &self.embeddings[token as usize * self.width..][..self.width]
    }
}

impl TargetSource for ToySource {
    fn hidden_size(&self) -> usize {
        self.width
    }

    fn vocab_size(&self) -> usize {
        self.vocab
    }

    /// Low and mid taps: the token and a ramp of positions; high tap and final state: the next token.
    fn states(&self, tokens: &[TokenId]) -> Result<(Vec<f32>, Vec<f32>)> {
        let (mut taps, mut hidden) = (Vec::new(), Vec::new());
        for (position, &token) in tokens.iter().enumerate() {
            taps.extend_from_slice(self.row(token));
            taps.extend((0..self.width).map(|i| match i {
                0 => 300.0,
                1 => position as f32,
                _ => (token as f32 + i as f32).sin(),
            }));
            let next = self.row(self.next(token));
            taps.extend_from_slice(next);
            hidden.extend(next.iter().map(|x| 6.0 * x));
        }
        Ok((taps, hidden))
    }

    fn most_probable(&self, hidden: &[f32]) -> Vec<TokenId> {
        let score =
            |h: &[f32], t: u32| -> f32 { h.iter().zip(self.row(t)).map(|(a, b)| a * b).sum() };
        hidden
            .chunks_exact(self.width)
            .map(|h| {
                let tokens = 0..self.vocab as u32;
                tokens.max_by(|a, b| score(h, *a).total_cmp(&score(h, *b))).unwrap_or(0)
            })
            .collect()
    }

    fn embedding(&self, token: TokenId, row: &mut [f32]) {
        row.copy_from_slice(self.row(token));
    }

    fn output_row(&self, token: TokenId, row: &mut [f32]) {
        row.copy_from_slice(self.row(token));
    }
}

/// Sequences of 9 to 15 tokens over 30, two per question, that follow [`ToySource`].
pub(crate) fn toy_examples(count: usize) -> Vec<Example> {
    (0..count)
        .map(|i| {
            let length = 9 + i % 7;
            let mut tokens = vec![(i % 30) as u32];
            while tokens.len() < length {
                tokens.push((tokens[tokens.len() - 1] * 7 + 3) % 30);
            }
            let kept = length - 6;
            let labels = (1..=kept)
                .map(|i| Labelled {
                    position: 2 + i,
                    label: SignalLabel {
                        confidence: i as f32 / (kept + 1) as f32,
                        progress: i as f32 / kept as f32,
                        remaining: (kept - i) as f32,
                    },
                })
                .collect();
            Example { question: format!("q{}", i / 2), tokens, prompt: 3, labels }
        })
        .collect()
}
