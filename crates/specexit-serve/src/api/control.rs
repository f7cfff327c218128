//! Fields about thinking: the `specexit` object, and the names that other servers use for budgets.

use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use specexit_engine::MAX_DRAFT_TOKENS;
use specexit_exit::{Loops, Profile, Stall};

use super::fields::Fields;
use crate::error::{ApiError, Result};
use crate::exits::Control;

/// How much thinking a request wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Budget {
    /// As much as the output has room for.
    #[default]
    Unlimited,
    /// So many thinking tokens.
    Tokens(usize),
    /// A share of the request's tokens: one of so many parts.
    Part(usize),
}

impl Budget {
    /// `thinking_token_budget` and `reasoning_effort`, of which one at most.
    pub(crate) fn read(fields: &mut Fields) -> Result<Self> {
        let tokens: Option<usize> = fields.take("thinking_token_budget")?;
        let effort: Option<String> = fields.take("reasoning_effort")?;
        match (tokens, effort.as_deref()) {
            (Some(_), Some(_)) => Err(ApiError::field(
                "reasoning_effort",
                "reasoning_effort and thinking_token_budget both bound the thinking; give one of them",
            )),
            (Some(tokens), None) => Ok(Self::Tokens(tokens)),
            (None, None | Some("high" | "xhigh")) => Ok(Self::Unlimited),
            (None, Some("medium")) => Ok(Self::Part(2)),
            (None, Some("low")) => Ok(Self::Part(4)),
            (None, Some("minimal")) => Ok(Self::Part(16)),
            (None, Some("none")) => Ok(Self::Tokens(0)),
            (None, Some(other)) => Err(ApiError::field(
                "reasoning_effort",
                format!(
                    "reasoning_effort is {other}; it can be none, minimal, low, medium, high or xhigh"
                ),
            )),
        }
    }

    /// Thinking tokens at most in an output of at most `max_tokens`.
    pub(crate) fn tokens(self, max_tokens: usize) -> Option<usize> {
        match self {
            Self::Unlimited => None,
            Self::Tokens(tokens) => Some(tokens),
            Self::Part(of) => Some(max_tokens / of),
        }
    }
}

impl Control {
    /// The `specexit` object of a request; all of it may be absent.
    pub(crate) fn read(fields: &mut Fields) -> Result<Self> {
        match fields.take("specexit")? {
            None => Ok(Self::default()),
            Some(value) => {
                let mut inner = Fields::inner("specexit", value)?;
                let control = Self::read_inner(&mut inner);
                let control = control.and_then(|control| inner.finish().map(|()| control));
                control.map_err(|error| error.inside("specexit"))
            }
        }
    }

    fn read_inner(fields: &mut Fields) -> Result<Self> {
        let mut thresholds: Map<String, Value> = fields.take("thresholds")?.unwrap_or_default();
        let mut limit = |name: &str| -> Result<Option<Option<f32>>> {
            match thresholds.shift_remove(name) {
                None => Ok(None),
                Some(Value::Null) => Ok(Some(None)),
                Some(Value::String(off)) if off == "off" => Ok(Some(None)),
                Some(value) => match value.as_f64() {
                    Some(number) => Ok(Some(Some(number as f32))),
                    None => {
                        let message = format!(
                            "the threshold is {value}; it must be a number, or null for none"
                        );
                        Err(ApiError::field(format!("thresholds.{name}"), message))
                    }
                },
            }
        };
        let (confidence, progress, remaining) =
            (limit("confidence")?, limit("progress")?, limit("remaining")?);
        if let Some(name) = thresholds.keys().next() {
            let message = "a threshold is about confidence, progress or remaining";
            return Err(ApiError::field(format!("thresholds.{name}"), message));
        }
        let draft_tokens: Option<usize> = fields.take("draft_tokens")?;
        if let Some(bad) = draft_tokens.filter(|k| !(1..=MAX_DRAFT_TOKENS).contains(k)) {
            let message = format!(
                "draft_tokens is {bad}; a round drafts between 1 and {MAX_DRAFT_TOKENS} tokens"
            );
            return Err(ApiError::field("draft_tokens", message));
        }
        let loops = switched::<Loops>(fields, "loops")?;
        let stall = switched::<Stall>(fields, "stall")?;
        let off = fields.take_if("mode", |mode| mode == "off");
        Ok(Self {
            off,
            mode: word(fields, "mode")?,
            profile: word::<Profile>(fields, "profile")?,
            risk: fields.take("risk")?,
            confidence,
            progress,
            remaining,
            min_thinking_tokens: fields.take("min_thinking_tokens")?,
            stall,
            loops,
            closing_text: fields.take("closing_text")?,
            draft_tokens,
            trace: fields.take("trace")?.unwrap_or(false),
        })
    }
}

