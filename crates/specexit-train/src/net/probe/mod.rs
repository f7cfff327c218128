//! The signal probe: what reads the three signals off the target's tapped states, or off the draft
//! layer's outputs.
//!
//! The probe shares no weight with the token loss, so its forward and backward are written out
//! instead of going through the tape. Row order and activations are those of SpecExit's released
//! code: confidence (sigmoid), progress (sigmoid), remaining (exp).
//!
//! It is trained in the coordinates of [`Basis`], which fold away when the head is written. Draft
//! outputs are numbers to it, not a way back into the layer: drafting stays what the token loss made it,
//! whatever the signals are worth, and a probe can be trained anew on a finished layer.

mod basis;
mod mlp;
mod rows;

use serde::{Deserialize, Serialize};
use specexit_kernels::Kernels;

pub(crate) use basis::{Basis, Moments};

use super::params::Param;

/// Number of signals.
pub(crate) const SIGNALS: usize = 3;

/// Names of the signals in row order, as recorded in a head's config.
pub(crate) const SIGNAL_NAMES: [&str; SIGNALS] = ["confidence", "progress", "remaining"];

/// What the probe is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeKind {
    /// Three more rows of `fc`, the layout of SpecExit's released code.
    #[default]
    Fc,
    /// A network with one hidden layer beside a plain `fc`.
    Mlp,
    /// Three rows with a bias after the draft layer: token t is read off the draft row that pairs the
    /// state before it with it, and so depends on nothing after t.
    Draft,
}

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

/// A probe in training.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Probe {
    kind: ProbeKind,
    /// Its tensors: the rows `[3, 3 H_t + 1]` (`[3, H + 2]` after the draft layer), or the two layers of
    /// the MLP, `[M, 3 H_t + 1]` and `[3, M + 1]`. The last column of each is that of a bias.
    pub(crate) params: Vec<Param>,
}

/// Losses of one batch, and what the backward needs.
pub(crate) struct ProbeForward {
    /// Mean losses over labelled positions: confidence, progress, remaining.
    pub(crate) losses: [f64; SIGNALS],
    /// Gradient norm of each signal's loss in its own row of the last layer.
    pub(crate) norms: [f64; SIGNALS],
    /// Derivatives of the mean losses by the logits, `[rows][3]`.
    derivatives: Vec<[f64; SIGNALS]>,
    /// Gradients of the losses in the last layer's rows.
    last: Vec<f32>,
    /// Hidden layer before and after its activation; empty without one.
    hidden: mlp::Hidden,
}

impl Probe {
    /// A fresh probe for states of width `width`: the last layer is zero but for biases that start at
    /// the labels' usual size.
    pub(crate) fn new(
        kind: ProbeKind,
        width: usize,
        hidden: usize,
        mean_remaining: f32,
        seed: u64,
    ) -> Self {
        let params = match kind {
            ProbeKind::Fc | ProbeKind::Draft => vec![last_layer("probe", width, mean_remaining)],
            ProbeKind::Mlp => vec![
                mlp::first_layer(width, hidden, seed),
                last_layer("probe.down", hidden, mean_remaining),
            ],
        };
        Self { kind, params }
    }

    /// What it is made of.
    pub(crate) fn kind(&self) -> ProbeKind {
        self.kind
    }

    /// Signal logits `[rows][3]` of coordinates `[rows, width + 1]`.
    pub(crate) fn logits(&self, kernels: &Kernels, coordinates: &[f32]) -> Vec<[f32; SIGNALS]> {
        match self.kind {
            ProbeKind::Fc | ProbeKind::Draft => rows::logits(kernels, &self.params[0], coordinates),
            ProbeKind::Mlp => {
                let hidden = mlp::forward(&self.params[0], coordinates);
                rows::logits(kernels, &self.params[1], &hidden.out)
            }
        }
    }

