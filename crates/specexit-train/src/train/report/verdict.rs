//! What the numbers say, in words.

use serde::{Deserialize, Serialize};

use super::curves::{Curves, HeldOutCurve};
use super::{DataReport, RunReport};
use crate::net::probe::SIGNAL_NAMES;
use crate::page::{capitalised, short};
use crate::train::evaluate::{Quality, SignalQuality};

/// Held-out labels below which the numbers have wide margins.
const FEW_HELD_OUT_LABELS: usize = 1000;
/// Held-out sequences below which the numbers have wide margins.
const FEW_HELD_OUT_SEQUENCES: usize = 30;
/// Training labels below which a probe has little to learn from.
const FEW_TRAIN_LABELS: usize = 10_000;
/// A loss that ends above this share of where it began did not fall.
const FALLEN: f64 = 0.98;
/// Losses below this have nothing left to fall.
const SETTLED: f64 = 1e-3;
/// A best measurement that is the last one asks for more training if this much was still gained over
/// the last fifth of the measurements.
const STILL_FALLING: f64 = 0.005;
/// A last held-out loss above the best one by this share was trained too long.
const OVERTRAINED: f64 = 1.02;
/// A signal whose loss is below the mean predictor's by these shares is read well, or in part.
const READ: f64 = 0.5;
/// See [`READ`].
const PARTLY_READ: f64 = 0.1;
/// Below this, labels are all the same.
const NO_SPREAD: f64 = 1e-9;
/// Chains that commit fewer tokens a round than this hardly pay for their drafting.
const LOW_TAU: f64 = 1.3;
/// Share of the target's choices that the draft vocabulary should be able to name.
const COVERAGE: f64 = 0.95;

/// What the numbers of a run say about its head.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Sentences, the draft layer's first, then one per signal.
    pub sentences: Vec<String>,
    /// What should be looked at before the head is used.
    pub warnings: Vec<String>,
}

/// What is known of a run; much of it only once the run has finished.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    pub(crate) data: Option<&'a DataReport>,
    pub(crate) run: Option<&'a RunReport>,
    pub(crate) held_out: Option<&'a Quality>,
    pub(crate) curves: &'a Curves,
}

impl Verdict {
    /// Judges by the numbers alone.
    pub(crate) fn of(known: &Known<'_>) -> Self {
        let mut verdict = Self::default();
        match known.held_out {
            Some(quality) => verdict.judge(quality),
            None => verdict.sentences.push(
                "Nothing was measured on held-out questions, so nothing here says how good the head is."
                    .to_owned(),
            ),
        }
        verdict.warn_of_data(known);
        verdict.warn_of_training(known.curves);
        if let Some(run) = known.run {
            verdict.warn_of_best_steps(run, known.curves);
        }
        verdict
    }

    fn judge(&mut self, quality: &Quality) {
        let draft = &quality.draft;
        if let (true, Some(tau)) = (draft.positions > 0, draft.tau_per_chain.last()) {
            let chain = draft.tau_per_chain.len();
            let first = draft.agreement_per_depth.first().copied().unwrap_or_default();
            self.sentences.push(format!(
                "Drafting chains of {chain}, the head commits {tau:.2} tokens a round (at best {}); \
                 its first token is the target's {:.0} times in 100.",
                chain + 1,
                100.0 * first
            ));
            if *tau < LOW_TAU {
                self.warnings.push(format!(
                    "τ = {tau:.2} is hardly above 1: drafting will cost about what it saves. Train \
                     longer, or on more texts."
                ));
            }
            if draft.vocabulary_coverage < COVERAGE {
                self.warnings.push(format!(
                    "The draft vocabulary has only {:.1} % of the tokens the target chose; a larger \
                     one lets more be accepted.",
                    100.0 * draft.vocabulary_coverage
                ));
            }
        }
        // By place: what a file calls a signal is not to be trusted.
        for (name, signal) in SIGNAL_NAMES.iter().zip(&quality.signals) {
            self.judge_signal(name, signal);
        }
    }

