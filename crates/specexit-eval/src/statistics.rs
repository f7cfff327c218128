//! Small pure functions over numbers.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, Normal};

/// A share of successes with its Wilson score interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Proportion {
    /// Successes.
    pub count: usize,
    /// Trials.
    pub of: usize,
    /// `count / of`; NaN without trials.
    pub rate: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Proportion {
    /// The share with its 95 % interval.
    ///
    /// Wilson's interval, unlike the one of the normal approximation, stays inside 0 to 1 and is
    /// usable for the few dozen questions that a run on a laptop has.
    #[must_use]
    pub fn new(count: usize, of: usize) -> Self {
        let (low, high) = wilson_interval(count, of, 0.95);
        Self { count, of, rate: count as f64 / of as f64, low, high }
    }
}

/// The difference of two proportions on the same questions, with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// New less old, as a share.
    pub difference: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Difference {
    /// Of `of` questions `gained` became right and `lost` became wrong. Agresti and Min (2005): Wald's
    /// interval for matched pairs after half a question is added to each of the four cells.
    #[must_use]
    pub fn paired(gained: usize, lost: usize, of: usize) -> Self {
        if of == 0 {
            return Self { difference: 0.0, low: -1.0, high: 1.0 };
        }
        let z = Normal::standard().inverse_cdf(0.975);
        let (b, c, n) = (gained as f64 + 0.5, lost as f64 + 0.5, of as f64 + 2.0);
        let middle = (b - c) / n;
        let half = z * (b + c - (b - c).powi(2) / n).sqrt() / n;
        Self {
            difference: (gained as f64 - lost as f64) / of as f64,
            low: (middle - half).max(-1.0),
            high: (middle + half).min(1.0),
        }
    }
}

/// Wilson score interval of `successes` in `trials` at `level`; 0 to 1 without trials.
#[must_use]
pub fn wilson_interval(successes: usize, trials: usize, level: f64) -> (f64, f64) {
    if trials == 0 {
        return (0.0, 1.0);
    }
    let z = Normal::standard().inverse_cdf(0.5 + level / 2.0);
    let n = trials as f64;
    let p = successes as f64 / n;
    let scale = 1.0 / (1.0 + z * z / n);
    let centre = scale * (p + z * z / (2.0 * n));
    let half = scale * z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    // At 0 and at all successes the formula's end is exact but for rounding.
    let low = if successes == 0 { 0.0 } else { (centre - half).max(0.0) };
    let high = if successes == trials { 1.0 } else { (centre + half).min(1.0) };
    (low, high)
}

/// Arithmetic mean; NaN of nothing.
#[must_use]
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The `q`-quantile (0 to 1) by linear interpolation between order statistics; NaN of nothing.
#[must_use]
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = q.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (at.floor() as usize, at.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (at - below as f64)
}

/// The middle value; NaN of nothing.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 5e-4
    }

    #[test]
    fn a_paired_difference_narrows_with_agreement() {
        let none = Difference::paired(0, 0, 800);
        assert_eq!(none.difference, 0.0);
        assert!(none.low > -0.0025 && none.high < 0.0025, "{none:?}");
        let some = Difference::paired(4, 12, 800);
        assert!((some.difference + 0.01).abs() < 1e-12);
        assert!(some.low > -0.021 && some.low < -0.019 && some.high < 0.0005, "{some:?}");
        assert_eq!(Difference::paired(0, 0, 0).low, -1.0);
    }

    #[test]
    fn wilson_agrees_with_published_values() {
        // Newcombe 1998, table I: 81/263 and 15/148 at 95 %.
        let (low, high) = wilson_interval(81, 263, 0.95);
        assert!(near(low, 0.2553) && near(high, 0.3662), "{low} {high}");
        let (low, high) = wilson_interval(15, 148, 0.95);
        assert!(near(low, 0.0624) && near(high, 0.1605), "{low} {high}");
        assert!(near(wilson_interval(0, 20, 0.95).1, 0.1611));
        assert!(near(wilson_interval(29, 29, 0.95).0, 0.8830));
    }

    #[test]
    fn wilson_stays_within_bounds_and_holds_the_share() {
        for trials in 1..40 {
            for successes in 0..=trials {
                let p = Proportion::new(successes, trials);
                assert!(
                    0.0 <= p.low && p.low <= p.rate && p.rate <= p.high && p.high <= 1.0,
                    "{p:?}"
                );
            }
        }
        assert_eq!(wilson_interval(0, 0, 0.95), (0.0, 1.0));
        assert!(Proportion::new(0, 0).rate.is_nan());
    }

    #[test]
    fn quantiles_interpolate() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(quantile(&values, 0.0), 1.0);
        assert_eq!(median(&values), 2.5);
        assert!(near(quantile(&values, 0.95), 3.85));
        assert_eq!(quantile(&values, 1.0), 4.0);
        assert_eq!(median(&[7.0]), 7.0);
        assert!(median(&[]).is_nan() && mean(&[]).is_nan());
        assert_eq!(mean(&values), 2.5);
    }
}
