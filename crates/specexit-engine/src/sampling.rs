//! From logits to a token: greedy, or drawn from a filtered distribution.
//!
//! The filters are applied in the usual order: temperature, top-k, top-p, min-p, then one
//! renormalisation. Speculation draws from the same distribution by rejection (see `verify`).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::error::{EngineError, Result};

/// How a token is drawn from the target's distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// Zero is greedy.
    pub temperature: f32,
    /// Smallest set of most probable tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// So many most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Tokens at least this share of the most probable one's probability; 0 keeps all.
    pub min_p: f32,
    /// Seed of the request's own random numbers.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling::greedy()
    }
}

impl Sampling {
    /// Always the most probable token.
    pub fn greedy() -> Sampling {
        Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: 0 }
    }

    /// Whether the most probable token is always taken.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Checks every number's range.
    ///
    /// # Errors
    /// A sentence naming the number.
    pub fn validate(&self) -> Result<()> {
        let check = |ok: bool, what: String| {
            if ok { Ok(()) } else { Err(EngineError::BadRequest { what }) }
        };
        let t = self.temperature;
        check(
            t == 0.0 || (t.is_finite() && t >= 1e-3),
            format!("temperature is {t}; it must be 0 (greedy) or at least 0.001"),
        )?;
        let p = self.top_p;
        check(p > 0.0 && p <= 1.0, format!("top_p is {p}; it must be above 0 and at most 1"))?;
        let p = self.min_p;
        check((0.0..=1.0).contains(&p), format!("min_p is {p}; it must lie between 0 and 1"))
    }

    /// The filtered distribution of `logits`, `[vocab]`, written into `probs`, same shape.
    ///
    /// Logits that are NaN count as impossible.
    pub fn distribution(&self, logits: &[f32], probs: &mut Vec<f32>) {
        probs.clear();
        let max = logits.iter().copied().filter(|l| !l.is_nan()).fold(f32::NEG_INFINITY, f32::max);
        let scale = 1.0 / self.temperature;
        probs.extend(logits.iter().map(|&l| {
            let p = ((l - max) * scale).exp();
            if p.is_nan() { 0.0 } else { p }
        }));
        let keep = self.threshold(probs);
        let mut sum = 0f64;
        for p in probs.iter_mut() {
            if *p < keep {
                *p = 0.0;
            }
            sum += f64::from(*p);
        }
        let norm = (1.0 / sum) as f32;
        probs.iter_mut().for_each(|p| *p *= norm);
    }

    /// The smallest unnormalised probability that survives all filters.
    fn threshold(&self, probs: &[f32]) -> f32 {
        let mut keep = 0f32;
        let limited = self.top_k > 0 && self.top_k < probs.len();
        if !limited && self.top_p >= 1.0 {
            return keep.max(self.min_p);
        }
        let mut order: Vec<f32> = probs.to_vec();
        let descending = |a: &f32, b: &f32| b.total_cmp(a);
        if limited {
            let (_, kth, _) = order.select_nth_unstable_by(self.top_k - 1, descending);
            keep = *kth;
            order.truncate(self.top_k);
        }
        if self.top_p < 1.0 {
            let total: f64 = order.iter().map(|&p| f64::from(p)).sum();
            keep = keep.max(nucleus(&mut order, f64::from(self.top_p) * total));
        }
        // The largest unnormalised probability is exactly one.
        keep.max(self.min_p)
    }
}

/// The smallest member of the smallest set of largest `probs` that sums to `mass`.
///
/// Sorts growing heads only: the nucleus is nearly always tiny beside the vocabulary.
fn nucleus(probs: &mut [f32], mass: f64) -> f32 {
    let descending = |a: &f32, b: &f32| b.total_cmp(a);
    let mut head = 64;
    loop {
        let whole = head >= probs.len();
        let top = if whole {
            &mut *probs
        } else {
            let (top, _, _) = probs.select_nth_unstable_by(head, descending);
            top
        };
        top.sort_unstable_by(descending);
        let mut sum = 0f64;
        for &p in top.iter() {
            sum += f64::from(p);
            if sum >= mass {
                return p;
            }
        }
        if whole {
            return 0.0;
        }
        head *= 8;
    }
}

