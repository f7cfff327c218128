//! Prose and plain-text math made LaTeX, before it is read.

use crate::number::{SCALES, thousands_group};

/// Names that mean the same with and without a backslash.
const NAMES: [&str; 11] =
    ["pi", "sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "cis", "theta"];

/// `2.5 million` is a product.
pub(super) fn join_scales(text: &str) -> String {
    let mut text = text.to_owned();
    for (word, exponent) in SCALES {
        let mut from = 0;
        while let Some(found) = text[from..].find(word) {
            let start = from + found;
            let end = start + word.len();
            let before = text[..start].trim_end();
            let alone = !text[end..].starts_with(|c: char| c.is_alphanumeric());
            if alone && before.ends_with(|c: char| c.is_ascii_digit()) {
                let power = format!("*10^{{{exponent}}}");
                let start = before.len();
                text.replace_range(start..end, &power);
                from = start + power.len();
            } else {
                from = end;
            }
        }
    }
    text
}

/// `million` as a factor.
pub(super) fn power_of(word: &str) -> Option<String> {
    let (_, exponent) = SCALES.into_iter().find(|(name, _)| *name == word)?;
    Some(format!("*10^{{{exponent}}}"))
}

/// A word of plain text that is math: `sqrt`, `pi`, `sin`, `infinity`. Gives the command without
/// its backslash.
pub(super) fn command_of(word: &str) -> Option<&'static str> {
    match word {
        "sqrt" => Some("sqrt"),
        "infinity" | "Infinity" | "inf" => Some("infty"),
        _ => NAMES.into_iter().find(|name| *name == word),
    }
}

/// `1 and −2`, `3 or 5` become lists.
pub(super) fn join_alternatives(text: &str) -> String {
    if !text.bytes().any(|b| b.is_ascii_digit()) {
        return text.to_owned();
    }
    let mut text = text.to_owned();
    for word in [", and ", ", or ", " and ", " or "] {
        text = text.replace(word, ", ");
    }
    text
}

/// Takes the separators out of `10,080`, `10,\!080` and `10{,}080`; but not inside brackets, where
/// `(15,290)` is a pair.
pub(super) fn join_thousands(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut depth = 0_i32;
    let mut run = 0;
    let mut decimals = false;
    let mut at = 0;
    while at < bytes.len() {
        if depth <= 0
            && (1..=3).contains(&run)
            && !decimals
            && let Some(end) = thousands_group(bytes, at)
        {
            out.push_str(&text[end - 3..end]);
            // A further group may follow.
            run = 3;
            at = end;
            continue;
        }
        match bytes[at] {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            _ => {}
        }
        if bytes[at].is_ascii_digit() {
            run += 1;
        } else {
            run = 0;
            decimals = bytes[at] == b'.';
        }
        let length = text[at..].chars().next().map_or(1, char::len_utf8);
        out.push_str(&text[at..at + length]);
        at += length;
    }
    out
}

/// The length of `(…)` at the start of a text.
pub(super) fn parenthesised(text: &str) -> Option<usize> {
    if !text.starts_with('(') {
        return None;
    }
    let mut depth = 0_usize;
    for (at, b) in text.bytes().enumerate() {
        match b {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

/// The length of an exponent of plain text: `10`, `-5`, `(1/2)`. LaTeX would take its first
/// character only, but nobody means that.
pub(super) fn exponent(text: &str) -> Option<usize> {
    if let Some(length) = parenthesised(text) {
        return Some(length);
    }
    let sign = usize::from(text.starts_with('-'));
    let digits = text[sign..].bytes().take_while(u8::is_ascii_digit).count();
    (digits > 0).then_some(sign + digits)
}
