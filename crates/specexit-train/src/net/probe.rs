//! The signal probe: three rows that read the target's tapped states.
//!
//! The probe shares no weight with the token loss, so its forward and backward are written out
//! instead of going through the tape. Row order and activations are those of SpecExit's released
//! code: confidence (sigmoid), progress (sigmoid), remaining (exp).
//!
//! # Conditioning
//!
//! Residual states have a few dimensions a thousand times larger than the others, and most of them
//! barely vary. A probe on raw states would take forever to learn, but the released layout is a bare
//! matrix product: inputs can be scaled (scales fold into the weights) and not shifted, since `fc`
//! has no bias. Yet a direction `u` with `u·x ≈ 1` on all training states does the work of a bias.
//! [`Basis`] builds `u` from mean and variance of the training states, and the probe is trained as
//!
//! `z = v · (x - mean s) / std + b s`, with `s = u·x`,
//!
//! which is linear in `x` without a bias, hence folds into plain rows *exactly*:
//! `w = v / std + (b - v · mean / std) u`. Where `s` is not quite 1, training sees that too.

use specexit_kernels::Kernels;

use super::params::Param;

/// Name of the probe among trained tensors.
pub(crate) const PROBE: &str = "probe";

/// Rows of the probe, one per signal.
pub(crate) const SIGNALS: usize = 3;

/// Names of the signals in row order, as recorded in a head's config.
pub(crate) const SIGNAL_NAMES: [&str; SIGNALS] = ["confidence", "progress", "remaining"];

/// What a thinking token should signal; a NaN label is left out of the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SignalLabel {
    /// 0 to 1, or NaN where unknown.
    pub(crate) confidence: f32,
    /// 0 to 1.
    pub(crate) progress: f32,
    /// Tokens.
    pub(crate) remaining: f32,
}

impl SignalLabel {
    /// In row order.
    pub(crate) fn in_order(&self) -> [f32; SIGNALS] {
        [self.confidence, self.progress, self.remaining]
    }
}

/// Mean and spread of the tapped states, and from them the coordinates that training uses.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Basis {
    /// Mean of each dimension, `[3 H_t]`.
    pub(crate) mean: Vec<f32>,
    /// 1 / standard deviation of each dimension.
    pub(crate) inverse_std: Vec<f32>,
    /// 1 / root mean square of each dimension: the scale of the `fc` inputs.
    pub(crate) inverse_rms: Vec<f32>,
    /// The direction that is 1 on average.
    pub(crate) one: Vec<f32>,
}

/// Running sums for a [`Basis`], in f64.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    count: f64,
    sum: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    /// Nothing seen yet.
    pub(crate) fn new(width: usize) -> Self {
        Self { count: 0.0, sum: vec![0.0; width], squares: vec![0.0; width] }
    }

    /// Adds states `[rows, width]`.
    pub(crate) fn add(&mut self, states: &[f32]) {
        for row in states.chunks_exact(self.sum.len()) {
            self.count += 1.0;
            for ((sum, square), x) in self.sum.iter_mut().zip(&mut self.squares).zip(row) {
                *sum += f64::from(*x);
                *square += f64::from(*x) * f64::from(*x);
            }
        }
    }

    /// The coordinates for these states.
    pub(crate) fn basis(&self) -> Basis {
        let n = self.count.max(1.0);
        let mean: Vec<f64> = self.sum.iter().map(|s| s / n).collect();
        let square: Vec<f64> = self.squares.iter().map(|s| s / n).collect();
        // A dimension that never varies still gets a finite scale, relative to its size.
        let variance: Vec<f64> =
            square.iter().zip(&mean).map(|(s, m)| (s - m * m).max(1e-6 * s).max(1e-12)).collect();
        // Among diagonal estimates, mean / variance has the smallest spread around its mean; the
        // norm makes that mean 1.
        let norm: f64 = mean.iter().zip(&variance).map(|(m, v)| m * m / v).sum::<f64>().max(1e-12);
        Basis {
            inverse_std: variance.iter().map(|v| (1.0 / v.sqrt()) as f32).collect(),
            inverse_rms: square.iter().map(|s| (1.0 / s.max(1e-12).sqrt()) as f32).collect(),
            one: mean.iter().zip(&variance).map(|(m, v)| (m / v / norm) as f32).collect(),
            mean: mean.iter().map(|m| *m as f32).collect(),
        }
    }
}

