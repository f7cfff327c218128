//! The page: what is on it, and in which order.

use askama::Template;
use serde_json::Value;

use super::numbers::{Scale, SignalPlots};
use super::sections;
use super::verdict::{Known, Verdict};
use crate::error::{Result, TrainError};
use crate::net::probe::SIGNAL_NAMES;
use crate::page::{
    Axis, Fact, Figure, Mark, Plot, Reliability, STYLE, Size, Table, axis, diagonal, draw,
    reliability, reliability_table, short,
};
use crate::train::evaluate::SignalQuality;

/// What a page is made of.
pub(super) struct Input<'a> {
    /// The target's name.
    pub(super) target: &'a str,
    pub(super) facts: Vec<Fact>,
    /// Why the numbers are not final, if they are not.
    pub(super) unfinished: Option<String>,
    /// Whether only the probe of a finished head is trained.
    pub(super) probe_alone: bool,
    pub(super) verdict: &'a Verdict,
    pub(super) known: Known<'a>,
    pub(super) options: &'a Value,
    pub(super) label_options: Option<&'a Value>,
}

/// A part of the page.
#[derive(Clone, Debug, Default)]
pub(super) struct Section {
    pub(super) id: &'static str,
    pub(super) title: String,
    pub(super) text: String,
    pub(super) figures: Vec<Figure>,
    pub(super) tables: Vec<Table>,
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    style: &'static str,
    target: &'a str,
    facts: &'a [Fact],
    unfinished: &'a Option<String>,
    verdict: &'a Verdict,
    sections: &'a [Section],
}

/// Makes the page.
pub(super) fn render(input: &Input<'_>) -> Result<String> {
    let mut parts = vec![sections::draft_layer(&input.known, input.probe_alone)?];
    for (i, name) in SIGNAL_NAMES.iter().enumerate() {
        parts.push(signal(input, i, name)?);
    }
    parts.push(sections::training(&input.known, input.probe_alone)?);
    parts.push(sections::options(input.options, input.label_options));
    let page = Page {
        style: STYLE,
        target: input.target,
        facts: &input.facts,
        unfinished: &input.unfinished,
        verdict: input.verdict,
        sections: &parts,
    };
    page.render().map_err(|e| TrainError::Page(e.to_string()))
}

/// One signal: its loss, and where the kept head was measured, predictions against labels.
fn signal(input: &Input<'_>, number: usize, name: &'static str) -> Result<Section> {
    let quality = input.known.held_out.and_then(|q| q.signals.get(number));
    let quality = quality.filter(|q| q.labels > 0);
    let mut section = Section {
        id: name,
        title: format!("Signal: {name}"),
        text: match quality {
            Some(_) => meaning(number).to_owned(),
            None => format!("{} No held-out token has this label.", meaning(number)),
        },
        ..Section::default()
    };
    let of_mean = quality.map(|q| q.loss_of_mean);
    section.figures.extend(sections::signal_loss(&input.known, name, of_mean)?);
    if let Some(quality) = quality {
        section.tables.push(signal_table(quality));
        if let Some(plots) = &quality.plots {
            section.figures.push(error_by_progress(name, plots)?);
            section.figures.push(density(name, plots)?);
            let title = format!("{name}: reliability");
            let of = Reliability {
                title: &title,
                note: "Mean label of the tokens that get about the same prediction, with its 95 % interval \
                       over questions. Below the line: the probe says too much.",
                truth: "mean label",
                counted: "tokens",
            };
            section.figures.push(reliability(&of, plots)?);
            section.tables.push(reliability_table(&of, plots));
        }
    }
    Ok(section)
}

fn meaning(signal: usize) -> &'static str {
    match signal {
        0 => "How sure the target would be of its answer if the thought ended here, from 0 to 1.",
        1 => "Which share of the needed thought is done, from 0 to 1.",
        _ => {
            "Tokens to the earliest sufficient cut. Judged on a scale of log(1 + tokens), on which \
             10 against 20 counts about as much as 100 against 200."
        }
    }
}

fn signal_table(q: &SignalQuality) -> Table {
    let mut rows = vec![
        ["Labelled held-out tokens", &q.labels.to_string()].map(str::to_owned).to_vec(),
        vec!["Training loss".to_owned(), short(q.loss)],
        vec!["Training loss of the mean".to_owned(), short(q.loss_of_mean)],
        vec!["Mean squared error".to_owned(), short(q.mse)],
        vec!["Mean squared error of the mean".to_owned(), short(q.mse_of_mean)],
        vec!["Mean absolute error".to_owned(), short(q.mae)],
        vec!["Pearson's correlation".to_owned(), short(q.correlation)],
        vec!["Spearman's rank correlation".to_owned(), short(q.rank_correlation)],
    ];
    if let Some(plots) = &q.plots {
        rows.push(vec!["Expected calibration error".to_owned(), short(plots.ece)]);
    }
    Table::new("Held-out quality", &["Measure", "Value"], rows)
}

fn density(name: &str, plots: &SignalPlots) -> Result<Figure> {
    let most = plots.density.iter().flatten().copied().max().unwrap_or(0).max(1) as f64;
    let mut boxes = Vec::new();
    for (row, cells) in plots.density.iter().enumerate() {
        for (column, &count) in cells.iter().enumerate().filter(|(_, count)| **count > 0) {
            let edge = |at: usize, of: usize| plots.top * at as f64 / of.max(1) as f64;
            let (wide, high) = (cells.len(), plots.density.len());
            let corners =
                [edge(column, wide), edge(row, high), edge(column + 1, wide), edge(row + 1, high)];
            boxes.push((corners, 0.08 + 0.92 * (count as f64 / most).sqrt()));
        }
    }
    draw(&Plot {
        title: &format!("{name}: predicted against true"),
        note: "The stronger, the more held-out tokens, by the root of their number. A good signal lies \
               along the line.",
        legend: &[("held-out tokens", 0), ("prediction = label", 1)],
        size: Size::Square,
        x: axis("predicted", plots),
        y: axis("true", plots),
        marks: vec![Mark::Boxes { boxes, colour: 0 }, diagonal(plots)],
    })
}

fn error_by_progress(name: &str, plots: &SignalPlots) -> Result<Figure> {
    let bins = &plots.error_by_progress;
    let boxes = bins.iter().map(|b| ([b.low, 0.0, b.high, b.mae], 0.45)).collect();
    let middle = |b: &super::ErrorBin| 0.5 * (b.low + b.high);
    let mean: Vec<(f64, f64)> = bins.iter().map(|b| (middle(b), b.mae_of_mean)).collect();
    let unit = if plots.scale == Scale::Log1p { "mean error, tokens" } else { "mean error" };
    draw(&Plot {
        title: &format!("{name}: error by true progress"),
        note: "Mean absolute error in each tenth of the needed thought. Exits happen at the right end.",
        legend: &[("the probe", 0), ("always the mean", 1)],
        size: Size::Wide,
        x: Axis::between("true progress", 0.0, 1.0),
        y: Axis::from_zero(unit, bins.iter().flat_map(|b| [b.mae, b.mae_of_mean])),
        marks: vec![
            Mark::Boxes { boxes, colour: 0 },
            Mark::Line { points: mean.clone(), colour: 1 },
            Mark::Dots { points: mean, colour: 1 },
        ],
    })
}
