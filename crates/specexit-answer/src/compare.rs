//! Whether two answers are the same.

use crate::{
    answer::{Answer, AnswerKind},
    brackets::{bracketed, split},
    expression, latex, option_letter,
};

/// Structures nested deeper than this are compared as text.
const DEEPEST: usize = 6;
/// Longer lists are compared as text.
const LONGEST_LIST: usize = 48;

/// True when two answers have the same value.
#[must_use]
pub fn equal(a: &Answer, b: &Answer) -> bool {
    match (a.kind == AnswerKind::Option, b.kind == AnswerKind::Option) {
        (true, true) => a.normalised.eq_ignore_ascii_case(&b.normalised),
        (true, false) => letter(a) == option_letter::alone(&b.text),
        (false, true) => option_letter::alone(&a.text) == letter(b),
        (false, false) => same(&a.normalised, &b.normalised, 0),
    }
}

fn letter(answer: &Answer) -> Option<char> {
    answer.normalised.chars().next()
}

/// True when a value in normal spelling is an expression, or a list or pair of such.
pub(crate) fn is_mathematical(value: &str) -> bool {
    if value.len() > latex::LONGEST || expression::is_words(value) {
        return false;
    }
    let inner = bracketed(value).map_or(value, |(_, inner, _)| inner);
    let parts = split(inner, ",");
    parts.len() <= LONGEST_LIST
        && parts.iter().all(|part| *part == "\\infty" || expression::values(part).is_some())
}

fn same(a: &str, b: &str, depth: usize) -> bool {
    let (a, b) = (a.trim(), b.trim());
    if a.is_empty() || b.is_empty() {
        return false;
    }
    if a == b {
        return true;
    }
    // The normal spelling of a plain decimal is unique.
    if depth > DEEPEST || a.len().max(b.len()) > latex::LONGEST || (is_decimal(a) && is_decimal(b))
    {
        return false;
    }
    if expression::is_words(a) && expression::is_words(b) {
        return a.eq_ignore_ascii_case(b);
    }
    let deeper = |a: &str, b: &str| same(a, b, depth + 1);
    if a.contains("\\pm") || b.contains("\\pm") {
        let (a, b) = (both_signs(a), both_signs(b));
        return !a.contains("\\pm") && !b.contains("\\pm") && deeper(&a, &b);
    }
    for separator in ["\\cup", "="] {
        let (left, right) = (split(a, separator), split(b, separator));
        if left.len() > 1 || right.len() > 1 {
            let mirrored = separator == "=" && left.len() == 2 && right.len() == 2;
            return pairwise(&left, &right, &deeper)
                || mirrored && deeper(left[0], right[1]) && deeper(left[1], right[0]);
        }
    }
    if let (Some(left), Some(right)) = (matrix(a), matrix(b)) {
        return left.len() == right.len()
            && left.iter().zip(&right).all(|(l, r)| pairwise(l, r, &deeper));
    }
    match (bracketed(a), bracketed(b)) {
        (Some((open, left, close)), Some((other, right, end))) if open != "\\{" => {
            return open == other
                && close == end
                && pairwise(&split(left, ","), &split(right, ","), &deeper);
        }
        (Some(("\\{", left, _)), Some(("\\{", right, _))) => {
            return in_any_order(&split(left, ","), &split(right, ","), &deeper);
        }
        (Some(("\\{", left, _)), None) => {
            return in_any_order(&split(left, ","), &split(b, ","), &deeper);
        }
        (None, Some(("\\{", right, _))) => {
            return in_any_order(&split(a, ","), &split(right, ","), &deeper);
        }
        _ => {}
    }
    let (left, right) = (split(a, ","), split(b, ","));
    if left.len() > 1 || right.len() > 1 {
        return in_any_order(&left, &right, &deeper);
    }
    match (expression::values(a), expression::values(b)) {
        (Some(a), Some(b)) => expression::same_values(&a, &b),
        _ => false,
    }
}

fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// `1\pm\sqrt{19}` as the list of both values.
fn both_signs(text: &str) -> String {
    match split(text, ",")[..] {
        [one] if one.matches("\\pm").count() == 1 => {
            format!("{},{}", one.replace("\\pm", "+"), one.replace("\\pm", "-"))
        }
        _ => text.to_owned(),
    }
}

fn pairwise(a: &[&str], b: &[&str], same: &impl Fn(&str, &str) -> bool) -> bool {
    a.len() == b.len() && a.len() <= LONGEST_LIST && a.iter().zip(b).all(|(a, b)| same(a, b))
}

fn in_any_order(a: &[&str], b: &[&str], same: &impl Fn(&str, &str) -> bool) -> bool {
    if a.len() != b.len() || a.len() > LONGEST_LIST {
        return false;
    }
    let mut left: Vec<&str> = b.to_vec();
    a.iter().all(|a| {
        let found = left.iter().position(|b| same(a, b));
        found.map(|at| left.swap_remove(at)).is_some()
    })
}

/// The rows and cells of a matrix.
fn matrix(text: &str) -> Option<Vec<Vec<&str>>> {
    let inner = text.strip_prefix("\\begin{matrix}")?.strip_suffix("\\end{matrix}")?;
    let inner = inner.trim_end_matches("\\\\");
    Some(split(inner, "\\\\").into_iter().map(|row| split(row, "&")).collect())
}
