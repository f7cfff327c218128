//! Whether signals still look as they did when a promise was made.
//!
//! A promise is about questions of the calibration's kind. Whether others are of that kind shows in the
//! signals themselves, for which no answer has to be known: where they fall into the tenths of the
//! calibration's distribution as often as then, nothing speaks against the promise.

use serde::{Deserialize, Serialize};
use specexit_engine::Signals;

use crate::statistics::quantile;

/// Above this, the population stability index says by common use that a distribution has shifted.
pub const SHIFTED: f64 = 0.2;
/// Values below which an index is chance.
const LEAST: usize = 200;

/// How a signal was distributed at the boundaries of the calibration's thoughts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// Confidence, progress or remaining.
    pub signal: String,
    /// The nine deciles.
    pub deciles: Vec<f64>,
    /// Share of the values up to each decile: a tenth more each, but for a signal that says the same again
    /// and again.
    pub below: Vec<f64>,
    /// Boundaries.
    pub boundaries: usize,
}

/// One signal's shift.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shift {
    /// Confidence, progress or remaining.
    pub signal: String,
    /// Population stability index over the calibration's tenths: `Σ (now - then) ln(now / then)`.
    pub index: f64,
}

fn values(signals: &[Signals]) -> [(&'static str, Vec<f64>); 3] {
    let of = |get: fn(&Signals) -> f32| {
        signals.iter().map(get).filter(|v| v.is_finite()).map(f64::from).collect()
    };
    [
        ("confidence", of(|s| s.confidence)),
        ("progress", of(|s| s.progress)),
        ("remaining", of(|s| s.remaining)),
    ]
}

/// The spreads of the signals at boundaries.
#[must_use]
pub fn spreads(signals: &[Signals]) -> Vec<Spread> {
    let spread = |(signal, values): (&str, Vec<f64>)| {
        let tenths = (1..10).map(|tenth| quantile(&values, f64::from(tenth) / 10.0));
        let deciles: Vec<f64> = tenths.collect();
        Spread {
            signal: signal.to_owned(),
            below: deciles.iter().map(|&edge| share_below(&values, edge)).collect(),
            deciles,
            boundaries: values.len(),
        }
    };
    values(signals).into_iter().map(spread).collect()
}

/// How far `signals`, at boundaries of other thoughts, have shifted; nothing where there are too few to tell.
#[must_use]
pub fn shifts(then: &[Spread], signals: &[Signals]) -> Vec<Shift> {
    let found = values(signals).into_iter().filter_map(|(signal, values)| {
        let then = then.iter().find(|spread| spread.signal == signal)?;
        if values.len() < LEAST || then.boundaries < LEAST {
            return None;
        }
        Some(Shift { signal: signal.to_owned(), index: index(then, &values) })
    });
    found.collect()
}

fn share_below(values: &[f64], edge: f64) -> f64 {
    values.iter().filter(|value| **value <= edge).count() as f64 / values.len().max(1) as f64
}

fn index(then: &Spread, values: &[f64]) -> f64 {
    let (mut then_before, mut now_before, mut index) = (0.0, 0.0, 0.0);
    let edges = then.deciles.iter().copied().zip(then.below.iter().copied());
    // Half a value in an empty bin, so that the index stays finite.
    let least = 0.5 / values.len().max(1) as f64;
    for (edge, below) in edges.chain([(f64::INFINITY, 1.0)]) {
        let now_below = share_below(values, edge);
        let (then, now) = ((below - then_before).max(least), (now_below - now_before).max(least));
        index += (now - then) * (now / then).ln();
        (then_before, now_before) = (below, now_below);
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signals(count: usize, progress: impl Fn(f32) -> f32) -> Vec<Signals> {
        let at = |i: usize| i as f32 / count as f32;
        let of =
            |i| Signals { confidence: 0.5, progress: progress(at(i)), remaining: 40.0 * at(i) };
        (0..count).map(of).collect()
    }

    #[test]
    fn only_what_has_shifted_is_told() {
        let then = spreads(&signals(1000, |x| x));
        assert_eq!(then[1].deciles.len(), 9);
        let of = |signals: &[Signals]| {
            shifts(&then, signals).iter().map(|s| s.index).collect::<Vec<_>>()
        };
        let same = of(&signals(700, |x| x));
        assert!(same.iter().all(|index| index.abs() < 0.01), "{same:?}");
        let other = of(&signals(700, |x| x * x));
        assert!(other[1] > SHIFTED && other[0].abs() < 0.01 && other[2] < 0.01, "{other:?}");
        // All in the first tenth: 0.9 ln 10 from there, 0.1 ln(0.1 / least) nine times over.
        let all = of(&signals(700, |_| 0.01))[1];
        assert!(all > 5.0 && all.is_finite(), "{all}");
        assert!(shifts(&then, &signals(50, |x| x)).is_empty());
        assert!(shifts(&[], &signals(700, |x| x)).is_empty());
    }
}
