//! Sets of real numbers: intervals, unions, inequalities in one variable.

use crate::{
    brackets::{bracketed, split},
    expression,
};

/// More parts are compared as text.
const MOST: usize = 16;
const RELATIONS: [&str; 5] = ["\\le", "\\ge", "\\ne", "<", ">"];

/// All numbers from `from` to `to`.
#[derive(Debug, Clone, Copy)]
struct Part {
    from: f64,
    from_closed: bool,
    to: f64,
    to_closed: bool,
}

const ALL: Part =
    Part { from: f64::NEG_INFINITY, from_closed: false, to: f64::INFINITY, to_closed: false };

/// True for a value that can be nothing but a set of numbers; `(3,4)` may also be a point.
pub(crate) fn is_surely_a_set(text: &str) -> bool {
    text.len() < 400
        && (["\\cup", "\\cap", "\\setminus"].iter().any(|mark| text.contains(mark))
            || text == "\\R"
            || split(text, ",").iter().any(|part| relation(part).is_some()))
}

/// Whether both are sets of numbers, and the same; `None` where one cannot be read.
pub(crate) fn same_set(a: &str, b: &str) -> Option<bool> {
    let (a, b) = (read(a)?, read(b)?);
    Some(
        a.len() == b.len()
            && a.iter().zip(&b).all(|(a, b)| {
                near(a.from, b.from)
                    && near(a.to, b.to)
                    && a.from_closed == b.from_closed
                    && a.to_closed == b.to_closed
            }),
    )
}

fn near(a: f64, b: f64) -> bool {
    a == b
        || a.is_finite() && b.is_finite() && (a - b).abs() <= 1e-10 * a.abs().max(b.abs()) + 1e-13
}

/// The parts of a set in order, none touching another.
fn read(text: &str) -> Option<Vec<Part>> {
    if let [whole, removed] = split(text, "\\setminus")[..] {
        return Some(intersection(&read(whole)?, &complement(&read(removed)?)));
    }
    let several = split(text, "\\cup");
    if several.len() > 1 {
        let parts: Option<Vec<Vec<Part>>> = several.into_iter().map(read).collect();
        return Some(union(parts?.concat()));
    }
    if let [left, right] = split(text, "\\cap")[..] {
        return Some(intersection(&read(left)?, &read(right)?));
    }
    if text == "\\R" {
        return Some(vec![ALL]);
    }
    if let Some((open, inner, close)) = bracketed(text) {
        return match (open, &split(inner, ",")[..]) {
            ("\\{", [""]) => Some(Vec::new()),
            ("\\{", points) => {
                let points: Option<Vec<Part>> = points.iter().map(|p| point(number(p)?)).collect();
                points.map(union)
            }
            (_, [from, to]) => {
                let (from, to) = (number(from)?, number(to)?);
                interval(from, open == "[", to, close == "]").map(|part| vec![part])
            }
            _ => None,
        };
    }
    let conditions: Option<Vec<Vec<Part>>> = split(text, ",").into_iter().map(condition).collect();
    let conditions = conditions?;
    let joined = union(conditions.concat());
    // Nobody writes two conditions of which one always holds: then both are meant to.
    if conditions.len() > 1 && joined.len() == 1 && joined[0].from == -joined[0].to {
        return Some(conditions.iter().fold(vec![ALL], |all, one| intersection(&all, one)));
    }
    Some(joined)
}

/// The first relation sign and what stands on its sides.
fn relation(text: &str) -> Option<(&str, &str, &str)> {
    let (at, sign) =
        RELATIONS.iter().filter_map(|sign| Some((sign_at(text, sign)?, *sign))).min()?;
    Some((text[..at].trim(), sign, text[at + sign.len()..].trim()))
}

/// `\le` but not `\left`, `\ne` but not `\neg`.
fn sign_at(text: &str, sign: &str) -> Option<usize> {
    text.match_indices(sign).map(|(at, _)| at).find(|at| {
        let after = text[at + sign.len()..].chars().next();
        !sign.starts_with('\\') || !after.is_some_and(|c| c.is_ascii_alphabetic())
    })
}

