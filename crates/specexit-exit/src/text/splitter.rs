//! Thoughts apart from answers.

use super::utf8::Utf8;
use super::{begun, find};
use crate::markers::Markers;
use crate::span::Phase;

/// What a piece of text belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What stands before a thought, or an output without one.
    Before,
    /// The inside of the thinking span.
    Thought,
    /// A marker around it.
    Marker,
    /// What follows it.
    Answer,
}

/// A piece of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What it belongs to.
    pub part: Part,
    /// Never empty.
    pub text: String,
}

/// Takes bytes in pieces of any size and tells thought from answer by the markers, as [`crate::Thought`] does:
/// there is one span at most, and what follows its end is answer whatever it says.
#[derive(Clone, Debug)]
pub struct Splitter {
    open: Vec<u8>,
    close: Vec<u8>,
    phase: Phase,
    /// The beginning of a marker, perhaps.
    held: Vec<u8>,
    utf8: Utf8,
}

impl Splitter {
    /// For an output whose prompt leaves off in `phase`.
    #[must_use]
    pub fn new(markers: &Markers, phase: Phase) -> Self {
        let (open, close) = (markers.open.clone(), markers.close.clone());
        Self { open, close, phase, held: Vec::new(), utf8: Utf8::default() }
    }

    /// What the next byte belongs to, unless it goes on with a marker.
    #[must_use]
    pub fn part(&self) -> Part {
        match self.phase {
            Phase::Thinking => Part::Thought,
            Phase::Before => Part::Before,
            Phase::Answer => Part::Answer,
        }
    }

    /// Whether nothing is held back that may turn out to be a marker.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.held.is_empty()
    }

    /// The pieces that are certain with these bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Segment> {
        let mut segments = Vec::new();
        self.held.extend_from_slice(bytes);
        loop {
            let (part, after) = (self.part(), self.after());
            let marker = match self.phase {
                Phase::Before => &self.open,
                Phase::Thinking => &self.close,
                Phase::Answer => {
                    let bytes = std::mem::take(&mut self.held);
                    emit(&mut segments, part, self.utf8.push(&bytes));
                    return segments;
                }
            };
            let Some(at) = find(&self.held, marker) else {
                let keep = begun(&self.held, marker);
                let certain: Vec<u8> = self.held.drain(..self.held.len() - keep).collect();
                emit(&mut segments, part, self.utf8.push(&certain));
                return segments;
            };
            let marker: Vec<u8> = marker.clone();
            let before: Vec<u8> = self.held.drain(..at).collect();
            emit(&mut segments, part, self.utf8.push(&before));
            emit(&mut segments, part, self.utf8.finish());
            self.held.drain(..marker.len());
            emit(&mut segments, Part::Marker, String::from_utf8_lossy(&marker).into_owned());
            self.phase = after;
        }
    }

    /// What was held back and is no marker after all.
    pub fn finish(&mut self) -> Vec<Segment> {
        let mut segments = Vec::new();
        let (part, bytes) = (self.part(), std::mem::take(&mut self.held));
        emit(&mut segments, part, self.utf8.push(&bytes));
        emit(&mut segments, part, self.utf8.finish());
        segments
    }

    fn after(&self) -> Phase {
        match self.phase {
            Phase::Before => Phase::Thinking,
            Phase::Thinking | Phase::Answer => Phase::Answer,
        }
    }
}

