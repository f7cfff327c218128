//! Finding the answer in a text.

use crate::{
    answer::{Answer, AnswerKind},
    brackets,
    compare::is_mathematical,
    expression,
    number::{first_number, last_number},
    option_letter, statement,
    typography::{fold, strip_marks},
};

/// The end-of-thinking marker as nearly all models write it.
const END_OF_THINKING: &str = "</think>";
/// Words in a stated answer that is neither number nor math: more are a sentence.
const MOST_WORDS: usize = 5;

/// The final answer of a text, the last one where there are several.
///
/// Only what follows the last `</think>` is read, if there is one: an answer that was only thought
/// is not given. The places looked at, in order: `\boxed{…}`; a line `#### …`; "the answer is …",
/// "Answer: …" and the like; and, unless the kind is [`AnswerKind::Boxed`], the last number of the
/// text. For [`AnswerKind::Option`] every place holds a letter from A to J.
#[must_use]
pub fn extract(text: &str, kind: AnswerKind) -> Option<Answer> {
    let text = text.rsplit_once(END_OF_THINKING).map_or(text, |(_, answer)| answer);
    let text = fold(text);
    let boxed = boxed(&text);
    match kind {
        AnswerKind::Option => option_letter::find(&text, boxed).map(option_answer),
        AnswerKind::Number => boxed
            .and_then(number_in_box)
            .or_else(|| statement::after_hashes(&text).find_map(after_hashes))
            .or_else(|| statement::values(&text).find_map(stated_number))
            .or_else(|| last_number(&text).map(number_answer)),
        AnswerKind::Boxed => in_box_or_stated(&text, boxed),
        AnswerKind::Auto => in_box_or_stated(&text, boxed)
            .or_else(|| option_letter::alone(&text).map(option_answer))
            .or_else(|| last_number(&text).map(number_answer)),
    }
}

fn in_box_or_stated(text: &str, boxed: Option<&str>) -> Option<Answer> {
    boxed
        .map(in_box)
        .or_else(|| statement::after_hashes(text).find_map(after_hashes))
        .or_else(|| statement::values(text).find_map(stated))
}

fn option_answer(letter: char) -> Answer {
    Answer::new(AnswerKind::Option, letter.encode_utf8(&mut [0; 4]))
}

fn number_answer(text: &str) -> Answer {
    Answer::new(AnswerKind::Number, text)
}

/// A number if the value is one, an expression otherwise.
fn value_answer(text: &str) -> Answer {
    let mut answer = Answer::new(AnswerKind::Boxed, text);
    if expression::is_constant(&answer.normalised) {
        answer.kind = AnswerKind::Number;
    }
    answer
}

fn in_box(content: &str) -> Answer {
    match option_letter::alone(content) {
        // A single bare letter may be a variable, but as an answer it is an option.
        Some(letter) if content.bytes().any(|b| b.is_ascii_uppercase()) => option_answer(letter),
        _ => value_answer(content),
    }
}

/// The whole box, unless it holds a sentence with a number in it.
fn number_in_box(content: &str) -> Option<Answer> {
    let whole = value_answer(content);
    let number = last_number(content)?;
    let words = content.split_whitespace().filter(|word| {
        word.chars().filter(|c| c.is_alphabetic()).count() >= 2 && !word.contains('\\')
    });
    let sentence = whole.kind != AnswerKind::Number && words.count() >= 2;
    Some(if sentence { number_answer(number) } else { whole })
}

/// `#### 72`; but no heading such as `#### 2. The rest`.
fn after_hashes(line: &str) -> Option<Answer> {
    let value = value_answer(strip_marks(line));
    let heading =
        line.split_once(". ").is_some_and(|(number, _)| number.bytes().all(|b| b.is_ascii_digit()));
    let single_word = expression::is_words(&value.normalised) && !line.contains(' ');
    let accepted = !heading
        && (option_letter::alone(line).is_some()
            || single_word && !line.ends_with(':')
            || is_mathematical(&value.normalised));
    accepted.then(|| in_box(strip_marks(line)))
}

