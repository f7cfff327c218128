//! Takes a stream of bytes apart into before the thought, the thought and the answer.

use specexit_engine::Phase;
use specexit_exit::Markers;

/// Which part of the output a piece of text belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Before a thought, or an output without one.
    Before,
    /// One of the two markers.
    Marker,
    /// Inside the thought.
    Thought,
    /// After it.
    Answer,
}

/// Splits bytes as they come. Every byte is given out once; those that may yet turn out to belong
/// to a marker or to a character are held until that is known.
pub(crate) struct ThoughtSplitter {
    phase: Phase,
    open: Vec<u8>,
    close: Vec<u8>,
    held: Vec<u8>,
}

impl ThoughtSplitter {
    /// For an output whose prompt ended in `phase`.
    pub(crate) fn new(phase: Phase, markers: &Markers) -> Self {
        Self { phase, open: markers.open.clone(), close: markers.close.clone(), held: Vec::new() }
    }

    /// Takes more bytes; gives out what is certain.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<(Part, String)> {
        self.held.extend_from_slice(bytes);
        let mut pieces = Vec::new();
        while let Some((marker, next)) = self.awaited() {
            let Some(at) = find(&self.held, marker) else { break };
            let end = at + marker.len();
            self.give(at, self.part(), &mut pieces);
            self.give(end - at, Part::Marker, &mut pieces);
            self.phase = next;
        }
        let marker = self.awaited().map_or(&[][..], |(marker, _)| marker);
        let certain = self.held.len() - begun(&self.held, marker);
        let whole = certain - incomplete_character(&self.held[..certain]);
        self.give(whole, self.part(), &mut pieces);
        pieces
    }

    /// Gives out what was held: nothing more will come.
    pub(crate) fn finish(&mut self) -> Vec<(Part, String)> {
        let mut pieces = Vec::new();
        self.give(self.held.len(), self.part(), &mut pieces);
        pieces
    }

    /// The marker that ends the current part, and the phase after it.
    fn awaited(&self) -> Option<(&[u8], Phase)> {
        match self.phase {
            Phase::Before => Some((&self.open, Phase::Thinking)),
            Phase::Thinking => Some((&self.close, Phase::Answer)),
            Phase::Answer => None,
        }
    }

    fn part(&self) -> Part {
        match self.phase {
            Phase::Before => Part::Before,
            Phase::Thinking => Part::Thought,
            Phase::Answer => Part::Answer,
        }
    }

    fn give(&mut self, len: usize, part: Part, pieces: &mut Vec<(Part, String)>) {
        if len > 0 {
            let bytes: Vec<u8> = self.held.drain(..len).collect();
            pieces.push((part, String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
}

fn find(bytes: &[u8], marker: &[u8]) -> Option<usize> {
    bytes.windows(marker.len()).position(|window| window == marker)
}

/// How many bytes at the end of `bytes` are the beginning of `marker`.
fn begun(bytes: &[u8], marker: &[u8]) -> usize {
    let most = bytes.len().min(marker.len().saturating_sub(1));
    (1..=most).rev().find(|&n| bytes.ends_with(&marker[..n])).unwrap_or(0)
}

/// How many bytes at the end of `bytes` are the beginning of a UTF-8 character.
fn incomplete_character(bytes: &[u8]) -> usize {
    let tail = &bytes[bytes.len().saturating_sub(3)..];
    (1..=tail.len())
        .find(|&n| {
            let last = &tail[tail.len() - n..];
            std::str::from_utf8(last)
                .is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none())
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]], phase: Phase) -> Vec<(Part, String)> {
        let mut splitter = ThoughtSplitter::new(phase, &Markers::think(vec![1], vec![2]));
        let mut all: Vec<_> = pieces.iter().flat_map(|bytes| splitter.push(bytes)).collect();
        all.extend(splitter.finish());
        // Neighbouring pieces of one part are one text.
        all.into_iter().fold(Vec::new(), |mut joined: Vec<(Part, String)>, (part, text)| {
            match joined.last_mut() {
                Some((last, before)) if *last == part => before.push_str(&text),
                _ => joined.push((part, text)),
            }
            joined
        })
    }

    fn expected(parts: &[(Part, &str)]) -> Vec<(Part, String)> {
        parts.iter().map(|(part, text)| (*part, (*text).to_owned())).collect()
    }

    #[test]
    fn parts_do_not_depend_on_where_the_bytes_are_cut() {
        let text = "Ä<think>a < b </thin, naïve 🙂\n\n</think>\n\n日本 <think> stays";
        let whole = expected(&[
            (Part::Before, "Ä"),
            (Part::Marker, "<think>"),
            (Part::Thought, "a < b </thin, naïve 🙂\n\n"),
            (Part::Marker, "</think>"),
            (Part::Answer, "\n\n日本 <think> stays"),
        ]);
        for size in 1..text.len() {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(split(&pieces, Phase::Before), whole, "pieces of {size}");
        }
    }

    #[test]
    fn a_prompt_may_have_opened_or_closed_the_thought() {
        let parts = split(&[b"a</thi", b"nk>b"], Phase::Thinking);
        let close = (Part::Marker, "</think>");
        assert_eq!(parts, expected(&[(Part::Thought, "a"), close, (Part::Answer, "b")]));
        assert_eq!(split(&[b"<think>"], Phase::Answer), expected(&[(Part::Answer, "<think>")]));
    }

    #[test]
    fn what_never_becomes_whole_is_given_out_at_the_end() {
        assert_eq!(split(&[b"x</thin"], Phase::Thinking), expected(&[(Part::Thought, "x</thin")]));
        assert_eq!(
            split(&[b"ok \xe2\x82"], Phase::Answer),
            expected(&[(Part::Answer, "ok \u{fffd}")])
        );
        assert_eq!(
            split(&[b"\xff", b"a"], Phase::Answer),
            expected(&[(Part::Answer, "\u{fffd}a")])
        );
    }

    #[test]
    fn certain_text_is_not_held_back() {
        let mut splitter = ThoughtSplitter::new(Phase::Thinking, &Markers::think(vec![1], vec![2]));
        assert_eq!(splitter.push(b"so "), expected(&[(Part::Thought, "so ")]));
        assert_eq!(splitter.push(b"1 <"), expected(&[(Part::Thought, "1 ")]));
        assert_eq!(splitter.push(b" 2"), expected(&[(Part::Thought, "< 2")]));
    }
}
