//! A comparison as aligned text.

use crate::comparison::Comparison;
use crate::summary::{REFERENCE, Summary};

/// A column: its head and what a summary shows in it.
type Column = (&'static str, fn(&Summary) -> String);

const COLUMNS: [Column; 13] = [
    ("method", |s| s.method.clone()),
    ("accuracy [95 %]", |s| {
        let a = &s.accuracy;
        format!("{:.1} % [{:.1}, {:.1}]", 100.0 * a.rate, 100.0 * a.low, 100.0 * a.high)
    }),
    ("thinking", |s| format!("{:.1}", s.thinking_tokens)),
    ("tokens", |s| {
        let probed = s.probe_tokens;
        let probed = if probed > 0.0 { format!(" +{probed:.1}") } else { String::new() };
        format!("{:.1}{probed}", s.total_tokens)
    }),
    ("p50 s", |s| format!("{:.2}", s.wall_p50_s)),
    ("p95 s", |s| format!("{:.2}", s.wall_p95_s)),
    ("sum s", |s| format!("{:.1}", s.wall_sum_s)),
    ("answer s", |s| s.first_answer_p50_s.map_or("-".to_owned(), |v| format!("{v:.2}"))),
    ("τ", |s| format!("{:.2}", s.tau)),
    ("exits", |s| {
        let exits = s.exits.iter().map(|(reason, count)| format!("{reason} {count}"));
        exits.collect::<Vec<_>>().join(", ")
    }),
    ("lost-correct", |s| {
        s.lost_correct.map_or("-".to_owned(), |p| format!("{} of {}", p.count, p.of))
    }),
    ("accuracy change", |s| {
        s.accuracy_change.map_or("-".to_owned(), |d| {
            let [at, low, high] = [d.difference, d.low, d.high].map(|x| 100.0 * x);
            format!("{at:+.1} [{low:+.1}, {high:+.1}]")
        })
    }),
    ("speed-up", |s| s.speed_up.map_or("-".to_owned(), |v| format!("{v:.2}x"))),
];

/// One header line, the column heads, one line per method.
#[must_use]
pub fn table(comparison: &Comparison) -> String {
    let head = COLUMNS.iter().map(|(head, _)| (*head).to_owned()).collect();
    let body = comparison.methods.iter().map(|s| COLUMNS.iter().map(|(_, cell)| cell(s)).collect());
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(body).collect();
    let mut text = header(comparison);
    text.push('\n');
    text.push_str(&align(&rows, |column| matches!(COLUMNS[column].0, "method" | "exits")));
    if comparison.groups.len() > 1 {
        text.push_str("\naccuracy and mean thinking tokens by kind of question\n");
        text.push_str(&align(&group_rows(comparison), |column| column == 0));
    }
    text
}

/// One row per method, one column per kind of question.
fn group_rows(comparison: &Comparison) -> Vec<Vec<String>> {
    let groups = &comparison.groups;
    let count = |of: &Vec<Summary>| of.first().map_or(0, |s| s.accuracy.of);
    let head = groups.iter().map(|(group, of)| format!("{group} ({})", count(of)));
    let mut rows = vec![std::iter::once("method".to_owned()).chain(head).collect::<Vec<_>>()];
    for (index, method) in comparison.methods.iter().enumerate() {
        let cells = groups.values().map(|of| {
            of.get(index).map_or(String::new(), |s| {
                format!("{:.1} % {:>6.1}", 100.0 * s.accuracy.rate, s.thinking_tokens)
            })
        });
        rows.push(std::iter::once(method.method.clone()).chain(cells).collect());
    }
    rows
}

/// Where, with what and when.
fn header(comparison: &Comparison) -> String {
    let Comparison { model, head, machine, date, questions, resumed, .. } = comparison;
    let head = head.as_ref().map(|head| format!(" + {}", head.name)).unwrap_or_default();
    let resumed =
        if *resumed > 0 { format!(" ({resumed} from an earlier run)") } else { String::new() };
    format!(
        "{machine} · {}{head} · {date} · {questions} questions{resumed}; \
         lost-correct, accuracy change (points) and speed-up are against {REFERENCE}",
        model.name
    )
}

/// Columns of equal width, two spaces apart, to the right unless `left` says otherwise.
fn align(rows: &[Vec<String>], left: impl Fn(usize) -> bool) -> String {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if left(column) { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}
