//! Points of a plot as elements of their own: each says what it is when pointed at, and tests count them.

use std::fmt::Write;

use super::plots::series as colour;

/// The form of a point, so that series differ not by colour alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// A disc.
    #[default]
    Circle,
    /// A square.
    Square,
    /// A triangle.
    Triangle,
    /// A square on its corner.
    Diamond,
    /// Two crossed strokes.
    Cross,
}

impl Shape {
    /// Forms for series by number.
    #[must_use]
    pub fn number(number: usize) -> Self {
        [Self::Circle, Self::Square, Self::Triangle, Self::Diamond][number % 4]
    }

    /// The form as a path around its centre.
    fn path(self, (x, y): (i32, i32), size: i32) -> String {
        let r = size;
        match self {
            Self::Circle => {
                format!("M{} {y}a{r} {r} 0 1 0 {} 0a{r} {r} 0 1 0 -{} 0z", x - r, 2 * r, 2 * r)
            }
            Self::Square => format!("M{} {}h{}v{}h-{}z", x - r, y - r, 2 * r, 2 * r, 2 * r),
            Self::Triangle => {
                format!("M{} {}h{}l-{} -{}z", x - r - 1, y + r, 2 * r + 2, r + 1, 2 * r + 1)
            }
            Self::Diamond => format!("M{x} {}l{r} {r}l-{r} {r}l-{r} -{r}z", y - r),
            Self::Cross => {
                let d = 2 * r;
                format!("M{} {}l{d} {d}m-{d} 0l{d} -{d}", x - r, y - r)
            }
        }
    }
}

/// A point of a [`Series`].
#[derive(Clone, Debug, Default)]
pub struct Point {
    /// On the horizontal axis.
    pub x: f64,
    /// On the vertical axis.
    pub y: f64,
    /// Both ends of a vertical interval around it.
    pub interval: Option<[f64; 2]>,
    /// What it is, for those who point at it.
    pub title: String,
    /// A letter or two beside it.
    pub label: String,
}

/// Points that belong together: an element `g.series` with one `path.point` each.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// What it is called: the attribute `data-series`.
    pub name: String,
    /// Number of its colour.
    pub colour: usize,
    /// Form of its points.
    pub shape: Shape,
    /// Half the size of a point.
    pub size: i32,
    /// Whether a line joins the points.
    pub joined: bool,
    /// Opacity of the intervals.
    pub faint: bool,
    /// In the order of the line.
    pub points: Vec<Point>,
}

/// Where letters stand already.
#[derive(Default)]
pub(super) struct Labels(Vec<(i32, i32)>);

/// Width and height that a label needs for itself.
const LABEL: (i32, i32) = (14, 12);

impl Labels {
    /// The free place right of a point that is nearest to it: there no interval runs through it, and a point at
    /// the upper edge keeps it inside the plot.
    fn place(&mut self, (x, y): (i32, i32)) -> (i32, i32) {
        let mut at = (x + 7, y + 4);
        while self.0.iter().any(|(a, b)| (a - at.0).abs() < LABEL.0 && (b - at.1).abs() < LABEL.1) {
            at.0 += LABEL.0;
        }
        self.0.push(at);
        at
    }
}

impl Series {
    /// As SVG; `at` says where a point of the plot lies.
    pub(super) fn markup(
        &self,
        at: &dyn Fn(f64, f64) -> (i32, i32),
        labels: &mut Labels,
    ) -> String {
        let of = colour(self.colour);
        let ink = format!("#{:02X}{:02X}{:02X}", of.0, of.1, of.2);
        let mut svg = format!("<g class=\"series\" data-series=\"{}\">\n", escape(&self.name));
        let points: Vec<(i32, i32)> = self.points.iter().map(|p| at(p.x, p.y)).collect();
        if self.joined && points.len() > 1 {
            let line: Vec<String> = points.iter().map(|(x, y)| format!("{x},{y}")).collect();
            let line = line.join(" ");
            // Writing to a String cannot fail.
            let _ = writeln!(
                svg,
                "<polyline points=\"{line}\" fill=\"none\" stroke=\"{ink}\" stroke-width=\"1.5\"/>"
            );
        }
        let opacity = if self.faint { "0.25" } else { "1" };
        for (point, (x, _)) in self.points.iter().zip(&points) {
            if let Some([low, high]) = point.interval {
                let ((_, low), (_, high)) = (at(point.x, low), at(point.x, high));
                let _ = writeln!(
                    svg,
                    "<path class=\"interval\" d=\"M{x} {low}V{high}\" stroke=\"{ink}\" \
                     opacity=\"{opacity}\"/>"
                );
            }
        }
        let (fill, edge) = match self.shape {
            Shape::Cross => ("none", ink.as_str()),
            _ => (ink.as_str(), "#FFFFFF"),
        };
        let width = if self.shape == Shape::Cross { "1.6" } else { "0.6" };
        for (point, place) in self.points.iter().zip(&points) {
            let path = self.shape.path(*place, self.size.clamp(1, 20));
            let _ = writeln!(
                svg,
                "<path class=\"point\" d=\"{path}\" fill=\"{fill}\" stroke=\"{edge}\" \
                 stroke-width=\"{width}\"><title>{}</title></path>",
                escape(&point.title)
            );
            if !point.label.is_empty() {
                let (x, y) = labels.place(*place);
                let _ = writeln!(
                    svg,
                    "<text class=\"label\" x=\"{x}\" y=\"{y}\" font-size=\"13\" \
                     font-weight=\"600\" stroke=\"#FFFFFF\" stroke-width=\"3\" paint-order=\"stroke\" fill=\"{ink}\">{}</text>",
                    escape(&point.label)
                );
            }
        }
        svg.push_str("</g>\n");
        svg
    }
}

/// A text as it may stand in markup, between tags and inside quotation marks.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_can_be_counted_and_says_what_it_is() {
        let point = |x: f64, label: &str| Point {
            x,
            y: 0.5,
            interval: Some([0.2, 0.8]),
            title: format!("<{x}>"),
            label: label.to_owned(),
        };
        let series = Series {
            name: "a\"b".to_owned(),
            joined: true,
            points: vec![point(1.0, "A"), point(2.0, ""), point(1.0, "B")],
            ..Series::default()
        };
        let mut labels = Labels::default();
        let svg = series.markup(&|x, y| ((10.0 * x) as i32, (100.0 * y) as i32), &mut labels);
        assert_eq!(svg.matches("class=\"point\"").count(), 3);
        assert_eq!(svg.matches("d=\"M10 20V80\"").count(), 2);
        assert!(svg.contains("data-series=\"a&quot;b\"") && svg.contains("<title>&lt;2&gt;"));
        assert!(svg.contains("points=\"10,50 20,50 10,50\""), "{svg}");
        // Letters at one place do not cover each other.
        assert_eq!(labels.0, [(17, 54), (31, 54)]);
    }

    #[test]
    fn every_form_is_a_path_around_its_centre() {
        for shape in [Shape::Circle, Shape::Square, Shape::Triangle, Shape::Diamond, Shape::Cross] {
            let path = shape.path((50, 60), 4);
            assert!(path.starts_with("M4") || path.starts_with("M50 56"), "{path}");
        }
        assert_ne!(Shape::number(0), Shape::number(1));
        assert_eq!(Shape::number(1), Shape::number(5));
    }
}
