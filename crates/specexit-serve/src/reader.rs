//! One answer's text as it grows.

use std::sync::Arc;

use specexit_engine::{Phase, TokenId};
use specexit_exit::Markers;
use specexit_model::Tokenizer;

use specexit_exit::text::{Part, Segment, Splitter, Stops, Utf8};

/// What the bytes of tokens are, for all answers.
pub(crate) struct Spelling {
    bytes: Vec<Vec<u8>>,
    /// Tokens that are not shown, as they are no text.
    hidden: Vec<bool>,
    pub(crate) markers: Markers,
}

impl Spelling {
    pub(crate) fn new(tokenizer: &Tokenizer, vocab_size: usize, markers: &Markers) -> Arc<Self> {
        let marks = |id: &TokenId| markers.open_ids.contains(id) || markers.close_ids.contains(id);
        let ids = 0..vocab_size as TokenId;
        let hidden = ids.map(|id| tokenizer.is_special(id) && !marks(&id)).collect();
        let bytes = tokenizer.token_bytes(vocab_size);
        Arc::new(Self { bytes, hidden, markers: markers.clone() })
    }

    /// What a token adds to the text.
    pub(crate) fn shown(&self, id: TokenId) -> &[u8] {
        match self.hidden.get(id as usize) {
            Some(false) => self.bytes.get(id as usize).map_or(&[], Vec::as_slice),
            _ => &[],
        }
    }

    /// A token's own bytes, those of special tokens included.
    pub(crate) fn bytes(&self, id: TokenId) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], Vec::as_slice)
    }
}

/// The text of one answer so far.
pub(crate) struct Reader {
    spelling: Arc<Spelling>,
    splitter: Splitter,
    stops: Stops,
    /// For the texts of single tokens.
    utf8: Utf8,
    /// Tokens read.
    pub(crate) tokens: usize,
    /// A stop string has ended it.
    pub(crate) stopped: bool,
}

/// What one token adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) segments: Vec<Segment>,
    /// What the token itself reads as; a character of several tokens stands at the last.
    pub(crate) text: String,
    /// What the token belongs to.
    pub(crate) part: Part,
}

impl Reader {
    pub(crate) fn new(spelling: &Arc<Spelling>, phase: Phase, stops: Vec<String>) -> Self {
        Self {
            spelling: Arc::clone(spelling),
            splitter: Splitter::new(&spelling.markers, phase),
            stops: Stops::new(stops),
            utf8: Utf8::default(),
            tokens: 0,
            stopped: false,
        }
    }

    /// Takes the next token.
    pub(crate) fn push(&mut self, token: TokenId) -> Read {
        self.tokens += 1;
        let part = answered(self.splitter.part());
        let bytes = self.spelling.shown(token);
        let segments = self.splitter.push(bytes);
        let text = self.utf8.push(bytes);
        let marker = segments.iter().any(|segment| segment.part == Part::Marker);
        let part = if marker || !self.splitter.settled() { Part::Marker } else { part };
        Read { segments: self.watch(segments), text, part }
    }

    /// What was held back, once nothing follows.
    pub(crate) fn finish(&mut self) -> Vec<Segment> {
        if self.stopped {
            return Vec::new();
        }
        let segments = self.splitter.finish();
        let mut segments = self.watch(segments);
        let text = self.stops.finish();
        if !self.stopped && !text.is_empty() {
            segments.push(Segment { part: Part::Answer, text });
        }
        segments
    }

    /// Ends the answer where a stop string stands in it; those inside the thought count for nothing.
    fn watch(&mut self, segments: Vec<Segment>) -> Vec<Segment> {
        let mut passed = Vec::with_capacity(segments.len());
        for mut segment in segments {
            if self.stopped {
                break;
            }
            segment.part = answered(segment.part);
            if segment.part == Part::Answer {
                let (text, stopped) = self.stops.push(&segment.text);
                self.stopped = stopped;
                passed.push(Segment { text, ..segment });
            } else {
                let text = self.stops.finish();
                passed.push(Segment { part: Part::Answer, text });
                passed.push(segment);
            }
        }
        passed.retain(|segment| !segment.text.is_empty());
        passed
    }
}

/// In the answers of the API, what stands before a thought is answer.
fn answered(part: Part) -> Part {
    if part == Part::Before { Part::Answer } else { part }
}
