//! Which cuts are tried, and which of them is the earliest sufficient one.

use specexit_exit::{BoundaryTable, TokenId};

use super::LabelRules;

/// Lengths at which a thought is cut, ascending; the last is always the whole thought.
///
/// A boundary at position i keeps the i + 1 tokens up to it.
pub(crate) fn candidate_cuts(
    rules: &LabelRules,
    table: &BoundaryTable,
    thought: &[TokenId],
) -> Vec<usize> {
    let whole = thought.len();
    let boundaries = table.boundaries(thought).into_iter().map(|i| i + 1).filter(|&n| n < whole);
    let mut cuts: Vec<usize> = boundaries.skip(rules.stride - 1).step_by(rules.stride).collect();
    if let Some(most) = rules.max_cuts
        && cuts.len() > most
    {
        // Evenly spread, the last boundary included.
        cuts = (1..=most).map(|i| cuts[(i * cuts.len()).div_ceil(most) - 1]).collect();
    }
    cuts.push(whole);
    cuts
}

/// What is known of the cuts of a thought so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// More trial answers are needed.
    Open,
    /// This cut is the earliest sufficient one.
    Sufficient(usize),
    /// No cut suffices, not even the whole thought.
    Never,
}

/// Decides from the trial answers so far: `equal[i]` says whether cut i gave the trace's own answer,
/// `None` where that is not known yet. A match counts when the next `stable_k` cuts (fewer at the
/// end) match as well.
pub(crate) fn decide(equal: &[Option<bool>], stable_k: usize) -> Decision {
    for first in 0..equal.len() {
        let end = equal.len().min(first + 1 + stable_k);
        match equal[first] {
            None => return Decision::Open,
            Some(false) => continue,
            Some(true) => {}
        }
        let rest = &equal[first + 1..end];
        if rest.contains(&Some(false)) {
            continue;
        }
        if rest.contains(&None) {
            return Decision::Open;
        }
        return Decision::Sufficient(first);
    }
    Decision::Never
}

#[cfg(test)]
mod tests {
    use super::*;
    use specexit_exit::BoundaryRules;

    #[test]
    fn cuts_lie_behind_boundaries_and_end_with_the_whole() {
        let rules = LabelRules {
            boundaries: BoundaryRules { blank_line: true, ..Default::default() },
            ..Default::default()
        };
        let bytes: Vec<Vec<u8>> =
            ["a", ".\n\n", "\n"].iter().map(|t| t.as_bytes().to_vec()).collect();
        let table = BoundaryTable::new(&rules.boundaries, &bytes);
        let thought = [0, 1, 0, 2, 2, 0, 1, 0, 1, 0, 1];
        let cuts = |rules: &LabelRules| candidate_cuts(rules, &table, &thought);
        assert_eq!(cuts(&rules), [2, 5, 7, 9, 11]);
        assert_eq!(cuts(&LabelRules { stride: 2, ..rules.clone() }), [5, 9, 11]);
        assert_eq!(cuts(&LabelRules { max_cuts: Some(2), ..rules.clone() }), [5, 9, 11]);
        assert_eq!(cuts(&LabelRules { max_cuts: Some(1), ..rules.clone() }), [9, 11]);
        assert_eq!(candidate_cuts(&rules, &table, &[0, 0]), [2]);
    }

    #[test]
    fn the_first_stable_match_decides() {
        let (t, f, n) = (Some(true), Some(false), None);
        assert_eq!(decide(&[f, t, n], 0), Decision::Sufficient(1));
        assert_eq!(decide(&[n, t, t], 0), Decision::Open);
        assert_eq!(decide(&[f, f], 0), Decision::Never);
        assert_eq!(decide(&[t, f, t, t, n], 1), Decision::Sufficient(2));
        assert_eq!(decide(&[t, n, t], 1), Decision::Open);
        assert_eq!(decide(&[f, f, t], 1), Decision::Sufficient(2));
        assert_eq!(decide(&[f, t, f], 1), Decision::Never);
        // The lone match before a mismatch does not wait for what comes later.
        assert_eq!(decide(&[t, f, n], 1), Decision::Open);
    }
}
