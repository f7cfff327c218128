//! From a table of recorded thoughts to promises.

use serde::Serialize;
use specexit_exit::Policy;
use specexit_model::hash::sha256_hex;

use super::choice::{Choice, Outcomes, Part, TESTING, choose};
use super::file::Promise;
use super::grid::grid;
use crate::error::Result;
use crate::replay::{Point, Table};

/// What calibration found.
#[derive(Clone, Debug, Serialize)]
pub struct Calibrated {
    /// One for each risk, in the order given.
    pub promises: Vec<Promise>,
    /// What every setting of the grid costs and saves over all questions.
    pub points: Vec<Point>,
}

/// Every setting of the grid on every question of `table`, paths as [`grid`] has them.
///
/// # Errors
/// A policy that decides by rounds.
pub fn outcomes(table: &Table, base: &Policy) -> Result<(Vec<Policy>, Outcomes)> {
    let paths = grid(base);
    let lengths: Vec<usize> = paths.iter().map(Vec::len).collect();
    let policies = paths.concat();
    let outcomes = table.outcomes(&policies)?;
    let full: Vec<(bool, usize)> =
        table.recordings().map(|r| (r.correct, r.thinking_tokens)).collect();
    Ok((policies, Outcomes::new(&lengths, &outcomes, &full)))
}

/// Finds, for each of `risks`, the setting that saves most at that risk with confidence 1 − `delta`.
/// Boundaries are those of `base`.
///
/// # Errors
/// Too few questions to promise anything, or a policy that decides by rounds.
pub fn calibrate(table: &Table, base: &Policy, risks: &[f64], delta: f64) -> Result<Calibrated> {
    let (policies, outcomes) = outcomes(table, base)?;
    let ids: Vec<&str> = table.recordings().map(|r| r.question.as_str()).collect();
    let part = parts(&ids);
    let promises = risks.iter().map(|&risk| {
        let Choice { setting, lost, of, bound, thinking_share, tested } =
            choose(&outcomes, &part, risk, delta)?;
        let policy = setting.map(|setting| policies[setting].clone());
        Ok(Promise { risk, policy, lost, of, bound, thinking_share, tested })
    });
    Ok(Calibrated { promises: promises.collect::<Result<_>>()?, points: table.points(&policies)? })
}

/// A quarter of the questions to choose a path, the others to test its settings; by the hash of their ids, so that
/// neither the order of a file nor what was seen before decides.
fn parts(ids: &[&str]) -> Part {
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_by_cached_key(|&i| (sha256_hex(ids[i].as_bytes()), i));
    let test = order.split_off((ids.len() as f64 * (1.0 - TESTING)) as usize);
    Part { choose: order, test }
}
