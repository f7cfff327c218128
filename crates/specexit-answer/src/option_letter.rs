//! Finding the letter of a multiple-choice option.

use crate::{latex, statement, typography::strip_marks};

/// The option that a text chooses, as one upper-case letter. The text must be folded.
pub(crate) fn find(text: &str, boxed: Option<&str>) -> Option<char> {
    boxed
        .and_then(alone)
        .or_else(|| boxed.and_then(leading))
        .or_else(|| statement::after_hashes(text).find_map(alone))
        .or_else(|| statement::values(text).find_map(leading))
        .or_else(|| named(text))
        .or_else(|| last_in_parentheses(text))
        .or_else(|| last_bold(text))
        .or_else(|| only_line_start(text))
        .or_else(|| alone(text))
}

/// A text that is nothing but an option: `B`, `(b)`, `**B.**`, `\text{(C)}`.
pub(crate) fn alone(text: &str) -> Option<char> {
    if text.len() > 64 {
        return None;
    }
    let text = strip_marks(&latex::unwrap_text(text)).trim().to_owned();
    let inner = text.trim_start_matches('(').trim_end_matches([')', '.', ':']);
    let mut chars = strip_marks(inner).chars();
    match (chars.next(), chars.next()) {
        (Some(letter), None) => label(letter),
        _ => None,
    }
}

fn label(letter: char) -> Option<char> {
    let letter = letter.to_ascii_uppercase();
    ('A'..='J').contains(&letter).then_some(letter)
}

/// A text that begins with an option: `(B) because …`, `B.`, `option B`, `B) 42`. A lower-case
/// letter needs a bracket or the end after it, and `A` must not be an article.
fn leading(value: &str) -> Option<char> {
    let mut value = value.trim_start_matches(['*', '_', '$', '"', '`', ' ']);
    for prefix in ["option", "choice", "letter"] {
        if let Some(rest) = strip_prefix_ignore_case(value, prefix) {
            value = rest.trim_start_matches(['*', '_', '$', '"', '`', ' ', ':']);
        }
    }
    for prefix in ["\\text{", "\\textbf{", "\\mathrm{", "\\mathbf{", "\\("] {
        value = value.strip_prefix(prefix).unwrap_or(value);
    }
    let bracket = value.starts_with(['(', '[']);
    let value = value.trim_start_matches(['(', '[']);
    let letter = value.chars().next()?;
    let rest = &value[letter.len_utf8()..];
    let label = label(letter)?;
    let closed = rest.is_empty() || rest.starts_with([')', ']', '}', '*', '$', '"', '`', '\\']);
    let stop = rest.starts_with(['.', ',', ':', ';', '!', '\n']) || rest.trim().is_empty();
    let because = ["because", "since", "as ", "which", "-", "with", "is "]
        .iter()
        .any(|word| rest.trim_start().starts_with(word));
    let spaced = rest.starts_with(' ') && (letter != 'A' && letter != 'I' || because);
    let accepted = if bracket || closed {
        closed || bracket && rest.starts_with([')', ']'])
    } else {
        letter.is_ascii_uppercase() && (stop || spaced)
    };
    accepted.then_some(label)
}

fn strip_prefix_ignore_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

/// "… so option C is right": the last option called by name.
fn named(text: &str) -> Option<char> {
    let lower = text.to_ascii_lowercase();
    ["option", "choice"]
        .iter()
        .flat_map(|word| lower.match_indices(word).map(|(at, word)| at + word.len()))
        .filter_map(|end| {
            let rest = text[end..].trim_start_matches([' ', '*', ':', '(']);
            // `the choice is B)`, but not `the choice is A matter of taste`.
            let rest = match rest
                .strip_prefix("is ")
                .map(|rest| rest.trim_start_matches(['*', '(']))
            {
                Some(stated) if stated[..].chars().nth(1).is_none_or(|c| ").*,:".contains(c)) => {
                    stated
                }
                _ => rest,
            };
            let letter = rest.chars().next().filter(char::is_ascii_uppercase).and_then(label)?;
            let after = rest[1..].chars().next();
            (!after.is_some_and(char::is_alphanumeric)).then_some((end, letter))
        })
        .max_by_key(|(end, _)| *end)
        .map(|(_, letter)| letter)
}

fn last_in_parentheses(text: &str) -> Option<char> {
    let bytes = text.as_bytes();
    let at = bytes
        .windows(3)
        .rposition(|w| w[0] == b'(' && w[2] == b')' && label(char::from(w[1])).is_some())?;
    label(char::from(bytes[at + 1]))
}

fn last_bold(text: &str) -> Option<char> {
    let bytes = text.as_bytes();
    let at = bytes.windows(5).rposition(|w| {
        w.starts_with(b"**")
            && w[2].is_ascii_uppercase()
            && label(char::from(w[2])).is_some()
            && matches!(&w[3..], b"**" | b".*" | b")*" | b": " | b". " | b") ")
    })?;
    label(char::from(bytes[at + 2]))
}

/// The option whose letter begins a line, if no other one does: else the lines list the options.
fn only_line_start(text: &str) -> Option<char> {
    let mut found = None;
    for line in text.lines() {
        let line = line.trim_start();
        let mut chars = line.chars();
        let (Some(letter), Some('.' | ')' | ':')) = (chars.next(), chars.next()) else { continue };
        if !letter.is_ascii_uppercase() || chars.next().is_some_and(|c| c != ' ') {
            continue;
        }
        match (label(letter), found) {
            (Some(label), None) => found = Some(label),
            (Some(label), Some(other)) if label != other => return None,
            _ => {}
        }
    }
    found
}
