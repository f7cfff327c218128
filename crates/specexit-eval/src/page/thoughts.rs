//! Single thoughts to browse: each token shaded by progress, with the exits of all methods in place.

use std::fmt::Write;

use specexit_engine::Signals;
use specexit_train::page::{Table, escape};

use super::cuts::{Sufficient, is_early};
use super::folder::TaskFiles;
use super::methods::{called, letter};
use crate::record::Record;
use crate::replay::Recording;

/// Shades of progress, from 0 to 1; the style sheet has a colour for each.
const SHADES: usize = 10;

/// One question: what is shown before and after a click.
pub(super) struct Thought {
    pub(super) question: String,
    /// One for each method: its letter, whether the answer is right, and what it did in a few words.
    pub(super) chips: Vec<Chip>,
    /// The question as asked, where that is known.
    pub(super) asked: Option<String>,
    /// The right answer, where it is known.
    pub(super) gold: Option<String>,
    pub(super) exits: Table,
    /// Said where tokens are not told apart.
    pub(super) note: Option<&'static str>,
    /// The text as markup.
    pub(super) text: String,
}

/// A method's result in a line.
pub(super) struct Chip {
    pub(super) letter: String,
    pub(super) right: bool,
    pub(super) tokens: usize,
    pub(super) title: String,
}

/// Where a token has no number of its own, because the head speaks at the ends of paragraphs only, what it
/// says at the next end holds.
#[must_use]
pub fn carried_back(mut numbers: Vec<f32>) -> Vec<f32> {
    let mut next = f32::NAN;
    for number in numbers.iter_mut().rev() {
        if number.is_nan() {
            *number = next;
        }
        next = *number;
    }
    numbers
}

/// The first `limit` thoughts of a task, and how many there are.
pub(super) fn thoughts(
    methods: &[String],
    files: &TaskFiles,
    limit: usize,
) -> (Vec<Thought>, usize) {
    let mut questions: Vec<&str> = Vec::new();
    let named = files.recordings.iter().map(|r| r.question.as_str());
    let mut seen = std::collections::HashSet::new();
    for question in named.chain(files.records.iter().map(|r| r.question.as_str())) {
        if seen.insert(question) {
            questions.push(question);
        }
    }
    let shown = questions.iter().take(limit).map(|question| thought(methods, files, question));
    (shown.collect(), questions.len())
}

fn thought(methods: &[String], files: &TaskFiles, question: &str) -> Thought {
    let of = |method: &String| {
        files.records.iter().find(|r| r.question == question && r.method == *method)
    };
    let records: Vec<(usize, &Record)> =
        methods.iter().enumerate().filter_map(|(i, method)| Some((i, of(method)?))).collect();
    let known = files.texts.get(question);
    let recording = files.recording(question);
    let pieces = known.map(|text| &text.pieces[..]).filter(|pieces| !pieces.is_empty());
    let (text, note) = match (recording, pieces) {
        (Some(recording), Some(pieces)) => {
            let signals = files.signals.get(question).map(Vec::as_slice);
            (tokens(recording, pieces, signals, &records), None)
        }
        _ => {
            let text = records.first().map_or("", |(_, record)| record.text.as_str());
            let note = "The tokens of this thought were not recorded; this is the answer of the first method.";
            (escape(text), Some(note))
        }
    };
    Thought {
        question: question.to_owned(),
        chips: records.iter().map(|(i, record)| chip(*i, record)).collect(),
        asked: known.map(|text| text.asked.clone()).filter(|asked| !asked.is_empty()),
        gold: known.and_then(|text| text.gold.clone()),
        exits: exits(&records),
        note,
        text,
    }
}

fn chip(number: usize, record: &Record) -> Chip {
    let right = if record.correct { "right" } else { "wrong" };
    let tokens = record.thinking_tokens;
    Chip {
        letter: letter(number),
        right: record.correct,
        tokens,
        title: format!("{}: {right} after {tokens} thinking tokens", record.method),
    }
}

