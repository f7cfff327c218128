//! Generated tokens on stdout as they come, the thought dimmed on a terminal.

use std::collections::HashSet;
use std::io::{self, IsTerminal};
use std::sync::Arc;

use specexit_engine::{Engine, Phase, TokenId};
use specexit_exit::text::{Part, Segment, Splitter};
use specexit_model::{Model, Tokenizer};

use super::stdout::print;

/// The text of one output, its parts, and where they are shown.
pub(crate) struct TokenStream {
    tokenizer: Arc<Tokenizer>,
    token_bytes: Vec<Vec<u8>>,
    /// Tokens that write the markers: shown although some vocabularies call them special.
    markers: HashSet<TokenId>,
    splitter: Splitter,
    shown: Shown,
    paint: Paint,
    parts: Parts,
}

/// Where the text goes while it is generated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Nowhere: the caller wants all of it at the end.
    Nowhere,
    /// On stdout, as it is.
    Plain,
    /// On stdout, the thought dimmed.
    Dimmed,
}

impl Shown {
    /// On stdout, dimmed where that is a terminal and colours are welcome (<https://no-color.org>).
    pub(crate) fn on_stdout() -> Self {
        if io::stdout().is_terminal() && colours_welcome() { Self::Dimmed } else { Self::Plain }
    }
}

/// Whether the user has not asked for none (<https://no-color.org>).
pub(crate) fn colours_welcome() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The parts of a finished output.
#[derive(Default)]
pub(crate) struct Parts {
    /// Everything, markers included, special tokens left out.
    pub(crate) text: String,
    /// Inside the thought.
    pub(crate) thinking: String,
    /// After it; the whole text where there is no thought.
    pub(crate) answer: String,
}

impl TokenStream {
    /// A stream for an output whose prompt ended in `phase`.
    pub(crate) fn new(model: &Model, engine: &Engine, phase: Phase, shown: Shown) -> Self {
        let markers = engine.markers();
        Self {
            tokenizer: Arc::clone(&model.tokenizer),
            token_bytes: model.tokenizer.token_bytes(model.target.config.vocab_size),
            markers: markers.open_ids.iter().chain(&markers.close_ids).copied().collect(),
            splitter: Splitter::new(markers, phase),
            shown,
            paint: Paint::default(),
            parts: Parts::default(),
        }
    }

    /// Takes the next tokens.
    pub(crate) fn push(&mut self, tokens: &[TokenId]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for &id in tokens {
            if !self.tokenizer.is_special(id) || self.markers.contains(&id) {
                bytes.extend_from_slice(
                    self.token_bytes.get(id as usize).map_or(&[], Vec::as_slice),
                );
            }
        }
        let pieces = self.splitter.push(&bytes);
        self.show(pieces)
    }

    /// Shows what was still held, ends the line, and gives the parts.
    pub(crate) fn finish(mut self) -> io::Result<Parts> {
        let pieces = self.splitter.finish();
        self.show(pieces)?;
        if self.shown != Shown::Nowhere {
            let reset = self.paint.switch(false);
            let newline = if self.parts.text.ends_with('\n') { "" } else { "\n" };
            print(&format!("{reset}{newline}"))?;
        }
        let parts = &mut self.parts;
        parts.thinking = parts.thinking.trim().to_owned();
        parts.answer = parts.answer.trim().to_owned();
        Ok(self.parts)
    }

    fn show(&mut self, pieces: Vec<Segment>) -> io::Result<()> {
        let mut visible = String::new();
        for Segment { part, text } in pieces {
            let thought = matches!(part, Part::Marker | Part::Thought);
            if self.shown == Shown::Dimmed {
                visible.push_str(self.paint.switch(thought));
            }
            visible.push_str(&text);
            self.parts.text.push_str(&text);
            match part {
                Part::Before | Part::Answer => self.parts.answer.push_str(&text),
                Part::Thought => self.parts.thinking.push_str(&text),
                Part::Marker => {}
            }
        }
        if self.shown == Shown::Nowhere || visible.is_empty() { Ok(()) } else { print(&visible) }
    }
}

/// Whether the terminal is set to dim.
#[derive(Default)]
struct Paint {
    dim: bool,
}

impl Paint {
    /// What makes the text that follows dim, or normal again; nothing if it is already.
    fn switch(&mut self, dim: bool) -> &'static str {
        match (std::mem::replace(&mut self.dim, dim), dim) {
            (false, true) => "\u{1b}[2m",
            (true, false) => "\u{1b}[0m",
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_written() {
        let mut paint = Paint::default();
        let codes: String = [false, true, true, false, false].map(|dim| paint.switch(dim)).concat();
        assert_eq!(codes, "\u{1b}[2m\u{1b}[0m");
    }
}
