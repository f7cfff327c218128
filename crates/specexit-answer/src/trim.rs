//! Taking off what stands around a value in the normal spelling: `x =`, "about", units, labels.

use std::borrow::Cow;

use crate::{
    brackets::{bracketed, split},
    expression,
};

pub(crate) fn trim(value: &str) -> String {
    let value = strip_label(strip_approximately(strip_membership(value)));
    let value = strip_parenthesised_digits(strip_point_name(value));
    let value = value.as_ref();
    let parts: Vec<&str> = split(value, ",").into_iter().map(right_hand_side).collect();
    let value = parts.join(",");
    let value = strip_unit(strip_approximately(&value));
    strip_single_parentheses(value).to_owned()
}

/// `(A)27`, an option with its value, is 27.
fn strip_label(value: &str) -> &str {
    let bytes = value.as_bytes();
    let label = bytes.len() > 3
        && bytes[0] == b'('
        && (b'A'..=b'J').contains(&bytes[1])
        && bytes[2] == b')'
        && (bytes[3].is_ascii_digit() || matches!(bytes[3], b'-' | b'\\' | b' '));
    if label { value[3..].trim_start() } else { value }
}

/// `(r,\theta)=(3,4)` is `(3,4)`.
fn strip_point_name(value: &str) -> &str {
    let Some((left, right)) = value.split_once('=') else { return value };
    let (Some((_, names, _)), Some((_, coordinates, _))) = (bracketed(left), bracketed(right))
    else {
        return value;
    };
    let (names, coordinates) = (split(names, ","), split(coordinates, ","));
    let named = names.len() == coordinates.len() && names.iter().all(|name| is_name(name));
    if named { right } else { value }
}

/// `(2516)_{8}` is `2516_{8}`.
fn strip_parenthesised_digits(value: &str) -> Cow<'_, str> {
    let digits = value.strip_prefix('(').and_then(|rest| rest.split_once(")_"));
    match digits {
        Some((digits, base)) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Cow::Owned(format!("{digits}_{base}"))
        }
        _ => Cow::Borrowed(value),
    }
}

/// A variable or a word that names a value: `x`, `\theta`, `x_{1}`, `Area`.
pub(crate) fn is_name(text: &str) -> bool {
    let name = text.strip_prefix('\\').unwrap_or(text);
    let name = name.split_once("_{").map_or(name, |(name, _)| name);
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphabetic() || c == ' ')
}

/// `x=5` and `12*3=36` are 5 and 36; `x+y=5` stays.
fn right_hand_side(value: &str) -> &str {
    let Some((left, _)) = value.split_once('=') else { return value };
    let (Some((_, right)), false) = (value.rsplit_once('='), left.contains(['<', '>', '('])) else {
        let function = left.len() == 4 && left.ends_with(')') && value.matches('=').count() == 1;
        return if function { &value[5..] } else { value };
    };
    let product_of_variables = left.len() == 2 && !left.contains([' ', '\\']);
    if is_name(left) && !product_of_variables {
        right
    } else if expression::is_constant(left) {
        // `3=x`
        if right.len() == 1 && is_name(right) { left } else { right }
    } else {
        value
    }
}

fn strip_approximately(mut value: &str) -> &str {
    for word in ["\\approx", "approximately ", "about ", "exactly ", "only "] {
        value = value.strip_prefix(word).unwrap_or(value);
    }
    value
}

/// `x\in[2,5)` is `[2,5)`.
fn strip_membership(value: &str) -> &str {
    let rest = value.strip_prefix(|c: char| c.is_ascii_alphabetic());
    rest.and_then(|rest| rest.strip_prefix("\\in")).map_or(value, |rest| {
        if rest.starts_with(|c: char| c.is_ascii_alphabetic()) { value } else { rest.trim_start() }
    })
}

/// `18 dollars`, `54 cm^{2}`, `5cm` and `12 apples per day` are 18, 54, 5 and 12.
fn strip_unit(value: &str) -> &str {
    const TOUCHING: [&str; 16] = [
        "cm", "mm", "km", "kg", "mg", "ml", "mL", "mph", "hrs", "hr", "min", "sec", "ft", "lbs",
        "am", "pm",
    ];
    const SCALES: [&str; 5] = ["hundred", "thousand", "million", "billion", "dozen"];
    let digits = value.trim_start_matches('-');
    let length = digits
        .bytes()
        .take_while(|b| b.is_ascii_digit() || matches!(b, b'.' | b'/' | b' '))
        .count();
    let number_end = value.len() - digits.len() + digits[..length].trim_end().len();
    let (number, rest) = value.split_at(number_end);
    if !number.ends_with(|c: char| c.is_ascii_digit()) || rest.is_empty() {
        return value;
    }
    let unit = rest.trim_start();
    let word: String = unit.chars().take_while(|c| c.is_alphabetic()).collect();
    let tail = &unit[word.len()..];
    let tail_is_words = tail
        .replace("^{2}", "")
        .replace("^{3}", "")
        .chars()
        .all(|c| c.is_alphabetic() || matches!(c, ' ' | '/' | '.' | '-' | '\''));
    let known = TOUCHING.contains(&word.as_str());
    let spaced = rest.starts_with(' ') && word.chars().count() >= 2;
    if (known || spaced) && tail_is_words && !SCALES.contains(&word.as_str()) {
        number
    } else {
        value
    }
}

/// `(C)` is C, `(5)` is 5.
fn strip_single_parentheses(value: &str) -> &str {
    match value.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        Some(inner) if inner.len() == 1 => inner,
        _ => value,
    }
}
