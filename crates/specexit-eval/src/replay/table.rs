//! All cuts of all recordings with their smoothed signals: hundreds of settings in no time.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use specexit_engine::{Engine, Request, Signals};
use specexit_exit::{Ahead, Policy, Smoothers};

use super::outcome::{Outcome, check};
use super::recording::Recording;
use crate::error::{EvalError, Result};
use crate::statistics::{Difference, Proportion, mean};

/// Recordings with what a head says along them.
pub struct Table {
    rows: Vec<Row>,
}

struct Row {
    recording: Recording,
    /// Of each generated token.
    ahead: Vec<Ahead>,
    signals: Vec<Signals>,
}

/// Where a policy would decide, and on what.
struct Place {
    /// Index among the cuts of the recording.
    cut: usize,
    /// Thinking tokens so far.
    thinking: usize,
    signals: Signals,
}

/// What a setting costs and saves over all questions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// The setting.
    pub policy: Policy,
    /// Its costs and savings.
    #[serde(flatten)]
    pub costs: Costs,
}

/// What outcomes cost and save against full thinking.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// Right answers.
    pub accuracy: Proportion,
    /// Accuracy less that of full thinking, question by question.
    pub accuracy_change: Difference,
    /// Of the questions that full thinking answers right: those that the setting answers wrong.
    pub lost_correct: Proportion,
    /// Of the questions that full thinking answers wrong: those that the setting answers right.
    pub gained_correct: Proportion,
    /// Share of the thoughts that end early.
    pub early: f64,
    /// Mean tokens inside the thinking span.
    pub thinking_tokens: f64,
    /// Mean of all generated tokens.
    pub total_tokens: f64,
    /// Mean tokens of trials that did not become the answer.
    pub probe_tokens: f64,
}

impl Table {
    /// Joins recordings with the signals after each of their tokens. `base` is the request that they were
    /// recorded by; its policy has the boundaries.
    ///
    /// # Errors
    /// Signals of other recordings, or settings that no thought can have.
    pub fn new(
        engine: &mut Engine,
        base: &Request,
        recordings: Vec<Recording>,
        signals: Vec<Vec<Signals>>,
    ) -> Result<Self> {
        if recordings.len() != signals.len() {
            return Err(EvalError::Nothing(format!(
                "there are {} recordings and signals of {}; let both be completed first",
                recordings.len(),
                signals.len()
            )));
        }
        let mut rows = Vec::with_capacity(recordings.len());
        for (recording, signals) in recordings.into_iter().zip(signals) {
            let ahead = recording.ahead(engine, base)?;
            let cuts = ahead.iter().filter(|ahead| ahead.boundary && !ahead.closing).count();
            if signals.len() != ahead.len() || cuts != recording.closed.len() {
                let at = recording.closed.last().map_or(0, |closed| closed.at);
                return Err(EvalError::NoCut { question: recording.question, at });
            }
            rows.push(Row { recording, ahead, signals });
        }
        Ok(Self { rows })
    }

    /// The recordings.
    pub fn recordings(&self) -> impl Iterator<Item = &Recording> {
        self.rows.iter().map(|row| &row.recording)
    }

    /// The signals after each generated token of each recording.
    pub fn signals(&self) -> impl Iterator<Item = &[Signals]> {
        self.rows.iter().map(|row| &row.signals[..])
    }

    /// The signals at all cuts of all recordings, as the head says them.
    #[must_use]
    pub fn signals_at_cuts(&self) -> Vec<Signals> {
        self.rows.iter().flat_map(|row| row.at_cuts(usize::MAX)).collect()
    }

    /// The same up to where the thoughts end under `outcomes`, one for each recording.
    #[must_use]
    pub fn signals_until(&self, outcomes: &[Outcome]) -> Vec<Signals> {
        let of = self.rows.iter().zip(outcomes);
        of.flat_map(|(row, outcome)| row.at_cuts(outcome.cut.map_or(usize::MAX, |cut| cut + 1)))
            .collect()
    }

