//! What is kept of the target's opinion on each generated token: at temperature 1, over the whole vocabulary.

use specexit_exit::TokenId;

use crate::request::Request;

/// Likeliest tokens that a request may ask for.
pub const MAX_TOP_LOGPROBS: usize = 20;

/// One generated token's log probability, and those of the likeliest tokens in its place.
#[derive(Clone, Debug)]
pub(crate) struct Logprob {
    /// NaN for a token that was forced, and where nobody asked.
    pub(crate) token: f32,
    /// Likeliest first; empty for a token that was forced, and where nobody asked.
    pub(crate) top: Vec<(TokenId, f32)>,
}

impl Logprob {
    /// Of a token that the target did not choose.
    pub(crate) fn forced() -> Logprob {
        Logprob { token: f32::NAN, top: Vec::new() }
    }

    /// As much as `request` asks for of `token`, given unfiltered `logits`.
    pub(crate) fn of(request: &Request, logits: &[f32], token: TokenId) -> Logprob {
        if !request.record_logprobs {
            return Logprob::forced();
        }
        let scale = Scale::new(logits);
        let top = likeliest(logits, request.top_logprobs);
        let top = top.into_iter().map(|(id, logit)| (id, scale.log_probability(logit))).collect();
        Logprob { token: scale.log_probability(logits[token as usize]), top }
    }
}

/// What turns logits into log probabilities.
struct Scale {
    max: f32,
    ln_sum: f64,
}

impl Scale {
    fn new(logits: &[f32]) -> Scale {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&l| f64::from((l - max).exp())).sum();
        Scale { max, ln_sum: sum.ln() }
    }

    fn log_probability(&self, logit: f32) -> f32 {
        (f64::from(logit - self.max) - self.ln_sum) as f32
    }
}

/// Natural log of the probability that unfiltered `logits` give `token`.
pub(crate) fn log_probability(logits: &[f32], token: TokenId) -> f32 {
    Scale::new(logits).log_probability(logits[token as usize])
}

/// The `count` largest logits with their tokens, largest first, of equal ones the lower token first.
///
/// The vocabulary is not sorted: beyond the first few tokens hardly any passes the smallest one kept.
fn likeliest(logits: &[f32], count: usize) -> Vec<(TokenId, f32)> {
    let mut top: Vec<(TokenId, f32)> = Vec::with_capacity(count + 1);
    let mut least = f32::NEG_INFINITY;
    for (id, &logit) in logits.iter().enumerate() {
        if logit.is_nan() || (top.len() >= count && logit <= least) || count == 0 {
            continue;
        }
        let at = top.partition_point(|(_, other)| *other >= logit);
        top.insert(at, (id as TokenId, logit));
        top.truncate(count);
        least = top.last().map_or(least, |(_, logit)| *logit);
    }
    top
}

/// Entropy in nats of what unfiltered `logits` say.
pub(crate) fn entropy(logits: &[f32]) -> f32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut sum, mut weighted) = (0f64, 0f64);
    for &logit in logits {
        let below = f64::from(logit - max);
        let weight = below.exp();
        sum += weight;
        // An impossible token adds nothing; 0 times infinity would.
        if weight > 0.0 {
            weighted += weight * below;
        }
    }
    (sum.ln() - weighted / sum) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::RequestRng;

    #[test]
    fn entropies_worked_by_hand() {
        assert!((entropy(&[3.0; 8]) - 8f32.ln()).abs() < 1e-6);
        assert!(entropy(&[90.0, 0.0, f32::NEG_INFINITY]).abs() < 1e-6);
        // Probabilities 3/4 and 1/4.
        let expected = -0.75 * 0.75f32.ln() - 0.25 * 0.25f32.ln();
        assert!((entropy(&[3f32.ln(), 0.0]) - expected).abs() < 1e-6);
    }

    #[test]
    fn the_likeliest_are_those_that_sorting_puts_first() {
        let mut rng = RequestRng::new(5, 0);
        for size in [1usize, 7, 20, 300] {
            // Few different values, so that many are equal.
            let logits: Vec<f32> =
                (0..size).map(|_| (rng.uniform() * 30.0).floor() as f32).collect();
            let mut sorted: Vec<(TokenId, f32)> =
                logits.iter().enumerate().map(|(id, &logit)| (id as TokenId, logit)).collect();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
            for count in [0, 1, 5, 20] {
                assert_eq!(likeliest(&logits, count), sorted[..count.min(size)]);
            }
        }
        assert_eq!(likeliest(&[f32::NAN, f32::NEG_INFINITY, 1.0], 2)[0], (2, 1.0));
    }

    #[test]
    fn a_request_keeps_what_it_asks_for() {
        let logits = [0.5f32, 0.25, 0.15, 0.1].map(f32::ln);
        let asks = |record_logprobs, top_logprobs| Request {
            record_logprobs,
            top_logprobs,
            ..Request::new(vec![0], 1)
        };
        let kept = Logprob::of(&asks(true, 2), &logits, 2);
        assert!((kept.token - 0.15f32.ln()).abs() < 1e-6);
        assert_eq!(kept.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [0, 1]);
        assert!((kept.top[1].1 - 0.25f32.ln()).abs() < 1e-6);
        assert!(Logprob::of(&asks(true, 0), &logits, 2).top.is_empty());
        assert!(Logprob::of(&asks(false, 0), &logits, 2).token.is_nan());
    }
}
