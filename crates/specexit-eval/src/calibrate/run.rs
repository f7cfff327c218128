//! From a table of recorded thoughts to promises.

use serde::Serialize;
use specexit_exit::{Hopeless, Policy};
use specexit_model::hash::sha256_hex;

use super::choice::{Choice, Outcomes, Part, TESTING, choose};
use super::demand::Demand;
use super::drift::spreads;
use super::file::{GivenUp, Promise};
use super::grid::{grid, hopeless_grid};
use crate::error::Result;
use crate::replay::{Outcome, Point, Table};

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
    let policies = paths.concat();
    let rows = table.outcomes(&policies)?;
    Ok((policies, along(table, &paths, &rows)))
}

/// `rows` are `[policies][recordings]`, the policies those of all paths in order.
fn along(table: &Table, paths: &[Vec<Policy>], rows: &[Vec<Outcome>]) -> Outcomes {
    let lengths: Vec<usize> = paths.iter().map(Vec::len).collect();
    let full: Vec<(bool, usize)> =
        table.recordings().map(|r| (r.correct, r.thinking_tokens)).collect();
    Outcomes::new(&lengths, rows, &full)
}

/// Finds, for each of `demands`, the setting that saves most of those that keep it, and to each, with a risk
/// of its own, a rule for giving thoughts up. Boundaries are those of `base`.
///
/// The rule is calibrated alone. Where both are in force, a thought ends by one of them, as it would have
/// ended by that one alone; so the answers lost are among those lost by either, and the risks add up.
///
/// # Errors
/// Too few questions to promise anything, or a policy that decides by rounds.
pub fn calibrate(
    table: &Table,
    base: &Policy,
    demands: &[Demand],
    hopeless: Option<f64>,
) -> Result<Calibrated> {
    let paths = grid(base);
    let policies = paths.concat();
    let rows = table.outcomes(&policies)?;
    let outcomes = along(table, &paths, &rows);
    let ids: Vec<&str> = table.recordings().map(|r| r.question.as_str()).collect();
    let part = parts(&ids);
    let mut promises = Vec::with_capacity(demands.len());
    for &demand in demands {
        let Choice { setting, lost, of, bound, thinking_share, tested } =
            choose(&outcomes, &part, demand)?;
        let mut promise = Promise {
            risk: demand.risk,
            policy: setting.map(|setting| policies[setting].clone()),
            lost,
            of,
            bound,
            thinking_share,
            tested,
            hopeless: None,
            spreads: Vec::new(),
        };
        if let Some(policy) = &mut promise.policy {
            if let Some(risk) = hopeless {
                let demand = Demand { risk, ..demand };
                let (rule, promised) = give_up(table, policy, &part, demand)?;
                policy.hopeless = rule;
                promise.hopeless = Some(promised);
            }
            let alone = vec![policy.clone()];
            let rows = table.outcomes(&alone)?;
            promise.thinking_share = along(table, &[alone], &rows).share(0, &part.test);
            promise.spreads =
                rows.first().map_or(Vec::new(), |of| spreads(&table.signals_until(of)));
        }
        promises.push(promise);
    }
    let points = policies.into_iter().zip(&rows);
    let points = points.map(|(policy, of)| Point { policy, costs: table.costs(of) }).collect();
    Ok(Calibrated { promises, points })
}

/// The rule for giving up that saves most of what keeps the demand, smoothed as `policy` is.
fn give_up(
    table: &Table,
    policy: &Policy,
    part: &Part,
    demand: Demand,
) -> Result<(Option<Hopeless>, GivenUp)> {
    let paths = hopeless_grid(policy);
    let rules = paths.concat();
    let outcomes = along(table, &paths, &table.outcomes(&rules)?);
    let Choice { setting, lost, of, bound, tested, .. } = choose(&outcomes, part, demand)?;
    let rule = setting.and_then(|setting| rules[setting].hopeless);
    Ok((rule, GivenUp { risk: demand.risk, lost, of, bound, tested }))
}

/// A quarter of the questions to choose a path, the others to test its settings; by the hash of their ids, so that
/// neither the order of a file nor what was seen before decides.
fn parts(ids: &[&str]) -> Part {
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_by_cached_key(|&i| (sha256_hex(ids[i].as_bytes()), i));
    let test = order.split_off((ids.len() as f64 * (1.0 - TESTING)) as usize);
    Part { choose: order, test }
}