impl Basis {
    /// Appends raw states `[rows, width]` to `out`, in the probe's coordinates `[rows, width + 1]`.
    pub(crate) fn coordinates(&self, kernels: &Kernels, out: &mut Vec<f32>, states: &[f32]) {
        let (width, start) = (self.mean.len(), out.len());
        out.resize(start + states.len() / width * (width + 1), 0.0);
        let (mean, scale) = (&self.mean, &self.inverse_std);
        kernels.centred_rows(&mut out[start..], states, &self.one, mean, scale);
    }

    /// The plain rows `[3, width]` that trained rows `[3, width + 1]` stand for.
    pub(crate) fn fold(&self, trained: &[f32]) -> Vec<f32> {
        let width = self.mean.len();
        let rows = trained.chunks_exact(width + 1);
        rows.flat_map(|row| {
            let scaled: Vec<f64> = row[..width]
                .iter()
                .zip(&self.inverse_std)
                .map(|(v, s)| f64::from(*v) * f64::from(*s))
                .collect();
            let shift: f64 = scaled.iter().zip(&self.mean).map(|(w, m)| w * f64::from(*m)).sum();
            let bias = f64::from(row[width]) - shift;
            let folded =
                scaled.iter().zip(&self.one).map(|(w, u)| (w + bias * f64::from(*u)) as f32);
            folded.collect::<Vec<f32>>()
        })
        .collect()
    }
}

/// A fresh probe: zero rows, and biases that start at the labels' usual size.
pub(crate) fn new_probe(width: usize, mean_remaining: f32) -> Param {
    let mut value = vec![0f32; SIGNALS * (width + 1)];
    // sigmoid(0) = 1/2 for the first two; the logit of the third is the log of the length.
    value[SIGNALS * (width + 1) - 1] = mean_remaining.max(1.0).ln();
    Param::new(PROBE, vec![SIGNALS, width + 1], value)
}

