//! Accuracy and lost answers against tokens: the replayed curves, and the methods that were run.

use std::collections::BTreeMap;

use specexit_train::page::{
    Axis, COLOURS, Figure, Mark, Plot, Point, Series, Shape, Size, Table, draw,
};

use super::methods::{called, in_order, letter, percent};
use crate::error::Result;
use crate::evaluation::Numbers;
use crate::frontier::{Curve, CurvePoint};
use crate::summary::REFERENCE;

/// Colour of methods that belong to no curve.
const INK: usize = COLOURS - 1;
/// Height of the plots.
const HEIGHT: u32 = 420;

/// What a plot shows of a curve's point or of a method, if it shows it: horizontal place, share, its interval.
type Shown = Option<(f64, f64, [f64; 2])>;

/// What one plot asks of points and of methods.
struct View<'a> {
    title: &'a str,
    note: &'a str,
    x: &'a str,
    y: &'a str,
    of_point: &'a dyn Fn(&CurvePoint) -> Shown,
    of_method: &'a dyn Fn(&Numbers) -> Shown,
}

/// The plots of a task, in which `thinking` is the mean length of whole thoughts where it is known.
pub(super) fn figures(
    methods: &[String],
    numbers: &BTreeMap<String, Numbers>,
    curves: &[Curve],
    recorded: Option<f64>,
) -> Result<Vec<Figure>> {
    let accuracy = View {
        title: "Accuracy against tokens",
        note: "Lines: every setting of a method, replayed from recordings. Letters: methods that were run. \
               Bars: 95 % intervals (Wilson). Up and to the left is better.",
        x: "tokens per question, those of trials included",
        y: "accuracy",
        of_point: &|point| {
            let (costs, p) = (&point.costs, &point.costs.accuracy);
            Some((costs.total_tokens + costs.probe_tokens, p.rate, [p.low, p.high]))
        },
        of_method: &|n| Some((n.total_tokens_mean + n.probe_tokens_mean, n.accuracy, n.ci95)),
    };
    let mut figures = vec![plot(methods, numbers, curves, &accuracy)?];
    let plain = numbers.get(REFERENCE).map(|n| n.thinking_tokens_mean).or(recorded);
    if let Some(whole) = plain.filter(|whole| *whole > 0.0) {
        let lost = View {
            title: "Lost answers against thinking",
            note: "Of the answers that full thinking gets right, the share that is lost, against the share of its \
                   thinking tokens that are still written. Down and to the left is better.",
            x: "share of the thinking tokens",
            y: "share of right answers lost",
            of_point: &|point| {
                let p = &point.costs.lost_correct;
                Some((point.costs.thinking_tokens / whole, p.rate, [p.low, p.high]))
            },
            of_method: &|n| {
                let p = n.lost_correct?;
                Some((n.thinking_tokens_mean / whole, p.rate, [p.low, p.high]))
            },
        };
        figures.push(plot(methods, numbers, curves, &lost)?);
    }
    Ok(figures)
}

fn plot(
    methods: &[String],
    numbers: &BTreeMap<String, Numbers>,
    curves: &[Curve],
    view: &View<'_>,
) -> Result<Figure> {
    let point = |title: &str, shown: Shown| {
        // Without a trial there is no share.
        let (x, y, interval) = shown.filter(|(x, y, _)| x.is_finite() && y.is_finite())?;
        let title = format!(
            "{title}: {} {} ({} to {}), {} {}",
            view.y,
            percent(y),
            percent(interval[0]),
            percent(interval[1]),
            specexit_train::page::short(x),
            view.x
        );
        Some(Point { x, y, interval: Some(interval), title, label: String::new() })
    };
    let (mut marks, mut legend): (Vec<Series>, Vec<(String, usize)>) = (Vec::new(), Vec::new());
    for (number, curve) in curves.iter().enumerate() {
        let points = curve.points.iter();
        let points = points.filter_map(|p| {
            point(&format!("{} at {}", curve.method, p.setting), (view.of_point)(p))
        });
        marks.push(Series {
            name: curve.method.clone(),
            colour: number % COLOURS,
            shape: Shape::number(number),
            size: 2,
            joined: true,
            faint: true,
            points: points.collect(),
        });
        legend.push((curve.method.clone(), number % COLOURS));
    }
    for (number, name, of) in in_order(methods, numbers) {
        let Some(point) = point(name, (view.of_method)(of)) else { continue };
        // A run has the colour of its curve.
        let family = name.split(':').next().unwrap_or(name);
        let colour = curves.iter().position(|curve| curve.method == family);
        let colour = colour.map_or(INK, |number| number % COLOURS);
        marks.push(Series {
            name: format!("run {name}"),
            colour,
            shape: Shape::Diamond,
            size: 5,
            points: vec![Point { label: letter(number), ..point }],
            ..Series::default()
        });
        legend.push((called(number, name), colour));
    }
    let all = || marks.iter().flat_map(|series| &series.points);
    let x = Axis::from_zero(view.x, all().map(|p| p.x));
    let legend: Vec<(&str, usize)> = legend.iter().map(|(n, c)| (n.as_str(), *c)).collect();
    let figure = draw(&Plot {
        title: view.title,
        note: view.note,
        legend: &legend,
        size: Size::Large { height: HEIGHT },
        x,
        y: Axis::between(view.y, 0.0, 1.0),
        marks: marks.into_iter().map(Mark::Series).collect(),
    });
    Ok(figure?)
}

/// Every point of every curve, in numbers.
pub(super) fn table(curves: &[Curve]) -> Table {
    let head = [
        "Method",
        "Setting",
        "Accuracy",
        "95 % interval",
        "Lost",
        "Ended early",
        "Thinking tokens",
        "All tokens",
        "Probe tokens",
    ];
    let rows = curves.iter().flat_map(|curve| {
        curve.points.iter().map(|CurvePoint { setting, costs }| {
            vec![
                curve.method.clone(),
                setting.clone(),
                percent(costs.accuracy.rate),
                format!("{} to {}", percent(costs.accuracy.low), percent(costs.accuracy.high)),
                format!("{} of {}", costs.lost_correct.count, costs.lost_correct.of),
                percent(costs.early),
                format!("{:.1}", costs.thinking_tokens),
                format!("{:.1}", costs.total_tokens),
                format!("{:.1}", costs.probe_tokens),
            ]
        })
    });
    let caption = "The numbers of the curves; a setting is confidence, progress, remaining, or a method's name";
    Table { kind: "frontier", folded: true, ..Table::new(caption, &head, rows.collect()) }
}
