//! How many tokens a round drafts: as many as commit the most tokens a second.
//!
//! One more draft costs a row of the target's forward and, unless others draft as deep, a step of the head;
//! it pays if the target accepts it and all before it. With acceptance p a chain of k drafts commits
//! 1 + p + … + p^k = (1 − p^(k+1)) / (1 − p) tokens on average, the recover token included. The first draft
//! comes off rows that the head reads anyway, but its logits do not: it counts as a step like the others.

use crate::error::{EngineError, Result};

/// Acceptance of a sequence that has drafted nothing yet.
const PRIOR: f64 = 0.7;
/// Weight of one verified draft in the average.
const WEIGHT: f64 = 0.1;
/// Share of the way back to the prior in each round without drafts, so that drafting is tried again.
const FORGETTING: f64 = 0.01;

/// What forwards cost on this machine: of the target over so many rows in all, and of one draft step for so
/// many sequences.
#[derive(Clone, Debug, PartialEq)]
pub struct DepthCosts {
    target: Vec<(usize, f64)>,
    draft: Vec<(usize, f64)>,
}

impl DepthCosts {
    /// From pairs of rows and seconds, and of sequences and seconds; what lies between is interpolated.
    ///
    /// # Errors
    /// A table that is empty or not ascending in its counts from 1 on, or seconds that are not positive.
    pub fn new(target: Vec<(usize, f64)>, draft: Vec<(usize, f64)>) -> Result<DepthCosts> {
        for (table, what) in [(&target, "rows"), (&draft, "sequences")] {
            let ascending = table.is_sorted_by(|a, b| a.0 < b.0);
            let counts = table.first().is_some_and(|(least, _)| *least > 0);
            let seconds = table.iter().all(|(_, s)| s.is_finite() && *s > 0.0);
            if !(ascending && counts && seconds) {
                let what = format!(
                    "the costs by {what} must be positive numbers of seconds for ascending counts from 1 on"
                );
                return Err(EngineError::BadRequest { what });
            }
        }
        Ok(DepthCosts { target, draft })
    }

    /// Seconds of one target forward over `rows` rows.
    #[must_use]
    pub fn target_s(&self, rows: usize) -> f64 {
        interpolate(&self.target, rows)
    }

    /// Seconds of one draft step for `sequences` sequences.
    #[must_use]
    pub fn draft_s(&self, sequences: usize) -> f64 {
        interpolate(&self.draft, sequences)
    }
}

/// Linear between the points and beyond the last; flat before the first, and nothing for nothing.
fn interpolate(points: &[(usize, f64)], at: usize) -> f64 {
    let after = points.partition_point(|(count, _)| *count < at);
    let upto = after.min(points.len().saturating_sub(1));
    match (at, upto.checked_sub(1).map(|before| points[before]), points.get(upto)) {
        (0, _, _) | (_, _, None) => 0.0,
        (_, None, Some((count, seconds))) => seconds * (at as f64 / *count as f64).max(1.0),
        (_, Some((low, from)), Some((high, to))) => {
            from + (to - from) * (at - low) as f64 / (high - low) as f64
        }
    }
}

/// What each sequence costs a step beside rows and drafts: its own keys and values are read, however many rows
/// it has. The costs by rows know nothing of this, as they are measured on one short sequence.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Elsewhere(f64);

/// Weight of one step in the average.
const STEP_WEIGHT: f64 = 0.05;

impl Elsewhere {
    /// Takes a step of `sequences` that all committed, whose target read `rows` rows in all, that drafted
    /// `depths` and took so many seconds.
    pub(crate) fn saw(&mut self, costs: &DepthCosts, rows: usize, depths: &[usize], seconds: f64) {
        let deepest = depths.iter().copied().max().unwrap_or(0);
        let drafted: f64 = (1..=deepest).map(|depth| costs.draft_s(drafting(depths, depth))).sum();
        let rest = (seconds - costs.target_s(rows) - drafted).max(0.0);
        self.0 += STEP_WEIGHT * (rest / depths.len().max(1) as f64 - self.0);
    }

    /// Seconds of a step of so many sequences.
    pub(crate) fn of(self, sequences: usize) -> f64 {
        self.0 * sequences as f64
    }
}

/// How often a sequence's drafts are accepted of late.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acceptance(f64);

impl Acceptance {
    pub(crate) fn new() -> Acceptance {
        Acceptance(PRIOR)
    }

