//! How training went, in as many points as a plot can show.

use serde::{Deserialize, Serialize};

use crate::net::probe::SIGNAL_NAMES;
use crate::train::metrics::{HeldOutMetrics, StepMetrics};

/// Most points of a curve.
const POINTS: usize = 200;
/// A curve is smoothed over this share of its steps.
const SMOOTHED_SHARE: f64 = 0.025;

/// One number of the training steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// What it is: `token_loss`, `loss_depth_1`, `confidence_loss`, `lr`, `lambda_progress`, …
    pub name: String,
    /// Last step of each point.
    pub steps: Vec<u64>,
    /// Mean over the steps of each point.
    pub mean: Vec<f64>,
    /// Exponential moving average after the point's last step, over a fortieth of all steps.
    pub smooth: Vec<f64>,
}

/// One number of the held-out measurements.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HeldOutCurve {
    /// What it is, by the names of [`Curve`]; `tau` is that of the longest chain.
    pub name: String,
    /// Steps done before each measurement.
    pub steps: Vec<u64>,
    /// What was measured.
    pub values: Vec<f64>,
}

/// All curves of a run, rounded to six digits; `metrics.jsonl` has every step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curves {
    /// Of the training steps.
    pub train: Vec<Curve>,
    /// Of the held-out measurements.
    pub held_out: Vec<HeldOutCurve>,
}

impl Curves {
    /// The curves of a run's records.
    pub(crate) fn of(steps: &[StepMetrics], held_out: &[HeldOutMetrics]) -> Self {
        let depths =
            steps.iter().map(|s| s.loss_per_depth.len()).max().unwrap_or(0).min(MOST_DEPTHS);
        let mut curves = Self::default();
        curves.add("token_loss", steps, |s| s.token_loss);
        for k in 0..depths {
            curves.add(&depth_name(k), steps, |s| s.loss_per_depth.get(k).copied());
        }
        // Passes with the probe alone say nothing about the draft layer.
        let joint = |s: &StepMetrics, x: f64| s.token_loss.map(|_| x);
        curves.add("lr", steps, |s| joint(s, s.lr));
        curves.add("grad_norm", steps, |s| joint(s, s.grad_norm));
        curves.add("probe_lr", steps, |s| Some(s.probe_lr));
        curves.add("probe_grad_norm", steps, |s| Some(s.probe_grad_norm));
        for (i, signal) in SIGNAL_NAMES.iter().enumerate() {
            curves.add(&format!("{signal}_loss"), steps, |s| s.signal_losses.map(|l| l[i]));
            curves.add(&format!("lambda_{signal}"), steps, |s| s.lambda.map(|l| l[i]));
        }

        let drafted = |m: &HeldOutMetrics| m.held_out.draft.positions > 0;
        let measured = |m: &HeldOutMetrics, x: f64| drafted(m).then_some(x);
        curves.measure("token_loss", held_out, |m| measured(m, m.held_out.draft.token_loss));
        for k in 0..depths {
            curves.measure(&depth_name(k), held_out, |m| {
                m.held_out.draft.loss_per_depth.get(k).and_then(|&x| measured(m, x))
            });
        }
        curves.measure("tau", held_out, |m| {
            m.held_out.draft.tau_per_chain.last().and_then(|&x| measured(m, x))
        });
        for (i, signal) in SIGNAL_NAMES.iter().enumerate() {
            curves.measure(&format!("{signal}_loss"), held_out, |m| {
                m.held_out.signals.get(i).filter(|s| s.labels > 0).map(|s| s.loss)
            });
        }
        curves
    }

    /// The curve of that name, if the run has it.
    pub(crate) fn of_training(&self, name: &str) -> Option<&Curve> {
        self.train.iter().find(|c| c.name == name)
    }

    /// The held-out measurements of that name, if there are any.
    pub(crate) fn of_held_out(&self, name: &str) -> Option<&HeldOutCurve> {
        self.held_out.iter().find(|c| c.name == name)
    }

    fn add(&mut self, name: &str, steps: &[StepMetrics], f: impl Fn(&StepMetrics) -> Option<f64>) {
        let points = steps.iter().filter_map(|s| Some((s.step, f(s).filter(|x| x.is_finite())?)));
        let points: Vec<(u64, f64)> = points.collect();
        if !points.is_empty() {
            self.train.push(thin(name, &points));
        }
    }

    fn measure(
        &mut self,
        name: &str,
        held_out: &[HeldOutMetrics],
        f: impl Fn(&HeldOutMetrics) -> Option<f64>,
    ) {
        let points =
            held_out.iter().filter_map(|m| Some((m.step, f(m).filter(|x| x.is_finite())?)));
        let points: Vec<(u64, f64)> = points.collect();
        let stride = points.len().div_ceil(POINTS).max(1);
        // Counted from the end: the last measurement is always shown.
        let mut shown: Vec<_> = points.iter().rev().step_by(stride).collect();
        shown.reverse();
        if !shown.is_empty() {
            self.held_out.push(HeldOutCurve {
                name: name.to_owned(),
                steps: shown.iter().map(|p| p.0).collect(),
                values: shown.iter().map(|p| six_digits(p.1)).collect(),
            });
        }
    }
}

