//! Brackets: what they enclose, and what lies outside all of them.

/// The parts between separators outside all brackets.
pub(crate) fn split<'a>(text: &'a str, separator: &str) -> Vec<&'a str> {
    let bytes = text.as_bytes();
    let mut parts = Vec::new();
    let (mut depth, mut start, mut at) = (0_i32, 0, 0);
    while at < bytes.len() {
        if depth == 0 && bytes[at..].starts_with(separator.as_bytes()) {
            parts.push(&text[start..at]);
            at += separator.len();
            start = at;
            continue;
        }
        match bytes[at] {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    parts.push(&text[start..]);
    parts
}

/// A pair, interval or set: its brackets, and more than one thing between them. A set may have one.
pub(crate) fn bracketed(text: &str) -> Option<(&str, &str, &str)> {
    for open in ["(", "[", "\\{"] {
        for close in [")", "]", "\\}"] {
            if let Some(inner) = text.strip_prefix(open).and_then(|rest| rest.strip_suffix(close)) {
                let matched = never_closes(inner);
                let several = split(inner, ",").len() > 1 || open == "\\{";
                return (matched && several).then_some((open, inner, close));
            }
        }
    }
    None
}

/// False for `1)+(2`: then the outer brackets are not each other's.
fn never_closes(inner: &str) -> bool {
    let mut depth = 0_i32;
    inner.bytes().all(|b| {
        match b {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
        depth >= 0
    })
}

/// True when every brace has its partner inside the text.
pub(crate) fn is_balanced(text: &str) -> bool {
    let mut depth = 0_i32;
    let never_negative = text.bytes().all(|b| {
        depth += i32::from(b == b'{') - i32::from(b == b'}');
        depth >= 0
    });
    never_negative && depth == 0
}