    fn judge_signal(&mut self, name: &str, s: &SignalQuality) {
        let capital = capitalised(name);
        if s.labels == 0 {
            self.sentences.push(format!("{capital} has no held-out label."));
            return;
        }
        let what = if name == SIGNAL_NAMES[2] { "error of log(1 + tokens)" } else { "MSE" };
        let numbers = format!(
            "Spearman {:.2}, {what} {} against {} for the mean",
            s.rank_correlation,
            short(s.loss),
            short(s.loss_of_mean)
        );
        if s.loss_of_mean < NO_SPREAD {
            self.sentences.push(format!(
                "{capital} is the same for all held-out tokens: whether it is read cannot be told."
            ));
            return;
        }
        let gained = 1.0 - s.loss / s.loss_of_mean;
        let said = match gained {
            g if g >= READ => "is read",
            g if g >= PARTLY_READ => "is read in part",
            g if g > 0.0 => "is hardly read",
            _ => "is not read: no better than its mean",
        };
        self.sentences.push(format!("{capital} {said} ({numbers})."));
        if gained <= 0.0 {
            self.warnings.push(format!(
                "{capital} is worse than always saying its mean: do not let an exit depend on it."
            ));
        }
    }

    fn warn_of_data(&mut self, known: &Known<'_>) {
        let Some(data) = known.data else { return };
        let labels =
            known.held_out.and_then(|q| q.signals.iter().map(|s| s.labels).max()).unwrap_or(0);
        if data.held_out_sequences == 0 {
            self.warnings.push(
                "No question was held out: the last state was kept, and nothing measured it. Train with \
                 held_out above 0."
                    .to_owned(),
            );
        } else if data.held_out_sequences < FEW_HELD_OUT_SEQUENCES || labels < FEW_HELD_OUT_LABELS {
            self.warnings.push(format!(
                "Only {} sequences with {labels} labels are held out: the measurements have wide margins.",
                data.held_out_sequences
            ));
        }
        if data.train_labels < FEW_TRAIN_LABELS {
            self.warnings.push(format!(
                "Only {} labelled tokens to learn from: label more traces.",
                data.train_labels
            ));
        }
    }

    /// Losses of training that did not fall.
    fn warn_of_training(&mut self, curves: &Curves) {
        let names = SIGNAL_NAMES.iter().map(|s| (format!("{s}_loss"), format!("{s} loss")));
        let token = ("token_loss".to_owned(), "token loss".to_owned());
        for (name, called) in std::iter::once(token).chain(names) {
            let Some(curve) = curves.of_training(&name).filter(|c| c.mean.len() >= 10) else {
                continue;
            };
            let part = curve.mean.len() / 10;
            let mean = |points: &[f64]| points.iter().map(|x| x / points.len() as f64).sum::<f64>();
            let first = mean(&curve.mean[..part]);
            let last = mean(&curve.mean[curve.mean.len() - part..]);
            if first > SETTLED && last > FALLEN * first {
                self.warnings.push(format!(
                    "The {called} did not fall in training: {} at first, {} at the end.",
                    short(first),
                    short(last)
                ));
            }
        }
    }

    /// States that were best at the very end, or long before it.
    fn warn_of_best_steps(&mut self, run: &RunReport, curves: &Curves) {
        let signals = SIGNAL_NAMES.iter().zip(run.best_probe_steps);
        let signals = signals.map(|(s, best)| (format!("{s}_loss"), format!("{s} loss"), best));
        let token = ("token_loss".to_owned(), "token loss".to_owned(), run.best_draft_step);
        for (name, called, best) in std::iter::once(token).chain(signals) {
            let (Some(best), Some(curve)) = (best, curves.of_held_out(&name)) else { continue };
            if curve.steps.last() == Some(&best) {
                if let Some(gain) = late_gain(curve).filter(|gain| *gain > STILL_FALLING) {
                    self.warnings.push(format!(
                        "The held-out {called} was best at the very last measurement and still fell by \
                         {:.1} % over the last fifth of them: train longer.",
                        100.0 * gain
                    ));
                }
                continue;
            }
            let lowest = curve.values.iter().copied().fold(f64::INFINITY, f64::min);
            let last = curve.values.last().copied().unwrap_or(lowest);
            if last > OVERTRAINED * lowest && lowest > SETTLED {
                self.warnings.push(format!(
                    "The held-out {called} rose after step {best} (from {} to {} at the end); the state \
                     of step {best} was kept. More data helps here, more passes do not.",
                    short(lowest),
                    short(last)
                ));
            }
        }
    }
}