/// `x<2`, `2<x`, `2<x\le3`, `x\ne3`.
fn condition(text: &str) -> Option<Vec<Part>> {
    let (first, sign, rest) = relation(text)?;
    let Some((middle, second_sign, last)) = relation(rest) else {
        return if is_variable(first) {
            half(sign, number(rest)?)
        } else if is_variable(rest) {
            half(mirrored(sign), number(first)?)
        } else {
            None
        };
    };
    let directed = |sign: &str| matches!(sign, "<" | "\\le");
    if !is_variable(middle)
        || relation(last).is_some()
        || directed(sign) != directed(second_sign)
        || [sign, second_sign].contains(&"\\ne")
    {
        return None;
    }
    let below = half(mirrored(sign), number(first)?)?;
    Some(intersection(&below, &half(second_sign, number(last)?)?))
}

fn mirrored(sign: &str) -> &str {
    match sign {
        "<" => ">",
        ">" => "<",
        "\\le" => "\\ge",
        "\\ge" => "\\le",
        other => other,
    }
}

/// All numbers in a relation to one.
fn half(sign: &str, bound: f64) -> Option<Vec<Part>> {
    let (infinity, closed) = (f64::INFINITY, sign.starts_with('\\'));
    match sign {
        "<" | "\\le" => interval(-infinity, false, bound, closed).map(|part| vec![part]),
        ">" | "\\ge" => interval(bound, closed, infinity, false).map(|part| vec![part]),
        _ => point(bound).map(|point| complement(&[point])),
    }
}

fn is_variable(text: &str) -> bool {
    let name = text.strip_prefix('\\').unwrap_or(text);
    matches!(name, "theta" | "alpha" | "lambda")
        || name.len() == 1
            && !name.contains(['e', 'i'])
            && name.chars().all(|c| c.is_ascii_alphabetic())
}

fn number(text: &str) -> Option<f64> {
    match text.trim() {
        "\\infty" | "+\\infty" => Some(f64::INFINITY),
        "-\\infty" => Some(f64::NEG_INFINITY),
        text => expression::real(text),
    }
}

fn point(value: f64) -> Option<Part> {
    value.is_finite().then_some(Part { from: value, from_closed: true, to: value, to_closed: true })
}

/// An interval that holds something.
fn interval(from: f64, from_closed: bool, to: f64, to_closed: bool) -> Option<Part> {
    let (from_closed, to_closed) = (from_closed && from.is_finite(), to_closed && to.is_finite());
    let holds = from < to || from == to && from_closed && to_closed;
    holds.then_some(Part { from, from_closed, to, to_closed })
}

fn union(mut parts: Vec<Part>) -> Vec<Part> {
    parts.truncate(MOST * 4);
    parts.sort_by(|a, b| a.from.total_cmp(&b.from).then(b.from_closed.cmp(&a.from_closed)));
    let mut joined: Vec<Part> = Vec::new();
    for part in parts {
        match joined.last_mut() {
            Some(last)
                if part.from < last.to
                    || part.from == last.to && (part.from_closed || last.to_closed) =>
            {
                if part.to > last.to {
                    (last.to, last.to_closed) = (part.to, part.to_closed);
                } else if part.to == last.to {
                    last.to_closed |= part.to_closed;
                }
            }
            _ => joined.push(part),
        }
    }
    joined
}

fn complement(parts: &[Part]) -> Vec<Part> {
    let mut gaps = Vec::new();
    let (mut from, mut from_closed) = (f64::NEG_INFINITY, false);
    for part in parts {
        gaps.extend(interval(from, from_closed, part.from, !part.from_closed));
        (from, from_closed) = (part.to, !part.to_closed);
    }
    gaps.extend(interval(from, from_closed, f64::INFINITY, false));
    gaps
}

fn intersection(a: &[Part], b: &[Part]) -> Vec<Part> {
    let both = a.iter().flat_map(|a| {
        b.iter().filter_map(|b| {
            let (from, from_closed) = match a.from.total_cmp(&b.from) {
                std::cmp::Ordering::Less => (b.from, b.from_closed),
                std::cmp::Ordering::Equal => (a.from, a.from_closed && b.from_closed),
                std::cmp::Ordering::Greater => (a.from, a.from_closed),
            };
            let (to, to_closed) = match a.to.total_cmp(&b.to) {
                std::cmp::Ordering::Less => (a.to, a.to_closed),
                std::cmp::Ordering::Equal => (a.to, a.to_closed && b.to_closed),
                std::cmp::Ordering::Greater => (b.to, b.to_closed),
            };
            interval(from, from_closed, to, to_closed)
        })
    });
    union(both.collect())
}
