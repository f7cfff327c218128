//! A JSON document for readers: one line per value, objects indented.

use serde_json::Value;

/// Renders an object. Absent values are left out, so that a line always says something.
pub(super) fn render(value: &Value) -> String {
    let mut text = String::new();
    lines(value, 0, &mut text);
    text
}

fn lines(value: &Value, indent: usize, text: &mut String) {
    let Value::Object(fields) = value else { return };
    let shown: Vec<_> = fields.iter().filter(|(_, value)| !value.is_null()).collect();
    let plain = shown.iter().filter(|(_, value)| !value.is_object());
    let width = plain.map(|(key, _)| key.chars().count()).max().unwrap_or(0);
    for (key, value) in shown {
        let key = words(key);
        if value.is_object() {
            text.push_str(&format!("{:indent$}{key}\n", ""));
            lines(value, indent + 2, text);
        } else {
            text.push_str(&format!("{:indent$}{key:width$}  {}\n", "", one_line(value)));
        }
    }
}

/// A field's name as words; other keys, such as `Q4_K`, are names already.
fn words(key: &str) -> String {
    let field = key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if field { key.replace('_', " ") } else { key.to_owned() }
}

fn one_line(value: &Value) -> String {
    match value {
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.replace('\n', "\\n"),
        Value::Number(number) => match number.as_f64() {
            Some(x) if number.is_f64() && x.abs() < 1e6 => short(x),
            _ => number.to_string(),
        },
        Value::Array(items) => items.iter().map(one_line).collect::<Vec<_>>().join(", "),
        Value::Null => "-".to_owned(),
        Value::Object(_) => value.to_string(),
    }
}

/// At most three decimals, unless they would hide the number.
fn short(x: f64) -> String {
    if x != 0.0 && x.abs() < 1e-3 {
        return format!("{x:e}");
    }
    let text = format!("{x:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_are_indented_and_absent_values_left_out() {
        let value = json!({
            "kind": "model",
            "rms_norm_eps": 1e-5,
            "mean": 2.5,
            "taps": [1, 2],
            "tied": true,
            "types": {"Q4_K": 1},
            "tokenizer": {"size": 256, "text": "a\nb", "none": null},
        });
        let text = "\
kind          model
rms norm eps  1e-5
mean          2.5
taps          1, 2
tied          yes
types
  Q4_K  1
tokenizer
  size  256
  text  a\\nb
";
        assert_eq!(render(&value), text);
    }
}
