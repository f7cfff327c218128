//! Held-out measurements.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use specexit_kernels::Kernels;

use super::report::numbers::{Reading, Scale, SignalPlots};
use crate::data::batches::{Batch, Loader};
use crate::data::source::TargetSource;
use crate::error::Result;
use crate::net::draft::{Draft, DraftBatch, Drafted};
use crate::net::probe::{Probe, SIGNAL_NAMES, SIGNALS, SignalLabel, position_losses};

/// How well the draft layer predicts the target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DraftQuality {
    /// `sum_k decay^k loss_k` over the trained depths: what training minimises.
    pub token_loss: f64,
    /// Cross-entropy at each depth, in nats per drafted position.
    pub loss_per_depth: Vec<f64>,
    /// Share of positions at each depth whose most probable draft token is the target's, given that
    /// the tokens before it were the true ones.
    pub agreement_per_depth: Vec<f64>,
    /// Simulated acceptance length: tokens committed per round, the recover token included, for
    /// greedy chains of 1, 2, … drafted tokens.
    pub tau_per_chain: Vec<f64>,
    /// Share of greedy chains, one from every position, whose token at each depth is accepted, of
    /// those whose earlier tokens all were.
    #[serde(default)]
    pub acceptance_per_depth: Vec<f64>,
    /// Share of positions whose most probable target token is in the draft vocabulary.
    pub vocabulary_coverage: f64,
    /// Positions measured.
    pub positions: usize,
}

/// How well one signal is predicted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SignalQuality {
    /// Name of the signal.
    pub signal: String,
    /// The training loss: squared error, for remaining length of `log(1 + length)`.
    pub loss: f64,
    /// Mean squared error of the signal itself.
    pub mse: f64,
    /// Mean absolute error of the signal itself.
    pub mae: f64,
    /// Mean squared error of always saying the mean label: what a useless probe reaches.
    pub mse_of_mean: f64,
    /// The training loss of always saying what is best on average.
    #[serde(default)]
    pub loss_of_mean: f64,
    /// Pearson's correlation of prediction and label (of logarithms for remaining length).
    pub correlation: f64,
    /// Spearman's rank correlation of prediction and label.
    #[serde(default)]
    pub rank_correlation: f64,
    /// Labels measured.
    pub labels: usize,
    /// What the page plots; of the kept head only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plots: Option<SignalPlots>,
}

/// All held-out measurements.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Of the draft layer.
    pub draft: DraftQuality,
    /// Of the three signals, in row order.
    pub signals: Vec<SignalQuality>,
}

/// Whether each drafted row's pick was the target's choice, per step.
pub(crate) fn agreement(batch: &DraftBatch, drafted: &Drafted) -> Vec<Vec<bool>> {
    let steps = drafted.picks.iter().enumerate();
    let agrees = steps.map(|(step, picks)| {
        let rows = batch.target_rows(step);
        let argmax = &batch.targets.argmax;
        picks.iter().zip(rows).map(|(pick, row)| argmax[row] == Some(*pick)).collect()
    });
    agrees.collect()
}

/// Share of rows that agree, per step.
pub(crate) fn agreement_shares(agreement: &[Vec<bool>]) -> Vec<f64> {
    let share =
        |rows: &Vec<bool>| rows.iter().filter(|a| **a).count() as f64 / rows.len().max(1) as f64;
    agreement.iter().map(share).collect()
}

/// Simulates greedy rounds with chains of `chain` tokens over one sequence: tokens and rounds.
///
/// `agrees(k, i)` says whether the token drafted at depth k from row i is the target's. Rounds start
/// at row 0; one that accepts a tokens goes on a + 1 rows further.
fn simulate(rows: usize, chain: usize, agrees: impl Fn(usize, usize) -> bool) -> (usize, usize) {
    let (mut at, mut rounds) = (0, 0);
    while at < rows {
        let accepted = (0..chain.min(rows - at)).take_while(|&k| agrees(k, at)).count();
        at += accepted + 1;
        rounds += 1;
    }
    (rows, rounds)
}

