//! Who the problems are about.

/// Names; the first half are men.
pub(crate) const NAMES: [&str; 10] =
    ["Tom", "Ben", "Sam", "Max", "Leo", "Anna", "Mia", "Lily", "Nora", "Eva"];

/// `He` or `She`.
pub(crate) fn subject(name: usize) -> &'static str {
    if name < NAMES.len() / 2 { "He" } else { "She" }
}

/// `him` or `her`.
pub(crate) fn object(name: usize) -> &'static str {
    if name < NAMES.len() / 2 { "him" } else { "her" }
}
