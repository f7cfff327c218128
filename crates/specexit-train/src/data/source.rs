//! What training needs from a target, behind one trait so that it can be tested without one.

use std::sync::{Arc, Mutex, PoisonError};

use specexit_exit::TokenId;
use specexit_model::{Target, Workspace};

use crate::error::Result;

/// The frozen side of training.
pub(crate) trait TargetSource {
    /// Width H_t of its states.
    fn hidden_size(&self) -> usize;

    /// Rows V of its output projection.
    fn vocab_size(&self) -> usize;

    /// What it computes in, unless that is bf16 (`Kernels::arithmetic`).
    fn arithmetic(&self) -> Option<String> {
        None
    }

    /// Tapped states `[tokens, 3 H_t]` and normed final states `[tokens, H_t]`.
    ///
    /// A position's states depend on the tokens up to it alone, to the last bit.
    fn states(&self, tokens: &[TokenId]) -> Result<(Vec<f32>, Vec<f32>)>;

    /// The most probable next token after each normed final state `[rows, H_t]`.
    fn most_probable(&self, hidden: &[f32]) -> Vec<TokenId>;

    /// Copies the embedding of a token into `row`, `[H_t]`.
    fn embedding(&self, token: TokenId, row: &mut [f32]);

    /// Copies a token's row of the output projection into `row`, `[H_t]`.
    fn output_row(&self, token: TokenId, row: &mut [f32]);
}

/// A loaded target.
pub(crate) struct LoadedTarget {
    target: Arc<Target>,
    /// Behind a lock because states are read through shared references.
    workspace: Mutex<Workspace>,
}

impl LoadedTarget {
    /// Reads from `target`.
    pub(crate) fn new(target: &Arc<Target>) -> Self {
        Self { target: Arc::clone(target), workspace: Mutex::default() }
    }
}

/// Rows whose logits are computed together: the whole vocabulary for each, so not too many.
const LOGIT_ROWS: usize = 64;

impl TargetSource for LoadedTarget {
    fn hidden_size(&self) -> usize {
        self.target.config.hidden_size
    }

    fn vocab_size(&self) -> usize {
        self.target.config.vocab_size
    }

    fn arithmetic(&self) -> Option<String> {
        self.target.kernels().arithmetic()
    }

    fn states(&self, tokens: &[TokenId]) -> Result<(Vec<f32>, Vec<f32>)> {
        // A forward that panicked leaves scratch that the next one overwrites.
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        let states = self.target.states(tokens, &mut workspace)?;
        Ok((states.taps, states.hidden))
    }

    fn most_probable(&self, hidden: &[f32]) -> Vec<TokenId> {
        let (width, vocab) = (self.hidden_size(), self.vocab_size());
        let mut logits = Vec::new();
        let mut tokens = Vec::with_capacity(hidden.len() / width);
        for rows in hidden.chunks(LOGIT_ROWS * width) {
            logits.resize(rows.len() / width * vocab, 0.0);
            self.target.kernels().linear(&mut logits, rows, self.target.lm_head(), None);
            let best =
                logits.chunks_exact(vocab).map(|row| specexit_kernels::argmax(row) as TokenId);
            tokens.extend(best);
        }
        tokens
    }

    fn embedding(&self, token: TokenId, row: &mut [f32]) {
        self.target.embedding_row(token, row);
    }

    fn output_row(&self, token: TokenId, row: &mut [f32]) {
        self.target.lm_head().read_row(token as usize, row);
    }
}
