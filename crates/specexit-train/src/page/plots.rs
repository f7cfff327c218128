//! Plots as SVG that a page can hold: no fonts, no scripts, colours that a style sheet can change.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::prelude::*;
use plotters::style::RGBAColor;

use super::Figure;
use super::series::{Labels, Series};
use crate::error::{Result, TrainError};

/// Colours of axes and of series; the training page's style sheet gives each its counterpart on a dark ground.
const INK: RGBColor = RGBColor(0x57, 0x60, 0x6a);
const GRID: RGBColor = RGBColor(0xd8, 0xde, 0xe4);
/// Okabe and Ito (2008), which the colour-blind tell apart; their yellow, too pale on white, is wine here.
const SERIES: [RGBColor; COLOURS] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x88, 0x22, 0x55),
    RGBColor(0x1f, 0x23, 0x28),
];

/// How many colours there are; later numbers begin anew.
pub const COLOURS: usize = 8;

/// How many ticks an axis has, about.
const TICKS: f64 = 5.0;
/// Largest number that is plotted; larger ones are drawn at the edge.
const LARGEST: f64 = 1e30;
/// Smallest number of a logarithmic axis; smaller ones are drawn at the edge.
const SMALLEST: f64 = 1e-12;

/// One side of a plot.
#[derive(Clone, Debug)]
pub struct Axis {
    label: String,
    logarithmic: bool,
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From the smallest to the largest of `numbers`, in round steps.
    #[must_use]
    pub fn spanning(label: &str, numbers: impl IntoIterator<Item = f64>) -> Self {
        let (low, high) = range(numbers, false);
        Self::between(label, low, high)
    }

    /// The same, from 0 on.
    #[must_use]
    pub fn from_zero(label: &str, numbers: impl IntoIterator<Item = f64>) -> Self {
        let (_, high) = range(numbers, false);
        // Room above the highest point.
        Self::between(label, 0.0, if high > 0.0 { 1.04 * high } else { 1.0 })
    }

    /// From `low` to `high` exactly.
    #[must_use]
    pub fn between(label: &str, low: f64, high: f64) -> Self {
        let step = round_step((high - low) / TICKS);
        let ticks = multiples(step, low, high);
        let ticks = ticks.into_iter().map(|x| (x, tick(x, step))).collect();
        Self { label: label.to_owned(), logarithmic: false, low, high, ticks }
    }

    /// Whole numbers from 1 to `last`, such as depths.
    #[must_use]
    pub fn counting(label: &str, last: usize) -> Self {
        let ticks = (1..=last).map(|k| (k as f64, k.to_string())).collect();
        let (low, high) = (0.5, last as f64 + 0.5);
        Self { label: label.to_owned(), logarithmic: false, low, high, ticks }
    }

    /// One place for each name, the first at the top: the name at index i lies at `count - 1 - i`.
    #[must_use]
    pub fn named(names: &[&str]) -> Self {
        let last = names.len().saturating_sub(1);
        let ticks = names.iter().enumerate();
        let ticks = ticks.map(|(i, name)| ((last - i) as f64, (*name).to_owned())).collect();
        let (low, high) = (-0.6, last as f64 + 0.6);
        Self { label: String::new(), logarithmic: false, low, high, ticks }
    }

    /// Powers of ten around the positive ones of `numbers`.
    #[must_use]
    pub fn logarithmic(label: &str, numbers: impl IntoIterator<Item = f64>) -> Self {
        let positive = numbers.into_iter().filter(|x| *x > 0.0);
        let logs = positive.map(|x| x.clamp(SMALLEST, LARGEST).log10());
        let (low, high) = range(logs, true);
        let every = ((high - low) / (TICKS + 2.0)).ceil().max(1.0);
        let mut ticks: Vec<(f64, String)> =
            multiples(every, low, high).into_iter().map(|e| (e, plain(10f64.powf(e)))).collect();
        if high - low < 2.5 {
            // Few decades: the numbers between help.
            let between = (low.floor() as i32..=high.ceil() as i32)
                .flat_map(|e| [2.0, 5.0].map(|m| m * 10f64.powi(e)));
            let inside = between.map(|x| (x.log10(), plain(x)));
            ticks.extend(inside.filter(|(e, _)| (low..=high).contains(e)));
        }
        Self { label: label.to_owned(), logarithmic: true, low, high, ticks }
    }

