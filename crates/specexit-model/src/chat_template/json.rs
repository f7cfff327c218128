//! JSON and numbers spelled as Python spells them.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};
use serde_json::Value as Json;

/// transformers' `tojson`: Python's `json.dumps` without ASCII escapes, with a space after each comma
/// and colon, and keys in their order.
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "an undefined value cannot be written as JSON",
        ));
    }
    let style = Style::read(&options)?;
    let json = serde_json::to_value(value).map_err(|error| {
        Error::new(ErrorKind::BadSerialization, "the value cannot be written as JSON")
            .with_source(error)
    })?;
    let mut out = String::new();
    style.write(&json, 0, &mut out);
    Ok(Value::from(out))
}

/// The arguments of `json.dumps` that the filter takes.
struct Style {
    /// What each level is indented by; everything on one line when absent.
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    ensure_ascii: bool,
    sort_keys: bool,
}

impl Style {
    fn read(options: &Kwargs) -> Result<Self, Error> {
        let indent = match options.get::<Option<Value>>("indent")?.filter(|value| !value.is_none())
        {
            None => None,
            Some(value) => Some(match (value.as_str(), value.as_usize()) {
                (Some(text), _) => text.to_owned(),
                (None, Some(width)) if width <= 64 => " ".repeat(width),
                _ => {
                    return Err(Error::new(
                        ErrorKind::InvalidOperation,
                        "tojson's indent must be a text or a number up to 64",
                    ));
                }
            }),
        };
        // Python drops the blank after a comma where a line break follows.
        let comma = if indent.is_some() { "," } else { ", " };
        let separators = match options.get::<Option<Value>>("separators")? {
            Some(pair) if !pair.is_none() => Some((
                pair.get_item_by_index(0)?.to_string(),
                pair.get_item_by_index(1)?.to_string(),
            )),
            _ => None,
        };
        let (item_separator, key_separator) =
            separators.unwrap_or_else(|| (comma.to_owned(), ": ".to_owned()));
        let flag = |name: &str| Ok::<_, Error>(options.get::<Option<bool>>(name)?.unwrap_or(false));
        let style = Self {
            indent,
            item_separator,
            key_separator,
            ensure_ascii: flag("ensure_ascii")?,
            sort_keys: flag("sort_keys")?,
        };
        options.assert_all_used()?;
        Ok(style)
    }

    fn write(&self, json: &Json, depth: usize, out: &mut String) {
        match json {
            Json::Null => out.push_str("null"),
            Json::Bool(true) => out.push_str("true"),
            Json::Bool(false) => out.push_str("false"),
            Json::Number(number) => match number.as_f64() {
                Some(float) if number.is_f64() => out.push_str(&float_text(float)),
                _ => out.push_str(&number.to_string()),
            },
            Json::String(text) => self.write_text(text, out),
            Json::Array(items) => {
                let items = items.iter().map(|item| (None, item));
                self.write_items('[', items, ']', depth, out);
            }
            Json::Object(object) => {
                let mut items: Vec<(Option<&str>, &Json)> =
                    object.iter().map(|(key, item)| (Some(key.as_str()), item)).collect();
                if self.sort_keys {
                    items.sort_by_key(|(key, _)| *key);
                }
                self.write_items('{', items.into_iter(), '}', depth, out);
            }
        }
    }

    fn write_items<'a>(
        &self,
        open: char,
        items: impl ExactSizeIterator<Item = (Option<&'a str>, &'a Json)>,
        close: char,
        depth: usize,
        out: &mut String,
    ) {
        out.push(open);
        let empty = items.len() == 0;
        for (at, (key, item)) in items.enumerate() {
            if at > 0 {
                out.push_str(&self.item_separator);
            }
            self.break_line(depth + 1, out);
            if let Some(key) = key {
                self.write_text(key, out);
                out.push_str(&self.key_separator);
            }
            self.write(item, depth + 1, out);
        }
        if !empty {
            self.break_line(depth, out);
        }
        out.push(close);
    }

    fn break_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    }

    fn write_text(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// The text of a float as Python prints it; nothing for other values.
pub(super) fn python_float(value: &Value) -> Option<String> {
    if value.kind() != ValueKind::Number || value.is_integer() {
        return None;
    }
    f64::try_from(value.clone()).ok().map(float_text)
}

/// Python's `repr` of a float: the shortest digits that read back, in scientific notation below
/// 1e-4 and from 1e16.
fn float_text(float: f64) -> String {
    if float.is_nan() {
        return "NaN".to_owned();
    }
    if float.is_infinite() {
        return if float > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let size = float.abs();
    if size == 0.0 || (1e-4..1e16).contains(&size) {
        return format!("{float:?}");
    }
    // Rust writes 2.5e-7, Python 2.5e-07 and a sign for positive exponents.
    let text = format!("{float:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    match exponent.strip_prefix('-') {
        Some(exponent) => format!("{digits}e-{exponent:0>2}"),
        None => format!("{digits}e+{exponent:0>2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_look_as_in_python() {
        let cases = [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (2.5e-7, "2.5e-07"),
            (1e16, "1e+16"),
            (1e15, "1000000000000000.0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-1.5e300, "-1.5e+300"),
        ];
        for (float, text) in cases {
            assert_eq!(float_text(float), text);
        }
    }
}
