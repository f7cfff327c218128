//! The parts of the page that are not about one signal's predictions.

use serde_json::Value;

use super::curves::{Curves, depth_name};
use super::page::Section;
use super::verdict::Known;
use crate::error::Result;
use crate::net::probe::SIGNAL_NAMES;
use crate::page::{Axis, Figure, Mark, Plot, Size, Table, capitalised, draw, short};
use crate::train::evaluate::DraftQuality;

/// Losses that span more than this are drawn on a logarithmic axis.
const WIDE: f64 = 8.0;

/// What one plot over steps shows.
struct OverSteps<'a> {
    title: &'a str,
    note: &'a str,
    y: &'a str,
    /// Curves by name, with what the legend calls them.
    series: &'a [(&'a str, &'a str)],
    /// Show the mean of each point behind the smoothed line.
    raw: bool,
    /// A level to compare with.
    level: Option<(&'a str, f64)>,
}

/// Draws curves over steps, with held-out measurements as dots; `None` where there is nothing.
fn over_steps(curves: &Curves, plot: &OverSteps<'_>) -> Result<Option<Figure>> {
    let (mut marks, mut legend, mut xs, mut ys) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let several = plot.series.len() > 1;
    for (colour, (name, called)) in plot.series.iter().enumerate() {
        if let Some(curve) = curves.of_training(name) {
            let at = |numbers: &[f64]| -> Vec<(f64, f64)> {
                curve.steps.iter().map(|s| *s as f64).zip(numbers.iter().copied()).collect()
            };
            let (mean, smooth) = (at(&curve.mean), at(&curve.smooth));
            xs.extend(mean.iter().map(|p| p.0));
            ys.extend(smooth.iter().map(|p| p.1));
            if plot.raw {
                ys.extend(mean.iter().map(|p| p.1));
                marks.push(Mark::Faint { points: mean, colour });
            }
            marks.push(Mark::Line { points: smooth, colour });
            legend.push((*called, colour));
        }
        if let Some(measured) = curves.of_held_out(name) {
            let steps = measured.steps.iter().map(|s| *s as f64);
            let points: Vec<(f64, f64)> = steps.zip(measured.values.iter().copied()).collect();
            xs.extend(points.iter().map(|p| p.0));
            ys.extend(points.iter().map(|p| p.1));
            let colour = if several { colour } else { colour + 1 };
            marks.push(Mark::Dots { points, colour });
            if !several {
                legend.push(("held out", colour));
            }
        }
    }
    if marks.is_empty() {
        return Ok(None);
    }
    let first = xs.iter().copied().fold(f64::INFINITY, f64::min);
    let last = xs.iter().copied().fold(first, f64::max);
    if let Some((called, level)) = plot.level {
        marks.push(Mark::Line { points: vec![(first, level), (last, level)], colour: 5 });
        legend.push((called, 5));
        ys.push(level);
    }
    let lowest = ys.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = ys.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let y = if lowest > 0.0 && highest > WIDE * lowest {
        Axis::logarithmic(plot.y, ys)
    } else {
        Axis::from_zero(plot.y, ys)
    };
    let (title, note, legend) = (plot.title, plot.note, &legend[..]);
    draw(&Plot { title, note, legend, size: Size::Wide, x: Axis::spanning("step", xs), y, marks })
        .map(Some)
}

