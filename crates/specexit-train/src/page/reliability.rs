//! Reliability diagrams: what is true where a signal says about the same.

use super::plots::{Axis, Mark, Plot, Size, draw};
use super::{Figure, Table, capitalised, short};
use crate::error::Result;
use crate::train::{Scale, SignalPlots};

/// What a reliability diagram is about.
#[derive(Clone, Copy, Debug)]
pub struct Reliability<'a> {
    /// Its title.
    pub title: &'a str,
    /// How it is read.
    pub note: &'a str,
    /// What the truth is: the name of the vertical axis.
    pub truth: &'a str,
    /// What is counted in the bins.
    pub counted: &'a str,
}

/// The axis of a signal's predictions or labels.
pub(crate) fn axis(label: &str, plots: &SignalPlots) -> Axis {
    match plots.scale {
        Scale::Linear => Axis::between(label, 0.0, plots.top),
        Scale::Log1p => Axis::tokens(&format!("{label}, tokens"), plots.top),
    }
}

/// Where prediction and truth are the same.
pub(crate) fn diagonal(plots: &SignalPlots) -> Mark {
    Mark::Faint { points: vec![(0.0, 0.0), (plots.top, plots.top)], colour: 1 }
}

/// The diagram, with intervals and the counts of the bins.
///
/// # Errors
/// As [`draw`].
pub fn reliability(of: &Reliability<'_>, plots: &SignalPlots) -> Result<Figure> {
    let most = plots.reliability.iter().map(|b| b.labels).max().unwrap_or(0).max(1) as f64;
    // The counts stand in the lowest fifth of the plot.
    let bars = plots
        .reliability
        .iter()
        .map(|bin| ([bin.low, 0.0, bin.high, 0.2 * plots.top * bin.labels as f64 / most], 0.25));
    let mut marks = vec![Mark::Boxes { boxes: bars.collect(), colour: 2 }, diagonal(plots)];
    for bin in &plots.reliability {
        if let Some([low, high]) = bin.interval {
            let points = vec![(bin.predicted, low), (bin.predicted, high)];
            marks.push(Mark::Line { points, colour: 0 });
        }
    }
    let points = plots.reliability.iter().map(|bin| (bin.predicted, bin.truth)).collect();
    marks.push(Mark::Dots { points, colour: 0 });
    let counted = format!("{} in the bin", of.counted);
    draw(&Plot {
        title: of.title,
        note: of.note,
        legend: &[(of.truth, 0), ("calibrated", 1), (&counted, 2)],
        size: Size::Square,
        x: axis("mean prediction", plots),
        y: axis(of.truth, plots),
        marks,
    })
}

/// The numbers of the diagram.
#[must_use]
pub fn reliability_table(of: &Reliability<'_>, plots: &SignalPlots) -> Table {
    let (counted, truth) = (capitalised(of.counted), capitalised(of.truth));
    let head = ["Predictions", &counted, "Questions", "Mean prediction", &truth, "95 % interval"];
    let rows = plots.reliability.iter().map(|bin| {
        let interval = bin.interval.map(|[low, high]| format!("{} to {}", short(low), short(high)));
        vec![
            format!("{} to {}", short(bin.low), short(bin.high)),
            bin.labels.to_string(),
            bin.questions.to_string(),
            short(bin.predicted),
            short(bin.truth),
            interval.unwrap_or_else(|| "one question only".to_owned()),
        ]
    });
    let caption = match plots.scale {
        Scale::Linear => format!("The bins of “{}”", of.title),
        Scale::Log1p => format!("The bins of “{}”, as log(1 + tokens)", of.title),
    };
    Table { kind: "bins", folded: true, ..Table::new(&caption, &head, rows.collect()) }
}
