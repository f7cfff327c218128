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
    /// Splits in which the other questions lost a larger share: at most δ of them should.
    pub broken: Proportion,
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
/// setting loses on all others.
///
/// The others are themselves a sample: their losses scatter around the setting's risk, which alone is
/// promised, so more than δ of the splits may break a promise that is kept.
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
    let (mut lost, mut shares, mut none) = (Vec::new(), Vec::new(), 0);
    for _ in 0..splits {
        let mut order: Vec<usize> = (0..outcomes.questions()).collect();
        specexit_train::shuffle(&mut random, &mut order);
        let others = order.split_off((order.len() as f64 * calibration) as usize);
        let test = order.split_off((order.len() as f64 * (1.0 - TESTING)) as usize);
        let choice = choose(outcomes, &Part { choose: order, test }, risk, delta)?;
        let (gone, of) = choice.setting.map_or((0, 1), |setting| outcomes.lost(setting, &others));
        lost.push(gone as f64 / of.max(1) as f64);
        shares.push(choice.setting.map_or(1.0, |setting| outcomes.share(setting, &others)));
        none += usize::from(choice.setting.is_none());
    }
    Ok(Kept {
        risk,
        broken: Proportion::new(lost.iter().filter(|lost| **lost > risk).count(), splits),
        lost: mean(&lost),
        lost_p95: quantile(&lost, 0.95),
        thinking_share: mean(&shares),
        none,
    })
}
