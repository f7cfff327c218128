//! Cross-entropy against whole distributions.

use half::bf16;

use super::ROWS_PER_TASK;
use super::operands::Bf16Rows;
use super::rows::store_rounded;
use crate::disjoint::Disjoint;
use crate::kernels::Kernels;
use crate::simd::{LANES, Simd, max_of};
use crate::softmax::exp_in_place;

/// What rows of logits are compared with.
#[derive(Clone, Copy, Debug)]
pub struct SoftTargets<'a> {
    /// Distributions `[any, vocab]`; they need not sum to 1.
    pub probs: &'a [f32],
    /// For each row of logits, the distribution it is compared with.
    pub rows: &'a [usize],
    /// For each row of logits, its weight; a row of weight 0 has neither loss nor gradient.
    pub weights: &'a [f32],
}

/// What [`Kernels::soft_cross_entropy`] says of each row.
#[derive(Debug, Default)]
pub struct RowLosses {
    /// Weighted losses, in nats.
    pub losses: Vec<f64>,
    /// The first largest logit; 0 where all are NaN.
    pub picks: Vec<u32>,
}

/// Rows of one task.
struct Rows<'a> {
    targets: SoftTargets<'a>,
    vocab: usize,
    scale: f32,
    logits: &'a mut [f32],
    losses: &'a mut [f64],
    picks: &'a mut [u32],
}

impl Kernels {
    /// For each row r of `logits` `[m, vocab]`, `weight_r * -sum_v p_r[v] * log softmax(logits_r)[v]`
    /// and its largest logit; with `d`, `scale` times the gradient of the sum of the losses, rounded.
    /// The logits are overwritten.
    ///
    /// With the row's p, the gradient is `weight (sum(p) softmax(logits) - p)`.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit or a distribution does not exist.
    pub fn soft_cross_entropy(
        &self,
        found: &mut RowLosses,
        d: Option<(&mut Bf16Rows, f32)>,
        logits: &mut [f32],
        vocab: usize,
        targets: SoftTargets<'_>,
    ) {
        let m = targets.rows.len();
        assert!(vocab > 0 && logits.len() == m * vocab, "logits are not [{m}, {vocab}]");
        assert_eq!(targets.weights.len(), m, "weights are not [{m}]");
        let distributions = targets.probs.len() / vocab;
        assert!(targets.rows.iter().all(|&row| row < distributions), "no such distribution");
        found.losses.clear();
        found.losses.resize(m, 0.0);
        found.picks.clear();
        found.picks.resize(m, 0);
        let mut none = Bf16Rows::default();
        let (d, scale, stride) = match d {
            Some((d, scale)) => {
                d.resize(m, vocab);
                let stride = d.stride();
                (d, scale, stride)
            }
            None => (&mut none, 0.0, 0),
        };
        let logits = &Disjoint::new(logits);
        let losses = &Disjoint::new(&mut found.losses);
        let picks = &Disjoint::new(&mut found.picks);
        let d = &Disjoint::new(d.values_mut());
        self.pool().claim(m.div_ceil(ROWS_PER_TASK), |task| {
            let rows = task * ROWS_PER_TASK..m.min((task + 1) * ROWS_PER_TASK);
            // SAFETY: each task has its own rows of everything; without `d` these are empty.
            let (logits, losses, picks, d) = unsafe {
                (
                    logits.part(rows.start * vocab..rows.end * vocab),
                    losses.part(rows.clone()),
                    picks.part(rows.clone()),
                    d.part(rows.start * stride..rows.end * stride),
                )
            };
            let targets = SoftTargets {
                probs: targets.probs,
                rows: &targets.rows[rows.clone()],
                weights: &targets.weights[rows],
            };
            let rows = Rows { targets, vocab, scale, logits, losses, picks };
            dispatch!(
                self.checked_isa(),
                soft_cross_entropy(rows: Rows<'_>, d: &mut [bf16], stride: usize)
            );
        });
    }
}

#[inline(always)]
fn soft_cross_entropy<S: Simd>(s: S, rows: Rows<'_>, d: &mut [bf16], stride: usize) {
    let Rows { targets, vocab, scale, logits, losses, picks } = rows;
    for (i, row) in logits.chunks_exact_mut(vocab).enumerate() {
        let largest = max_of(s, row);
        picks[i] = row.iter().position(|&x| x == largest).unwrap_or(0) as u32;
        let d = d.get_mut(i * stride..i * stride + vocab).filter(|_| stride > 0);
        let weight = targets.weights[i];
        if weight == 0.0 {
            if let Some(d) = d {
                d.fill(bf16::ZERO);
            }
            continue;
        }
        let p = &targets.probs[targets.rows[i] * vocab..][..vocab];
        let (mut mass, mut product) = (s.splat(0.0), s.splat(0.0));
        for (p, x) in p.chunks(LANES).zip(row.chunks(LANES)) {
            let p = s.load_part(p, 0.0);
            mass = s.add(mass, p);
            product = s.fma(p, s.sub(s.load_part(x, 0.0), s.splat(largest)), product);
        }
        let (mass, product) = (s.sum(mass), s.sum(product));
        let sum = exp_in_place(s, row, s.splat(largest));
        losses[i] = f64::from(weight) * f64::from(mass * sum.ln() - product);
        if let Some(d) = d {
            let (factor, minus) = (s.splat(weight * scale * mass / sum), s.splat(-weight * scale));
            let parts = d.chunks_mut(LANES).zip(row.chunks(LANES)).zip(p.chunks(LANES));
            for ((d, e), p) in parts {
                let d_p = s.mul(s.load_part(p, 0.0), minus);
                store_rounded(s, s.fma(s.load_part(e, 0.0), factor, d_p), d);
            }
        }
    }
}
