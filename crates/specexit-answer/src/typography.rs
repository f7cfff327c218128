//! Typographic characters made plain, and the marks around a value taken off.

/// Writes typographic characters in the plain way that the rest of the crate reads.
pub(crate) fn fold(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{2212}' | '\u{2010}'..='\u{2013}' | '\u{fe63}' => plain.push('-'),
            '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => {
                plain.push(' ');
            }
            // Zero-width characters.
            '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' => {}
            // Full-width forms lie in the order of ASCII.
            '\u{ff01}'..='\u{ff5e}' => plain.push(char::from((c as u32 - 0xfee0) as u8)),
            '×' => plain.push_str("\\times "),
            '·' | '⋅' => plain.push_str("\\cdot "),
            '÷' | '⁄' => plain.push('/'),
            'π' => plain.push_str("\\pi "),
            'θ' => plain.push_str("\\theta "),
            '∞' => plain.push_str("\\infty "),
            '±' => plain.push_str("\\pm "),
            '∪' => plain.push_str("\\cup "),
            '≤' => plain.push_str("\\le "),
            '≥' => plain.push_str("\\ge "),
            '°' => plain.push_str("^\\circ "),
            '√' => plain.push_str("\\sqrt "),
            '²' => plain.push_str("^2"),
            '³' => plain.push_str("^3"),
            '≠' => plain.push_str("\\ne "),
            '∈' => plain.push_str("\\in "),
            'ℝ' => plain.push_str("\\mathbb{R}"),
            '∅' => plain.push_str("\\emptyset "),
            '¢' => plain.push_str("\\text{ cents}"),
            '½' => plain.push_str(" 1/2"),
            '⅓' => plain.push_str(" 1/3"),
            '⅔' => plain.push_str(" 2/3"),
            '¼' => plain.push_str(" 1/4"),
            '¾' => plain.push_str(" 3/4"),
            '€' | '£' | '¥' | '₹' => plain.push('$'),
            '“' | '”' => plain.push('"'),
            '‘' | '’' => plain.push('\''),
            '。' => plain.push('.'),
            c => plain.push(c),
        }
    }
    plain
}

/// Takes off what surrounds a value without being part of it: spaces, markdown emphasis, code and
/// math delimiters, quotes, sentence-final punctuation.
pub(crate) fn strip_marks(mut text: &str) -> &str {
    loop {
        let before = text.len();
        text = text.trim();
        for (open, close) in
            [("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("\"", "\"")]
        {
            if text.len() >= open.len() + close.len()
                && let Some(inner) =
                    text.strip_prefix(open).and_then(|rest| rest.strip_suffix(close))
                && !ends_in_backslash(inner, close)
            {
                text = inner;
            }
        }
        text = text.trim_matches(['*', '`', '"']).trim_start_matches("__").trim_end_matches("__");
        text = text.trim_end_matches([',', ';', ':', '?']);
        // A final full stop is never part of a value (`5.` is 5); an exclamation mark may be one.
        text = text.trim_end_matches('.').trim_start_matches(['=', ':']);
        if text.len() == before {
            return text;
        }
    }
}

/// `\$` at the end is a currency sign and no delimiter.
fn ends_in_backslash(inner: &str, close: &str) -> bool {
    close == "$" && inner.ends_with('\\')
}