/// Adds text, to the last piece where that is of the same part.
fn emit(segments: &mut Vec<Segment>, part: Part, text: String) {
    match segments.last_mut() {
        _ if text.is_empty() => {}
        Some(last) if last.part == part => last.text.push_str(&text),
        _ => segments.push(Segment { part, text }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn splitter(phase: Phase) -> Splitter {
        Splitter::new(&Markers::think(vec![1], vec![2]), phase)
    }

    /// All segments, equal neighbours joined.
    fn split(phase: Phase, pieces: &[&[u8]]) -> Vec<Segment> {
        let mut splitter = splitter(phase);
        let mut all = Vec::new();
        let found = pieces.iter().flat_map(|piece| splitter.push(piece)).collect::<Vec<_>>();
        for segment in found.into_iter().chain(splitter.finish()) {
            assert!(!segment.text.is_empty());
            emit(&mut all, segment.part, segment.text);
        }
        all
    }

    fn text(phase: Phase, pieces: &[&[u8]]) -> String {
        let mark = |s: &Segment| match s.part {
            Part::Thought => format!("[{}]", s.text),
            Part::Marker => "|".repeat(s.text.matches('>').count()),
            Part::Before | Part::Answer => s.text.clone(),
        };
        split(phase, pieces).iter().map(mark).collect()
    }

    #[test]
    fn markers_stand_anywhere_in_what_lands() {
        let thinking = Phase::Thinking;
        assert_eq!(text(thinking, &[b"a b</think>c"]), "[a b]|c");
        assert_eq!(
            text(thinking, &[b"a<", b"/thi", b"nk", b">\n", b"c</think>"]),
            "[a]|\nc</think>"
        );
        assert_eq!(text(thinking, &[b"a</thin", b"g></think></think>"]), "[a</thing>]|</think>");
        assert_eq!(text(thinking, &[b"a</th"]), "[a</th]");
        assert_eq!(text(Phase::Before, &[b"x<thi", b"nk>y</think>z<think>"]), "x|[y]|z<think>");
        assert_eq!(text(Phase::Before, &[b"no thought <think"]), "no thought <think");
        assert_eq!(text(Phase::Answer, &[b"</think>"]), "</think>");
        assert_eq!(text(Phase::Before, &[b"<think></think>"]), "||");
        // A character cut off by the marker.
        assert_eq!(text(thinking, &[b"a\xf0\x9f", b"</think>b"]), "[a\u{fffd}]|b");
    }

    fn expected(parts: &[(Part, &str)]) -> Vec<Segment> {
        parts.iter().map(|&(part, text)| Segment { part, text: text.to_owned() }).collect()
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
            assert_eq!(split(Phase::Before, &pieces), whole, "pieces of {size}");
        }
    }

    #[test]
    fn a_prompt_may_have_opened_or_closed_the_thought() {
        let parts = split(Phase::Thinking, &[b"a</thi", b"nk>b"]);
        let close = (Part::Marker, "</think>");
        assert_eq!(parts, expected(&[(Part::Thought, "a"), close, (Part::Answer, "b")]));
        assert_eq!(split(Phase::Answer, &[b"<think>"]), expected(&[(Part::Answer, "<think>")]));
    }

    #[test]
    fn what_never_becomes_whole_is_given_out_at_the_end() {
        assert_eq!(split(Phase::Thinking, &[b"x</thin"]), expected(&[(Part::Thought, "x</thin")]));
        assert_eq!(
            split(Phase::Answer, &[b"ok \xe2\x82"]),
            expected(&[(Part::Answer, "ok \u{fffd}")])
        );
        assert_eq!(
            split(Phase::Answer, &[b"\xff", b"a"]),
            expected(&[(Part::Answer, "\u{fffd}a")])
        );
    }

    #[test]
    fn certain_text_is_not_held_back() {
        let mut splitter = splitter(Phase::Thinking);
        assert_eq!(splitter.push(b"so "), expected(&[(Part::Thought, "so ")]));
        assert_eq!(splitter.push(b"1 <"), expected(&[(Part::Thought, "1 ")]));
        assert_eq!(splitter.push(b" 2"), expected(&[(Part::Thought, "< 2")]));
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same(
            parts in prop::collection::vec(prop::sample::select(vec![
                &b"<think>"[..], b"</think>", b"<", b"/think>", b"</thi", b"nk>", "é".as_bytes(), b"\xf0\x9f\x98\x80",
                b"\xff", b"\n\n", b"word ",
            ]), 0..14),
            cuts in prop::collection::vec(1..5_usize, 0..60),
            phase in prop::sample::select(vec![Phase::Before, Phase::Thinking, Phase::Answer]),
        ) {
            let whole = parts.concat();
            let mut pieces: Vec<&[u8]> = Vec::new();
            let mut rest = &whole[..];
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            prop_assert_eq!(split(phase, &pieces), split(phase, &[&whole]));
            let joined: String = split(phase, &pieces).into_iter().map(|s| s.text).collect();
            prop_assert_eq!(joined.replace('\u{fffd}', ""), String::from_utf8_lossy(&whole).replace('\u{fffd}', ""));
        }
    }
}