    /// Tokens from 0 to `exp(top) - 1`, placed by `log(1 + tokens)`.
    #[must_use]
    pub fn tokens(label: &str, top: f64) -> Self {
        let most = top.exp_m1();
        let round = (0..).flat_map(|e| [1.0, 3.0].map(|m| m * 10f64.powi(e)));
        let all: Vec<f64> =
            std::iter::once(0.0).chain(round.take_while(|x| *x <= most)).take(64).collect();
        // Long axes keep the powers of ten only.
        let keep = |x: &f64| all.len() < 10 || *x == 0.0 || x.log10().fract() == 0.0;
        let ticks = all.iter().filter(|x| keep(x)).map(|x| (x.ln_1p(), plain(*x))).collect();
        Self { label: label.to_owned(), logarithmic: false, low: 0.0, high: top, ticks }
    }

    /// Where a number is drawn: what lies outside, at the edge.
    fn place(&self, x: f64) -> f64 {
        let x = if self.logarithmic { x.max(SMALLEST).log10() } else { x };
        // Not a number goes to the lower edge.
        x.max(self.low).min(self.high)
    }

    fn text(&self, at: f64) -> String {
        self.ticks.iter().find(|(x, _)| *x == at).map(|(_, text)| text.clone()).unwrap_or_default()
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (place - self.low) / (self.high - self.low);
        from + (share * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // Grid lines at the ticks only.
        if hint.weight().allow_light_points() {
            return Vec::new();
        }
        self.ticks.iter().map(|(x, _)| *x).collect()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

/// A finite range around all finite numbers that is never empty.
fn range(numbers: impl IntoIterator<Item = f64>, padded: bool) -> (f64, f64) {
    let finite = numbers.into_iter().filter(|x| x.is_finite()).map(|x| x.clamp(-LARGEST, LARGEST));
    let (low, high) =
        finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
    if low > high {
        return (0.0, 1.0);
    }
    let least = 1e-6 * low.abs().max(high.abs()).max(1e-6);
    let pad = if high - low < least {
        (0.1 * low.abs().max(high.abs())).max(1e-3)
    } else if padded {
        0.04 * (high - low)
    } else {
        0.0
    };
    (low - pad, high + pad)
}

/// The next of 1, 2, 5 times a power of ten.
fn round_step(step: f64) -> f64 {
    if !(step.is_finite() && step > 0.0) {
        return 1.0;
    }
    let ten = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|m| m * ten).find(|s| *s >= 0.999 * step).unwrap_or(10.0 * ten)
}

/// Multiples of `step` from `low` to `high`, at most a few dozen.
fn multiples(step: f64, low: f64, high: f64) -> Vec<f64> {
    let first = (low / step - 1e-9).ceil();
    let points = (0..40).map(|i| (first + f64::from(i)) * step);
    // Adding 0 turns -0 into 0.
    points.take_while(|x| *x <= high + 1e-9 * step).map(|x| x + 0.0).collect()
}

/// A tick with as many digits as its step needs.
fn tick(x: f64, step: f64) -> String {
    let size = x.abs().max(step);
    if !(1e-4..1e6).contains(&size) && x != 0.0 {
        return format!("{x:.0e}");
    }
    let digits = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{x:.digits$}")
}

/// A number of one digit, such as 0.002, 30 or 5e7.
fn plain(x: f64) -> String {
    if x != 0.0 && !(1e-4..1e6).contains(&x) {
        return format!("{x:.0e}");
    }
    let text = format!("{x:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What is drawn into a plot; colours by number.
#[derive(Clone, Debug)]
pub enum Mark {
    /// A line through points; a lone point is drawn as a dot.
    Line {
        /// From first to last.
        points: Vec<(f64, f64)>,
        /// Number of its colour.
        colour: usize,
    },
    /// A line that stays behind: raw numbers, or what to compare with.
    Faint {
        /// From first to last.
        points: Vec<(f64, f64)>,
        /// Number of its colour.
        colour: usize,
    },
    /// Points.
    Dots {
        /// In any order.
        points: Vec<(f64, f64)>,
        /// Number of their colour.
        colour: usize,
    },
    /// Rectangles `[left, bottom, right, top]` with their opacity.
    Boxes {
        /// In any order.
        boxes: Vec<([f64; 4], f64)>,
        /// Number of their colour.
        colour: usize,
    },
    /// Points that a reader can point at and a program can count.
    Series(Series),
}

/// What is asked of [`draw`].
#[derive(Clone, Debug)]
pub struct Plot<'a> {
    /// What the plot shows.
    pub title: &'a str,
    /// A sentence on how to read it.
    pub note: &'a str,
    /// Names of series and the numbers of their colours.
    pub legend: &'a [(&'a str, usize)],
    /// Width and height.
    pub size: Size,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// What is drawn, the last on top.
    pub marks: Vec<Mark>,
}

/// Widths and heights of plots, in the units of their `viewBox`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// For axes of the same unit.
    Square,
    /// For curves.
    Wide,
    /// For many curves, or many rows.
    Large {
        /// Its height.
        height: u32,
    },
}

