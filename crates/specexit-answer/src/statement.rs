//! Finding what a text says its answer is.

/// How far after the word "answer" its value may begin.
const REACH: usize = 100;
/// The longest value read, more or less.
const LONGEST: usize = 300;

/// Statements looked at, from the last one backwards: whatever stands before them is not final.
const MOST: usize = 50;

/// What stands behind `#### ` at the start of a line, the last one first.
pub(crate) fn after_hashes(text: &str) -> impl Iterator<Item = &str> {
    let behind = text.rsplit('\n').filter_map(|line| {
        let rest = line.trim_start().strip_prefix("####")?;
        (!rest.starts_with('#') && !rest.trim().is_empty()).then(|| rest.trim())
    });
    behind.take(MOST)
}

/// The values of "the answer is …", "Answer: …", "**Final answer**" and the like, the last one
/// first; each runs to the end of its sentence or line. The text must be folded.
pub(crate) fn values(text: &str) -> impl Iterator<Item = &str> {
    let bytes = text.as_bytes();
    let mut end = bytes.len();
    let all = std::iter::from_fn(move || {
        loop {
            let at = (0..end.saturating_sub(5)).rev().find(|&at| {
                bytes[at..].len() >= 6 && bytes[at..at + 6].eq_ignore_ascii_case(b"answer")
            })?;
            end = at + 5;
            let inside_word = at > 0 && bytes[at - 1].is_ascii_alphabetic();
            if !inside_word && let Some(value) = value_after(&text[at + 6..]) {
                return Some(value);
            }
        }
    });
    all.take(MOST)
}

/// The value in what follows the word "answer".
fn value_after(rest: &str) -> Option<&str> {
    let rest = rest.strip_prefix(['s', 'S']).unwrap_or(rest);
    if rest.starts_with(|c: char| c.is_alphanumeric()) {
        return None;
    }
    // Clipped first: the word may stand a hundred thousand times in one long line.
    let rest = clip(rest, REACH + LONGEST);
    let line = clip(rest.lines().next().unwrap_or(""), REACH);
    let value = match separator(line) {
        Some(end) => &rest[end..],
        // A heading: the value is on a line of its own below.
        None if line.trim_matches(['*', '_', '#', ' ']).is_empty() => &rest[line.len()..],
        None => return None,
    };
    let value = value.trim_start_matches(['*', '_', ':', '=', ' ', '\n', '\r', '\t', '#']);
    let value = sentence(value);
    (!value.is_empty() && !value.starts_with("not ")).then_some(value)
}

/// The end of the first word or mark that announces a value.
fn separator(line: &str) -> Option<usize> {
    let lower = line.to_ascii_lowercase();
    let word = |word: &str| {
        lower.match_indices(word).find_map(|(at, _)| {
            let end = at + word.len();
            let before = at == 0 || !lower.as_bytes()[at - 1].is_ascii_alphanumeric();
            let after = !lower.as_bytes().get(end).is_some_and(u8::is_ascii_alphanumeric);
            (before && after).then_some(end)
        })
    };
    let mark = |mark: char| lower.find(mark).map(|at| at + 1);
    [word("is"), word("are"), word("be"), word("equals"), mark(':'), mark('=')]
        .into_iter()
        .flatten()
        .min()
}

/// Up to the end of the sentence or line; math in `\[ … \]` or `$$ … $$` may span lines.
fn sentence(text: &str) -> &str {
    for (open, close) in [("\\[", "\\]"), ("$$", "$$"), ("\\(", "\\)")] {
        if let Some(rest) = text.strip_prefix(open)
            && let Some(end) = rest.find(close)
        {
            return &text[..open.len() + end + close.len()];
        }
    }
    let line = text.lines().next().unwrap_or("");
    let end = line
        .match_indices(['.', '!', '?'])
        .find(|(at, _)| {
            let rest = line[at + 1..].trim_start_matches(['*', '"', ')']);
            // `\!` is a thin space of LaTeX.
            !line[..*at].ends_with('\\') && (rest.is_empty() || rest.starts_with(' '))
        })
        .map_or(line.len(), |(at, _)| at);
    line[..end].trim()
}

/// At most `length` bytes, ending between characters.
fn clip(text: &str, length: usize) -> &str {
    let mut end = text.len().min(length);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