    /// What each of `policies` makes of each recording: `[policies][recordings]`.
    ///
    /// # Errors
    /// A policy that decides by rounds, or exits by chance.
    pub fn outcomes(&self, policies: &[Policy]) -> Result<Vec<Vec<Outcome>>> {
        policies.iter().try_for_each(check)?;
        if policies.iter().any(|policy| policy.random.is_some()) {
            let problem = "exits by chance are replayed one by one, not in a table";
            return Err(EvalError::Nothing(problem.to_owned()));
        }
        // Thresholds do not enter smoothing: settings that differ in them alone share their places.
        let mut shared: HashMap<String, Vec<Vec<Place>>> = HashMap::new();
        let mut outcomes = Vec::with_capacity(policies.len());
        for policy in policies {
            let key = format!("{} {}", policy.smoothing, policy.lag);
            let places = shared
                .entry(key)
                .or_insert_with(|| self.rows.iter().map(|row| row.places(policy)).collect());
            let of = self.rows.iter().zip(places.iter());
            outcomes.push(of.map(|(row, places)| row.outcome(places, policy)).collect());
        }
        Ok(outcomes)
    }

    /// What each of `policies` costs and saves.
    ///
    /// # Errors
    /// As [`Table::outcomes`].
    pub fn points(&self, policies: &[Policy]) -> Result<Vec<Point>> {
        let outcomes = self.outcomes(policies)?;
        let points = policies.iter().zip(outcomes).map(|(policy, of)| {
            let policy = policy.clone();
            Point { policy, costs: self.costs(&of) }
        });
        Ok(points.collect())
    }

    /// What `outcomes`, one for each recording, cost and save.
    #[must_use]
    pub fn costs(&self, outcomes: &[Outcome]) -> Costs {
        let pairs = || self.rows.iter().map(|row| row.recording.correct).zip(outcomes);
        let count = |full, early| {
            pairs().filter(|(before, after)| *before == full && after.correct == early).count()
        };
        let (kept, lost, gained, wrong) =
            (count(true, true), count(true, false), count(false, true), count(false, false));
        let all = outcomes.len();
        let tokens = |of: fn(&Outcome) -> usize| {
            mean(&outcomes.iter().map(|o| of(o) as f64).collect::<Vec<_>>())
        };
        Costs {
            accuracy: Proportion::new(kept + gained, all),
            accuracy_change: Difference::paired(gained, lost, all),
            lost_correct: Proportion::new(lost, kept + lost),
            gained_correct: Proportion::new(gained, gained + wrong),
            early: outcomes.iter().filter(|o| o.cut.is_some()).count() as f64 / all.max(1) as f64,
            thinking_tokens: tokens(|o| o.thinking_tokens),
            total_tokens: tokens(|o| o.total_tokens),
            probe_tokens: tokens(|o| o.probe_tokens),
        }
    }
}

impl Row {
    /// The signals at the first `count` cuts.
    fn at_cuts(&self, count: usize) -> impl Iterator<Item = Signals> {
        let cuts = self.recording.closed.iter().take(count);
        cuts.filter_map(|closed| self.signals.get(closed.at.checked_sub(1)?).copied())
    }

    /// The cuts with the smoothed signals that `policy` decides on, as the thought itself finds them.
    fn places(&self, policy: &Policy) -> Vec<Place> {
        let mut smoothers = Smoothers::new(policy.smoothing);
        let mut places = Vec::with_capacity(self.recording.closed.len());
        for (ahead, signals) in self.ahead.iter().zip(&self.signals) {
            if !ahead.thinking {
                continue;
            }
            let before = smoothers.value();
            smoothers.push(*signals, 1);
            if !ahead.boundary {
                continue;
            }
            if !ahead.closing {
                places.push(Place {
                    cut: places.len(),
                    thinking: ahead.thinking_tokens,
                    signals: if policy.lag { before } else { smoothers.value() },
                });
            }
            smoothers.boundary_checked();
        }
        places
    }

    fn outcome(&self, places: &[Place], policy: &Policy) -> Outcome {
        let exits = |place: &&Place| {
            let at = self.recording.closed[place.cut].at;
            policy.ends(place.thinking, at, &place.signals, 0).is_some()
        };
        Outcome::at(&self.recording, places.iter().find(exits).map(|place| place.cut))
    }
}
