//! The coordinates in which the probe is trained.
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::check::numbers;

    /// States with one huge, almost constant dimension, as residual streams have.
    pub(in super::super) fn states(rows: usize) -> Vec<f32> {
        let noise = numbers(5, rows * 4);
        noise
            .chunks_exact(4)
            .flat_map(|n| [3000.0 + 20.0 * n[0], n[1], 0.3 + 0.01 * n[2], -40.0 + 5.0 * n[3]])
            .collect()
    }

    pub(in super::super) fn kernels() -> Kernels {
        Kernels::new(1, specexit_kernels::Precision::Bf16)
    }

    pub(in super::super) fn coordinates(basis: &Basis, states: &[f32]) -> Vec<f32> {
        let mut out = Vec::new();
        basis.coordinates(&kernels(), &mut out, states);
        out
    }

    pub(in super::super) fn basis(states: &[f32]) -> Basis {
        let mut moments = Moments::new(4);
        moments.add(states);
        moments.basis()
    }

    #[test]
    fn folding_changes_no_logit() {
        let states = states(50);
        let basis = basis(&states);
        let trained = numbers(7, 15);
        let folded = basis.fold(&trained);
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        for (x, coordinates) in
            states.chunks_exact(4).zip(coordinates(&basis, &states).chunks_exact(5))
        {
            for (row, trained) in folded.chunks_exact(4).zip(trained.chunks_exact(5)) {
                let z = dot(trained, coordinates);
                let plain = dot(row, x);
                assert!((plain - z).abs() < 2e-3, "{plain} {z}");
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
}
