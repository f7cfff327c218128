//! From generated tokens to text: which part is thought, which is answer, and where stop strings end it.
//!
//! All of it works on bytes as they come, so that the text does not depend on how many tokens landed at
//! once: characters of several tokens, markers that straddle tokens, and stop strings are held back until
//! they are whole.

mod splitter;
mod stops;
mod utf8;

pub use splitter::{Part, Segment, Splitter};
pub use stops::Stops;
pub use utf8::Utf8;

/// The length of the longest end of `bytes` that begins `pattern` without being all of it.
fn begun(bytes: &[u8], pattern: &[u8]) -> usize {
    let most = bytes.len().min(pattern.len().saturating_sub(1));
    (1..=most).rev().find(|&n| bytes.ends_with(&pattern[..n])).unwrap_or(0)
}

/// Where `pattern` first stands in `bytes`.
fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}