/// Depths that are plotted at most, as many as training allows.
const MOST_DEPTHS: usize = 16;

/// Name of the loss at depth `k`, counted from 0.
pub(crate) fn depth_name(k: usize) -> String {
    format!("loss_depth_{}", k + 1)
}

/// Groups steps into at most [`POINTS`] points.
fn thin(name: &str, points: &[(u64, f64)]) -> Curve {
    let mut curve = Curve { name: name.to_owned(), ..Curve::default() };
    let weight = 1.0 / (points.len() as f64 * SMOOTHED_SHARE).max(1.0);
    let (mut average, mut total) = (0.0, 0.0);
    for group in points.chunks(points.len().div_ceil(POINTS).max(1)) {
        for (_, x) in group {
            average += weight * (x - average);
            total += weight * (1.0 - total);
        }
        curve.steps.extend(group.last().map(|p| p.0));
        curve.mean.push(six_digits(group.iter().map(|p| p.1 / group.len() as f64).sum()));
        // Divided by the weights so far: the average does not start at zero.
        curve.smooth.push(six_digits(average / total));
    }
    curve
}

/// A number rounded to six significant digits; what overflowed becomes the largest number.
fn six_digits(x: f64) -> f64 {
    format!("{x:.5e}").parse().unwrap_or(x).clamp(f64::MIN, f64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Quality;

    fn step(step: u64, token_loss: Option<f64>) -> StepMetrics {
        let loss_per_depth = token_loss.map(|l| vec![l, 2.0 * l]).unwrap_or_default();
        StepMetrics { step, token_loss, loss_per_depth, lr: 0.1, ..StepMetrics::default() }
    }

    #[test]
    fn long_runs_are_thinned_without_losing_their_ends() {
        let steps: Vec<StepMetrics> = (1..=1001).map(|i| step(i, Some(i as f64))).collect();
        let curves = Curves::of(&steps, &[]);
        let loss = curves.of_training("token_loss").unwrap();
        // Groups of six steps.
        assert_eq!((loss.steps.len(), loss.steps[0], *loss.steps.last().unwrap()), (167, 6, 1001));
        assert_eq!(loss.mean[0], 3.5);
        assert!(loss.smooth.iter().zip(&loss.steps).all(|(x, s)| *x < *s as f64 && *x > 0.0));
        // A straight line is followed at the distance of the smoothing.
        assert!((loss.smooth[166] - (1001.0 - 25.0)).abs() < 1.5, "{}", loss.smooth[166]);
        assert_eq!(curves.of_training("loss_depth_2").unwrap().mean[0], 7.0);
        assert!(curves.held_out.is_empty());
    }

    #[test]
    fn one_step_is_a_curve_and_none_is_not() {
        let curves = Curves::of(&[step(1, Some(2.0))], &[]);
        let loss = curves.of_training("token_loss").unwrap();
        assert_eq!((&loss.mean, &loss.smooth), (&vec![2.0], &vec![2.0]));
        assert_eq!(Curves::of(&[], &[]), Curves::default());
    }

    #[test]
    fn the_probes_own_passes_have_no_learning_rate_of_the_draft_layer() {
        let curves = Curves::of(&[step(1, Some(2.0)), step(2, None)], &[]);
        assert_eq!(curves.of_training("lr").unwrap().steps, [1]);
        assert_eq!(curves.of_training("probe_lr").unwrap().steps, [1, 2]);
    }

    #[test]
    fn measurements_are_thinned_from_the_end() {
        let measured = |step| {
            let mut held_out = Quality::default();
            held_out.draft.positions = 1;
            held_out.draft.tau_per_chain = vec![1.5, 2.0];
            HeldOutMetrics { step, epoch: 0, held_out }
        };
        let all: Vec<HeldOutMetrics> = (1..=401).map(measured).collect();
        let curves = Curves::of(&[], &all);
        let tau = curves.of_held_out("tau").unwrap();
        assert_eq!((tau.steps.len(), tau.steps[0], tau.steps[133]), (134, 2, 401));
        assert_eq!(tau.values[0], 2.0);
        // No signal was measured.
        assert!(curves.of_held_out("progress_loss").is_none());
    }

    #[test]
    fn numbers_are_rounded_and_finite() {
        assert_eq!(six_digits(0.123_456_789), 0.123457);
        assert_eq!(six_digits(-1.5e-9), -1.5e-9);
        let steps =
            [step(1, Some(f64::MAX)), step(2, Some(f64::MAX)), step(3, Some(f64::INFINITY))];
        let curves = Curves::of(&steps, &[]);
        let loss = curves.of_training("token_loss").unwrap();
        assert_eq!(loss.steps, [1, 2]);
        assert!(loss.mean.iter().chain(&loss.smooth).all(|x| x.is_finite()));
    }
}
