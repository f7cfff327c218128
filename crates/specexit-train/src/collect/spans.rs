//! Where thought, end marker and answer lie in an output.

use std::sync::Arc;

use specexit_exit::{BoundaryRules, Markers, Phase, Thought, ThoughtConfig, TokenId, Vocabulary};
use specexit_model::ModelText;

use super::record::Span;
use crate::error::Result;

/// Finds spans by the same rules as decoding does.
pub(crate) struct Spans {
    config: Arc<ThoughtConfig>,
    vocabulary: Arc<Vocabulary>,
}

/// The spans of an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The thought, markers excluded.
    pub(crate) think: Option<Span>,
    /// The end marker, with tokens of nothing but white space behind it.
    pub(crate) close: Option<Span>,
}

impl Spans {
    pub(crate) fn new(model: &ModelText, markers: &Markers) -> Result<Self> {
        let bytes = model.tokenizer.token_bytes(model.config.vocab_size);
        Ok(Self::of(Arc::new(bytes), markers.clone()))
    }

    fn of(token_bytes: Arc<Vec<Vec<u8>>>, markers: Markers) -> Self {
        let config =
            ThoughtConfig { policy: None, budget: None, loops: None, closing: Vec::new(), markers };
        let vocabulary = Vocabulary::new(token_bytes, &BoundaryRules::default());
        Self { config: Arc::new(config), vocabulary: Arc::new(vocabulary) }
    }

    /// The spans of `tokens`, which follow a prompt that ended in `phase`.
    pub(crate) fn find(&self, tokens: &[TokenId], phase: Phase) -> Result<Found> {
        let config = Arc::clone(&self.config);
        let mut thought = Thought::new(config, Arc::clone(&self.vocabulary), phase);
        let mut start = (phase == Phase::Thinking).then_some(0);
        let mut found = Found::default();
        for (i, &token) in tokens.iter().enumerate() {
            let before = thought.phase();
            thought.commit(&[], &[], token);
            if before == Phase::Before && thought.phase() == Phase::Thinking {
                start = Some(i + 1);
            }
            if before == Phase::Thinking && thought.phase() == Phase::Answer {
                let end = thought.exit().map_or(i, |exit| exit.token_index);
                let blank = tokens[i + 1..].iter().take_while(|&&t| self.is_blank(t)).count();
                found.close = Some(Span { start: end, end: i + 1 + blank });
                break;
            }
        }
        let end = found.close.map_or(tokens.len(), |close| close.start);
        found.think = start.map(|start| Span { start: start.min(end), end });
        Ok(found)
    }

    fn is_blank(&self, token: TokenId) -> bool {
        let bytes = self.vocabulary.bytes(token);
        !bytes.is_empty() && bytes.iter().all(u8::is_ascii_whitespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 9] =
        ["a", "b", "\n\n", "<think>", "</think>", "</", "think", ">\n\n", "\n"];

    fn find(tokens: &[TokenId], phase: Phase) -> Found {
        let bytes = TEXTS.iter().map(|t| t.as_bytes().to_vec()).collect();
        let markers = Markers::think(vec![3], vec![4]);
        Spans::of(Arc::new(bytes), markers).find(tokens, phase).unwrap()
    }

    fn span(start: usize, end: usize) -> Option<Span> {
        Some(Span { start, end })
    }

    #[test]
    fn one_token_markers() {
        let found = find(&[0, 8, 4, 2, 1], Phase::Thinking);
        assert_eq!(found, Found { think: span(0, 2), close: span(2, 4) });
        let found = find(&[3, 8, 0, 4, 1], Phase::Before);
        assert_eq!(found, Found { think: span(1, 3), close: span(3, 4) });
    }

    #[test]
    fn markers_of_several_tokens() {
        let found = find(&[0, 2, 5, 6, 7, 1], Phase::Thinking);
        assert_eq!(found, Found { think: span(0, 2), close: span(2, 5) });
    }

    #[test]
    fn open_thoughts_and_none() {
        let found = find(&[0, 1], Phase::Thinking);
        assert_eq!(found, Found { think: span(0, 2), close: None });
        assert_eq!(find(&[0, 1], Phase::Before), Found::default());
    }
}