/// A rule, or `off`.
fn switched<T: DeserializeOwned>(fields: &mut Fields, name: &str) -> Result<Option<Option<T>>> {
    if fields.take_if(name, |value| value == "off") {
        return Ok(Some(None));
    }
    Ok(fields.take(name)?.map(Some))
}

fn word<T: FromStr<Err: std::fmt::Display>>(fields: &mut Fields, name: &str) -> Result<Option<T>> {
    let text: Option<String> = fields.take(name)?;
    text.map(|text| text.parse().map_err(|e: T::Err| ApiError::field(name, e.to_string())))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use specexit_engine::Method;

    fn read(value: Value) -> Result<Control> {
        let body = json!({"specexit": value}).to_string();
        let mut fields = Fields::parse(body.as_bytes()).unwrap();
        let control = Control::read(&mut fields)?;
        fields.finish().map(|()| control)
    }

    #[test]
    fn every_field_arrives() {
        let control = read(json!({
            "mode": "specexit", "profile": "paper", "thresholds": {"confidence": 0.9, "progress": null},
            "min_thinking_tokens": 7, "closing_text": "So:", "trace": true, "draft_tokens": 3,
            "loops": {"cycle": 40, "repeats": 4}, "stall": {"tokens": 300, "gain": 0.01},
        }))
        .unwrap();
        assert_eq!(control.mode, Some(Method::SpecExit));
        assert_eq!(control.profile, Some(Profile::Paper));
        assert_eq!(
            (control.confidence, control.progress, control.remaining),
            (Some(Some(0.9)), Some(None), None)
        );
        assert_eq!((control.min_thinking_tokens, control.draft_tokens), (Some(7), Some(3)));
        assert!(control.trace && control.loops.is_some() && control.stall.is_some());
        assert!(read(json!({"mode": "off"})).unwrap().off);
        assert_eq!(read(json!({"loops": "off"})).unwrap().loops, Some(None));
        assert_eq!(read(json!({})).unwrap(), Control::default());
    }

    #[test]
    fn what_is_wrong_is_named_where_it_stands() {
        for (value, param) in [
            (json!({"mod": "plain"}), "specexit.mod"),
            (json!({"mode": "fast"}), "specexit.mode"),
            (json!({"profile": "own"}), "specexit.profile"),
            (json!({"risk": "low"}), "specexit.risk"),
            (json!({"thresholds": {"entropy": 1}}), "specexit.thresholds.entropy"),
            (json!({"thresholds": {"progress": "high"}}), "specexit.thresholds.progress"),
            (json!({"loops": {"cycles": 1}}), "specexit.loops"),
            (json!(3), "specexit"),
        ] {
            let error = read(value.clone()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{value}: {}", error.message);
        }
    }

    #[test]
    fn budgets_by_either_name() {
        let read =
            |value: Value| Budget::read(&mut Fields::parse(value.to_string().as_bytes()).unwrap());
        assert_eq!(read(json!({"thinking_token_budget": 90})).unwrap().tokens(400), Some(90));
        assert_eq!(read(json!({"reasoning_effort": "low"})).unwrap().tokens(400), Some(100));
        assert_eq!(read(json!({"reasoning_effort": "none"})).unwrap().tokens(400), Some(0));
        assert_eq!(read(json!({"reasoning_effort": "high"})).unwrap().tokens(400), None);
        assert_eq!(read(json!({})).unwrap(), Budget::Unlimited);
        for wrong in [
            json!({"reasoning_effort": "low", "thinking_token_budget": 3}),
            json!({"reasoning_effort": "much"}),
            json!({"thinking_token_budget": -1}),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