impl Size {
    fn of(self) -> (u32, u32) {
        match self {
            Self::Square => (380, 330),
            Self::Wide => (480, 280),
            Self::Large { height } => (660, height),
        }
    }
}

/// Space for the numbers of the vertical axis, and for each character of a name beyond them.
const Y_LABELS: u32 = 62;
const CHARACTER: u32 = 8;

/// Draws a plot.
///
/// # Errors
/// When the library that draws refuses.
pub fn draw(plot: &Plot<'_>) -> Result<Figure> {
    let failed = |e: &dyn std::fmt::Display| TrainError::Page(e.to_string());
    let (width, height) = plot.size.of();
    let longest = plot.y.ticks.iter().map(|(_, text)| text.chars().count()).max().unwrap_or(0);
    // At most half of the width is for names.
    let y_labels = (CHARACTER * longest.min(40) as u32 + 12).clamp(Y_LABELS, width / 2);
    let mut svg = String::new();
    let mut above = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        let (x, y) = (&plot.x, &plot.y);
        let mut chart = ChartBuilder::on(&root)
            .margin(8)
            .margin_right(18)
            .x_label_area_size(42)
            .y_label_area_size(y_labels)
            .build_cartesian_2d(x.clone(), y.clone())
            .map_err(|e| failed(&e))?;
        let text = ("sans-serif", 14).into_font().color(&INK);
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(INK)
            .label_style(text.clone())
            .axis_desc_style(text)
            .x_desc(x.label.as_str())
            .y_desc(y.label.as_str())
            .x_label_formatter(&|at| x.text(*at))
            .y_label_formatter(&|at| y.text(*at))
            .draw()
            .map_err(|e| failed(&e))?;
        let mut labels = Labels::default();
        for mark in &plot.marks {
            let place = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
                points.iter().map(|(a, b)| (x.place(*a), y.place(*b))).collect()
            };
            let dots = |points: &[(f64, f64)], colour: usize| {
                let style = series(colour).filled();
                place(points).into_iter().map(move |p| Circle::new(p, 3, style)).collect::<Vec<_>>()
            };
            let drawn = match mark {
                Mark::Line { points, colour } | Mark::Dots { points, colour }
                    if points.len() == 1 || matches!(mark, Mark::Dots { .. }) =>
                {
                    chart.draw_series(dots(points, *colour)).map(|_| ())
                }
                Mark::Line { points, colour } | Mark::Dots { points, colour } => {
                    let style = series(*colour).stroke_width(2);
                    chart.draw_series(LineSeries::new(place(points), style)).map(|_| ())
                }
                Mark::Faint { points, colour } => {
                    let style = series(*colour).mix(0.5).stroke_width(1);
                    chart.draw_series(LineSeries::new(place(points), style)).map(|_| ())
                }
                Mark::Boxes { boxes, colour } => {
                    let rectangles = boxes.iter().map(|([left, bottom, right, top], alpha)| {
                        let corners =
                            [(x.place(*left), y.place(*top)), (x.place(*right), y.place(*bottom))];
                        let fill: RGBAColor = series(*colour).mix(*alpha);
                        Rectangle::new(corners, fill.filled())
                    });
                    chart.draw_series(rectangles).map(|_| ())
                }
                Mark::Series(series) => {
                    let at = |a: f64, b: f64| chart.backend_coord(&(x.place(a), y.place(b)));
                    above.push_str(&series.markup(&at, &mut labels));
                    Ok(())
                }
            };
            drawn.map_err(|e| failed(&e))?;
        }
        root.present().map_err(|e| failed(&e))?;
    }
    // The page writes the outer element itself, with a description and without a fixed size.
    let start = svg.find('>').map_or(0, |at| at + 1);
    let end = svg.rfind("</svg>").unwrap_or(svg.len());
    let inside = svg.get(start..end).unwrap_or_default().to_owned() + &above;
    let legend = plot.legend.iter().map(|(name, colour)| ((*name).to_owned(), *colour)).collect();
    let (title, note) = (plot.title.to_owned(), plot.note.to_owned());
    Ok(Figure { title, note, legend, width, height, inside })
}