    /// Losses over one batch.
    pub(crate) fn forward(
        &self,
        kernels: &Kernels,
        coordinates: &[f32],
        labels: &[SignalLabel],
    ) -> ProbeForward {
        let hidden = match self.kind {
            ProbeKind::Fc | ProbeKind::Draft => mlp::Hidden::default(),
            ProbeKind::Mlp => mlp::forward(&self.params[0], coordinates),
        };
        let (last, inputs) = match self.kind {
            ProbeKind::Fc | ProbeKind::Draft => (&self.params[0], coordinates),
            ProbeKind::Mlp => (&self.params[1], &hidden.out[..]),
        };
        let (losses, derivatives) = mean_losses(&rows::logits(kernels, last, inputs), labels);
        let width = last.shape[1];
        let gradient = rows::gradient(kernels, &derivatives, inputs, width);
        let square = |g: &f32| f64::from(*g) * f64::from(*g);
        let norms = std::array::from_fn(|i| {
            gradient[i * width..(i + 1) * width].iter().map(square).sum::<f64>().sqrt()
        });
        ProbeForward { losses, norms, derivatives, last: gradient, hidden }
    }

    /// The gradients of `Σ lambda · loss`, in the order of the tensors.
    pub(crate) fn backward(
        &self,
        coordinates: &[f32],
        mut forward: ProbeForward,
        lambda: [f64; SIGNALS],
    ) -> Vec<Vec<f32>> {
        let width = forward.last.len() / SIGNALS;
        for (row, weight) in forward.last.chunks_exact_mut(width).zip(lambda) {
            row.iter_mut().for_each(|g| *g = (f64::from(*g) * weight) as f32);
        }
        match self.kind {
            ProbeKind::Fc | ProbeKind::Draft => vec![forward.last],
            ProbeKind::Mlp => {
                for row in &mut forward.derivatives {
                    row.iter_mut().zip(lambda).for_each(|(d, weight)| *d *= weight);
                }
                let down = &self.params[1];
                let (d, hidden) = (&forward.derivatives, &forward.hidden);
                let up = mlp::backward(down, d, hidden, coordinates, self.params[0].shape[1]);
                vec![up, forward.last]
            }
        }
    }

    /// Copies what is best from `other`, whose held-out losses are `losses`, and says for which signals
    /// (`best` holds theirs so far). Rows are kept one by one; an MLP, which all signals share, by the
    /// product of its losses.
    pub(crate) fn keep_best(
        &mut self,
        other: &Self,
        losses: &[f64],
        best: [Option<f64>; SIGNALS],
    ) -> [bool; SIGNALS] {
        let better = match self.kind {
            ProbeKind::Fc | ProbeKind::Draft => {
                std::array::from_fn(|i| best[i].is_none_or(|best| losses[i] < best))
            }
            ProbeKind::Mlp => {
                // A signal without labels has no loss and no say.
                let product = |of: &dyn Fn(usize) -> f64| -> f64 {
                    (0..SIGNALS).map(|i| of(i).max(1e-12).ln()).sum()
                };
                let before = |i: usize| best[i].unwrap_or(f64::INFINITY);
                [product(&|i| losses[i]) < product(&before); SIGNALS]
            }
        };
        match self.kind {
            ProbeKind::Fc | ProbeKind::Draft => {
                let width = self.params[0].shape[1];
                for i in (0..SIGNALS).filter(|&i| better[i]) {
                    let row = i * width..(i + 1) * width;
                    self.params[0].value[row.clone()].copy_from_slice(&other.params[0].value[row]);
                }
            }
            ProbeKind::Mlp if better[0] => self.take_values(other),
            ProbeKind::Mlp => {}
        }
        better
    }

    /// Takes over the values of `other`, not its optimiser state.
    pub(crate) fn take_values(&mut self, other: &Self) {
        for (to, from) in self.params.iter_mut().zip(&other.params) {
            to.value.clone_from(&from.value);
        }
    }
}

