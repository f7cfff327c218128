//! From records to one row per method.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::record::Record;
use crate::statistics::{Difference, Proportion, bootstrap_share, mcnemar, mean, median, quantile};

/// The method that lost-correct rates and speed-ups refer to.
pub const REFERENCE: &str = "plain";

/// What a method did on all questions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The method's name.
    pub method: String,
    /// Share of right answers.
    pub accuracy: Proportion,
    /// Mean thinking tokens per question.
    pub thinking_tokens: f64,
    /// Mean generated tokens per question.
    pub total_tokens: f64,
    /// Mean tokens per question of trials that did not become the answer.
    pub probe_tokens: f64,
    /// Median seconds per question.
    pub wall_p50_s: f64,
    /// 95th percentile of seconds per question.
    pub wall_p95_s: f64,
    /// Seconds of the whole set.
    pub wall_sum_s: f64,
    /// Median seconds to the first token of an answer, over the questions that have one.
    pub first_answer_p50_s: Option<f64>,
    /// Acceptance length over all rounds of all questions.
    pub tau: f64,
    /// Drafted tokens that were accepted, as a share; absent where nothing was drafted.
    pub draft_acceptance: Option<f64>,
    /// How many thoughts ended for which reason; `open` counts those that never ended.
    pub exits: BTreeMap<String, usize>,
    /// Of the questions that `plain` answers right: those that this method answers wrong.
    pub lost_correct: Option<Proportion>,
    /// Of the questions that `plain` answers wrong: those that this method answers right.
    pub gained_correct: Option<Proportion>,
    /// Accuracy less that of `plain`.
    pub accuracy_change: Option<Difference>,
    /// P-value of McNemar's exact test of a change of accuracy.
    pub mcnemar_p: Option<f64>,
    /// Thinking tokens less those of `plain`, question by question, with a bootstrap interval.
    pub thinking_change: Option<Difference>,
    /// Seconds of `plain` over seconds of this method, whole set, same run.
    pub speed_up: Option<f64>,
}

impl Summary {
    /// Sums up `records`, all of one method; `reference` holds those of `plain`, if it was run.
    #[must_use]
    pub fn new(method: &str, records: &[&Record], reference: Option<&[&Record]>) -> Self {
        let of = |f: fn(&Record) -> f64| records.iter().map(|r| f(r)).collect::<Vec<f64>>();
        let sum = |f: fn(&Record) -> usize| records.iter().map(|r| f(r)).sum::<usize>();
        let wall = of(|r| r.wall_s);
        let first: Vec<f64> = records.iter().filter_map(|r| r.first_answer_s).collect();
        let (rounds, drafted) = (sum(|r| r.rounds), sum(|r| r.drafted));
        // The first token of an answer comes from the prefill, not from a round.
        let committed = sum(|r| r.total_tokens.saturating_sub(1));
        let reference_wall = reference.map(|r| r.iter().map(|r| r.wall_s).sum::<f64>());
        Self {
            method: method.to_owned(),
            accuracy: share(records.iter().map(|r| (r.question.as_str(), r.correct))),
            thinking_tokens: mean(&of(|r| r.thinking_tokens as f64)),
            total_tokens: mean(&of(|r| r.total_tokens as f64)),
            probe_tokens: mean(&of(|r| r.probe_tokens as f64)),
            wall_p50_s: median(&wall),
            wall_p95_s: quantile(&wall, 0.95),
            wall_sum_s: wall.iter().sum(),
            first_answer_p50_s: (!first.is_empty()).then(|| median(&first)),
            tau: if rounds == 0 { 0.0 } else { committed as f64 / rounds as f64 },
            draft_acceptance: (drafted > 0).then(|| sum(|r| r.accepted) as f64 / drafted as f64),
            exits: count_exits(records),
            lost_correct: reference.map(|r| changed(r, records, true)),
            gained_correct: reference.map(|r| changed(r, records, false)),
            accuracy_change: reference.map(|r| difference(r, records)),
            // The test takes answers to be independent of each other.
            mcnemar_p: reference.filter(|_| !repeats(records)).map(|r| {
                mcnemar(changed(r, records, false).count, changed(r, records, true).count)
            }),
            thinking_change: reference.map(|r| fewer_tokens(r, records)),
            speed_up: reference_wall.map(|reference| reference / wall.iter().sum::<f64>()),
        }
    }
}

