//! The settings among which calibration chooses.

use specexit_exit::{Hopeless, Policy, Smoothing, Thresholds};

/// Settings of one path, from one that hardly ever exits to one that nearly always does.
pub(crate) const STEPS: i32 = 40;
/// Steps per factor of ten.
const PER_DECADE: f64 = 8.0;

/// The threshold of step `step` on confidence or progress.
pub(crate) fn share_above(step: i32) -> Option<f32> {
    Some((1.0 - 10f64.powf(f64::from(step) / PER_DECADE - 5.0)) as f32)
}

/// The threshold of step `step` on the remaining length, in tokens.
pub(crate) fn length_below(step: i32) -> Option<f32> {
    Some(10f64.powf(f64::from(step) / PER_DECADE * 1.2 - 3.0) as f32)
}

/// All settings: each signal alone, progress and remaining together, both with a bound on confidence, smoothed
/// and not. They are fixed beforehand and depend on no data. Along each path the thresholds loosen by
/// factors: what is left to full confidence or progress from 10⁻⁵ to nearly 1, remaining length from a
/// thousandth of a token to hundreds. Boundaries and everything else are those of `base`.
#[must_use]
pub fn grid(base: &Policy) -> Vec<Vec<Policy>> {
    let confidences = [None, Some(0.9), Some(0.99), Some(0.999)];
    let mut smoothings = vec![base.smoothing];
    let more = [Smoothing::None, Smoothing::EwmaTokens { time_constant: 16.0 }];
    smoothings.extend(more.into_iter().filter(|smoothing| *smoothing != base.smoothing));
    let mut paths = Vec::new();
    for smoothing in smoothings {
        let mut path = |thresholds: &dyn Fn(i32) -> Thresholds| {
            let steps = (0..STEPS).map(|step| Policy {
                profile: "calibrated".to_owned(),
                thresholds: thresholds(step),
                smoothing,
                hopeless: None,
                stall: None,
                random: None,
                ..base.clone()
            });
            paths.push(steps.collect());
        };
        path(&|step| Thresholds { confidence: share_above(step), ..Thresholds::OFF });
        for confidence in confidences {
            path(&|step| Thresholds { confidence, progress: share_above(step), remaining: None });
            path(&|step| Thresholds { confidence, progress: None, remaining: length_below(step) });
            path(&|step| Thresholds {
                confidence,
                progress: share_above(step),
                remaining: length_below(step),
            });
        }
    }
    paths
}

/// All rules for giving up, alone: at four limits of progress, after ever fewer tokens, from 8,192 down to a
/// dozen.
#[must_use]
pub fn hopeless_grid(base: &Policy) -> Vec<Vec<Policy>> {
    let after = |step: i32| 8192f64 * 2f64.powf(-f64::from(step) / 4.0);
    let path = |progress: f32| {
        let rules = (0..STEPS).map(|step| Hopeless { after: after(step) as usize, progress });
        let alone = |rule| Policy {
            profile: "calibrated".to_owned(),
            thresholds: Thresholds::OFF,
            hopeless: Some(rule),
            stall: None,
            random: None,
            ..base.clone()
        };
        rules.map(alone).collect()
    };
    [0.3, 0.5, 0.8, 0.95].map(path).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use specexit_exit::Profile;

    #[test]
    fn paths_loosen_step_by_step() {
        let paths = grid(&Profile::Default.policy());
        assert!(paths.iter().map(Vec::len).sum::<usize>() >= 500);
        for path in &paths {
            for pair in path.windows(2) {
                let [a, b] = [&pair[0].thresholds, &pair[1].thresholds];
                let grows = |a: Option<f32>, b: Option<f32>| a.zip(b).is_some_and(|(a, b)| a < b);
                assert!(
                    grows(b.confidence, a.confidence)
                        || grows(b.progress, a.progress)
                        || grows(a.remaining, b.remaining)
                );
                assert!(pair[0].validate().is_ok() && pair[0].smoothing == pair[1].smoothing);
            }
        }
    }
}
