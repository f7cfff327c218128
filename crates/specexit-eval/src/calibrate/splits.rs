//! Whether promises hold: many random splits of questions whose outcomes are all known.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::Serialize;

use super::choice::{Outcomes, Part, TESTING, cheapest};
use super::demand::Demand;
use crate::error::Result;
use crate::statistics::{Proportion, mean, quantile};

/// How promises at one risk did over many splits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kept {
    /// The risk promised.
    pub risk: f64,
    /// The next questions that it was promised for; absent: for the long run.
    pub horizon: Option<usize>,
    /// Splits whose setting loses a larger share of all questions, from which the calibration's were drawn: a
    /// promise for the long run is broken, at most δ of them.
    pub broken: Proportion,
    /// Splits whose setting loses a larger share of the other questions: a promise with them as its horizon is
    /// broken, at most δ of them. One for the long run does not cover it: they are a sample themselves, and
    /// what the calibration's half has too little of, they have too much.
    pub others_lost_more: Proportion,
    /// Mean share of right answers lost on the other questions.
    pub lost: f64,
    /// Its 95 % quantile over the splits.
    pub lost_p95: f64,
    /// Mean share of the thinking that is left there.
    pub thinking_share: f64,
    /// Splits in which no early exit could be shown to be safe.
    pub none: usize,
}

/// Draws `splits` times a share `calibration` of the questions, calibrates on them, and counts what the
/// setting loses on all questions and on the others.
///
/// # Errors
/// Numbers that mean nothing.
pub fn check_splits(
    outcomes: &Outcomes,
    demand: Demand,
    splits: usize,
    calibration: f64,
    seed: u64,
) -> Result<Kept> {
    demand.validate()?;
    let risk = demand.risk;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut lost, mut shares, mut none, mut broken) = (Vec::new(), Vec::new(), 0, 0);
    let all: Vec<usize> = (0..outcomes.questions()).collect();
    for _ in 0..splits {
        let mut order: Vec<usize> = (0..outcomes.questions()).collect();
        specexit_train::shuffle(&mut random, &mut order);
        let others = order.split_off((order.len() as f64 * calibration) as usize);
        let test = order.split_off((order.len() as f64 * (1.0 - TESTING)) as usize);
        let choice = cheapest(outcomes, &Part { choose: order, test }, demand);
        let share_of = |questions: &[usize]| {
            let lost = choice.setting.map(|setting| outcomes.lost(setting, questions));
            lost.map_or(0.0, |(gone, of)| gone as f64 / of.max(1) as f64)
        };
        broken += usize::from(share_of(&all) > risk);
        lost.push(share_of(&others));
        shares.push(choice.setting.map_or(1.0, |setting| outcomes.share(setting, &others)));
        none += usize::from(choice.setting.is_none());
    }
    Ok(Kept {
        risk,
        horizon: demand.horizon,
        broken: Proportion::new(broken, splits),
        others_lost_more: Proportion::new(lost.iter().filter(|lost| **lost > risk).count(), splits),
        lost: mean(&lost),
        lost_p95: quantile(&lost, 0.95),
        thinking_share: mean(&shares),
        none,
    })
}