/// One summary per method, in the order of `methods`.
#[must_use]
pub fn summarise(methods: &[&str], records: &[Record]) -> Vec<Summary> {
    summaries(methods, &records.iter().collect::<Vec<_>>())
}

fn summaries(methods: &[&str], records: &[&Record]) -> Vec<Summary> {
    let of = |method: &str| {
        records.iter().copied().filter(|r| r.method == method).collect::<Vec<&Record>>()
    };
    let reference = methods.contains(&REFERENCE).then(|| of(REFERENCE));
    let compared = |method: &str| reference.as_deref().filter(|_| method != REFERENCE);
    methods.iter().map(|method| Summary::new(method, &of(method), compared(method))).collect()
}

/// One summary per method for each group of questions, groups in alphabetical order.
#[must_use]
pub fn by_group(methods: &[&str], records: &[Record]) -> BTreeMap<String, Vec<Summary>> {
    let mut groups: BTreeMap<String, Vec<&Record>> = BTreeMap::new();
    for record in records {
        if let Some(group) = &record.group {
            groups.entry(group.clone()).or_default().push(record);
        }
    }
    groups.into_iter().map(|(group, of)| (group, summaries(methods, &of))).collect()
}

/// Accuracy of `records` less that of `reference`, question by question.
fn difference(reference: &[&Record], records: &[&Record]) -> Difference {
    if repeats(records) {
        let right = |record: &Record| f64::from(u8::from(record.correct));
        return by_question(reference, records, |old, new| right(new) - right(old));
    }
    let lost = changed(reference, records, true);
    let gained = changed(reference, records, false);
    Difference::paired(gained.count, lost.count, gained.of + lost.of)
}

/// Whether questions were answered several times, so that answers are not independent of each other.
fn repeats(records: &[&Record]) -> bool {
    records.iter().any(|record| record.repeat > 0)
}

/// A share of `hits`, each of a question; where questions stand in it several times, its interval is the
/// bootstrap's over questions.
fn share<'a>(hits: impl Iterator<Item = (&'a str, bool)>) -> Proportion {
    let mut questions: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (question, hit) in hits {
        let (count, of) = questions.entry(question).or_default();
        *count += usize::from(hit);
        *of += 1;
    }
    let clusters: Vec<(usize, usize)> = questions.into_values().collect();
    let (count, of) = clusters.iter().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    let whole = Proportion::new(count, of);
    if clusters.iter().all(|(_, of)| *of == 1) {
        return whole;
    }
    let (low, high) = bootstrap_share(&clusters);
    Proportion { low, high, ..whole }
}

/// The mean change of something between two answers to the same question under the same seed.
fn by_question(
    reference: &[&Record],
    records: &[&Record],
    change: impl Fn(&Record, &Record) -> f64,
) -> Difference {
    let before: BTreeMap<_, &Record> = reference.iter().map(|r| (r.key(), *r)).collect();
    let mut questions: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for record in records {
        if let Some(old) = before.get(&record.key()) {
            questions.entry(&record.question).or_default().push(change(old, record));
        }
    }
    Difference::bootstrap(&questions.values().map(|of| mean(of)).collect::<Vec<_>>())
}

/// Thinking tokens of `records` less those of `reference`, question by question.
fn fewer_tokens(reference: &[&Record], records: &[&Record]) -> Difference {
    by_question(reference, records, |old, new| {
        new.thinking_tokens as f64 - old.thinking_tokens as f64
    })
}

fn count_exits(records: &[&Record]) -> BTreeMap<String, usize> {
    let mut exits = BTreeMap::new();
    for record in records {
        let reason = record.exit.map_or("open", |exit| exit.reason.as_str());
        *exits.entry(reason.to_owned()).or_insert(0) += 1;
    }
    exits
}