/// A colour by its number.
pub(super) fn series(number: usize) -> RGBColor {
    SERIES[number % SERIES.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(texts(&Axis::between("", 0.0, 1.0)), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(texts(&Axis::spanning("", [3.0, 17.0])), ["5", "10", "15"]);
        assert_eq!(texts(&Axis::tokens("", 200f64.ln_1p())), ["0", "1", "3", "10", "30", "100"]);
        assert_eq!(texts(&Axis::logarithmic("", [0.02, 900.0])), ["0.1", "1", "10", "100", "1000"]);
        assert_eq!(texts(&Axis::counting("", 3)), ["1", "2", "3"]);
    }

    #[test]
    fn any_numbers_can_be_drawn() {
        let odd: [&[f64]; 7] = [
            &[],
            &[0.0],
            &[5.0, 5.0, 5.0],
            &[f64::NAN, f64::INFINITY, -1.0],
            &[f64::MAX, f64::MIN],
            &[f64::MIN_POSITIVE, 1e300],
            &[1e15, 1e15 + 1.0],
        ];
        for numbers in odd {
            let axes = [
                Axis::spanning("a", numbers.iter().copied()),
                Axis::from_zero("a", numbers.iter().copied()),
                Axis::logarithmic("a", numbers.iter().copied()),
            ];
            for axis in &axes {
                assert!(axis.low < axis.high && axis.low.is_finite() && axis.high.is_finite());
                assert!(axis.ticks.len() <= 40);
                let points: Vec<(f64, f64)> = numbers.iter().map(|x| (*x, *x)).collect();
                let marks = vec![
                    Mark::Line { points: points.clone(), colour: 0 },
                    Mark::Faint { points: points.clone(), colour: 1 },
                    Mark::Dots { points, colour: 99 },
                ];
                let (x, y) = (axis.clone(), axis.clone());
                let plot =
                    Plot { title: "t", note: "", legend: &[], size: Size::Wide, x, y, marks };
                let figure = draw(&plot).unwrap();
                assert!(!figure.inside.contains("NaN") && !figure.inside.contains("inf"));
                assert!(!figure.inside.contains("http"), "{}", figure.inside);
            }
        }
    }
}
