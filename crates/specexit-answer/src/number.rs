//! Finding numbers in prose.

use std::ops::Range;

/// Words that multiply the number before them, as powers of ten.
pub(crate) const SCALES: [(&str, &str); 5] =
    [("hundred", "2"), ("thousand", "3"), ("million", "6"), ("billion", "9"), ("trillion", "12")];

/// The numbers of a text, in order: signs, thousands separators, decimals, powers of ten, simple
/// and mixed fractions. Digits that belong to a name, an index or an exponent (`x1`, `a_2`, `cm^2`)
/// are no numbers of their own. The text must be folded.
pub(crate) fn numbers(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        if let Some(end) = latex_fraction(bytes, at) {
            at = end;
            found.push(signed_start(bytes, start)..end);
        } else if starts_number(bytes, at) {
            at = scale_end(bytes, number_end(bytes, at));
            if !belongs_to_name(bytes, start) {
                found.push(signed_start(bytes, start)..at);
            }
        } else {
            at += 1;
        }
    }
    found
}

/// The first number of a text.
pub(crate) fn first_number(text: &str) -> Option<&str> {
    numbers(text).first().map(|range| &text[range.clone()])
}

/// The last number of a text.
pub(crate) fn last_number(text: &str) -> Option<&str> {
    numbers(text).last().map(|range| &text[range.clone()])
}

fn digit(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_some_and(u8::is_ascii_digit)
}

fn digits(bytes: &[u8], at: usize) -> usize {
    bytes[at.min(bytes.len())..].iter().take_while(|b| b.is_ascii_digit()).count()
}

fn starts_number(bytes: &[u8], at: usize) -> bool {
    digit(bytes, at) || (bytes[at] == b'.' && digit(bytes, at + 1) && !word_before(bytes, at))
}

fn word_before(bytes: &[u8], at: usize) -> bool {
    at > 0 && bytes[at - 1].is_ascii_alphanumeric()
}

/// `x1`, `a_2`, `cm^2`, `x^{2}`; but not `\times3`, where the letters are a command.
fn belongs_to_name(bytes: &[u8], start: usize) -> bool {
    match bytes[..start].last() {
        Some(b'^' | b'_') => true,
        Some(b'{') => matches!(start.checked_sub(2).map(|i| bytes[i]), Some(b'^' | b'_')),
        Some(b) if b.is_ascii_alphabetic() => {
            // Names are short; looking further back would cost time on hostile texts.
            let from = start.saturating_sub(12);
            let letters =
                bytes[from..start].iter().rev().take_while(|b| b.is_ascii_alphabetic()).count();
            start.checked_sub(letters + 1).is_none_or(|before| bytes[before] != b'\\')
        }
        _ => false,
    }
}

/// Includes a sign, and a currency between sign and digits, if they belong to the number.
fn signed_start(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    if at > 0 && bytes[at - 1] == b'$' {
        at -= 1;
        if at > 0 && bytes[at - 1] == b'\\' {
            at -= 1;
        }
    }
    let Some(sign) = at.checked_sub(1) else { return start };
    match bytes[sign] {
        b'-' | b'+' => {
            // After a value the mark is an operator or a dash: `5-3`, `x)-3`, `10-15`.
            let before = bytes[..sign].last();
            let operator = before.is_some_and(|b| {
                b.is_ascii_alphanumeric() || matches!(b, b')' | b'}' | b'%' | b'-')
            });
            if operator { start } else { sign }
        }
        b' ' if sign > 0 && bytes[sign - 1] == b'-' => {
            // `= - 5`: after an equals sign even a loose minus is a sign.
            let before = bytes[..sign - 1].iter().rev().take(3).find(|&&b| b != b' ');
            if before == Some(&b'=') { sign - 1 } else { start }
        }
        _ => start,
    }
}

/// Includes the word in `2.5 million`.
fn scale_end(bytes: &[u8], at: usize) -> usize {
    let word = SCALES.iter().map(|(word, _)| word).find(|word| {
        let rest = bytes[at..].strip_prefix(b" ").and_then(|r| r.strip_prefix(word.as_bytes()));
        rest.is_some_and(|rest| !rest.first().is_some_and(u8::is_ascii_alphanumeric))
    });
    word.map_or(at, |word| at + 1 + word.len())
}

