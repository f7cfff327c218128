//! Accuracy against tokens, over the whole range of each method's setting.

use serde::{Deserialize, Serialize};
use specexit_engine::{Engine, Request};
use specexit_exit::{Policy, RandomExit, Thresholds};

use crate::calibrate::{STEPS, length_below, share_above};
use crate::error::Result;
use crate::probing::Rule;
use crate::replay::{Costs, Outcome, Table, replay, replay_probing};

/// One method over its settings, replayed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// The method.
    pub method: String,
    /// From the most careful setting to the boldest.
    pub points: Vec<CurvePoint>,
}

/// One setting of a method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// The setting, as a name of the method in a comparison.
    pub setting: String,
    /// What it costs and saves.
    #[serde(flatten)]
    pub costs: Costs,
}

/// All curves that recordings tell: each signal alone, progress and remaining length together with a bound on
/// confidence, chance, and the methods that probe. Boundaries and smoothing are those of `base`'s policy.
///
/// # Errors
/// A policy that decides by rounds, or settings that no thought can have.
pub fn frontier(engine: &mut Engine, base: &Request, table: &Table) -> Result<Vec<Curve>> {
    let policy = base.policy.clone().unwrap_or_else(|| specexit_exit::Profile::Default.policy());
    let mut curves = signal_curves(table, &policy)?;
    curves.push(chance(engine, base, table, &policy)?);
    let deer = [0.999, 0.995, 0.99, 0.98, 0.95, 0.9, 0.8, 0.7, 0.5, 0.3].map(Rule::Deer);
    let dynasor = [8, 6, 5, 4, 3, 2, 1].map(Rule::Dynasor);
    let eat = [-6, -5, -4, -3, -2, -1, 0].map(|e| Rule::Eat(10f32.powi(e)));
    for (method, rules) in [("deer", &deer[..]), ("dynasor", &dynasor), ("eat", &eat)] {
        let points = rules.iter().map(|&rule| {
            let outcomes: Vec<Outcome> =
                table.recordings().map(|recording| replay_probing(recording, rule)).collect();
            CurvePoint { setting: rule.to_string(), costs: table.costs(&outcomes) }
        });
        curves.push(Curve { method: method.to_owned(), points: points.collect() });
    }
    Ok(curves)
}

fn signal_curves(table: &Table, base: &Policy) -> Result<Vec<Curve>> {
    let off = Thresholds::OFF;
    let paths: [(&str, &dyn Fn(i32) -> Thresholds); 4] = [
        ("progress", &|step| Thresholds { progress: share_above(step), ..off }),
        ("remaining", &|step| Thresholds { remaining: length_below(step), ..off }),
        ("confidence", &|step| Thresholds { confidence: share_above(step), ..off }),
        ("specexit", &|step| Thresholds {
            confidence: Some(0.9),
            progress: share_above(step),
            remaining: length_below(step),
        }),
    ];
    let mut curves = Vec::with_capacity(paths.len());
    for (method, thresholds) in paths {
        let policies: Vec<Policy> = (0..STEPS)
            .map(|step| Policy { thresholds: thresholds(step), random: None, ..base.clone() })
            .collect();
        let points = table.points(&policies)?.into_iter().map(|point| CurvePoint {
            setting: point.policy.thresholds.to_string(),
            costs: point.costs,
        });
        curves.push(Curve { method: method.to_owned(), points: points.collect() });
    }
    Ok(curves)
}

fn chance(engine: &mut Engine, base: &Request, table: &Table, policy: &Policy) -> Result<Curve> {
    let mut points = Vec::new();
    for rate in [0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.25, 0.4, 0.7, 1.0] {
        let policy = Policy { random: Some(RandomExit { rate, seed: 0 }), ..policy.clone() };
        let mut outcomes = Vec::new();
        for (recording, signals) in table.recordings().zip(table.signals()) {
            let asked = Request { policy: Some(policy.clone()), ..recording.request(base) };
            outcomes.push(replay(recording, signals, engine.thought(&asked)?)?);
        }
        let setting = format!("random:{rate}");
        points.push(CurvePoint { setting, costs: table.costs(&outcomes) });
    }
    Ok(Curve { method: "random".to_owned(), points })
}