/// Measures the draft layer, with the weights it has been prepared with, on the sequences `steps`.
pub(crate) fn draft_quality<S: TargetSource>(
    draft: &mut Draft,
    loader: &Loader<'_, S>,
    steps: &[Vec<usize>],
    trained_depth: usize,
    decay: f64,
    chain: usize,
) -> Result<DraftQuality> {
    let depth = trained_depth.max(chain);
    let (mut losses, mut agreed, mut counts) =
        (vec![0f64; depth], vec![0usize; depth], vec![0usize; depth]);
    let mut rounds = vec![(0usize, 0usize); chain];
    let mut chains = vec![(0usize, 0usize); chain];
    let (mut covered, mut positions) = (0, 0);
    let mut loaded = Batch::default();
    for indices in steps {
        loader.load(indices, &mut loaded)?;
        let batch = &loaded.draft;
        let drafted = draft.forward(batch, depth)?;
        let agreement = agreement(batch, &drafted);
        for (k, rows) in agreement.iter().enumerate() {
            losses[k] += drafted.step_losses[k] * rows.len() as f64;
            agreed[k] += rows.iter().filter(|a| **a).count();
            counts[k] += rows.len();
        }
        covered += batch.targets.argmax.iter().flatten().count();
        positions += batch.targets.argmax.len();
        // Start of each sequence's rows at each step.
        let mut starts = vec![0usize; agreement.len()];
        for sequence in &batch.sequences {
            let agrees = |k: usize, i: usize| {
                k < agreement.len() && i + k < sequence.queries && agreement[k][starts[k] + i]
            };
            for (length, (tokens, total)) in rounds.iter_mut().enumerate() {
                let (t, r) = simulate(sequence.queries, length + 1, agrees);
                *tokens += t;
                *total += r;
            }
            for i in 0..sequence.queries {
                for (k, (reached, accepted)) in
                    chains.iter_mut().enumerate().take(sequence.queries - i)
                {
                    *reached += 1;
                    if !agrees(k, i) {
                        break;
                    }
                    *accepted += 1;
                }
            }
            for (k, start) in starts.iter_mut().enumerate() {
                *start += sequence.queries.saturating_sub(k);
            }
        }
    }
    let mean = |sum: f64, n: usize| sum / n.max(1) as f64;
    let loss_per_depth: Vec<f64> = losses.iter().zip(&counts).map(|(l, n)| mean(*l, *n)).collect();
    let weighted = loss_per_depth
        .iter()
        .take(trained_depth)
        .enumerate()
        .map(|(k, l)| l * decay.powi(k as i32));
    Ok(DraftQuality {
        token_loss: weighted.sum(),
        agreement_per_depth: agreed.iter().zip(&counts).map(|(a, n)| mean(*a as f64, *n)).collect(),
        loss_per_depth,
        tau_per_chain: rounds
            .iter()
            .map(|(tokens, rounds)| mean(*tokens as f64, *rounds))
            .collect(),
        acceptance_per_depth: chains
            .iter()
            .map(|(reached, accepted)| mean(*accepted as f64, *reached))
            .collect(),
        vocabulary_coverage: mean(covered as f64, positions),
        positions,
    })
}

/// What the probe says about labelled tokens. Holds a few numbers per token, not their states.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    logits: Vec<[f32; SIGNALS]>,
    labels: Vec<SignalLabel>,
    questions: Vec<u32>,
    numbers: HashMap<String, u32>,
}

impl Readings {
    /// Reads states of one sequence in the probe's coordinates.
    pub(crate) fn add(
        &mut self,
        kernels: &Kernels,
        question: &str,
        probe: &Probe,
        coordinates: &[f32],
        labels: &[SignalLabel],
    ) {
        let next = self.numbers.len() as u32;
        let number = *self.numbers.entry(question.to_owned()).or_insert(next);
        self.logits.extend(probe.logits(kernels, coordinates));
        self.labels.extend_from_slice(labels);
        self.questions.resize(self.labels.len(), number);
    }

    /// How well each signal is predicted; `plots` adds what a page shows of it.
    pub(crate) fn quality(&self, plots: bool) -> Vec<SignalQuality> {
        let quality = |signal: usize| {
            let (loss, readings) = self.of(signal);
            let logarithmic = signal == SIGNALS - 1;
            let pairs: Vec<(f64, f64)> = readings.iter().map(|r| (r.predicted, r.truth)).collect();
            let scale = if logarithmic { Scale::Log1p } else { Scale::Linear };
            SignalQuality {
                plots: plots.then(|| SignalPlots::of(&readings, scale)),
                ..compare(SIGNAL_NAMES[signal], loss, &pairs, logarithmic)
            }
        };
        (0..SIGNALS).map(quality).collect()
    }

    /// The summed loss and the readings of one signal, unknown labels left out.
    fn of(&self, signal: usize) -> (f64, Vec<Reading>) {
        let (mut loss, mut readings) = (0.0, Vec::new());
        let tokens = self.logits.iter().zip(&self.labels).zip(&self.questions);
        for ((z, label), question) in tokens {
            let truth = label.in_order()[signal];
            if truth.is_nan() {
                continue;
            }
            loss += position_losses(*z, label)[signal].0;
            let said = specexit_exit::Signals::from_logits(*z);
            let predicted = [said.confidence, said.progress, said.remaining][signal];
            readings.push(Reading {
                // JSON has no infinity.
                predicted: f64::from(predicted.min(f32::MAX)),
                truth: f64::from(truth),
                progress: f64::from(label.progress),
                question: *question,
            });
        }
        (loss, readings)
    }
}

