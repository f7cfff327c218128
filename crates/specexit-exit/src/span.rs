//! Where a token stream stands with respect to its thinking span, and how many tokens are in it.

use serde::{Deserialize, Serialize};

use crate::{
    TokenId,
    boundary::trailing_newlines,
    markers::{Markers, advance},
    vocabulary::Vocabulary,
};

/// The part of the output that the next token belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// No thinking span has been opened yet.
    Before,
    /// Inside the thinking span.
    Thinking,
    /// After it, or in an output that has none.
    Answer,
}

/// What the last token was, for the decision whether to cut after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LastToken {
    /// It is a thinking token.
    pub(crate) thinking: bool,
    /// A cut may come after it.
    pub(crate) boundary: bool,
}

/// A token that so far only spells the beginning of the closing marker.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    token: TokenId,
    /// Byte at which it starts, counted from the span's start.
    start: usize,
    /// Its place among the generated tokens.
    index: usize,
}

/// The thinking span, read off the bytes of the committed tokens.
///
/// A token belongs where its first byte lies: inside the span it is a thinking token, inside a
/// marker it is not. So `foo</` counts and `>\n\n`, the end of a marker, does not. A token without
/// text counts where it stands. While the stream ends in the beginning of the closing marker, the
/// tokens of that beginning are *held*: they are counted, and dropped from the count if the marker
/// is completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) phase: Phase,
    /// Generated tokens, the forced ones included.
    pub(crate) generated: usize,
    /// Thinking tokens that certainly are ones.
    pub(crate) settled: usize,
    pub(crate) last: LastToken,
    held: Vec<Held>,
    /// Bytes since the span's start.
    position: usize,
    /// Bytes of the awaited marker that end the stream.
    matched: usize,
    /// Newlines that end the thought so far.
    newlines: u8,
}

impl Span {
    pub(crate) fn new(phase: Phase) -> Self {
        Self {
            phase,
            generated: 0,
            settled: 0,
            last: LastToken::default(),
            held: Vec::new(),
            position: 0,
            matched: 0,
            newlines: 0,
        }
    }

    /// Thinking tokens, those held included.
    pub(crate) fn thinking_tokens(&self) -> usize {
        self.settled + self.held.len()
    }

    /// Takes one committed token. If it completes the closing marker: the number of generated
    /// tokens before that marker.
    pub(crate) fn push(
        &mut self,
        token: TokenId,
        markers: &Markers,
        vocabulary: &Vocabulary,
    ) -> Option<usize> {
        let index = self.generated;
        self.generated += 1;
        self.last = LastToken::default();
        let bytes = vocabulary.bytes(token);
        match self.phase {
            Phase::Answer => None,
            Phase::Before => {
                let end = self.find(&markers.open, bytes)?;
                self.phase = Phase::Thinking;
                let rest = &bytes[end..];
                if let Some(end) = self.find(&markers.close, rest) {
                    return Some(self.close(index, None, end, &markers.close));
                }
                self.position = rest.len();
                self.newlines = trailing_newlines(0, rest);
                None
            }
            Phase::Thinking => {
                let start = self.position;
                if let Some(end) = self.find(&markers.close, bytes) {
                    return Some(self.close(index, Some(start), start + end, &markers.close));
                }
                self.position += bytes.len();
                self.settle_before(self.position - self.matched);
                if bytes.is_empty() || start < self.position - self.matched {
                    self.settled += 1;
                } else {
                    self.held.push(Held { token, start, index });
                }
                self.newlines = vocabulary.table().newlines_after(self.newlines, token);
                let boundary = vocabulary.table().is_boundary_after(token, self.newlines);
                self.last = LastToken { thinking: true, boundary };
                None
            }
        }
    }

    /// Searches on through `bytes`; the offset just after the marker if it is completed there.
    fn find(&mut self, marker: &[u8], bytes: &[u8]) -> Option<usize> {
        for (i, &byte) in bytes.iter().enumerate() {
            self.matched = advance(marker, self.matched, byte);
            if self.matched > 0 && self.matched == marker.len() {
                self.matched = 0;
                return Some(i + 1);
            }
        }
        None
    }

    /// The closing marker ends at byte `end`, in the token `index` that starts at `start` (`None`:
    /// before the span).
    fn close(&mut self, index: usize, start: Option<usize>, end: usize, close: &[u8]) -> usize {
        let marker = end - close.len();
        self.settle_before(marker);
        let inside = start.is_some_and(|start| start >= marker);
        let own_index = if inside { index } else { index + 1 };
        let token_index = self.held.first().map_or(own_index, |held| held.index);
        self.settled += usize::from(start.is_some_and(|start| start < marker));
        self.held.clear();
        self.phase = Phase::Answer;
        token_index
    }

    /// Held tokens that start before byte `start` are not part of a marker after all.
    fn settle_before(&mut self, start: usize) {
        let held = self.held.len();
        self.held.retain(|token| token.start >= start);
        self.settled += held - self.held.len();
    }

    /// If the held tokens are the first of `close_ids`, and nothing else is: how many they are.
    /// Then the marker can be completed by forcing the others.
    pub(crate) fn begun_marker(&self, close_ids: &[TokenId]) -> Option<usize> {
        let first = self.held.first()?;
        let begun = close_ids.get(..self.held.len())?;
        let exact = first.start == self.position - self.matched
            && self.held.len() < close_ids.len()
            && self.held.iter().zip(begun).all(|(held, &id)| held.token == id);
        exact.then_some(self.held.len())
    }

    /// The span is closed by force: `forced` more tokens, of which `thinking` are thinking tokens.
    /// With `completes_marker` the held tokens are part of the marker.
    pub(crate) fn force(&mut self, forced: usize, thinking: usize, completes_marker: bool) {
        if !completes_marker {
            self.settled += self.held.len();
        }
        self.held.clear();
        self.settled += thinking;
        self.generated += forced;
        self.last = LastToken::default();
        self.phase = Phase::Answer;
    }
}
