//! `/v1/chat/completions`: the request.

use serde_json::{Map, Value, json};
use specexit_engine::MAX_TOP_LOGPROBS;

use super::control::Budget;
use super::fields::Fields;
use super::sampling::Common;
use crate::error::{ApiError, Result};
use crate::exits::Control;

/// A conversation to go on with.
#[derive(Clone, Debug)]
pub(crate) struct Chat {
    pub(crate) model: Option<String>,
    /// In the template's form.
    pub(crate) messages: Vec<Value>,
    pub(crate) tools: Option<Value>,
    /// Further variables for the template.
    pub(crate) kwargs: Map<String, Value>,
    pub(crate) common: Common,
    pub(crate) control: Control,
    pub(crate) budget: Budget,
    /// Alternatives of each token, where log probabilities are asked for.
    pub(crate) logprobs: Option<usize>,
}

impl Chat {
    /// Reads a body.
    ///
    /// # Errors
    /// The first field that is missing, wrong or unknown.
    pub(crate) fn parse(body: &[u8]) -> Result<Self> {
        let mut fields = Fields::parse(body)?;
        let model = fields.take("model")?;
        let messages = messages(fields.need("messages")?)?;
        fields.neutral("response_format", &[json!({"type": "text"})])?;
        fields.neutral("modalities", &[json!(["text"])])?;
        fields.neutral("verbosity", &[json!("medium")])?;
        fields.neutral("parallel_tool_calls", &[json!(true), json!(false)])?;
        let choice: Option<Value> = fields.take("tool_choice")?;
        let tools: Option<Vec<Value>> = fields.take("tools")?;
        let tools = tools.filter(|tools| !tools.is_empty()).map(Value::Array);
        let tools = match choice {
            None => tools,
            Some(choice) if choice == "auto" => tools,
            Some(choice) if choice == "none" => None,
            Some(other) => {
                let message = format!(
                    "tool_choice is {other}; tools go to the model's template, so it can be auto or none"
                );
                return Err(
                    ApiError::field("tool_choice", message).with_code("unsupported_parameter")
                );
            }
        };
        let chat = Self {
            model,
            messages,
            tools,
            kwargs: fields.take("chat_template_kwargs")?.unwrap_or_default(),
            common: Common::read(&mut fields)?,
            control: Control::read(&mut fields)?,
            budget: Budget::read(&mut fields)?,
            logprobs: logprobs(&mut fields)?,
        };
        fields.finish()?;
        Ok(chat)
    }
}

fn logprobs(fields: &mut Fields) -> Result<Option<usize>> {
    let asked = fields.take("logprobs")?.unwrap_or(false);
    let top: Option<usize> = fields.take("top_logprobs")?;
    match top {
        Some(top) if top > MAX_TOP_LOGPROBS => {
            let message = format!("top_logprobs is {top}; {MAX_TOP_LOGPROBS} are possible");
            Err(ApiError::field("top_logprobs", message))
        }
        Some(top) if top > 0 && !asked => {
            Err(ApiError::field("top_logprobs", "top_logprobs needs logprobs: true"))
        }
        top => Ok(asked.then_some(top.unwrap_or(0))),
    }
}

/// Messages whose text is a string, whatever form it came in.
fn messages(given: Vec<Value>) -> Result<Vec<Value>> {
    if given.is_empty() {
        return Err(ApiError::field("messages", "messages is empty; send at least one"));
    }
    let message = |(index, value): (usize, Value)| {
        let name = format!("messages[{index}]");
        let Value::Object(mut message) = value else {
            return Err(ApiError::field(
                &name,
                format!("{name} must be an object with role and content"),
            ));
        };
        if !message.get("role").is_some_and(Value::is_string) {
            return Err(ApiError::field(format!("{name}.role"), format!("{name} has no role")));
        }
        let content = message.get("content").cloned().unwrap_or_default();
        message.insert("content".to_owned(), text(&name, content)?.into());
        Ok(Value::Object(message))
    };
    given.into_iter().enumerate().map(message).collect()
}