fn compare(name: &str, loss: f64, pairs: &[(f64, f64)], logarithmic: bool) -> SignalQuality {
    let n = pairs.len().max(1) as f64;
    let mean = |f: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(f).sum::<f64>() / n;
    let mean_label = mean(&|p| p.1);
    let scale = |x: f64| if logarithmic { x.ln_1p() } else { x };
    let scaled: Vec<(f64, f64)> = pairs.iter().map(|p| (scale(p.0), scale(p.1))).collect();
    let mean_scaled = scaled.iter().map(|p| p.1).sum::<f64>() / n;
    let (predicted, truth): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let ranked: Vec<(f64, f64)> = ranks(&predicted).into_iter().zip(ranks(&truth)).collect();
    SignalQuality {
        signal: name.to_owned(),
        loss: loss / n,
        mse: mean(&|p| (p.0 - p.1).powi(2)),
        mae: mean(&|p| (p.0 - p.1).abs()),
        mse_of_mean: mean(&|p| (mean_label - p.1).powi(2)),
        loss_of_mean: scaled.iter().map(|p| (mean_scaled - p.1).powi(2)).sum::<f64>() / n,
        correlation: pearson(&scaled),
        rank_correlation: pearson(&ranked),
        labels: pairs.len(),
        plots: None,
    }
}

/// Pearson's correlation; 0 where one side does not vary.
fn pearson(pairs: &[(f64, f64)]) -> f64 {
    let n = pairs.len().max(1) as f64;
    let mean = |f: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(f).sum::<f64>() / n;
    let (mx, my) = (mean(&|p| p.0), mean(&|p| p.1));
    let covariance = mean(&|p| (p.0 - mx) * (p.1 - my));
    let (vx, vy) = (mean(&|p| (p.0 - mx).powi(2)), mean(&|p| (p.1 - my).powi(2)));
    let spread = (vx * vy).sqrt();
    if spread > 0.0 { covariance / spread } else { 0.0 }
}

/// The rank of each number, equal numbers sharing the mean of theirs.
fn ranks(numbers: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|&a, &b| numbers[a].total_cmp(&numbers[b]));
    let mut ranks = vec![0.0; numbers.len()];
    let mut before = 0;
    for equal in order.chunk_by(|&a, &b| numbers[a] == numbers[b]) {
        let mean = before as f64 + (equal.len() - 1) as f64 / 2.0;
        equal.iter().for_each(|&i| ranks[i] = mean);
        before += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_counted_with_their_recover_token() {
        // Always right: rounds of chain + 1 tokens. Never right: one token a round.
        assert_eq!(simulate(12, 3, |_, _| true), (12, 3));
        assert_eq!(simulate(12, 3, |_, _| false), (12, 12));
        // Right at depth 0 only.
        assert_eq!(simulate(12, 3, |k, _| k == 0), (12, 6));
        // Right from even rows: 0 accepts, goes to row 2.
        assert_eq!(simulate(6, 1, |_, i| i % 2 == 0), (6, 3));
    }

    #[test]
    fn a_perfect_signal_correlates() {
        let pairs: Vec<(f64, f64)> = (0..10).map(|i| (f64::from(i), f64::from(i))).collect();
        let quality = compare("progress", 0.0, &pairs, false);
        assert!((quality.correlation - 1.0).abs() < 1e-12);
        assert!((quality.rank_correlation - 1.0).abs() < 1e-12);
        assert_eq!((quality.mse, quality.mae), (0.0, 0.0));
        assert!(quality.mse_of_mean > 8.0);
        assert_eq!(compare("progress", 0.0, &[], false).correlation, 0.0);
    }

    #[test]
    fn ranks_are_shared_by_equal_numbers() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 0.5]), [2.5, 1.0, 2.5, 0.0]);
        assert_eq!(ranks(&[]), [0.0; 0]);
        // Any growing function keeps the ranks.
        let pairs: Vec<(f64, f64)> = (0..9).map(|i| (f64::from(i), f64::from(i).exp())).collect();
        let quality = compare("remaining", 0.0, &pairs, false);
        assert!((quality.rank_correlation - 1.0).abs() < 1e-12 && quality.correlation < 0.9);
    }
}
