//! Whether promises hold: many random splits of questions whose outcomes are all known.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::Serialize;

use super::choice::{Outcomes, Part, TESTING, choose};
use crate::error::Result;
use crate::statistics::{Proportion, mean, quantile};

/// How promises at one risk did over many splits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kept {
    /// The risk promised.
    pub risk: f64,
    /// Splits whose setting loses a larger share of all questions, from which the calibration's were drawn:
    /// promises that are broken, at most δ of them.
    pub broken: Proportion,
    /// Splits whose setting loses a larger share of the other questions. These are a sample themselves, and
    /// what the calibration's half has too little of, the other has too much: it may well be more.
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
/// Too few questions to promise anything.
pub fn check_splits(
    outcomes: &Outcomes,
    risk: f64,
    delta: f64,
    splits: usize,
    calibration: f64,
    seed: u64,
) -> Result<Kept> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut lost, mut shares, mut none, mut broken) = (Vec::new(), Vec::new(), 0, 0);
    let all: Vec<usize> = (0..outcomes.questions()).collect();
    for _ in 0..splits {
        let mut order: Vec<usize> = (0..outcomes.questions()).collect();
        specexit_train::shuffle(&mut random, &mut order);
        let others = order.split_off((order.len() as f64 * calibration) as usize);
        let test = order.split_off((order.len() as f64 * (1.0 - TESTING)) as usize);
        let choice = choose(outcomes, &Part { choose: order, test }, risk, delta)?;
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
        broken: Proportion::new(broken, splits),
        others_lost_more: Proportion::new(lost.iter().filter(|lost| **lost > risk).count(), splits),
        lost: mean(&lost),
        lost_p95: quantile(&lost, 0.95),
        thinking_share: mean(&shares),
        none,
    })
}
