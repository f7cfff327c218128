//! What is timed: how many rows of how many sequences go through the target at once.

use std::fmt;

use serde::{Serialize, Serializer};

/// A kind of forward. In JSON `decode`, `verify8`, `prefill512`, `batch8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// One token after another of one sequence.
    Decode,
    /// So many rows of one sequence with the logits of all, as a round verifies drafts.
    Verify(usize),
    /// A prompt of so many tokens with the logits of the last, from an empty cache, in one forward.
    Prefill(usize),
    /// So many sequences together, a token each.
    Batch(usize),
}

impl Shape {
    /// Rows of its forward: tokens that it reads or decodes.
    #[must_use]
    pub fn rows(self) -> usize {
        match self {
            Self::Decode => 1,
            Self::Verify(rows) | Self::Prefill(rows) | Self::Batch(rows) => rows,
        }
    }

    /// Rows whose logits are computed.
    #[must_use]
    pub fn logits_rows(self) -> usize {
        match self {
            Self::Prefill(_) => 1,
            _ => self.rows(),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decode => f.write_str("decode"),
            Self::Verify(rows) => write!(f, "verify{rows}"),
            Self::Prefill(rows) => write!(f, "prefill{rows}"),
            Self::Batch(rows) => write!(f, "batch{rows}"),
        }
    }
}

impl Serialize for Shape {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_has_one_row_of_logits_and_all_else_has_as_many_as_rows() {
        let shapes = [Shape::Decode, Shape::Verify(8), Shape::Prefill(512), Shape::Batch(8)];
        assert_eq!(shapes.map(Shape::rows), [1, 8, 512, 8]);
        assert_eq!(shapes.map(Shape::logits_rows), [1, 8, 1, 8]);
        let names = serde_json::to_string(&shapes).unwrap();
        assert_eq!(names, r#"["decode","verify8","prefill512","batch8"]"#);
    }
}
