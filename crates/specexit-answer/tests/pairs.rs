//! False accepts and false rejects on a list of pairs that was checked by hand.
//!
//! `given` is what a box holds (kinds `auto` and `boxed`) or a whole text (`number`, `option`);
//! `gold` is a reference as the data sets write it. A pair with `known_limit` is one that is judged
//! wrongly today, for the reason that stands there; it fails the test once it is judged rightly.

use serde::Deserialize;
use specexit_answer::{AnswerKind, equal, gold_answer, matches_gold};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    given: String,
    gold: String,
    kind: AnswerKind,
    equal: bool,
    why: String,
    known_limit: Option<String>,
}

fn pairs() -> Vec<Pair> {
    include_str!("pairs.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
        .collect()
}

fn judged(pair: &Pair) -> bool {
    let text = match pair.kind {
        AnswerKind::Auto | AnswerKind::Boxed => {
            format!("Thus the answer is $\\boxed{{{}}}$.", pair.given)
        }
        AnswerKind::Number | AnswerKind::Option => pair.given.clone(),
    };
    matches_gold(&text, &pair.gold, pair.kind).unwrap_or(false)
}

#[test]
fn false_accepts_and_false_rejects() {
    let pairs = pairs();
    assert!(pairs.len() >= 220, "only {} pairs", pairs.len());
    let (mut accepts, mut rejects, mut stale) = (Vec::new(), Vec::new(), Vec::new());
    let mut limits = 0;
    for pair in &pairs {
        let line = format!("  {:?} for {:?} ({})", pair.given, pair.gold, pair.why);
        match (judged(pair) == pair.equal, &pair.known_limit) {
            (true, None) => {}
            (true, Some(_)) => stale.push(line),
            (false, Some(_)) => limits += 1,
            (false, None) if pair.equal => rejects.push(line),
            (false, None) => accepts.push(line),
        }
    }
    let equal = pairs.iter().filter(|pair| pair.equal).count();
    println!(
        "{} pairs, {equal} equal: {} false accepts, {} false rejects, {limits} known limits",
        pairs.len(),
        accepts.len(),
        rejects.len(),
    );
    let show = |what: &str, lines: &[String]| format!("{what}:\n{}\n", lines.join("\n"));
    assert!(
        accepts.is_empty() && rejects.is_empty() && stale.is_empty(),
        "{}{}{}",
        show("false accepts", &accepts),
        show("false rejects", &rejects),
        show("no longer limits", &stale),
    );
    assert!(limits * 50 <= pairs.len(), "{limits} known limits are too many");
}

#[test]
fn both_ways_round() {
    for pair in pairs().iter().filter(|pair| pair.kind != AnswerKind::Number) {
        let read = |text: &str| gold_answer(text, pair.kind);
        if let (Some(given), Some(gold)) = (read(&pair.given), read(&pair.gold)) {
            assert_eq!(
                equal(&given, &gold),
                equal(&gold, &given),
                "{:?} and {:?} are equal one way only",
                pair.given,
                pair.gold
            );
        }
    }
}