fn number_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + digits(bytes, start);
    if at - start <= 3 {
        while let Some(end) = thousands_group(bytes, at) {
            at = end;
        }
    }
    let mut whole = true;
    if bytes.get(at) == Some(&b'.') && digit(bytes, at + 1) {
        at += 1 + digits(bytes, at + 1);
        whole = false;
    }
    if let Some(end) = power_of_ten(bytes, at) {
        return end;
    }
    if whole {
        if let Some(end) = slash_fraction(bytes, at) {
            return end;
        }
        // `2 1/2`
        if bytes.get(at) == Some(&b' ') && digit(bytes, at + 1) {
            let numerator = at + 1 + digits(bytes, at + 1);
            if let Some(end) = slash_fraction(bytes, numerator) {
                return end;
            }
        }
        // `2\frac{1}{2}`
        if let Some(end) = latex_fraction(bytes, at) {
            return end;
        }
    }
    at
}

/// `,234`, `,\!234`, `{,}234` or `\,234`, not followed by a further digit; after a bare space only
/// `000`, because other digits may be the next number.
pub(crate) fn thousands_group(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let separator = ["{,}", ",\\!\\!", ",\\! ", ",\\!", "\\,", ",", " "]
        .into_iter()
        .find(|s| rest.starts_with(s.as_bytes()))?;
    let group = at + separator.len();
    let three = digits(&bytes[..bytes.len().min(group + 4)], group) == 3;
    (three && (separator != " " || bytes[group..].starts_with(b"000"))).then_some(group + 3)
}

/// `/4`, but not in `1/2/2020`.
fn slash_fraction(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'/') || !digit(bytes, at + 1) {
        return None;
    }
    let end = at + 1 + digits(bytes, at + 1);
    let more = bytes.get(end) == Some(&b'/') && digit(bytes, end + 1);
    (!more).then_some(end)
}

/// `e5`, `E-3`, `\times 10^5`, `*10^{-3}`, `x 10^5`.
fn power_of_ten(bytes: &[u8], at: usize) -> Option<usize> {
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let count = digits(bytes, at + 1 + sign);
        let end = at + 1 + sign + count;
        return (count > 0 && !bytes.get(end).is_some_and(u8::is_ascii_alphabetic)).then_some(end);
    }
    let skip_spaces = |at: usize| {
        at + bytes[at.min(bytes.len())..].iter().take(3).take_while(|&&b| b == b' ').count()
    };
    let at = skip_spaces(at);
    let rest = bytes.get(at..)?;
    let times =
        ["\\times", "\\cdot", "*", "x"].into_iter().find(|s| rest.starts_with(s.as_bytes()))?;
    let at = skip_spaces(at + times.len());
    let rest = bytes.get(at..)?.strip_prefix(b"10^")?;
    let at = bytes.len() - rest.len();
    let braced = rest.first() == Some(&b'{');
    let at = at + usize::from(braced);
    let at = at + usize::from(bytes.get(at) == Some(&b'-'));
    let count = digits(bytes, at);
    let end = at + count;
    if count == 0 || (braced && bytes.get(end) != Some(&b'}')) {
        return None;
    }
    Some(end + usize::from(braced))
}

/// `\frac{1}{2}`, `\dfrac{1}{2}`, `\frac12` with plain digits.
fn latex_fraction(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at..)?;
    let command =
        ["\\frac", "\\dfrac", "\\tfrac"].into_iter().find(|s| rest.starts_with(s.as_bytes()))?;
    let argument = |at: usize| {
        let at = at + usize::from(bytes.get(at) == Some(&b' '));
        if bytes.get(at) == Some(&b'{') {
            let sign = usize::from(bytes.get(at + 1) == Some(&b'-'));
            let count = digits(bytes, at + 1 + sign);
            let end = at + 1 + sign + count;
            (count > 0 && bytes.get(end) == Some(&b'}')).then_some(end + 1)
        } else {
            digit(bytes, at).then_some(at + 1)
        }
    };
    argument(argument(at + command.len())?)
}
