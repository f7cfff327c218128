//! Parts of pages about measurements: plots, tables and their style. A page is one file without
//! scripts that needs nothing from outside.

mod plots;
mod reliability;
mod series;

use askama::Template;

pub use plots::{Axis, COLOURS, Mark, Plot, Size, draw};
pub use reliability::{Reliability, reliability, reliability_table};
pub(crate) use reliability::{axis, diagonal};
pub use series::{Point, Series, Shape, escape};

/// The style sheet of all pages, on a light ground; colours are its variables.
pub const STYLE: &str = include_str!("../../templates/style.css");

/// A line of a page's head.
#[derive(Clone, Debug)]
pub struct Fact {
    /// What is told.
    pub name: &'static str,
    /// What it is.
    pub value: String,
}

impl Fact {
    /// A fact.
    pub fn new(name: &'static str, value: impl Into<String>) -> Self {
        Self { name, value: value.into() }
    }
}

/// A plot for a page, shown as a `figure` element.
#[derive(Clone, Debug, Template)]
#[template(path = "figure.html")]
pub struct Figure {
    /// What the plot shows.
    pub title: String,
    /// A sentence on how to read it.
    pub note: String,
    /// Names of series and the numbers of their colours.
    pub legend: Vec<(String, usize)>,
    /// Width of the `viewBox`.
    pub width: u32,
    /// Its height.
    pub height: u32,
    /// What stands between the tags of the `svg` element.
    pub inside: String,
}

/// A table; the first cell of each row names it.
#[derive(Clone, Debug, Default, Template)]
#[template(path = "table.html")]
pub struct Table {
    /// What sort of table it is, for those who count its rows: the attribute `data-table`.
    pub kind: &'static str,
    /// What the table shows.
    pub caption: String,
    /// Names of the columns.
    pub head: Vec<String>,
    /// Cells by row.
    pub rows: Vec<Vec<String>>,
    /// Shown on a click only.
    pub folded: bool,
}

impl Table {
    /// A table of no special sort.
    #[must_use]
    pub fn new(caption: &str, head: &[&str], rows: Vec<Vec<String>>) -> Self {
        let head = head.iter().map(|name| (*name).to_owned()).collect();
        Self { caption: caption.to_owned(), head, rows, ..Self::default() }
    }
}

/// With a capital first letter, where that is ASCII.
#[must_use]
pub fn capitalised(name: &str) -> String {
    let (first, rest) = name.split_at_checked(1).unwrap_or((name, ""));
    format!("{}{rest}", first.to_ascii_uppercase())
}

/// A number in about three significant digits, without an exponent where that is readable.
#[must_use]
pub fn short(x: f64) -> String {
    let size = x.abs();
    match size {
        _ if x == 0.0 => "0".to_owned(),
        _ if !(1e-4..1e6).contains(&size) => format!("{x:.1e}"),
        _ if size >= 100.0 => format!("{x:.0}"),
        _ if size >= 10.0 => format!("{x:.1}"),
        _ if size >= 1.0 => format!("{x:.2}"),
        _ if size >= 0.1 => format!("{x:.3}"),
        _ if size >= 0.01 => format!("{x:.4}"),
        _ => format!("{x:.5}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 1e-9, 0.004, 0.0831, 0.25, 3.4567, 42.0, 12345.6, 1e9].map(short);
        let expected =
            ["0", "1.0e-9", "0.00400", "0.0831", "0.250", "3.46", "42.0", "12346", "1.0e9"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn texts_of_tables_and_figures_are_escaped() {
        let mut table = Table::new("a < b", &["<i>"], vec![vec!["\"&".to_owned()]]);
        table.kind = "numbers";
        let html = table.render().unwrap();
        assert!(html.contains("a &#60; b") && html.contains("<th scope=\"row\">&#34;&#38;</th>"));
        assert!(html.contains("data-table=\"numbers\"") && !html.contains("<i>"), "{html}");
        let (x, y) = (Axis::between("<x>", 0.0, 1.0), Axis::named(&["<b>&"]));
        let series = Series {
            points: vec![Point { title: "<u>".to_owned(), ..Point::default() }],
            ..Series::default()
        };
        let marks = vec![Mark::Series(series)];
        let (title, note, size) = ("<p>", "<q>", Size::Large { height: 100 });
        let plot = Plot { title, note, legend: &[("<s>", 1)], size, x, y, marks };
        let html = draw(&plot).unwrap().render().unwrap();
        for tag in ["<x>", "<b>", "<u>", "<p>", "<q>", "<s>"] {
            assert!(!html.contains(tag), "{tag}: {html}");
        }
        assert_eq!(html.matches("class=\"point\"").count(), 1);
    }
}
