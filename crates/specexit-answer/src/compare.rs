//! Whether two answers are the same.

use crate::{
    answer::{Answer, AnswerKind},
    brackets::{bracketed, split},
    expression, intervals, latex, option_letter, relation,
    typography::fold,
    units,
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
        (false, false) => same_answer(a, b),
    }
}

/// Judges by what the normal spelling leaves out (names, units, percent signs), then by value.
fn same_answer(a: &Answer, b: &Answer) -> bool {
    let values_are_same = || same(&a.normalised, &b.normalised, 0);
    if a.text.len().max(b.text.len()) > latex::LONGEST {
        return values_are_same();
    }
    if let (Some((left, unit)), Some((right, other))) =
        (units::amount(&a.text), units::amount(&b.text))
    {
        let (left, right) = (latex::normalise(&left), latex::normalise(&right));
        return match unit.factor_to(other) {
            Some(factor) if factor == "1/1" => same(&left, &right, 0) || values_are_same(),
            Some(factor) => expression::same_value(&format!("({left})*{factor}"), &right),
            None => false,
        };
    }
    if a.text.contains('=') || b.text.contains('=') {
        let (left, right) = (latex::respell(&a.text), latex::respell(&b.text));
        if let Some(verdict) = same_relation(&left, &right) {
            return verdict;
        }
    }
    values_are_same()
        || match (is_percentage(&a.text), is_percentage(&b.text)) {
            (true, false) => is_part_of_hundred(&a.normalised, &b.normalised),
            (false, true) => is_part_of_hundred(&b.normalised, &a.normalised),
            _ => false,
        }
}

/// Judges names and equations; `None` where only the values count.
fn same_relation(a: &str, b: &str) -> Option<bool> {
    let deeper = |a: &str, b: &str| same(a, b, 1);
    let by_name = |named: &[(&str, &str)], point: &str| {
        let (_, inner, _) = bracketed(point)?;
        let values: Vec<&str> = named.iter().map(|(_, value)| *value).collect();
        (values.len() > 1).then(|| pairwise(&values, &split(inner, ","), &deeper))
    };
    match (relation::assignments(a), relation::assignments(b)) {
        (Some(a), Some(b)) if relation::names_differ(&a, &b) => return Some(false),
        (Some(a), Some(b)) if a.len() > 1 && a.len() == b.len() => {
            let names = a.iter().map(|part| part.0).eq(b.iter().map(|part| part.0));
            return Some(names && a.iter().zip(&b).all(|(a, b)| deeper(a.1, b.1)));
        }
        (Some(named), None) => {
            if let Some(verdict) = by_name(&named, b) {
                return Some(verdict);
            }
        }
        (None, Some(named)) => {
            if let Some(verdict) = by_name(&named, a) {
                return Some(verdict);
            }
        }
        _ => {}
    }
    relation::same_equation(a, b).then_some(true)
}

fn is_percentage(text: &str) -> bool {
    let text = fold(text);
    let text = text.trim_end_matches(['}', '$', '.', ' ']);
    ["%", "percent", "per cent"].iter().any(|sign| text.ends_with(sign))
}

/// `10%` written as 0.1 or 1/10.
fn is_part_of_hundred(percentage: &str, number: &str) -> bool {
    let percentage = percentage.strip_suffix(" percent").unwrap_or(percentage);
    expression::is_constant(number)
        && expression::same_value(&format!("({percentage})/100"), number)
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
        && parts.iter().all(|part| *part == "\\infty" || expression::is_expression(part))
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
        return strip_article(a).eq_ignore_ascii_case(strip_article(b));
    }
    let deeper = |a: &str, b: &str| same(a, b, depth + 1);
    if has_both_signs(a) || has_both_signs(b) {
        let (a, b) = (both_signs(a), both_signs(b));
        return !has_both_signs(&a) && !has_both_signs(&b) && deeper(&a, &b);
    }
    if (intervals::is_surely_a_set(a) || intervals::is_surely_a_set(b))
        && let Some(verdict) = intervals::same_set(a, b)
    {
        return verdict;
    }
    for separator in ["\\cup", "="] {
        let (left, right) = (split(a, separator), split(b, separator));
        if left.len() > 1 || right.len() > 1 {
            let mirrored = separator == "=" && left.len() == 2 && right.len() == 2;
            return pairwise(&left, &right, &deeper)
                || mirrored && deeper(left[0], right[1]) && deeper(left[1], right[0]);
        }
    }
    match (matrix(a), matrix(b)) {
        (Some(left), Some(right)) => {
            return left.len() == right.len()
                && left.iter().zip(&right).all(|(l, r)| pairwise(l, r, &deeper));
        }
        (Some(rows), None) => return is_column(&rows, b, &deeper),
        (None, Some(rows)) => return is_column(&rows, a, &deeper),
        (None, None) => {}
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
    a.trim_start_matches('+') == b.trim_start_matches('+') || expression::same_value(a, b)
}

fn strip_article(words: &str) -> &str {
    ["a ", "an ", "the "].iter().find_map(|article| words.strip_prefix(article)).unwrap_or(words)
}

fn has_both_signs(text: &str) -> bool {
    text.contains("\\pm") || text.contains("\\mp")
}

fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// `1\pm\sqrt{19}` as the list of both values.
fn both_signs(text: &str) -> String {
    let mut values = Vec::new();
    for part in split(text, ",") {
        if !has_both_signs(part) {
            values.push(part.to_owned());
        } else if part.matches("\\pm").count() + part.matches("\\mp").count() == 1 {
            for sign in ["+", "-"] {
                values.push(part.replace("\\pm", sign).replace("\\mp", sign));
            }
        } else {
            return text.to_owned();
        }
    }
    values.join(",")
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

/// A column of a matrix is the same as a point.
fn is_column(rows: &[Vec<&str>], point: &str, same: &impl Fn(&str, &str) -> bool) -> bool {
    let column: Option<Vec<&str>> =
        rows.iter().map(|row| if let [cell] = row[..] { Some(cell) } else { None }).collect();
    match (column, bracketed(point)) {
        (Some(column), Some(("(", inner, ")"))) => pairwise(&column, &split(inner, ","), same),
        _ => false,
    }
}

/// The rows and cells of a matrix.
fn matrix(text: &str) -> Option<Vec<Vec<&str>>> {
    let text = [("(", ")"), ("[", "]")]
        .into_iter()
        .find_map(|(open, close)| text.strip_prefix(open)?.strip_suffix(close))
        .unwrap_or(text);
    let inner = text.strip_prefix("\\begin{matrix}")?.strip_suffix("\\end{matrix}")?;
    let inner = inner.trim_end_matches("\\\\");
    Some(split(inner, "\\\\").into_iter().map(|row| split(row, "&")).collect())
}
