//! Which drafted tokens the target accepts, and the recover token that follows them.
//!
//! Sampling keeps the target's distribution: a token x drafted from q is accepted with probability
//! min(1, p(x) / q(x)); on rejection the recover token comes from max(p - q, 0), normalised. This is the
//! rejection rule of speculative sampling (arXiv 2302.01318, 2211.17192), applied to the filtered p and q.

use specexit_exit::TokenId;
use specexit_kernels::argmax;

use crate::sampling::{RequestRng, Sampling, pick};

/// The distribution a token was drafted from: `probs[d]` belongs to draft id d.
#[derive(Clone, Debug, Default)]
pub(crate) struct DraftDistribution {
    pub(crate) probs: Vec<f32>,
    /// The draft id that was drawn.
    pub(crate) drawn: usize,
}

/// A drafted token and, when sampling, where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Drafted {
    pub(crate) token: TokenId,
    /// `None` under greedy decoding.
    pub(crate) from: Option<DraftDistribution>,
}

/// How many drafted tokens are accepted, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verified {
    pub(crate) accepted: usize,
    pub(crate) recover: TokenId,
}

/// Walks the chain: `logits(i)` is the target's row after the i-th token of root and drafts.
pub(crate) fn verify<'a>(
    sampling: &Sampling,
    drafted: &[Drafted],
    d2t: Option<&[TokenId]>,
    logits: impl Fn(usize) -> &'a [f32],
    rng: &mut RequestRng,
    probs: &mut Vec<f32>,
) -> Verified {
    for (i, draft) in drafted.iter().enumerate() {
        if sampling.is_greedy() {
            let best = argmax(logits(i)) as TokenId;
            if best != draft.token {
                return Verified { accepted: i, recover: best };
            }
            continue;
        }
        sampling.distribution(logits(i), probs);
        let certain = DraftDistribution::default();
        let q = draft.from.as_ref().unwrap_or(&certain);
        // A token drafted without a distribution was certain to be drafted: q(x) = 1.
        let q_token = q.probs.get(q.drawn).copied().unwrap_or(1.0);
        let p_token = probs[draft.token as usize];
        if rng.uniform() * f64::from(q_token) < f64::from(p_token) {
            continue;
        }
        if draft.from.is_none() {
            probs[draft.token as usize] = 0.0;
        }
        subtract(probs, q, d2t);
        return Verified { accepted: i, recover: pick(probs, rng.uniform()) as TokenId };
    }
    let last = logits(drafted.len());
    let recover = if sampling.is_greedy() {
        argmax(last)
    } else {
        sampling.distribution(last, probs);
        pick(probs, rng.uniform())
    };
    Verified { accepted: drafted.len(), recover: recover as TokenId }
}

/// p becomes max(p - q, 0).
///
/// If rounding leaves nothing, p and q agree everywhere and p itself is the right residual.
fn subtract(p: &mut [f32], q: &DraftDistribution, d2t: Option<&[TokenId]>) {
    let target = |d: usize| d2t.map_or(d, |d2t| d2t[d] as usize);
    let left: f64 = p.iter().map(|&p| f64::from(p)).sum::<f64>();
    let taken: f64 =
        q.probs.iter().enumerate().map(|(d, &q)| f64::from(q.min(p[target(d)]))).sum::<f64>();
    if left - taken <= 1e-9 {
        return;
    }
    for (d, &q) in q.probs.iter().enumerate() {
        let slot = &mut p[target(d)];
        *slot = (*slot - q).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(token: TokenId) -> Drafted {
        Drafted { token, from: None }
    }

    #[test]
    fn greedy_accepts_the_longest_agreeing_run() {
        // The target wants 1, then 2, then 0.
        let rows = [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]];
        let mut rng = RequestRng::new(0, 0);
        let mut run = |drafts: &[Drafted]| {
            verify(&Sampling::greedy(), drafts, None, |i| &rows[i], &mut rng, &mut Vec::new())
        };
        assert_eq!(run(&[draft(1), draft(2)]), Verified { accepted: 2, recover: 0 });
        assert_eq!(run(&[draft(1), draft(0)]), Verified { accepted: 1, recover: 2 });
        assert_eq!(run(&[draft(0), draft(2)]), Verified { accepted: 0, recover: 1 });
        assert_eq!(run(&[]), Verified { accepted: 0, recover: 1 });
    }

    /// Pearson's statistic of `counts` against `expected` probabilities.
    fn chi_square(counts: &[usize], expected: &[f32]) -> (f64, usize) {
        let n: usize = counts.iter().sum();
        let mut statistic = 0.0;
        let mut cells = 0;
        for (&c, &p) in counts.iter().zip(expected) {
            if p > 0.0 {
                let e = f64::from(p) * n as f64;
                statistic += (c as f64 - e).powi(2) / e;
                cells += 1;
            } else {
                assert_eq!(c, 0, "an impossible token was drawn");
            }
        }
        (statistic, cells - 1)
    }

    /// 99.9 % quantile of chi-square, Wilson-Hilferty.
    fn quantile(degrees: usize) -> f64 {
        let k = degrees as f64;
        k * (1.0 - 2.0 / (9.0 * k) + 3.09 * (2.0 / (9.0 * k)).sqrt()).powi(3)
    }

    #[test]
    fn sampling_keeps_the_targets_distribution() {
        let target = [1.0f32, 0.2, -0.5, 0.8, -1.0, 0.0, 0.3, -0.2];
        // The draft knows five of eight tokens and likes the wrong ones.
        let d2t = [0u32, 2, 3, 5, 7];
        let draft_logits = [-1.0f32, 1.5, 0.3, 0.9, -0.2];
        for sampling in [
            Sampling { temperature: 1.0, ..Sampling::greedy() },
            Sampling { temperature: 0.7, top_p: 0.9, ..Sampling::greedy() },
            Sampling { temperature: 1.3, top_k: 4, min_p: 0.05, ..Sampling::greedy() },
        ] {
            let mut rng = RequestRng::new(7, 0);
            let mut draft_rng = RequestRng::new(7, 1);
            let (mut p, mut q, mut scratch) = (Vec::new(), Vec::new(), Vec::new());
            sampling.distribution(&target, &mut p);
            sampling.distribution(&draft_logits, &mut q);
            let mut first = [0usize; 8];
            for _ in 0..40_000 {
                let d = pick(&q, draft_rng.uniform());
                let from = Some(DraftDistribution { probs: q.clone(), drawn: d });
                let drafted = [Drafted { token: d2t[d], from }];
                let verified =
                    verify(&sampling, &drafted, Some(&d2t), |_| &target, &mut rng, &mut scratch);
                let token = if verified.accepted == 1 { d2t[d] } else { verified.recover };
                first[token as usize] += 1;
            }
            let (statistic, degrees) = chi_square(&first, &p);
            assert!(statistic < quantile(degrees), "{sampling:?}: {statistic} over {degrees}");
        }
    }
}
