//! `/v1/completions`: the request.

use serde_json::{Value, json};
use specexit_engine::{MAX_TOP_LOGPROBS, TokenId};

use super::control::Budget;
use super::fields::Fields;
use super::sampling::Common;
use crate::error::{ApiError, Result};
use crate::exits::Control;

/// What is gone on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Prompt {
    /// Text, to which the tokenizer adds its start token.
    Text(String),
    /// Tokens, taken as they are.
    Tokens(Vec<TokenId>),
}

/// A text to go on with.
#[derive(Clone, Debug)]
pub(crate) struct Completion {
    pub(crate) model: Option<String>,
    pub(crate) prompt: Prompt,
    pub(crate) common: Common,
    pub(crate) control: Control,
    pub(crate) budget: Budget,
    /// Alternatives of each token, where log probabilities are asked for.
    pub(crate) logprobs: Option<usize>,
}

impl Completion {
    /// Reads a body.
    ///
    /// # Errors
    /// The first field that is missing, wrong or unknown.
    pub(crate) fn parse(body: &[u8]) -> Result<Self> {
        let mut fields = Fields::parse(body)?;
        let model = fields.take("model")?;
        let prompt = prompt(fields.need("prompt")?)?;
        fields.neutral("echo", &[json!(false)])?;
        fields.neutral("suffix", &[json!("")])?;
        let logprobs: Option<usize> = fields.take("logprobs")?;
        if let Some(top) = logprobs.filter(|top| *top > MAX_TOP_LOGPROBS) {
            let message = format!("logprobs is {top}; {MAX_TOP_LOGPROBS} are possible");
            return Err(ApiError::field("logprobs", message));
        }
        let completion = Self {
            model,
            prompt,
            common: Common::read(&mut fields)?,
            control: Control::read(&mut fields)?,
            budget: Budget::read(&mut fields)?,
            logprobs,
        };
        fields.finish()?;
        Ok(completion)
    }
}

/// A text, the ids of its tokens, or a list of one of these.
fn prompt(given: Value) -> Result<Prompt> {
    let bad = |message: &str| Err(ApiError::field("prompt", message));
    match given {
        Value::String(text) => Ok(Prompt::Text(text)),
        Value::Array(mut list) => match list.first() {
            Some(Value::Number(_)) => match serde_json::from_value(Value::Array(list)) {
                Ok(tokens) => Ok(Prompt::Tokens(tokens)),
                Err(_) => bad("prompt holds something that is no token id"),
            },
            Some(Value::String(_) | Value::Array(_)) if list.len() == 1 => {
                prompt(list.pop().unwrap_or_default())
            }
            Some(_) => bad(
                "prompt holds several texts; send one in each request, they are served together",
            ),
            None => bad("prompt is empty; give at least one token"),
        },
        _ => bad("prompt must be a text, or a list of token ids"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: Value) -> Result<Completion> {
        Completion::parse(body.to_string().as_bytes())
    }

    #[test]
    fn prompts_in_every_form() {
        let prompt = |value: Value| parse(json!({"prompt": value})).map(|c| c.prompt);
        assert_eq!(prompt(json!("a")).unwrap(), Prompt::Text("a".to_owned()));
        assert_eq!(prompt(json!(["a"])).unwrap(), Prompt::Text("a".to_owned()));
        assert_eq!(prompt(json!([1, 2])).unwrap(), Prompt::Tokens(vec![1, 2]));
        assert_eq!(prompt(json!([[1, 2]])).unwrap(), Prompt::Tokens(vec![1, 2]));
        for wrong in [
            json!([]),
            json!(["a", "b"]),
            json!([1, -2]),
            json!(7),
            json!([[]]),
            json!([[["a"]], 1]),
        ] {
            let error = prompt(wrong.clone()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some("prompt"), "{wrong}");
        }
    }

    #[test]
    fn fields_that_cannot_be_had_are_named() {
        for (more, param) in [
            (json!({"prompt": "a", "echo": true}), "echo"),
            (json!({"prompt": "a", "suffix": "b"}), "suffix"),
            (json!({"prompt": "a", "logprobs": 21}), "logprobs"),
            (json!({"prompt": "a", "messages": []}), "messages"),
            (json!({}), "prompt"),
        ] {
            assert_eq!(parse(more).unwrap_err().param.as_deref(), Some(param));
        }
        assert_eq!(parse(json!({"prompt": "a", "logprobs": 3})).unwrap().logprobs, Some(3));
    }
}
