//! What the plots of a signal show, counted once on the held-out thoughts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Bins of a reliability diagram, and of the error by progress.
const BINS: usize = 10;
/// Cells along each side of the density.
const CELLS: usize = 24;
/// Half-width of a 95 % interval in standard errors.
const Z95: f64 = 1.96;

/// The scale on which a signal is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// The number itself: confidence and progress.
    #[default]
    Linear,
    /// `log(1 + tokens)`: remaining length.
    Log1p,
}

impl Scale {
    /// The place of a number on the scale.
    #[must_use]
    pub fn place(self, number: f64) -> f64 {
        match self {
            Self::Linear => number,
            Self::Log1p => number.ln_1p(),
        }
    }
}

/// Tokens whose predictions are alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Lowest prediction, on the signal's scale.
    pub low: f64,
    /// Highest prediction, on the scale.
    pub high: f64,
    /// Tokens, at least one.
    pub labels: usize,
    /// Questions they are of.
    pub questions: usize,
    /// Mean prediction, on the scale.
    pub predicted: f64,
    /// Mean label, on the scale.
    pub truth: f64,
    /// 95 % interval of the mean label, on the scale. Tokens of one question are not independent, so
    /// it rests on the spread between questions; absent for fewer than two.
    pub interval: Option<[f64; 2]>,
}

/// Tokens at about the same place of the thought.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorBin {
    /// Lowest true progress.
    pub low: f64,
    /// Highest true progress.
    pub high: f64,
    /// Tokens, at least one.
    pub labels: usize,
    /// Mean absolute error, in units of the signal.
    pub mae: f64,
    /// The same of always saying the mean label.
    pub mae_of_mean: f64,
    /// Mean of prediction minus label, in units of the signal.
    pub bias: f64,
}

/// Predictions beside labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SignalPlots {
    /// The scale of bins and cells.
    pub scale: Scale,
    /// Upper end of the scale, the lower one being 0. Predictions beyond it are counted at it.
    pub top: f64,
    /// Expected calibration error: distance between mean prediction and mean label of the
    /// reliability bins on the scale, weighted by their tokens.
    pub ece: f64,
    /// Bins of equal width by prediction; those without a token are left out.
    pub reliability: Vec<ReliabilityBin>,
    /// Tokens per cell: rows by label, columns by prediction, both rising from 0 to `top`.
    pub density: Vec<Vec<u64>>,
    /// Errors by tenth of the true progress; tenths without a token are left out.
    pub error_by_progress: Vec<ErrorBin>,
}

/// One labelled thinking token.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// What the probe says, in units of the signal.
    pub predicted: f64,
    /// The label.
    pub truth: f64,
    /// The token's progress label.
    pub progress: f64,
    /// Number of its question.
    pub question: u32,
}

/// Which of `bins` equal parts of 0 to `top` a number is in; those outside belong to the outermost.
fn part(number: f64, top: f64, bins: usize) -> usize {
    // The cast takes negative numbers to 0.
    ((number / top * bins as f64) as usize).min(bins - 1)
}

fn mean(numbers: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = numbers.fold((0.0, 0usize), |(sum, n), x| (sum + x, n + 1));
    sum / n.max(1) as f64
}

impl SignalPlots {
    /// Counts the tokens of one signal.
    #[must_use]
    pub fn of(readings: &[Reading], scale: Scale) -> Self {
        let top = match scale {
            Scale::Linear => 1.0,
            Scale::Log1p => readings.iter().map(|r| scale.place(r.truth)).fold(2f64.ln(), f64::max),
        };
        let mut density = vec![vec![0; CELLS]; CELLS];
        let mut by_prediction: Vec<Vec<&Reading>> = vec![Vec::new(); BINS];
        let mut by_progress: Vec<Vec<&Reading>> = vec![Vec::new(); BINS];
        for reading in readings {
            let (x, y) = (scale.place(reading.predicted), scale.place(reading.truth));
            density[part(y, top, CELLS)][part(x, top, CELLS)] += 1;
            by_prediction[part(x, top, BINS)].push(reading);
            by_progress[part(reading.progress, 1.0, BINS)].push(reading);
        }
        let mean_label = mean(readings.iter().map(|r| r.truth));
        let edges = |bin: usize, top: f64| {
            (top * bin as f64 / BINS as f64, top * (bin + 1) as f64 / BINS as f64)
        };
        let filled = |bins: Vec<Vec<_>>| {
            bins.into_iter().enumerate().filter(|(_, bin): &(usize, Vec<&Reading>)| !bin.is_empty())
        };
        let reliability: Vec<ReliabilityBin> = filled(by_prediction)
            .map(|(at, bin)| reliability_bin(edges(at, top), &bin, scale))
            .collect();
        let error_by_progress = filled(by_progress)
            .map(|(at, bin)| {
                let (low, high) = edges(at, 1.0);
                let over = |f: &dyn Fn(&Reading) -> f64| mean(bin.iter().map(|r| f(r)));
                ErrorBin {
                    low,
                    high,
                    labels: bin.len(),
                    mae: over(&|r| (r.predicted - r.truth).abs()),
                    mae_of_mean: over(&|r| (mean_label - r.truth).abs()),
                    bias: over(&|r| r.predicted - r.truth),
                }
            })
            .collect();
        let apart = reliability.iter().map(|b| b.labels as f64 * (b.predicted - b.truth).abs());
        let ece = apart.sum::<f64>() / readings.len().max(1) as f64;
        Self { scale, top, ece, reliability, density, error_by_progress }
    }
}