fn exits(records: &[(usize, &Record)]) -> Table {
    let head = ["Method", "Ended by", "After tokens", "Thinking", "All", "Probes", "Answer", ""];
    let rows = records.iter().map(|(number, record)| {
        let ended = record.exit.map_or("nothing".to_owned(), |exit| exit.reason.to_string());
        vec![
            called(*number, &record.method),
            ended,
            record.exit.map_or("–".to_owned(), |exit| exit.token_index.to_string()),
            record.thinking_tokens.to_string(),
            record.total_tokens.to_string(),
            record.probe_tokens.to_string(),
            record.answer.clone().unwrap_or_else(|| "none".to_owned()),
            if record.correct { "right" } else { "wrong" }.to_owned(),
        ]
    });
    Table { kind: "exits", ..Table::new("By method", &head, rows.collect()) }
}

/// The recorded text as markup: one `i` for each token, and between them what happens there.
fn tokens(
    recording: &Recording,
    pieces: &[String],
    signals: Option<&[Signals]>,
    records: &[(usize, &Record)],
) -> String {
    let shades: Vec<f32> = signals.unwrap_or_default().iter().map(|s| s.progress).collect();
    let shades = carried_back(shades);
    let mut text = String::new();
    for (at, piece) in pieces.iter().enumerate() {
        // The boundary belongs to the line that it ends, an exit to the place after it.
        place(&mut text, recording, at, records);
        let shade = shades.get(at).copied().filter(|shade| !shade.is_nan());
        let piece = escape(piece);
        // Writing to a String cannot fail.
        let _ = match shade {
            Some(shade) => {
                let shade = (shade.clamp(0.0, 1.0) * (SHADES - 1) as f32).round() as usize;
                write!(text, "<i class=\"p{shade}\">{piece}</i>")
            }
            None => write!(text, "<i>{piece}</i>"),
        };
    }
    place(&mut text, recording, pieces.len(), records);
    text
}

/// What happens after `at` tokens: whether closing there gives the right answer, and who closes.
fn place(text: &mut String, recording: &Recording, at: usize, records: &[(usize, &Record)]) {
    let mut said = String::new();
    if let Some(closed) = recording.closed.iter().find(|closed| closed.at == at) {
        let answer = escape(closed.answer.as_deref().unwrap_or("none"));
        let (class, sign, word) =
            if closed.correct { ("right", "✓", "right") } else { ("wrong", "✗", "wrong") };
        let _ = write!(
            said,
            "<b class=\"cut {class}\" title=\"closed after {at} tokens: {answer}, {word}\">{sign}</b>"
        );
        for (sufficient, words) in [
            (Sufficient::First, "earliest sufficient cut"),
            (Sufficient::Lasting, "right from here on"),
        ] {
            if sufficient.of(recording).is_some_and(|cut| cut.at == at) {
                let _ = write!(said, "<b class=\"cut sufficient\">{words}</b>");
            }
        }
    }
    for (number, record) in records.iter().filter(|(_, record)| is_early(record)) {
        if record.exit.is_some_and(|exit| exit.token_index == at) {
            let (class, word) = if record.correct { ("right", "✓") } else { ("wrong", "✗") };
            let _ = write!(
                said,
                "<mark class=\"exit {class}\" data-method=\"{}\" data-at=\"{at}\">{} {word}</mark>",
                escape(&record.method),
                escape(&called(*number, &record.method))
            );
        }
    }
    if !said.is_empty() {
        let _ = write!(text, "<span class=\"marks\">{said}</span>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_is_shaded_by_its_end() {
        let nan = f32::NAN;
        let shades = carried_back(vec![nan, 0.2, nan, nan, 0.9, nan]);
        assert_eq!(shades[..5], [0.2, 0.2, 0.9, 0.9, 0.9]);
        assert!(shades[5].is_nan());
    }
}