/// By which share the last value is below that of a fifth of the measurements before.
fn late_gain(curve: &HeldOutCurve) -> Option<f64> {
    let last = curve.values.len().checked_sub(1)?;
    let before = last.checked_sub(curve.values.len().div_ceil(5))?;
    let (before, last) = (curve.values[before], curve.values[last]);
    (before > 0.0).then(|| 1.0 - last / before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::evaluate::DraftQuality;

    fn signal(loss: f64, loss_of_mean: f64, labels: usize) -> SignalQuality {
        SignalQuality { loss, loss_of_mean, labels, rank_correlation: 0.95, ..Default::default() }
    }

    fn held_out(name: &str, values: &[f64]) -> HeldOutCurve {
        HeldOutCurve {
            name: name.to_owned(),
            steps: (1..=values.len() as u64).collect(),
            values: values.to_vec(),
        }
    }

    fn enough() -> DataReport {
        DataReport { held_out_sequences: 50, train_labels: 20_000, ..DataReport::default() }
    }

    #[test]
    fn signals_are_judged_against_their_mean() {
        let quality = Quality {
            signals: vec![
                signal(0.09, 0.08, 5000),
                signal(0.004, 0.083, 5000),
                signal(0.5, 0.6, 5000),
            ],
            draft: DraftQuality {
                positions: 9,
                agreement_per_depth: vec![0.8, 0.7],
                tau_per_chain: vec![1.8, 2.4],
                vocabulary_coverage: 1.0,
                ..DraftQuality::default()
            },
        };
        let (data, curves) = (enough(), Curves::default());
        let known =
            Known { data: Some(&data), run: None, held_out: Some(&quality), curves: &curves };
        let verdict = Verdict::of(&known);
        assert_eq!(
            verdict.sentences,
            [
                "Drafting chains of 2, the head commits 2.40 tokens a round (at best 3); its first \
                 token is the target's 80 times in 100.",
                "Confidence is not read: no better than its mean (Spearman 0.95, MSE 0.0900 against \
                 0.0800 for the mean).",
                "Progress is read (Spearman 0.95, MSE 0.00400 against 0.0830 for the mean).",
                "Remaining is read in part (Spearman 0.95, error of log(1 + tokens) 0.500 against \
                 0.600 for the mean).",
            ]
        );
        assert_eq!(verdict.warnings.len(), 1, "{verdict:?}");
        assert!(verdict.warnings[0].starts_with("Confidence is worse than always"), "{verdict:?}");
    }

    #[test]
    fn every_warning_has_its_cause() {
        let quality = Quality {
            signals: vec![signal(0.0, 0.0, 0), signal(0.01, 0.0, 90), signal(0.1, 0.6, 90)],
            draft: DraftQuality {
                positions: 9,
                agreement_per_depth: vec![0.1],
                tau_per_chain: vec![1.1],
                vocabulary_coverage: 0.9,
                ..DraftQuality::default()
            },
        };
        let flat: Vec<crate::train::StepMetrics> = (1..=20)
            .map(|step| crate::train::StepMetrics {
                step,
                token_loss: Some(5.0),
                signal_losses: Some([0.0, 1.0 / step as f64, 1.0]),
                ..Default::default()
            })
            .collect();
        let mut curves = Curves::of(&flat, &[]);
        curves.held_out = vec![
            held_out("token_loss", &[5.0, 4.0, 3.0, 2.0, 1.0]),
            held_out("progress_loss", &[0.5, 0.1, 0.2]),
            held_out("remaining_loss", &[1.0, 0.9, 0.9]),
        ];
        let data = DataReport { held_out_sequences: 3, train_labels: 5, ..DataReport::default() };
        let run = RunReport {
            best_draft_step: Some(5),
            best_probe_steps: [None, Some(2), Some(3)],
            ..RunReport::default()
        };
        let known =
            Known { data: Some(&data), run: Some(&run), held_out: Some(&quality), curves: &curves };
        let warnings = Verdict::of(&known).warnings;
        let starts = [
            "τ = 1.10 is hardly above 1",
            "The draft vocabulary has only 90.0 %",
            "Only 3 sequences with 90 labels are held out",
            "Only 5 labelled tokens to learn from",
            "The token loss did not fall in training: 5.00 at first, 5.00 at the end",
            "The remaining loss did not fall in training",
            "The held-out token loss was best at the very last measurement and still fell by 50.0 %",
            "The held-out progress loss rose after step 2 (from 0.100 to 0.200 at the end)",
        ];
        assert_eq!(warnings.len(), starts.len(), "{warnings:#?}");
        for (warning, start) in warnings.iter().zip(starts) {
            assert!(warning.starts_with(start), "{warning}");
        }
    }

    #[test]
    fn a_run_without_held_out_questions_is_not_judged() {
        let data = DataReport { held_out_sequences: 0, ..enough() };
        let curves = Curves::default();
        let known = Known { data: Some(&data), run: None, held_out: None, curves: &curves };
        let verdict = Verdict::of(&known);
        assert!(verdict.sentences[0].starts_with("Nothing was measured"), "{verdict:?}");
        assert!(verdict.warnings[0].starts_with("No question was held out"), "{verdict:?}");
    }
}
