//! Where methods end thoughts, against where they could have been ended.

use specexit_exit::ExitReason;
use specexit_train::page::{Axis, Figure, Mark, Plot, Point, Series, Shape, Size, Table, draw};

use super::folder::TaskFiles;
use super::methods::{called, percent};
use crate::error::Result;
use crate::record::Record;
use crate::replay::{Closed, Recording};
use crate::statistics::{mean, median, quantile};

/// Which cut counts as sufficient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sufficient {
    /// The first at which the answer is right.
    First,
    /// The first from which on it is right at every boundary.
    Lasting,
}

impl Sufficient {
    /// The earliest sufficient cut of a recording, if it has one.
    pub(super) fn of(self, recording: &Recording) -> Option<&Closed> {
        let closed = &recording.closed;
        match self {
            Self::First => closed.iter().find(|cut| cut.correct),
            Self::Lasting => closed.iter().rev().take_while(|cut| cut.correct).last(),
        }
    }
}

/// Whether a method ended the thought, rather than the target or a limit of length.
pub(super) fn is_early(record: &Record) -> bool {
    let early = |reason| {
        use ExitReason::{Budget, Hopeless, Loop, Probe, Random, Signals, Stalled};
        matches!(reason, Signals | Hopeless | Stalled | Loop | Random | Probe | Budget)
    };
    record.exit.is_some_and(|exit| early(exit.reason))
}

/// The exits of a method: how many tokens after the earliest sufficient cut, and whether the answer is right.
struct Exits<'a> {
    number: usize,
    method: &'a str,
    distances: Vec<(f64, &'a Record)>,
    /// Questions that no boundary suffices for.
    none: usize,
}

/// The exits of all methods that end a thought early.
fn exits<'a>(
    methods: &'a [String],
    files: &'a TaskFiles,
    sufficient: Sufficient,
) -> Vec<Exits<'a>> {
    let mut all = Vec::new();
    for (number, method) in methods.iter().enumerate() {
        let records = || files.records.iter().filter(|record| record.method == *method);
        if !records().any(is_early) {
            continue;
        }
        let mut exits = Exits { number, method, distances: Vec::new(), none: 0 };
        for record in records() {
            let recording = files.recording(&record.question);
            let (Some(recording), Some(exit)) = (recording, record.exit) else { continue };
            match sufficient.of(recording) {
                Some(cut) => {
                    let distance = exit.token_index as f64 - cut.at as f64;
                    exits.distances.push((distance, record));
                }
                None => exits.none += 1,
            }
        }
        if !exits.distances.is_empty() {
            all.push(exits);
        }
    }
    all
}

/// Plot and table of one task; nothing where no method ends thoughts early, or no thought was recorded.
pub(super) fn distribution(
    methods: &[String],
    files: &TaskFiles,
    sufficient: Sufficient,
) -> Result<Option<(Figure, Table)>> {
    let all = exits(methods, files, sufficient);
    if all.is_empty() {
        return Ok(None);
    }
    let names: Vec<String> = all.iter().map(|e| called(e.number, e.method)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut marks =
        vec![Mark::Faint { points: vec![(0.0, -0.6), (0.0, names.len() as f64)], colour: 7 }];
    for (row, exits) in all.iter().enumerate() {
        for (right, colour, shape) in [(true, 0, Shape::Circle), (false, 1, Shape::Cross)] {
            let of = exits.distances.iter().enumerate().filter(|(_, (_, r))| r.correct == right);
            let points = of.map(|(i, (distance, record))| Point {
                x: *distance,
                // Spread over the row by the golden ratio, the same each time.
                y: (names.len() - 1 - row) as f64 + 0.6 * ((i as f64 * 0.618_034).fract() - 0.5),
                title: format!(
                    "{}, question {}: {distance:+} tokens, {}",
                    exits.method,
                    record.question,
                    if right { "right" } else { "wrong" }
                ),
                ..Point::default()
            });
            marks.push(Mark::Series(Series {
                name: format!("{} {}", exits.method, if right { "right" } else { "wrong" }),
                colour,
                shape,
                size: 3,
                points: points.collect(),
                ..Series::default()
            }));
        }
    }
    let distances = || all.iter().flat_map(|e| e.distances.iter().map(|d| d.0));
    let (low, high) = distances().fold((-1.0, 1.0), |(l, h): (f64, f64), x| (l.min(x), h.max(x)));
    let pad = 0.03 * (high - low);
    let (title, note, kind) = match sufficient {
        Sufficient::First => (
            "Exits against the earliest sufficient cut",
            "Tokens from the first boundary at which closing gives the right answer (0) to the end of the thought. \
             Left of 0 the answer was not there yet; to the right tokens were wasted.",
            "exits-first",
        ),
        Sufficient::Lasting => (
            "Exits against the earliest lasting cut",
            "The same from the first boundary after which no closing gives a wrong answer any more.",
            "exits-lasting",
        ),
    };
    let figure = draw(&Plot {
        title,
        note,
        legend: &[("answer right", 0), ("answer wrong", 1)],
        size: Size::Large { height: 90 + 38 * names.len().min(60) as u32 },
        x: Axis::between("tokens after the cut", low - pad, high + pad),
        y: Axis::named(&names),
        marks,
    })?;
    let rows = all.iter().map(row).collect();
    let head = [
        "Method",
        "Questions",
        "Before",
        "At the cut",
        "After",
        "Median",
        "Middle half",
        "Mean",
        "No such cut",
    ];
    Ok(Some((figure, Table { kind, ..Table::new(&format!("{title}, in tokens"), &head, rows) })))
}

fn row(exits: &Exits<'_>) -> Vec<String> {
    let distances: Vec<f64> = exits.distances.iter().map(|d| d.0).collect();
    let share = |of: fn(&f64) -> bool| {
        let count = distances.iter().filter(|d| of(d)).count();
        format!("{count} ({})", percent(count as f64 / distances.len() as f64))
    };
    vec![
        called(exits.number, exits.method),
        distances.len().to_string(),
        share(|d| *d < 0.0),
        share(|d| *d == 0.0),
        share(|d| *d > 0.0),
        format!("{:+.0}", median(&distances)),
        format!("{:+.0} to {:+.0}", quantile(&distances, 0.25), quantile(&distances, 0.75)),
        format!("{:+.1}", mean(&distances)),
        exits.none.to_string(),
    ]
}
