//! The Jinja environment that transformers gives to chat templates, in minijinja.

use std::error::Error as _;
use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::clock::strftime;
use super::json;
use crate::error::shown;

/// Instructions a template may execute: real ones take some hundred per message. A template is data
/// from the checkpoint and must not hang the program.
const FUEL: u64 = 50_000_000;

/// The environment without templates.
pub(super) fn new() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    // Only contradictory delimiters make this fail, and the default ones are kept.
    environment.set_syntax(syntax.unwrap_or_default());
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(method);
    environment.set_formatter(|out, _, value| {
        match json::python_float(value) {
            Some(text) => out.write_str(&text)?,
            None => write!(out, "{value}")?,
        }
        Ok(())
    });
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("string", |value: Value| match json::python_float(&value) {
        Some(text) => Value::from(text),
        None => Value::from(value.to_string()),
    });
    // minijinja lets a template loop over none, and so calls it iterable; Python does neither.
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Refusal(message)))
    });
    environment
}

/// Renders the template of that name; `now` is what `strftime_now` shows.
pub(super) fn render(
    environment: &Environment<'static>,
    name: &str,
    variables: &serde_json::Value,
    now: SystemTime,
) -> Result<String, Error> {
    let clock = Value::from_function(move |format: &str| strftime(format, now));
    let context = minijinja::context! {
        strftime_now => clock,
        ..Value::from(Serde(variables))
    };
    environment.get_template(name)?.render(context)
}

/// What a template said with `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

/// The error as the rest of a sentence: the template's own words, or minijinja's with the line.
pub(super) fn sentence(error: &Error) -> String {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(Refusal(message)) = inner.downcast_ref() {
            return format!("it refuses the messages: {}", shown(message));
        }
        source = inner.source();
    }
    let mut text = error.to_string();
    // An error inside a macro or a filter carries its reason one level down.
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    shown(text)
}

/// `{% generation %}` … `{% endgeneration %}` marks the assistant's text for training in
/// transformers and prints its body; minijinja does not know the tag.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut rewritten = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        rewritten.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end + 2);
        let word = tag[2..tag.len() - 2].trim_matches(['-', '+']).trim();
        match word {
            "generation" => rewritten.push_str(&tag.replacen(word, "if true", 1)),
            "endgeneration" => rewritten.push_str(&tag.replacen(word, "endif", 1)),
            _ => rewritten.push_str(tag),
        }
        rest = after;
    }
    rewritten.push_str(rest);
    rewritten
}

/// Python methods that minijinja-contrib leaves out and chat templates use.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let (Some(text), [argument]) = (value.as_str(), args)
        && let Some(part) = argument.as_str()
    {
        match name {
            "removeprefix" => return Ok(text.strip_prefix(part).unwrap_or(text).into()),
            "removesuffix" => return Ok(text.strip_suffix(part).unwrap_or(text).into()),
            "partition" => {
                let parts = match text.split_once(part) {
                    Some((before, after)) => [before, part, after],
                    None => [text, "", ""],
                };
                return Ok(parts.into_iter().collect());
            }
            "rpartition" => {
                let parts = match text.rsplit_once(part) {
                    Some((before, after)) => [before, part, after],
                    None => ["", "", text],
                };
                return Ok(parts.into_iter().collect());
            }
            _ => {}
        }
    }
    unknown_method_callback(state, value, name, args)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn generation_tags_become_plain_blocks() {
        let source = "a{%- generation -%}b{% endgeneration %}c{% if x %}{%";
        let expected = "a{%- if true -%}b{% endif %}c{% if x %}{%";
        assert_eq!(without_generation_tags(source), expected);
    }

    #[test]
    fn endless_templates_are_stopped() {
        let mut environment = new();
        let loops =
            "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}";
        environment.add_template("chat_template", loops).unwrap();
        let error =
            render(&environment, "chat_template", &serde_json::json!({}), SystemTime::now());
        assert!(sentence(&error.unwrap_err()).contains("fuel"));
    }
}
