//! Values with names, and equations.

use crate::{brackets::split, expression, trim::is_name};

/// `x=3,y=4` as names and values, sorted by name; no name may occur twice.
pub(crate) fn assignments(text: &str) -> Option<Vec<(&str, &str)>> {
    let parts: Option<Vec<(&str, &str)>> = split(text, ",")
        .into_iter()
        .map(|part| {
            let (name, value) = part.split_once('=')?;
            (is_name(name) && name.len() != 2 && !value.contains('=')).then_some((name, value))
        })
        .collect();
    let mut parts = parts?;
    parts.sort_unstable();
    let distinct = parts.windows(2).all(|pair| pair[0].0 != pair[1].0);
    distinct.then_some(parts)
}

/// Lines: `x=5` and `y=5` are not the same, although both have the value 5.
pub(crate) fn names_differ(a: &[(&str, &str)], b: &[(&str, &str)]) -> bool {
    let coordinate = |name: &str| matches!(name, "x" | "y" | "z");
    matches!((a, b), ([(a, _)], [(b, _)]) if a != b && coordinate(a) && coordinate(b))
}

/// True when both are equations, and one is a multiple of the other.
pub(crate) fn same_equation(a: &str, b: &str) -> bool {
    match (&split(a, "=")[..], &split(b, "=")[..]) {
        ([a0, a1], [b0, b1]) => expression::same_equation((a0, a1), (b0, b1)),
        _ => false,
    }
}
