//! Looking at pages.

/// Elements that have no end tag.
const VOID: [&str; 6] = ["meta", "br", "hr", "img", "link", "input"];

/// What is wrong with the markup of a page, if anything: tags that are not balanced, a `<` or `>` that belongs
/// to no tag, or something that a page without scripts and network must not have.
#[must_use]
pub fn markup_problem(page: &str) -> Option<String> {
    let mut open: Vec<&str> = Vec::new();
    for part in page.split('<').skip(1) {
        let Some((tag, after)) = part.split_once('>') else {
            return Some(format!("no end of tag: {part}"));
        };
        if after.contains('>') {
            return Some(format!("a stray >: {after}"));
        }
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap_or_default();
        if tag.starts_with('/') {
            if open.pop() != Some(name) {
                return Some(format!("closed by {tag}"));
            }
        } else if !(tag.starts_with('!') || tag.ends_with('/') || VOID.contains(&name)) {
            open.push(name);
        }
        if !tag.matches('"').count().is_multiple_of(2) {
            return Some(format!("an open quotation mark: {tag}"));
        }
    }
    if !open.is_empty() {
        return Some(format!("left open: {open:?}"));
    }
    let outside = ["http://", "https://", "<script", "<link", "<img", "@import", "url("];
    let found = outside.into_iter().chain(["NaN", ">inf"]).find(|text| page.contains(text));
    found.map(|text| format!("it contains {text}"))
}

/// Rows of the bodies of all tables whose attribute `data-table` is `kind`.
#[must_use]
pub fn table_rows(page: &str, kind: &str) -> usize {
    let tables = page
        .split("<table")
        .skip(1)
        .map(|rest| rest.split_once("</table>").map_or(rest, |(table, _)| table));
    let named = format!(" data-table=\"{kind}\"");
    let named =
        tables.filter(|table| table.split('>').next().is_some_and(|tag| tag.contains(&named)));
    named
        .map(|table| table.split_once("<tbody").map_or(0, |(_, body)| body.matches("<tr>").count()))
        .sum()
}

/// Points of the series of each plot that are called `name`, one number per plot.
#[must_use]
pub fn plotted_points(page: &str, name: &str) -> Vec<usize> {
    let start = format!("<g class=\"series\" data-series=\"{name}\">");
    page.split(&start)
        .skip(1)
        .map(|rest| rest.split("</g>").next().unwrap_or_default())
        .map(|series| series.matches("class=\"point\"").count())
        .collect()
}