/// Signal logits `[rows, 3]` of coordinates `[rows, width + 1]`.
pub(crate) fn logits(kernels: &Kernels, probe: &Param, coordinates: &[f32]) -> Vec<[f32; SIGNALS]> {
    let width = probe.shape[1];
    let mut z = vec![[0f32; SIGNALS]; coordinates.len() / width];
    kernels.few_dots(z.as_flattened_mut(), coordinates, &probe.value, width);
    z
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

/// `log(1 + exp(z))` without overflow.
fn softplus(z: f64) -> f64 {
    z.max(0.0) + (-z.abs()).exp().ln_1p()
}

/// The three losses of one position and their derivatives by the logits (arXiv 2509.24248):
/// squared error of the two sigmoids, squared error of `log(1 + remaining)`.
pub(crate) fn position_losses(z: [f32; SIGNALS], label: &SignalLabel) -> [(f64, f64); SIGNALS] {
    let squared = |z: f32, label: f32| {
        if label.is_nan() {
            return (0.0, 0.0);
        }
        let p = sigmoid(f64::from(z));
        let error = p - f64::from(label);
        (error * error, 2.0 * error * p * (1.0 - p))
    };
    let remaining = {
        let z = f64::from(z[2]);
        let error = softplus(z) - f64::from(label.remaining).ln_1p();
        (error * error, 2.0 * error * sigmoid(z))
    };
    [squared(z[0], label.confidence), squared(z[1], label.progress), remaining]
}

/// Mean losses over labelled positions, and the gradient of each signal's loss in its row.
pub(crate) struct ProbeStep {
    /// Confidence, progress, remaining.
    pub(crate) losses: [f64; SIGNALS],
    /// `[3, width + 1]`, each row the gradient of its own loss.
    pub(crate) grad: Vec<f32>,
}

/// Forward and backward over one batch.
pub(crate) fn step(
    kernels: &Kernels,
    probe: &Param,
    coordinates: &[f32],
    labels: &[SignalLabel],
) -> ProbeStep {
    let width = probe.shape[1];
    let mut losses = [0f64; SIGNALS];
    let mut counts = [0f64; SIGNALS];
    let z = logits(kernels, probe, coordinates);
    let mut slopes = vec![[0f64; SIGNALS]; z.len()];
    for ((z, label), slopes) in z.iter().zip(labels).zip(&mut slopes) {
        let terms = position_losses(*z, label);
        for (signal, (loss, d)) in terms.into_iter().enumerate() {
            losses[signal] += loss;
            counts[signal] += f64::from(!label.in_order()[signal].is_nan());
            slopes[signal] = d;
        }
    }
    let mut grad = vec![0f64; SIGNALS * width];
    kernels.few_sums(&mut grad, slopes.as_flattened(), coordinates, width);
    for signal in 0..SIGNALS {
        let n = counts[signal].max(1.0);
        losses[signal] /= n;
        grad[signal * width..(signal + 1) * width].iter_mut().for_each(|g| *g /= n);
    }
    ProbeStep { losses, grad: grad.iter().map(|g| *g as f32).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::numbers;

    /// States with one huge, almost constant dimension, as residual streams have.
    fn states(rows: usize) -> Vec<f32> {
        let noise = numbers(5, rows * 4);
        noise
            .chunks_exact(4)
            .flat_map(|n| [3000.0 + 20.0 * n[0], n[1], 0.3 + 0.01 * n[2], -40.0 + 5.0 * n[3]])
            .collect()
    }

    fn kernels() -> Kernels {
        Kernels::new(1, specexit_kernels::Precision::Bf16)
    }

    fn coordinates(basis: &Basis, states: &[f32]) -> Vec<f32> {
        let mut out = Vec::new();
        basis.coordinates(&kernels(), &mut out, states);
        out
    }

    fn basis(states: &[f32]) -> Basis {
        let mut moments = Moments::new(4);
        moments.add(states);
        moments.basis()
    }

    #[test]
    fn folding_changes_no_logit() {
        let states = states(50);
        let basis = basis(&states);
        let mut probe = new_probe(4, 10.0);
        probe.value = numbers(7, 15);
        let folded = basis.fold(&probe.value);
        let z = logits(&kernels(), &probe, &coordinates(&basis, &states));
        for (x, z) in states.chunks_exact(4).zip(z) {
            for (row, z) in folded.chunks_exact(4).zip(z) {
                let plain: f64 =
                    row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                assert!((plain - f64::from(z)).abs() < 2e-3, "{plain} {z}");
            }
        }
    }

    #[test]
    fn the_direction_of_ones_is_nearly_one() {
        let states = states(200);
        let coordinates = coordinates(&basis(&states), &states);
        for row in coordinates.chunks_exact(5) {
            assert!((row[4] - 1.0).abs() < 0.02, "{}", row[4]);
        }
    }

    #[test]
    fn gradients_agree_with_differences() {
        let states = states(20);
        let x = coordinates(&basis(&states), &states);
        let labels: Vec<SignalLabel> = (0..20)
            .map(|i| SignalLabel {
                confidence: if i % 5 == 0 { f32::NAN } else { i as f32 / 20.0 },
                progress: (i + 1) as f32 / 20.0,
                remaining: (19 - i) as f32,
            })
            .collect();
        let mut probe = new_probe(4, 10.0);
        probe.value = numbers(9, 15);
        let step0 = step(&kernels(), &probe, &x, &labels);
        for at in 0..15 {
            let moved = |h: f32| {
                let mut probe = probe.clone();
                probe.value[at] += h;
                step(&kernels(), &probe, &x, &labels).losses[at / 5]
            };
            let h = 1e-2;
            let found = (moved(h) - moved(-h)) / f64::from(2.0 * h);
            let expected = f64::from(step0.grad[at]);
            assert!(
                (found - expected).abs() < 1e-3 + 1e-2 * expected.abs(),
                "{at}: {found} {expected}"
            );
        }
    }
}