    /// Takes a round's verdict: what follows the first rejection was not judged.
    pub(crate) fn saw(&mut self, offered: usize, accepted: usize) {
        if offered == 0 {
            self.0 += FORGETTING * (PRIOR - self.0);
        }
        for judged in 0..offered.min(accepted + 1) {
            let outcome = if judged < accepted { 1.0 } else { 0.0 };
            self.0 += WEIGHT * (outcome - self.0);
        }
    }

    fn rate(self) -> f64 {
        self.0.clamp(0.01, 0.99)
    }
}

/// What may be drafted for a sequence in this step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    pub(crate) acceptance: Acceptance,
    /// Drafts in any case.
    pub(crate) least: usize,
    /// Drafts at most.
    pub(crate) most: usize,
}

impl Chain {
    /// Probability that the draft at `depth`, from 1 on, is accepted with all before it.
    fn gain(&self, depth: usize) -> f64 {
        self.acceptance.rate().powi(depth as i32)
    }
}

/// How many sequences draft as deep as `depth`.
fn drafting(depths: &[usize], depth: usize) -> usize {
    depths.iter().filter(|d| **d >= depth).count()
}

/// How many tokens to draft for each chain, so that the most tokens a second are to be expected.
///
/// `rows` are those of the target's forward without drafts. The next draft always goes to the chain that gains
/// most by it; of all the ways from the fewest drafts to the most, the best is taken, since a forward's cost may
/// rise at one row and not at the next.
/// `elsewhere` are the seconds of a step that do not depend on what is drafted.
pub(crate) fn depths(
    costs: &DepthCosts,
    rows: usize,
    elsewhere: f64,
    chains: &[Chain],
) -> Vec<usize> {
    let mut depths: Vec<usize> = chains.iter().map(|chain| chain.least).collect();
    let deepest = chains.iter().map(|chain| chain.most).max().unwrap_or(0);
    // Sequences that draft at each depth share one step of the head.
    let mut steps: Vec<usize> = (1..=deepest).map(|depth| drafting(&depths, depth)).collect();
    let mut rows = rows + depths.iter().sum::<usize>();
    let mut tokens: f64 = chains
        .iter()
        .map(|chain| (0..=chain.least).map(|depth| chain.gain(depth)).sum::<f64>())
        .sum();
    let rate = |tokens: f64, rows: usize, steps: &[usize]| {
        let drafted: f64 = steps.iter().map(|&sequences| costs.draft_s(sequences)).sum();
        tokens / (costs.target_s(rows.max(1)) + drafted + elsewhere)
    };
    let mut best = (rate(tokens, rows, &steps), depths.clone());
    loop {
        let open = chains.iter().enumerate().filter(|(i, chain)| depths[*i] < chain.most);
        let gains = open.map(|(i, chain)| (i, chain.gain(depths[i] + 1)));
        let Some((next, gain)) = gains.max_by(|a, b| a.1.total_cmp(&b.1)) else { break };
        steps[depths[next]] += 1;
        depths[next] += 1;
        rows += 1;
        tokens += gain;
        let now = rate(tokens, rows, &steps);
        if now > best.0 {
            best = (now, depths.clone());
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(target: &[(usize, f64)], draft: f64) -> DepthCosts {
        DepthCosts::new(target.to_vec(), vec![(1, draft)]).unwrap()
    }

    fn chain(acceptance: f64, most: usize) -> Chain {
        Chain { acceptance: Acceptance(acceptance), least: 0, most }
    }

    #[test]
    fn costs_between_and_beyond_the_points() {
        let table = DepthCosts::new(vec![(1, 2.0), (4, 5.0), (8, 6.0)], vec![(2, 1.0)]).unwrap();
        let found = [0, 1, 2, 4, 6, 8, 12].map(|rows| table.target_s(rows));
        assert_eq!(found, [0.0, 2.0, 3.0, 5.0, 5.5, 6.0, 7.0]);
        assert_eq!([0, 1, 2, 6].map(|b| table.draft_s(b)), [0.0, 1.0, 1.0, 3.0]);
        for bad in
            [vec![], vec![(0, 1.0)], vec![(2, 1.0), (1, 2.0)], vec![(1, f64::NAN)], vec![(1, 0.0)]]
        {
            assert!(DepthCosts::new(bad.clone(), vec![(1, 1.0)]).is_err(), "{bad:?}");
            assert!(DepthCosts::new(vec![(1, 1.0)], bad).is_err());
        }
    }

    #[test]
    fn dear_rows_draft_nothing_and_cheap_ones_all() {
        let dear = costs(&[(1, 1.0), (2, 2.0)], 0.01);
        assert_eq!(depths(&dear, 2, 0.0, &[chain(0.9, 8); 2]), [0, 0]);
        let cheap = costs(&[(1, 1.0), (64, 1.01)], 1e-4);
        assert_eq!(depths(&cheap, 2, 0.0, &[chain(0.9, 8), chain(0.8, 5)]), [8, 5]);
        // A dear head forbids what cheap rows allow.
        assert_eq!(depths(&costs(&[(1, 1.0), (64, 1.01)], 2.0), 1, 0.0, &[chain(0.9, 8)]), [0]);
        assert!(depths(&cheap, 3, 0.0, &[]).is_empty());
    }

    #[test]
    fn a_sequence_that_is_often_wrong_drafts_less() {
        let table = costs(&[(1, 1.0), (64, 4.0)], 0.02);
        let found = depths(&table, 3, 0.0, &[chain(0.9, 16), chain(0.3, 16), chain(0.6, 16)]);
        assert!(found[0] > found[2] && found[2] > found[1], "{found:?}");
    }

    #[test]
    fn a_dear_row_is_passed_for_cheap_ones_behind_it() {
        // The second row costs as much as the next seven, which are free.
        let table = costs(&[(1, 1.0), (2, 1.9), (8, 1.9), (9, 9.0)], 1e-6);
        assert_eq!(depths(&table, 1, 0.0, &[chain(0.8, 12)]), [7]);
    }

    #[test]
    fn what_must_be_drafted_is_and_others_share_its_steps() {
        let table = costs(&[(1, 1.0), (64, 1.6)], 0.5);
        let alone = depths(&table, 1, 0.0, &[chain(0.7, 4)]);
        let fixed = Chain { least: 4, ..chain(0.7, 4) };
        let beside = depths(&table, 2, 0.0, &[chain(0.7, 4), fixed]);
        assert_eq!(beside[1], 4);
        assert!(beside[0] >= alone[0], "{beside:?} {alone:?}");
    }

    #[test]
    fn the_choice_is_the_best_of_all_for_one_sequence() {
        let table = costs(&[(1, 1.0), (4, 1.3), (5, 2.2), (8, 2.4), (16, 6.0)], 0.08);
        for acceptance in [0.2, 0.5, 0.7, 0.85, 0.95] {
            let rate = |k: usize| {
                let tokens: f64 = (0..=k).map(|i| acceptance_power(acceptance, i)).sum();
                tokens / (table.target_s(1 + k) + k as f64 * 0.08)
            };
            let best = (0..=12).max_by(|a, b| rate(*a).total_cmp(&rate(*b)));
            assert_eq!(
                Some(depths(&table, 1, 0.0, &[chain(acceptance, 12)])[0]),
                best,
                "{acceptance}"
            );
        }
    }

    fn acceptance_power(acceptance: f64, depth: usize) -> f64 {
        (0..depth).map(|_| acceptance).product()
    }

    #[test]
    fn acceptance_follows_what_is_seen_and_returns_when_nothing_is() {
        let mut good = Acceptance::new();
        let mut bad = Acceptance::new();
        for _ in 0..40 {
            good.saw(4, 4);
            bad.saw(4, 0);
        }
        assert!(good.rate() > 0.98 && bad.rate() < 0.02);
        // What follows the first rejection says nothing.
        let mut twice = (Acceptance::new(), Acceptance::new());
        twice.0.saw(8, 2);
        twice.1.saw(3, 2);
        assert_eq!(twice.0.rate(), twice.1.rate());
        for _ in 0..300 {
            bad.saw(0, 0);
        }
        assert!((bad.rate() - PRIOR).abs() < 0.05);
    }

    #[test]
    fn what_sequences_cost_by_themselves_makes_drafting_pay() {
        let table = costs(&[(1, 1.0), (2, 2.0), (64, 64.0)], 0.5);
        let chains = [chain(0.8, 8); 4];
        assert_eq!(depths(&table, 4, 0.0, &chains), [0; 4]);
        let mut elsewhere = Elsewhere::default();
        for _ in 0..200 {
            elsewhere.saw(&table, 4, &[0; 4], 4.0 + 4.0 * 3.0);
        }
        assert!((elsewhere.of(4) - 12.0).abs() < 0.01, "{elsewhere:?}");
        assert!(depths(&table, 4, elsewhere.of(4), &chains).iter().all(|depth| *depth >= 2));
        // What drafting itself takes is none of it.
        let mut elsewhere = Elsewhere::default();
        elsewhere.saw(&table, 12, &[2; 4], 12.0 + 2.0 * table.draft_s(4));
        assert_eq!(elsewhere.of(4), 0.0);
    }
}
