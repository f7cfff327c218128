//! Boundaries: the places where a thought may be cut.

use serde::{Deserialize, Serialize};

use crate::TokenId;

/// Which tokens end a paragraph or start a new line of argument.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BoundaryRules {
    /// Cut after a token whose whole text equals one of these.
    pub strings: Vec<String>,
    /// Cut after a token when the thought's text then ends in two newlines, be they in one token
    /// or in several. Carriage returns are ignored.
    pub blank_line: bool,
    /// Cut *before* a token whose text equals one of these, with or without leading spaces. A word
    /// that the tokenizer writes as several tokens is not recognised.
    pub connectors: Vec<String>,
}

impl BoundaryRules {
    /// The six strings of SpecExit's released code: two or three newlines, bare, after a full stop,
    /// or after a space.
    #[must_use]
    pub fn newline_strings() -> Vec<String> {
        ["\n\n", "\n\n\n", ".\n\n", ".\n\n\n", " \n\n", " \n\n\n"].map(str::to_owned).to_vec()
    }

    /// Words that open a new line of argument. SpecExit's article names But, So and Therefore; the
    /// others are their usual relatives in reasoning models' thoughts.
    #[must_use]
    pub fn connector_words() -> Vec<String> {
        ["But", "So", "Therefore", "Thus", "Hence", "However", "Wait", "Alternatively"]
            .map(str::to_owned)
            .to_vec()
    }
}

/// Newlines are counted up to here: more make no difference.
const BLANK_LINE: u8 = 2;

// The class byte of a token.
const STRING: u8 = 1;
const CONNECTOR: u8 = 2;
/// Nothing but newlines (or nothing at all): it adds to the newlines before it.
const TRANSPARENT: u8 = 4;
const EMPTY: u8 = 8;
const NEWLINES_SHIFT: u8 = 4;

/// The boundary class of every token of a vocabulary, worked out once per rules and vocabulary.
///
/// A boundary is written as the position of the token it follows. Whether a *string* or *connector*
/// boundary is there depends on a single token; a blank line may be spread over several, so the
/// number of newlines that end the text is state, kept by the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundaryTable {
    classes: Vec<u8>,
    blank_line: bool,
}

impl BoundaryTable {
    /// Classifies all tokens; `token_bytes[id]` is the text of token `id`.
    #[must_use]
    pub fn new(rules: &BoundaryRules, token_bytes: &[Vec<u8>]) -> Self {
        let classes = token_bytes.iter().map(|bytes| class(rules, bytes)).collect();
        Self { classes, blank_line: rules.blank_line }
    }

    /// True when a cut may come after `token`, given the newlines that end the text with it.
    #[must_use]
    pub fn is_boundary_after(&self, token: TokenId, newlines: u8) -> bool {
        let class = self.class(token);
        class & STRING != 0 || (self.blank_line && newlines >= BLANK_LINE && class & EMPTY == 0)
    }

    /// True when a cut may come before `token`.
    #[must_use]
    pub fn is_connector(&self, token: TokenId) -> bool {
        self.class(token) & CONNECTOR != 0
    }

    /// Newlines (at most 2 are counted) that end the text after `token`, from those before it.
    #[must_use]
    pub fn newlines_after(&self, newlines: u8, token: TokenId) -> u8 {
        let class = self.class(token);
        let own = class >> NEWLINES_SHIFT;
        if class & TRANSPARENT != 0 { (newlines + own).min(BLANK_LINE) } else { own }
    }

    /// All boundaries in a thought's tokens, each as the position of the token it follows.
    #[must_use]
    pub fn boundaries(&self, tokens: &[TokenId]) -> Vec<usize> {
        let mut newlines = 0;
        let mut found = Vec::new();
        for (i, &token) in tokens.iter().enumerate() {
            newlines = self.newlines_after(newlines, token);
            let connector_next = tokens.get(i + 1).is_some_and(|&next| self.is_connector(next));
            if connector_next || self.is_boundary_after(token, newlines) {
                found.push(i);
            }
        }
        found
    }

    /// A token the tokenizer does not know is treated as one without text.
    fn class(&self, token: TokenId) -> u8 {
        self.classes.get(token as usize).copied().unwrap_or(TRANSPARENT | EMPTY)
    }
}

fn class(rules: &BoundaryRules, bytes: &[u8]) -> u8 {
    let start = bytes.iter().position(|&b| b != b' ').unwrap_or(bytes.len());
    let word = &bytes[start..];
    let mut class = trailing_newlines(0, bytes) << NEWLINES_SHIFT;
    if !bytes.is_empty() && rules.strings.iter().any(|s| s.as_bytes() == bytes) {
        class |= STRING;
    }
    if !word.is_empty() && rules.connectors.iter().any(|s| s.as_bytes() == word) {
        class |= CONNECTOR;
    }
    if bytes.iter().all(|&b| is_line_end(b)) {
        class |= TRANSPARENT;
    }
    if bytes.is_empty() {
        class |= EMPTY;
    }
    class
}

/// Newlines (at most 2 are counted) that end a text after `bytes`, from those before it.
pub(crate) fn trailing_newlines(before: u8, bytes: &[u8]) -> u8 {
    let own = bytes.iter().rev().take_while(|&&b| is_line_end(b));
    let count = own.filter(|&&b| b == b'\n').take(BLANK_LINE.into()).count() as u8;
    if bytes.iter().all(|&b| is_line_end(b)) { (before + count).min(BLANK_LINE) } else { count }
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}
