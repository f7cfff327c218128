//! Looking at tokens before they are committed: where a thought could be cut.

use crate::{TokenId, span::Phase, thought::Thought};

/// What a token would be, once committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// It is a thinking token.
    pub thinking: bool,
    /// It is one with a boundary after it.
    pub boundary: bool,
    /// The target goes on after it by closing the thought itself, so that nothing would be forced.
    pub closing: bool,
    /// Thinking tokens up to here.
    pub thinking_tokens: usize,
}

impl Thought {
    /// What the tokens of a run that is not committed yet would be; `next` follows them.
    #[must_use]
    pub fn ahead(&self, run: &[TokenId], next: TokenId) -> Vec<Ahead> {
        let known = usize::from(self.root.is_some() && !run.is_empty());
        let close_ids = &self.config.markers.close_ids;
        let mut span = self.span.clone();
        let following = run.iter().skip(1).copied().chain([next]);
        let tokens = run.iter().zip(following).enumerate().map(|(i, (&token, following))| {
            if i >= known {
                span.push(token, &self.config.markers, &self.vocabulary);
            }
            let connector = self.vocabulary.table().is_connector(following);
            let boundary = span.last.thinking && (span.last.boundary || connector);
            let closing = boundary && {
                let mut after = span.clone();
                after.push(following, &self.config.markers, &self.vocabulary);
                after.phase != Phase::Thinking || after.begun_marker(close_ids).is_some()
            };
            let thinking_tokens = span.thinking_tokens();
            Ahead { thinking: span.last.thinking, boundary, closing, thinking_tokens }
        });
        tokens.collect()
    }

    /// Which of these tokens have a boundary after them: where [`Thought::commit`] may cut. For heads
    /// whose signals mean something only there.
    #[must_use]
    pub fn boundaries(&self, run: &[TokenId], next: TokenId) -> Vec<bool> {
        self.ahead(run, next).iter().map(|ahead| ahead.boundary).collect()
    }
}
