//! A comparison as aligned text.

use crate::comparison::Comparison;
use crate::summary::{REFERENCE, Summary};

/// A column: its head and what a summary shows in it.
type Column = (&'static str, fn(&Summary) -> String);

const COLUMNS: [Column; 12] = [
    ("method", |s| s.method.clone()),
    ("accuracy [95 %]", |s| {
        let a = &s.accuracy;
        format!("{:.1} % [{:.1}, {:.1}]", 100.0 * a.rate, 100.0 * a.low, 100.0 * a.high)
    }),
    ("thinking", |s| format!("{:.1}", s.thinking_tokens)),
    ("tokens", |s| format!("{:.1}", s.total_tokens)),
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
    text.push_str(&align(&rows));
    text
}

/// Where, with what and when.
fn header(comparison: &Comparison) -> String {
    let Comparison { model, head, machine, date, questions, resumed, .. } = comparison;
    let head = head.as_ref().map(|head| format!(" + {}", head.name)).unwrap_or_default();
    let resumed =
        if *resumed > 0 { format!(" ({resumed} from an earlier run)") } else { String::new() };
    format!(
        "{machine} · {}{head} · {date} · {questions} questions{resumed}; \
         speed-up and lost-correct are against {REFERENCE}",
        model.name
    )
}

/// Columns of equal width, two spaces apart; the first and the text of exits left, numbers right.
fn align(rows: &[Vec<String>]) -> String {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).zip(COLUMNS).map(|((cell, &width), (head, _))| {
            if head == "method" || head == "exits" {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}