/// The draft layer: losses, acceptance, acceptance lengths.
pub(super) fn draft_layer(known: &Known<'_>, probe_alone: bool) -> Result<Section> {
    let curves = known.curves;
    let text = if probe_alone {
        "The draft layer is that of the head the probe was added to, byte for byte: it drafts as it \
         did, and this run measured nothing of it."
    } else {
        "How well the head drafts the target's own tokens. Depth k is the k-th token of a drafted \
         chain."
    };
    let mut section = Section {
        id: "draft-layer",
        title: "Draft layer".to_owned(),
        text: text.to_owned(),
        ..Section::default()
    };
    section.figures.extend(over_steps(
        curves,
        &OverSteps {
            title: "Token loss",
            note: "Summed over the trained depths, each weighing less than the one before. The line is \
                   smoothed; behind it the raw steps.",
            y: "nats",
            series: &[("token_loss", "training")],
            raw: true,
            level: None,
        },
    )?);
    let depths: Vec<(String, String)> =
        (0..6).map(|k| (depth_name(k), format!("depth {}", k + 1))).collect();
    let trained = depths.iter().filter(|(name, _)| curves.of_training(name).is_some());
    let trained: Vec<(&str, &str)> = trained.map(|(n, c)| (n.as_str(), c.as_str())).collect();
    section.figures.extend(over_steps(
        curves,
        &OverSteps {
            title: "Loss at each depth",
            note: "Cross-entropy of one drafted token, smoothed; dots: held out. The first six depths.",
            y: "nats per token",
            series: &trained,
            raw: false,
            level: None,
        },
    )?);
    section.figures.extend(over_steps(
        curves,
        &OverSteps {
            title: "τ while training",
            note: "Tokens committed per round on the held-out texts, by the longest chain.",
            y: "tokens per round",
            series: &[("tau", "training")],
            raw: false,
            level: None,
        },
    )?);
    if let Some(draft) = known.held_out.map(|q| &q.draft).filter(|d| d.positions > 0) {
        section.figures.push(acceptance(draft)?);
        section.figures.push(acceptance_length(draft)?);
        section.tables.push(draft_table(draft));
        section.tables.push(Table::new(
            "Held-out quality",
            &["Measure", "Value"],
            vec![
                vec!["Token loss, nats".to_owned(), short(draft.token_loss)],
                vec!["Positions".to_owned(), draft.positions.to_string()],
                vec![
                    "Target's choices the draft can name".to_owned(),
                    percent(draft.vocabulary_coverage),
                ],
            ],
        ));
    }
    Ok(section)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// Numbers at depths or chain lengths 1, 2, …
fn counted(numbers: &[f64]) -> Vec<(f64, f64)> {
    numbers.iter().enumerate().map(|(k, x)| ((k + 1) as f64, *x)).collect()
}

fn acceptance(draft: &DraftQuality) -> Result<Figure> {
    let (agreed, accepted) =
        (counted(&draft.agreement_per_depth), counted(&draft.acceptance_per_depth));
    draw(&Plot {
        title: "Acceptance at each depth",
        note: "Share of drafted tokens that are the target's. In a chain, the tokens before are the \
               draft's own, accepted ones; so it counts only texts that are easy up to there.",
        legend: &[("after the true tokens", 0), ("in a chain accepted so far", 1)],
        size: Size::Wide,
        x: Axis::counting("depth", agreed.len().max(accepted.len()).max(1)),
        y: Axis::between("share", 0.0, 1.0),
        marks: vec![
            Mark::Line { points: agreed.clone(), colour: 0 },
            Mark::Dots { points: agreed, colour: 0 },
            Mark::Line { points: accepted.clone(), colour: 1 },
            Mark::Dots { points: accepted, colour: 1 },
        ],
    })
}

fn acceptance_length(draft: &DraftQuality) -> Result<Figure> {
    let taus = counted(&draft.tau_per_chain);
    let best: Vec<(f64, f64)> = taus.iter().map(|(k, _)| (*k, k + 1.0)).collect();
    draw(&Plot {
        title: "Acceptance length τ",
        note: "Tokens committed per round, the target's own included, for greedy chains of each \
               length. Where it flattens, longer chains only cost.",
        legend: &[("τ", 0), ("at best", 5)],
        size: Size::Wide,
        x: Axis::counting("drafted tokens in the chain", taus.len().max(1)),
        y: Axis::from_zero("tokens per round", taus.iter().chain(&best).map(|p| p.1)),
        marks: vec![
            Mark::Faint { points: best, colour: 5 },
            Mark::Line { points: taus.clone(), colour: 0 },
            Mark::Dots { points: taus, colour: 0 },
        ],
    })
}

fn draft_table(draft: &DraftQuality) -> Table {
    let lists = [&draft.loss_per_depth, &draft.agreement_per_depth, &draft.tau_per_chain];
    let depths = lists.iter().map(|list| list.len()).max().unwrap_or(0);
    let head = ["Depth", "Loss", "After the true tokens", "In a chain so far", "τ of such a chain"];
    let rows = (0..depths).map(|k| {
        let cell = |list: &[f64], text: fn(f64) -> String| {
            list.get(k).map_or_else(|| "–".to_owned(), |x| text(*x))
        };
        vec![
            (k + 1).to_string(),
            cell(&draft.loss_per_depth, short),
            cell(&draft.agreement_per_depth, percent),
            cell(&draft.acceptance_per_depth, percent),
            cell(&draft.tau_per_chain, |x| format!("{x:.2}")),
        ]
    });
    Table::new("Held-out acceptance", &head, rows.collect())
}

/// The loss of one signal; `of_mean` is the held-out loss of the mean predictor.
pub(super) fn signal_loss(
    known: &Known<'_>,
    name: &str,
    of_mean: Option<f64>,
) -> Result<Option<Figure>> {
    let (title, curve) = (format!("{name}: loss"), format!("{name}_loss"));
    over_steps(
        known.curves,
        &OverSteps {
            title: &title,
            note: "The line is smoothed; behind it the raw steps. Above the mean's level, the signal \
                   says nothing.",
            y: if name == SIGNAL_NAMES[2] {
                "squared error of log(1 + tokens)"
            } else {
                "squared error"
            },
            series: &[(curve.as_str(), "training")],
            raw: true,
            level: of_mean.map(|level| ("always the mean, held out", level)),
        },
    )
}

/// Learning rates, gradient norms, weights of the losses; best steps.
pub(super) fn training(known: &Known<'_>, probe_alone: bool) -> Result<Section> {
    let text = if probe_alone {
        "All passes train the probe alone."
    } else {
        "Joint passes train the draft layer and the probe; further passes the probe alone."
    };
    let mut section = Section {
        id: "training",
        title: "How training went".to_owned(),
        text: text.to_owned(),
        ..Section::default()
    };
    let weights: Vec<(String, &str)> =
        SIGNAL_NAMES.iter().map(|s| (format!("lambda_{s}"), *s)).collect();
    let weights: Vec<(&str, &str)> = weights.iter().map(|(n, c)| (n.as_str(), *c)).collect();
    let plots = [
        OverSteps {
            title: "Learning rates",
            note: "Of everything that was trained.",
            y: "rate",
            series: &[("lr", "draft layer"), ("probe_lr", "probe")],
            raw: false,
            level: None,
        },
        OverSteps {
            title: "Gradient norms",
            note: "Before clipping; the probe's is weighted by λ.",
            y: "norm",
            series: &[("grad_norm", "draft layer"), ("probe_grad_norm", "probe")],
            raw: true,
            level: None,
        },
        OverSteps {
            title: "Weights λ of the signal losses",
            note: "They scale each signal's gradient; under w1, passes with the probe alone keep them.",
            y: "λ",
            series: &weights,
            raw: false,
            level: None,
        },
    ];
    for plot in &plots {
        section.figures.extend(over_steps(known.curves, plot)?);
    }
    if section.figures.is_empty() {
        section.text.push_str(" No step was done yet.");
    }
    if let Some(run) = known.run {
        let step = |best: Option<u64>| {
            best.map_or_else(|| "the last: nothing was held out".to_owned(), |s| s.to_string())
        };
        let mut rows = Vec::new();
        if !probe_alone {
            rows.push(vec!["Draft layer".to_owned(), step(run.best_draft_step)]);
        }
        for (name, best) in SIGNAL_NAMES.iter().zip(run.best_probe_steps) {
            rows.push(vec![capitalised(name), step(best)]);
        }
        section.tables.push(Table::new(
            "The state that was kept",
            &["Part", "Best held-out step"],
            rows,
        ));
    }
    Ok(section)
}

/// Options of the run and of its labels.
pub(super) fn options(options: &Value, label_options: Option<&Value>) -> Section {
    let table = |caption: &str, value: &Value| {
        let fields = value.as_object().into_iter().flatten();
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Null => "by default".to_owned(),
            other => other.to_string(),
        };
        let rows = fields.map(|(name, value)| vec![name.clone(), text(value)]);
        Table::new(caption, &["Option", "Value"], rows.collect())
    };
    let labels = label_options.map(|value| table("How the labels were made", value));
    Section {
        id: "options",
        title: "Options".to_owned(),
        text: "Those that decide what is learned.".to_owned(),
        figures: Vec::new(),
        tables: std::iter::once(table("Training", options)).chain(labels).collect(),
    }
}