/// The number in a stated value: `$12 × 3 = 36`, `18 dollars`.
fn stated_number(value: &str) -> Option<Answer> {
    let whole = value_answer(value);
    if whole.kind == AnswerKind::Number {
        return Some(whole);
    }
    if let Some(math) = math_segment(value) {
        let math = value_answer(math);
        if math.kind == AnswerKind::Number {
            return Some(math);
        }
    }
    let right = value.rsplit_once('=').map_or(value, |(_, right)| right);
    first_number(right).or_else(|| first_number(value)).map(number_answer)
}

/// Whatever a stated value is: an option, math, a number, or a few words.
fn stated(value: &str) -> Option<Answer> {
    if let Some(letter) = option_letter::alone(value) {
        return Some(option_answer(letter));
    }
    let bare = strip_marks(value);
    let whole = value_answer(bare);
    if is_mathematical(&whole.normalised) {
        return Some(whole);
    }
    if let Some(math) = math_segment(value) {
        return Some(value_answer(math));
    }
    if first_number(bare).is_some() {
        return stated_number(bare);
    }
    let bare = bare.strip_prefix("option ").unwrap_or(bare);
    (!bare.is_empty() && bare.split_whitespace().count() <= MOST_WORDS).then(|| value_answer(bare))
}

/// The first piece of math between delimiters. Dollar signs with a sentence between them are
/// amounts of money.
fn math_segment(value: &str) -> Option<&str> {
    for (open, close) in [("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"), ("$", "$")] {
        let Some(start) = find_delimiter(value, open, 0) else { continue };
        let start = start + open.len();
        let Some(end) = find_delimiter(value, close, start) else { continue };
        let inner = &value[start..end];
        let prose = open == "$"
            && inner
                .split_whitespace()
                .any(|word| word.len() > 2 && word.bytes().all(|b| b.is_ascii_alphabetic()));
        if !prose && !inner.trim().is_empty() {
            return Some(inner);
        }
    }
    None
}

/// A delimiter from `from` on; `\$` is none.
fn find_delimiter(text: &str, delimiter: &str, from: usize) -> Option<usize> {
    text[from..]
        .match_indices(delimiter)
        .map(|(at, _)| from + at)
        .find(|&at| !text[..at].ends_with('\\'))
}

/// What the last `\boxed` that is complete and not empty holds. One pass over the text, with a
/// stack of open braces, so that a megabyte of braces takes no longer than a megabyte of words.
fn boxed(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let mut open = Vec::new();
    let mut found = None;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => {
                let rest = &bytes[at..];
                let command =
                    ["\\boxed", "\\fbox"].into_iter().find(|c| rest.starts_with(c.as_bytes()));
                let Some(command) = command else {
                    at += 2;
                    continue;
                };
                at += command.len();
                let spaces = bytes[at..].iter().take(8).take_while(|&&b| b == b' ').count();
                match bytes.get(at + spaces) {
                    Some(b'{') => {
                        at += spaces + 1;
                        open.push(Some(at));
                    }
                    Some(b) if spaces > 0 || b.is_ascii_digit() => {
                        let from = at + spaces;
                        let end = text[from..]
                            .find(|c: char| c.is_whitespace() || c == '$' || c == '\\')
                            .map_or(text.len(), |length| from + length);
                        found = Some((from, end)).filter(|(from, end)| from < end).or(found);
                        at = end;
                    }
                    _ => {}
                }
                continue;
            }
            b'{' => open.push(None),
            b'}' => {
                if let Some(Some(start)) = open.pop()
                    && !text[start..at].trim().is_empty()
                {
                    found = Some((start, at));
                }
            }
            _ => {}
        }
        at += 1;
    }
    found.map(|(start, end)| latex_box(&text[start..end]))
}

/// A box in a box counts once.
fn latex_box(content: &str) -> &str {
    let inner = content.trim().strip_prefix("\\boxed{").and_then(|rest| rest.strip_suffix('}'));
    inner.map_or(content, |inner| if brackets::is_balanced(inner) { inner } else { content })
}