fn reliability_bin((low, high): (f64, f64), bin: &[&Reading], scale: Scale) -> ReliabilityBin {
    let predicted = mean(bin.iter().map(|r| scale.place(r.predicted)));
    let truth = mean(bin.iter().map(|r| scale.place(r.truth)));
    // Residuals summed per question: the cluster-robust variance of a mean.
    let mut residuals: BTreeMap<u32, f64> = BTreeMap::new();
    for reading in bin {
        *residuals.entry(reading.question).or_default() += scale.place(reading.truth) - truth;
    }
    let questions = residuals.len();
    let squares: f64 = residuals.values().map(|r| r * r).sum();
    let interval = (questions > 1).then(|| {
        let correction = questions as f64 / (questions - 1) as f64;
        let error = (correction * squares).sqrt() / bin.len() as f64;
        [truth - Z95 * error, truth + Z95 * error]
    });
    ReliabilityBin { low, high, labels: bin.len(), questions, predicted, truth, interval }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(predicted: f64, truth: f64, progress: f64, question: u32) -> Reading {
        Reading { predicted, truth, progress, question }
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} {b}");
    }

    #[test]
    fn bins_worked_by_hand() {
        let readings = [
            reading(0.12, 0.2, 0.05, 0),
            reading(0.18, 0.4, 0.5, 1),
            reading(0.95, 0.9, 1.0, 1),
            // Beyond the end: in the last bin.
            reading(1.0, 1.0, 1.0, 2),
        ];
        let plots = SignalPlots::of(&readings, Scale::Linear);
        let [low, high] = &plots.reliability[..] else { panic!("{plots:?}") };
        close(low.low, 0.1);
        close(low.high, 0.2);
        assert_eq!((low.labels, low.questions), (2, 2));
        close(low.predicted, 0.15);
        close(low.truth, 0.3);
        // Residuals -0.1 and 0.1: variance 2/1 * 0.02 / 4 = 0.01.
        let [from, to] = low.interval.unwrap();
        close(from, 0.3 - 0.196);
        close(to, 0.3 + 0.196);
        close(high.predicted, 0.975);
        close(high.truth, 0.95);
        // (2 * 0.15 + 2 * 0.025) / 4
        close(plots.ece, 0.0875);

        let tenths: Vec<(f64, usize)> =
            plots.error_by_progress.iter().map(|b| (b.low, b.labels)).collect();
        assert_eq!(tenths, [(0.0, 1), (0.5, 1), (0.9, 2)]);
        close(plots.error_by_progress[0].mae, 0.08);
        close(plots.error_by_progress[0].bias, -0.08);
        // The mean label is 0.625.
        close(plots.error_by_progress[0].mae_of_mean, 0.425);
        close(plots.error_by_progress[2].mae, 0.025);
        close(plots.error_by_progress[2].bias, 0.025);
    }

    #[test]
    fn the_density_counts_every_label_once() {
        let readings: Vec<Reading> = (0..500)
            .map(|i| {
                let truth = f64::from(i % 97);
                reading(f64::from(i % 31) * 10.0, truth, truth / 97.0, (i % 9) as u32)
            })
            .collect();
        for scale in [Scale::Linear, Scale::Log1p] {
            let plots = SignalPlots::of(&readings, scale);
            assert_eq!(plots.density.iter().flatten().sum::<u64>(), 500);
            assert_eq!(plots.reliability.iter().map(|b| b.labels).sum::<usize>(), 500);
            assert_eq!(plots.error_by_progress.iter().map(|b| b.labels).sum::<usize>(), 500);
        }
        let plots = SignalPlots::of(&readings, Scale::Log1p);
        close(plots.top, 97f64.ln());
        // The longest label lies in the last row, the shortest in the first.
        assert!(plots.density[0].iter().sum::<u64>() >= 6);
        assert!(plots.density[CELLS - 1].iter().sum::<u64>() >= 5);
    }

    #[test]
    fn tokens_of_one_question_say_nothing_about_the_next() {
        let one: Vec<Reading> = (0..9).map(|i| reading(0.5, f64::from(i) / 9.0, 0.5, 4)).collect();
        assert_eq!(SignalPlots::of(&one, Scale::Linear).reliability[0].interval, None);
    }

    #[test]
    fn nothing_and_constants_give_numbers() {
        let none = SignalPlots::of(&[], Scale::Log1p);
        assert!(none.reliability.is_empty() && none.error_by_progress.is_empty());
        close(none.ece, 0.0);
        let same = vec![reading(0.6, 0.6, 0.0, 1); 5];
        let plots = SignalPlots::of(&same, Scale::Linear);
        close(plots.ece, 0.0);
        let huge = [reading(f64::from(f32::MAX), 0.0, 1.0, 0), reading(0.0, 0.0, 1.0, 1)];
        let plots = SignalPlots::of(&huge, Scale::Log1p);
        assert!(plots.ece.is_finite() && plots.top > 0.0);
        assert_eq!(plots.density[0][CELLS - 1], 1);
    }
}
