//! Small pure functions over numbers.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Deserializer, Serialize};
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, Normal};

/// A share of successes with its Wilson score interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proportion {
    /// Successes.
    pub count: usize,
    /// Trials.
    pub of: usize,
    /// `count / of`; NaN without trials.
    #[serde(deserialize_with = "or_nan")]
    pub rate: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// JSON writes NaN as null.
fn or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
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

/// The difference of two proportions, or means, on the same questions, with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// New less old.
    #[serde(deserialize_with = "or_nan")]
    pub difference: f64,
    /// Lower end.
    #[serde(deserialize_with = "or_nan")]
    pub low: f64,
    /// Upper end.
    #[serde(deserialize_with = "or_nan")]
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

/// How often the bootstrap draws.
const DRAWS: usize = 2000;

impl Difference {
    /// The mean of paired differences with its percentile bootstrap interval (Efron 1979), from draws that
    /// are the same each time.
    #[must_use]
    pub fn bootstrap(pairs: &[f64]) -> Self {
        let difference = mean(pairs);
        if pairs.is_empty() {
            return Self { difference, low: f64::NAN, high: f64::NAN };
        }
        let mut random = ChaCha8Rng::seed_from_u64(pairs.len() as u64);
        let mut draw = || pairs[(random.next_u64() % pairs.len() as u64) as usize];
        let means: Vec<f64> = (0..DRAWS)
            .map(|_| (0..pairs.len()).map(|_| draw()).sum::<f64>() / pairs.len() as f64)
            .collect();
        Self { difference, low: quantile(&means, 0.025), high: quantile(&means, 0.975) }
    }
}

/// The 95 % percentile bootstrap interval of a share whose trials come in clusters: `count` hits `of` so many
/// in each. Clusters are drawn, not trials.
#[must_use]
pub(crate) fn bootstrap_share(clusters: &[(usize, usize)]) -> (f64, f64) {
    if clusters.is_empty() {
        return (0.0, 1.0);
    }
    let mut random = ChaCha8Rng::seed_from_u64(clusters.len() as u64);
    let mut draw = || clusters[(random.next_u64() % clusters.len() as u64) as usize];
    let shares: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let drawn = (0..clusters.len()).map(|_| draw());
            let (count, of) = drawn.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
            count as f64 / of.max(1) as f64
        })
        .collect();
    (quantile(&shares, 0.025), quantile(&shares, 0.975))
}

/// P-value of McNemar's exact test (1947): of `gained + lost` answers that changed, were both directions
/// equally likely?
#[must_use]
pub fn mcnemar(gained: usize, lost: usize) -> f64 {
    let all = gained + lost;
    let tail = Binomial::new(0.5, all as u64).map(|b| b.cdf(gained.min(lost) as u64));
    if all == 0 { 1.0 } else { tail.map_or(1.0, |tail| (2.0 * tail).min(1.0)) }
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
    fn paired_tests_by_hand() {
        assert_eq!((mcnemar(0, 0), mcnemar(3, 3)), (1.0, 1.0));
        // Two-sided: 2 · (1 + 8) / 256.
        assert!((mcnemar(1, 7) - 18.0 / 256.0).abs() < 1e-12);
        let none = Difference::bootstrap(&[-5.0; 40]);
        assert_eq!((none.difference, none.low, none.high), (-5.0, -5.0, -5.0));
        let pairs: Vec<f64> = (0..400).map(|i| f64::from(i % 20)).collect();
        let some = Difference::bootstrap(&pairs);
        // Mean 9.5, standard deviation 5.77, so 0.29 of the mean of 400.
        assert!((some.difference - 9.5).abs() < 1e-12 && Difference::bootstrap(&pairs) == some);
        assert!((some.low - 8.93).abs() < 0.12 && (some.high - 10.07).abs() < 0.12, "{some:?}");
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