/// A request's own random numbers: the drafts' and the verdicts' streams never touch.
#[derive(Clone, Debug)]
pub(crate) struct RequestRng(ChaCha8Rng);

impl RequestRng {
    pub(crate) fn new(seed: u64, stream: u64) -> RequestRng {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        RequestRng(rng)
    }

    /// A number in [0, 1) with 53 random bits.
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

/// The index that `u` in [0, 1) selects among `weights`, which need not be normalised.
pub(crate) fn pick(weights: &[f32], u: f64) -> usize {
    let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
    let mut left = u * total;
    let mut last = 0;
    for (i, &w) in weights.iter().enumerate() {
        if w > 0.0 {
            left -= f64::from(w);
            last = i;
            if left < 0.0 {
                return i;
            }
        }
    }
    // Rounding may leave a sliver above the last possible index.
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distribution(sampling: Sampling, logits: &[f32]) -> Vec<f32> {
        let mut probs = Vec::new();
        sampling.distribution(logits, &mut probs);
        probs
    }

    fn warm() -> Sampling {
        Sampling { temperature: 1.0, ..Sampling::greedy() }
    }

    fn close(a: &[f32], b: &[f32]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(x, y)| (x - y).abs() < 1e-6)
    }

    /// Logs of 0.5, 0.25, 0.15, 0.1.
    fn logits() -> Vec<f32> {
        [0.5f32, 0.25, 0.15, 0.1].map(f32::ln).to_vec()
    }

    #[test]
    fn filters_keep_what_their_definitions_say() {
        let l = logits();
        assert!(close(&distribution(warm(), &l), &[0.5, 0.25, 0.15, 0.1]));
        let top_k = distribution(Sampling { top_k: 2, ..warm() }, &l);
        assert!(close(&top_k, &[2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]), "{top_k:?}");
        let top_p = distribution(Sampling { top_p: 0.8, ..warm() }, &l);
        assert!(close(&top_p, &[0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0.0]), "{top_p:?}");
        let min_p = distribution(Sampling { min_p: 0.4, ..warm() }, &l);
        assert!(close(&min_p, &[2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]), "{min_p:?}");
        let cold = distribution(Sampling { temperature: 0.5, ..warm() }, &l);
        let sum = 0.25 + 0.0625 + 0.0225 + 0.01;
        assert!(close(&cold, &[0.25 / sum, 0.0625 / sum, 0.0225 / sum, 0.01 / sum]), "{cold:?}");
    }

    #[test]
    fn nucleus_agrees_with_sorting_everything() {
        let mut rng = RequestRng::new(3, 0);
        for size in [3usize, 64, 65, 700, 5000] {
            let probs: Vec<f32> = (0..size).map(|_| rng.uniform() as f32).collect();
            let total: f64 = probs.iter().map(|&p| f64::from(p)).sum();
            for share in [0.01, 0.3, 0.9, 0.999] {
                let mut sorted = probs.clone();
                sorted.sort_by(|a, b| b.total_cmp(a));
                let mut sum = 0.0;
                let naive = sorted.iter().copied().find(|&p| {
                    sum += f64::from(p);
                    sum >= share * total
                });
                assert_eq!(nucleus(&mut probs.clone(), share * total), naive.unwrap_or(0.0));
            }
        }
    }

    #[test]
    fn nan_logits_are_impossible() {
        let probs = distribution(warm(), &[0.0, f32::NAN, 0.0]);
        assert!(close(&probs, &[0.5, 0.0, 0.5]), "{probs:?}");
    }

    #[test]
    fn ranges_are_checked() {
        for bad in [
            Sampling { temperature: -1.0, ..warm() },
            Sampling { temperature: f32::NAN, ..warm() },
            Sampling { top_p: 0.0, ..warm() },
            Sampling { min_p: 1.5, ..warm() },
        ] {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
        assert!(warm().validate().is_ok() && Sampling::greedy().validate().is_ok());
    }

    #[test]
    fn pick_never_returns_an_impossible_index() {
        let weights = [0.0, 0.3, 0.0, 0.7, 0.0];
        assert_eq!(pick(&weights, 0.0), 1);
        assert_eq!(pick(&weights, 0.2999), 1);
        assert_eq!(pick(&weights, 0.5), 3);
        assert_eq!(pick(&weights, 1.0), 3);
    }
}
