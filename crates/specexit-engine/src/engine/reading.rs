//! What an engine reads beside its requests: shared beginnings, scored texts, signals.

use std::sync::Arc;

use specexit_exit::{Signals, TokenId};
use specexit_model::{LogitRows, PREFILL_CHUNK, TargetRows};

use super::Engine;
use crate::error::{EngineError, Result};
use crate::prefix::Prefix;
use crate::request::RequestId;
use crate::score::{Scored, score};
use crate::signals::read_signals;

impl Engine {
    /// Reads `tokens` once, for requests whose prompts begin with them.
    ///
    /// # Errors
    /// As [`Target::forward`].
    pub fn prefix(&mut self, tokens: &[u32]) -> Result<Arc<Prefix>> {
        let mut cache = self.target.new_cache();
        for tokens in tokens.chunks(PREFILL_CHUNK) {
            let rows = TargetRows { tokens, cache: &mut cache, logits: LogitRows::None };
            self.target.forward(&mut [rows], &mut self.workspace)?;
        }
        Ok(Arc::new(Prefix { tokens: tokens.to_vec(), cache }))
    }

    /// What the target has read of a running request so far, for requests that branch off it.
    ///
    /// # Errors
    /// When no such request runs.
    pub fn branch(&self, id: RequestId) -> Result<Arc<Prefix>> {
        let running = self.running.iter().find(|sequence| sequence.id == id);
        let sequence = running.ok_or(EngineError::UnknownRequest { id })?;
        let read = sequence.cache.len();
        let tokens = sequence.tokens[..read].to_vec();
        Ok(Arc::new(Prefix { tokens, cache: sequence.cache.fork(read) }))
    }

    /// Reads texts whose ends are given, beside each other, and says how probable these were.
    ///
    /// # Errors
    /// A text with nothing to score or nothing before it, and as [`Target::forward`].
    pub fn score(&mut self, scored: &[Scored]) -> Result<Vec<Vec<f32>>> {
        let room = self.options.max_batch.max(1);
        let mut scores = Vec::with_capacity(scored.len());
        for together in scored.chunks(room) {
            scores.extend(score(&self.target, together, &mut self.workspace)?);
        }
        Ok(scores)
    }

    /// The signals that the head predicts after each of `tokens[from..]`, as a request that recorded them
    /// would have: missing off the boundaries for a head that speaks at these only, of which `boundaries`
    /// tells for each token, and after the last token, which no request ever reads.
    ///
    /// # Errors
    /// A head without a signal probe, nothing before `from`, and as [`Target::forward`].
    pub fn signals(
        &mut self,
        tokens: &[TokenId],
        from: usize,
        boundaries: &[bool],
    ) -> Result<Vec<Signals>> {
        let head = self.head.as_ref().filter(|head| head.has_probe());
        let head = head.ok_or(EngineError::NoProbe)?;
        read_signals(&self.target, head, tokens, from, boundaries, &mut self.workspace)
    }
}