/// Of the questions whose reference answer is `was` (right or wrong): those where `records` differ.
fn changed(reference: &[&Record], records: &[&Record], was: bool) -> Proportion {
    let after: BTreeMap<_, bool> = records.iter().map(|r| (r.key(), r.correct)).collect();
    let before = reference.iter().filter(|r| r.correct == was);
    let pairs = before.filter_map(|r| Some((r.question.as_str(), *after.get(&r.key())? != was)));
    share(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use specexit_engine::{Exit, ExitReason, Finish, Signals};

    fn record(question: &str, method: &str, correct: bool, tokens: usize, wall_s: f64) -> Record {
        let exit = Exit {
            reason: ExitReason::Natural,
            token_index: tokens / 2,
            signals: Signals::MISSING,
        };
        Record {
            question: question.to_owned(),
            repeat: 0,
            group: Some(if question < "c" { "early" } else { "late" }.to_owned()),
            method: method.to_owned(),
            correct,
            thinking_tokens: tokens / 2,
            total_tokens: tokens,
            probe_tokens: 0,
            wall_s,
            first_answer_s: Some(wall_s / 2.0),
            tau: 2.0,
            rounds: (tokens - 1) / 2,
            drafted: tokens,
            accepted: tokens / 4,
            exit: (question != "d").then_some(exit),
            finish: Finish::Stop,
            answer: None,
            text: String::new(),
        }
    }

    #[test]
    fn a_method_is_measured_against_plain() {
        let records = [
            record("a", "plain", true, 21, 2.0),
            record("b", "plain", true, 21, 2.0),
            record("c", "plain", false, 21, 2.0),
            record("d", "plain", false, 41, 6.0),
            record("a", "specexit", true, 11, 1.0),
            record("b", "specexit", false, 11, 1.0),
            record("c", "specexit", true, 11, 1.0),
            record("d", "specexit", false, 21, 3.0),
        ];
        let [plain, specexit] = &summarise(&["plain", "specexit"], &records)[..] else { panic!() };
        assert_eq!((plain.accuracy.count, plain.accuracy.of), (2, 4));
        assert!(plain.lost_correct.is_none() && plain.speed_up.is_none());
        let lost = specexit.lost_correct.unwrap();
        assert_eq!((lost.count, lost.of, lost.rate), (1, 2, 0.5));
        assert_eq!(specexit.gained_correct.unwrap().rate, 0.5);
        let change = specexit.accuracy_change.unwrap();
        assert_eq!(change.difference, 0.0);
        assert!(change.low < -0.3 && change.high > 0.3);
        let groups = by_group(&["plain", "specexit"], &records);
        assert_eq!(groups.keys().collect::<Vec<_>>(), ["early", "late"]);
        assert_eq!(groups["early"][1].accuracy.count, 1);
        assert_eq!(groups["late"][0].thinking_tokens, 15.0);
        assert_eq!(specexit.speed_up, Some(2.0));
        assert_eq!((specexit.wall_sum_s, specexit.wall_p50_s), (6.0, 1.0));
        assert_eq!((specexit.total_tokens, specexit.tau), (13.5, 2.0));
        assert_eq!(specexit.exits, BTreeMap::from([("natural".into(), 3), ("open".into(), 1)]));
    }

    #[test]
    fn answers_under_several_seeds_are_no_independent_questions() {
        let mut records = Vec::new();
        for question in ["a", "b", "c", "d", "e", "f"] {
            for repeat in 0..20 {
                let plain = record(question, "plain", question < "d", 21, 1.0);
                let cut = record(question, "specexit", question == "a" || question == "f", 11, 1.0);
                records.extend([plain, cut].map(|record| Record { repeat, ..record }));
            }
        }
        let [plain, cut] = &summarise(&["plain", "specexit"], &records)[..] else { panic!() };
        assert_eq!((plain.accuracy.count, plain.accuracy.of), (60, 120));
        // As uncertain as three of six, not as sixty of 120.
        assert!(plain.accuracy.low < 0.25 && plain.accuracy.high > 0.75, "{:?}", plain.accuracy);
        let lost = cut.lost_correct.unwrap();
        assert_eq!((lost.count, lost.of), (40, 60));
        assert!(lost.low < 0.4, "{lost:?}");
        let change = cut.accuracy_change.unwrap();
        assert!((change.difference + 1.0 / 6.0).abs() < 1e-9 && change.high > 0.2, "{change:?}");
        assert_eq!(cut.thinking_change.unwrap().difference, -5.0);
        assert_eq!(cut.mcnemar_p, None);
    }

    #[test]
    fn without_plain_nothing_is_compared() {
        let records = [record("a", "eagle3", true, 21, 2.0)];
        let summary = &summarise(&["eagle3"], &records)[0];
        assert!(summary.lost_correct.is_none() && summary.speed_up.is_none());
        assert_eq!(summary.draft_acceptance, Some(5.0 / 21.0));
    }
}
