//! Tables of methods: what they cost in answers, what they save in tokens and time.

use std::collections::BTreeMap;

use specexit_train::page::{Table, short};

use crate::evaluation::Numbers;
use crate::statistics::{Difference, Proportion};

/// What stands where there is no number.
const NONE: &str = "–";

/// The letter by which a method is marked: A, B, …, Z, AA, …
pub(super) fn letter(mut number: usize) -> String {
    let mut letters = Vec::new();
    loop {
        letters.insert(0, char::from(b'A' + (number % 26) as u8));
        if number < 26 {
            return letters.into_iter().collect();
        }
        number = number / 26 - 1;
    }
}

/// A method's letter and name.
pub(super) fn called(number: usize, method: &str) -> String {
    format!("{} {method}", letter(number))
}

pub(super) fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1} %", 100.0 * share) } else { NONE.to_owned() }
}

/// The methods of a task that have numbers, with their places in the order of `methods`.
pub(super) fn in_order<'a>(
    methods: &'a [String],
    numbers: &'a BTreeMap<String, Numbers>,
) -> impl Iterator<Item = (usize, &'a str, &'a Numbers)> {
    let place = |(i, name): (usize, &'a String)| Some((i, name.as_str(), numbers.get(name)?));
    methods.iter().enumerate().filter_map(place)
}

fn or_none<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| NONE.to_owned(), text)
}

fn of(p: Proportion) -> String {
    if p.of == 0 {
        "0 of 0".to_owned()
    } else {
        format!("{} of {} ({})", p.count, p.of, percent(p.rate))
    }
}

fn points(d: Difference) -> String {
    format!("{:+.1} ({:+.1} to {:+.1})", 100.0 * d.difference, 100.0 * d.low, 100.0 * d.high)
}

fn tokens(d: Difference) -> String {
    format!("{:+.0} ({:+.0} to {:+.0})", d.difference, d.low, d.high)
}

/// Right answers, against those of `plain`.
pub(super) fn answers(methods: &[String], numbers: &BTreeMap<String, Numbers>) -> Table {
    let head = [
        "Method",
        "Questions",
        "Accuracy",
        "95 % interval",
        "Lost",
        "Gained",
        "Change, points",
        "McNemar's p",
        "Thoughts ended by",
    ];
    let rows = in_order(methods, numbers).map(|(i, name, n)| {
        let ends: Vec<String> =
            n.exits.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        vec![
            called(i, name),
            n.n.to_string(),
            percent(n.accuracy),
            format!("{} to {}", percent(n.ci95[0]), percent(n.ci95[1])),
            or_none(n.lost_correct, of),
            or_none(n.gained_correct, of),
            or_none(n.accuracy_change, points),
            or_none(n.mcnemar_p, short),
            ends.join(", "),
        ]
    });
    let caption =
        "Answers. Lost: of those that plain gets right; gained: of those that it gets wrong";
    Table { kind: "answers", ..Table::new(caption, &head, rows.collect()) }
}

/// Tokens and seconds.
pub(super) fn costs(methods: &[String], numbers: &BTreeMap<String, Numbers>) -> Table {
    let head = [
        "Method",
        "Thinking tokens",
        "Against plain",
        "All tokens",
        "Probe tokens",
        "Seconds",
        "Median",
        "95th percentile",
        "To the answer",
        "τ",
        "Speed-up",
    ];
    let rows = in_order(methods, numbers).map(|(i, name, n)| {
        vec![
            called(i, name),
            format!("{:.1}", n.thinking_tokens_mean),
            or_none(n.thinking_change, tokens),
            format!("{:.1}", n.total_tokens_mean),
            format!("{:.1}", n.probe_tokens_mean),
            short(n.wall_s),
            short(n.p50_s),
            short(n.p95_s),
            or_none(n.first_answer_p50_s, short),
            format!("{:.2}", n.tau),
            or_none(n.speed_up, |x| format!("{x:.2}×")),
        ]
    });
    let caption = "Costs. Tokens: means per question. Seconds: of the task, then per question; to the answer: to its \
                   first token, median";
    Table { kind: "costs", ..Table::new(caption, &head, rows.collect()) }
}

/// Times with several questions at a time, one column for each of `concurrencies`.
pub(super) fn makespans(
    methods: &[String],
    numbers: &BTreeMap<String, Numbers>,
    concurrencies: &[usize],
) -> Table {
    let columns = concurrencies.iter().map(|n| format!("{n} at a time"));
    let head: Vec<String> = std::iter::once("Method".to_owned()).chain(columns).collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let measured = in_order(methods, numbers).filter(|(_, _, n)| !n.makespans.is_empty());
    let rows = measured.map(|(i, name, n)| {
        let times = concurrencies.iter().map(|&at| or_none(n.makespan(at), short));
        std::iter::once(called(i, name)).chain(times).collect()
    });
    let caption = "Seconds for all questions, several at a time";
    Table { kind: "makespans", ..Table::new(caption, &head, rows.collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_go_on_after_z() {
        let letters = [0, 1, 25, 26, 27, 51, 52, 701, 702].map(letter);
        assert_eq!(letters, ["A", "B", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA"]);
    }
}
