//! What an engine reads beside its requests: shared beginnings, scored texts, signals.

use std::sync::Arc;

use specexit_exit::{Signals, TokenId};
use specexit_model::{LogitRows, PREFILL_CHUNK, TargetRows};

use super::Engine;
use crate::draft::read_pairs;
use crate::error::{EngineError, Result};
use crate::prefix::Prefix;
use crate::request::RequestId;
use crate::score::{Scored, score};
use crate::signals::read_signals;

impl Engine {
    /// Reads `tokens` once, for requests whose prompts begin with them; the head, if there is one, reads along.
    ///
    /// # Errors
    /// As [`specexit_model::Target::forward`].
    pub fn prefix(&mut self, tokens: &[u32]) -> Result<Arc<Prefix>> {
        let mut cache = self.target.new_cache();
        let mut draft = self.head.as_ref().map(|head| head.new_cache());
        for chunk in tokens.chunks(PREFILL_CHUNK) {
            let start = cache.len();
            let rows = TargetRows { tokens: chunk, cache: &mut cache, logits: LogitRows::None };
            self.target.forward(&mut [rows], &mut self.workspace)?;
            if let (Some(head), Some(draft)) = (&self.head, &mut draft) {
                // No token is known to follow the last state.
                let after = &tokens[start + 1..tokens.len().min(cache.len() + 1)];
                read_pairs(head, &self.workspace, after, draft, &mut self.drafting)?;
            }
        }
        Ok(Arc::new(Prefix { tokens: tokens.to_vec(), cache, draft }))
    }

    /// What has been read of a running request so far, for requests that branch off it.
    ///
    /// # Errors
    /// When no such request runs.
    pub fn branch(&self, id: RequestId) -> Result<Arc<Prefix>> {
        let running = self.running.iter().find(|sequence| sequence.id == id);
        let sequence = running.ok_or(EngineError::UnknownRequest { id })?;
        Ok(Arc::new(sequence.prefix(sequence.cache.len())))
    }

    /// Reads texts whose ends are given, beside each other, and says how probable these were.
    ///
    /// # Errors
    /// A text with nothing to score or nothing before it, and as [`specexit_model::Target::forward`].
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
    /// A head without a signal probe, nothing before `from`, and as [`specexit_model::Target::forward`].
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