/// The text of a content: a string, nothing, or parts of text.
fn text(message: &str, content: Value) -> Result<String> {
    let name = format!("{message}.content");
    match content {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text),
        Value::Array(parts) => {
            let part = |part: &Value| match (part["type"].as_str(), part["text"].as_str()) {
                (Some("text"), Some(text)) => Ok(text.to_owned()),
                (kind, _) => {
                    let kind = kind.unwrap_or("without a type");
                    Err(ApiError::field(
                        &name,
                        format!("{name} has a part {kind}; only text can be read"),
                    ))
                }
            };
            parts.iter().map(part).collect()
        }
        other => Err(ApiError::field(&name, format!("{name} is {other}; it must be text"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(mut more: Value) -> Result<Chat> {
        let fields = more.as_object_mut().unwrap();
        fields.entry("messages").or_insert(json!([{"role": "user", "content": "Hi"}]));
        Chat::parse(more.to_string().as_bytes())
    }

    #[test]
    fn contents_in_every_form_become_text() {
        let chat = parse(json!({"messages": [
            {"role": "system", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
            {"role": "assistant", "content": null, "tool_calls": []},
            {"role": "user", "content": "Hi", "name": "Ada"},
        ]}))
        .unwrap();
        let texts: Vec<&str> =
            chat.messages.iter().map(|m| m["content"].as_str().unwrap()).collect();
        assert_eq!(texts, ["Be brief.", "", "Hi"]);
        assert_eq!(chat.messages[2]["name"], "Ada");
    }

    #[test]
    fn fields_of_other_servers_that_change_nothing_pass() {
        let chat = parse(json!({
            "model": "m", "n": 2, "best_of": 2, "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {},
            "user": "ada", "response_format": {"type": "text"}, "tool_choice": "none", "tools": [{"type": "function"}],
            "seed": -1, "top_k": -1, "max_tokens": 9, "max_completion_tokens": 9, "logprobs": true, "top_logprobs": 2,
            "stop": "END", "stream": true, "stream_options": {"include_usage": true}, "temperature": null,
            "chat_template_kwargs": {"enable_thinking": false}, "metadata": {"a": "b"},
        }))
        .unwrap();
        assert_eq!((chat.tools, chat.logprobs), (None, Some(2)));
        assert_eq!(chat.common.sampling.seed, u64::MAX);
        assert_eq!((chat.common.n, chat.common.max_tokens), (2, Some(9)));
        assert!(chat.common.stream && chat.common.include_usage);
        assert_eq!(chat.common.stop, ["END"]);
        assert_eq!(chat.kwargs["enable_thinking"], false);
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        for (more, param) in [
            (json!({"messages": []}), "messages"),
            (json!({"messages": "Hi"}), "messages"),
            (json!({"messages": [{"content": "x"}]}), "messages[0].role"),
            (
                json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
                "messages[0].content",
            ),
            (json!({"temprature": 1}), "temprature"),
            (json!({"temperature": -1}), "temperature"),
            (json!({"temperature": "hot"}), "temperature"),
            (json!({"top_p": 0}), "top_p"),
            (json!({"top_k": -2}), "top_k"),
            (json!({"min_p": 2}), "min_p"),
            (json!({"n": 0}), "n"),
            (json!({"n": 99}), "n"),
            (json!({"max_tokens": 0}), "max_tokens"),
            (json!({"max_tokens": 3, "max_completion_tokens": 4}), "max_completion_tokens"),
            (json!({"presence_penalty": 1}), "presence_penalty"),
            (json!({"logit_bias": {"5": 1}}), "logit_bias"),
            (json!({"response_format": {"type": "json_object"}}), "response_format"),
            (json!({"tool_choice": "required"}), "tool_choice"),
            (json!({"top_logprobs": 3}), "top_logprobs"),
            (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
            (json!({"stop": [""]}), "stop"),
            (json!({"stream_options": {"include_usage": true}}), "stream_options"),
            (json!({"stream": true, "stream_options": {"x": 1}}), "stream_options.x"),
            (json!({"specexit": {"x": 1}}), "specexit.x"),
        ] {
            let error = parse(more.clone()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{more}: {}", error.message);
            assert_eq!(error.status.as_u16(), 400);
        }
        for body in [&b"{"[..], b"[]", b"", b"\xff", b"{\"messages\": 1e999}"] {
            assert_eq!(Chat::parse(body).unwrap_err().status.as_u16(), 400);
        }
    }
}