/// Zero rows, and biases that start at the labels' usual size.
fn last_layer(name: &'static str, width: usize, mean_remaining: f32) -> Param {
    let mut value = vec![0f32; SIGNALS * (width + 1)];
    // sigmoid(0) = 1/2 for the first two; the logit of the third is the log of the length.
    value[SIGNALS * (width + 1) - 1] = mean_remaining.max(1.0).ln();
    Param::new(name, vec![SIGNALS, width + 1], value)
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

/// Mean losses over labelled positions, and their derivatives by the logits, `[rows][3]`.
fn mean_losses(
    z: &[[f32; SIGNALS]],
    labels: &[SignalLabel],
) -> ([f64; SIGNALS], Vec<[f64; SIGNALS]>) {
    let mut losses = [0f64; SIGNALS];
    let mut counts = [0f64; SIGNALS];
    let mut derivatives = vec![[0f64; SIGNALS]; z.len()];
    for ((z, label), derivatives) in z.iter().zip(labels).zip(&mut derivatives) {
        for (signal, (loss, d)) in position_losses(*z, label).into_iter().enumerate() {
            losses[signal] += loss;
            counts[signal] += f64::from(!label.in_order()[signal].is_nan());
            derivatives[signal] = d;
        }
    }
    let counts = counts.map(|count| count.max(1.0));
    for row in &mut derivatives {
        row.iter_mut().zip(counts).for_each(|(d, count)| *d /= count);
    }
    (std::array::from_fn(|i| losses[i] / counts[i]), derivatives)
}

#[cfg(test)]
mod tests {
    use super::basis::tests::{basis, coordinates, kernels, states};
    use super::*;
    use crate::ops::check::numbers;

    fn labels(count: usize) -> Vec<SignalLabel> {
        (0..count)
            .map(|i| SignalLabel {
                confidence: if i % 5 == 0 { f32::NAN } else { i as f32 / count as f32 },
                progress: (i + 1) as f32 / count as f32,
                remaining: (count - 1 - i) as f32,
            })
            .collect()
    }

    fn probes() -> [Probe; 2] {
        [ProbeKind::Fc, ProbeKind::Mlp].map(|kind| {
            let mut probe = Probe::new(kind, 4, 6, 10.0, 1);
            for (i, p) in probe.params.iter_mut().enumerate() {
                p.value = numbers(9 + i as u64, p.value.len());
            }
            probe
        })
    }

    #[test]
    fn gradients_agree_with_differences() {
        // More rows than one task takes.
        let states = states(300);
        let (x, kernels) = (coordinates(&basis(&states), &states), kernels());
        let labels = labels(300);
        let lambda = [0.5, 1.0, 2.0];
        for probe in probes() {
            let total = |probe: &Probe| -> f64 {
                let losses = probe.forward(&kernels, &x, &labels).losses;
                losses.iter().zip(lambda).map(|(loss, weight)| loss * weight).sum()
            };
            let gradients = probe.backward(&x, probe.forward(&kernels, &x, &labels), lambda);
            for (which, gradient) in gradients.iter().enumerate() {
                assert_eq!(gradient.len(), probe.params[which].value.len());
                for (at, &expected) in gradient.iter().enumerate() {
                    let moved = |h: f32| {
                        let mut probe = probe.clone();
                        probe.params[which].value[at] += h;
                        total(&probe)
                    };
                    let h = 1e-2;
                    let found = (moved(h) - moved(-h)) / f64::from(2.0 * h);
                    let expected = f64::from(expected);
                    assert!(
                        (found - expected).abs() < 1e-3 + 1e-2 * expected.abs(),
                        "{:?} {which} {at}: {found} {expected}",
                        probe.kind
                    );
                }
            }
        }
    }

    #[test]
    fn fresh_probes_say_the_usual() {
        for kind in [ProbeKind::Fc, ProbeKind::Mlp, ProbeKind::Draft] {
            let probe = Probe::new(kind, 4, 6, 10.0, 1);
            // A bias reads the coordinate that is 1.
            for z in probe.logits(&kernels(), &[0.3, 1.0, -2.0, 0.1, 1.0]) {
                assert_eq!(z, [0.0, 0.0, 10f32.ln()], "{kind:?}");
            }
        }
    }

    #[test]
    fn the_best_is_kept_by_row_or_as_a_whole() {
        let [rows, mlp] = probes();
        let kept = |old: &Probe, losses: &[f64]| {
            let mut best = old.clone();
            let mut new = old.clone();
            new.params.iter_mut().flat_map(|p| &mut p.value).for_each(|v| *v += 1.0);
            let better = best.keep_best(&new, losses, [Some(1.0); 3]);
            (better, best.params[0].value[0] != old.params[0].value[0])
        };
        assert_eq!(kept(&rows, &[0.5, 2.0, 0.9]), ([true, false, true], true));
        assert_eq!(kept(&rows, &[1.5, 0.5, 2.0]), ([false, true, false], false));
        assert_eq!(kept(&mlp, &[0.5, 1.5, 1.0]), ([true; 3], true));
        assert_eq!(kept(&mlp, &[0.5, 2.5, 1.0]), ([false; 3], false));
    }
}
