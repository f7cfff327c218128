//! Fields that both sorts of completion have: how tokens are drawn, and how many.

use serde_json::json;
use specexit_engine::Sampling;

use super::fields::Fields;
use crate::error::{ApiError, Result};

/// Answers to one request at most.
const MOST_CHOICES: usize = 16;
/// Stop strings of a request at most.
const MOST_STOPS: usize = 16;

/// What is common to all requests.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Common {
    /// How tokens are drawn; the seed of the first choice.
    pub(crate) sampling: Sampling,
    /// The same request is to draw the same tokens again.
    pub(crate) seeded: bool,
    /// Choices.
    pub(crate) n: usize,
    /// Strings that end the answer.
    pub(crate) stop: Vec<String>,
    /// Most tokens, thought and answer together.
    pub(crate) max_tokens: Option<usize>,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
}

impl Common {
    pub(crate) fn read(fields: &mut Fields) -> Result<Self> {
        let n = fields.take("n")?.unwrap_or(1);
        if !(1..=MOST_CHOICES).contains(&n) {
            return Err(ApiError::field(
                "n",
                format!("n is {n}; it must lie between 1 and {MOST_CHOICES}"),
            ));
        }
        fields.neutral("best_of", &[json!(1), json!(n)])?;
        fields.neutral("presence_penalty", &[json!(0), json!(0.0)])?;
        fields.neutral("frequency_penalty", &[json!(0), json!(0.0)])?;
        fields.neutral("repetition_penalty", &[json!(1), json!(1.0)])?;
        fields.neutral("logit_bias", &[json!({})])?;
        fields.neutral("store", &[json!(false)])?;
        fields.neutral("service_tier", &[json!("auto"), json!("default")])?;
        // Names of callers: they change no answer.
        for name in ["user", "safety_identifier", "prompt_cache_key"] {
            let _: Option<String> = fields.take(name)?;
        }
        let _: Option<serde_json::Map<String, serde_json::Value>> = fields.take("metadata")?;
        let (stream, include_usage) = stream(fields)?;
        let seed: Option<i64> = fields.take("seed")?;
        // Without one each request draws differently.
        let first = seed.map_or_else(fresh_seed, i64::cast_unsigned);
        Ok(Self {
            sampling: sampling(fields, first)?,
            seeded: seed.is_some(),
            n,
            stop: stops(fields)?,
            max_tokens: max_tokens(fields)?,
            stream,
            include_usage,
        })
    }
}

fn stream(fields: &mut Fields) -> Result<(bool, bool)> {
    let stream = fields.take("stream")?.unwrap_or(false);
    let Some(options) = fields.take("stream_options")? else { return Ok((stream, false)) };
    if !stream {
        let message = "stream_options is only of use with stream: true";
        return Err(ApiError::field("stream_options", message));
    }
    let mut options = Fields::inner("stream_options", options)?;
    let read = |options: &mut Fields| {
        options.neutral("continuous_usage_stats", &[json!(false)])?;
        options.neutral("include_obfuscation", &[json!(false)])?;
        options.take("include_usage")
    };
    let usage = read(&mut options).and_then(|usage| options.finish().map(|()| usage));
    let usage = usage.map_err(|error| error.inside("stream_options"))?;
    Ok((stream, usage.unwrap_or(false)))
}

fn sampling(fields: &mut Fields, seed: u64) -> Result<Sampling> {
    let top_k: Option<i64> = fields.take("top_k")?;
    if top_k.is_some_and(|k| k < -1) {
        return Err(ApiError::field(
            "top_k",
            "top_k must be at least 1, or 0 or -1 for all tokens",
        ));
    }
    let sampling = Sampling {
        temperature: fields.take("temperature")?.unwrap_or(1.0),
        top_p: fields.take("top_p")?.unwrap_or(1.0),
        top_k: top_k.and_then(|k| usize::try_from(k).ok()).unwrap_or(0),
        min_p: fields.take("min_p")?.unwrap_or(0.0),
        seed,
    };
    let alone = Sampling::greedy();
    for (name, of) in [
        ("temperature", Sampling { temperature: sampling.temperature, ..alone }),
        ("top_p", Sampling { top_p: sampling.top_p, ..alone }),
        ("min_p", Sampling { min_p: sampling.min_p, ..alone }),
    ] {
        of.validate().map_err(|error| ApiError::field(name, error.to_string()))?;
    }
    Ok(sampling)
}

fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

fn stops(fields: &mut Fields) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Stop {
        One(String),
        Many(Vec<String>),
    }
    let stops = match fields.take("stop")? {
        None => Vec::new(),
        Some(Stop::One(stop)) => vec![stop],
        Some(Stop::Many(stops)) => stops,
    };
    if stops.len() > MOST_STOPS {
        let message = format!("stop has {} strings; {MOST_STOPS} are allowed", stops.len());
        return Err(ApiError::field("stop", message));
    }
    if stops.iter().any(String::is_empty) {
        return Err(ApiError::field(
            "stop",
            "stop holds an empty string, which would end every answer",
        ));
    }
    Ok(stops)
}

fn max_tokens(fields: &mut Fields) -> Result<Option<usize>> {
    let old: Option<usize> = fields.take("max_tokens")?;
    let new: Option<usize> = fields.take("max_completion_tokens")?;
    if let (Some(old), Some(new)) = (old, new)
        && old != new
    {
        let message =
            format!("max_completion_tokens is {new} and max_tokens {old}; give one of them");
        return Err(ApiError::field("max_completion_tokens", message));
    }
    match new.or(old) {
        Some(0) => {
            Err(ApiError::field("max_tokens", "max_tokens is 0; ask for at least one token"))
        }
        limit => Ok(limit),
    }
}
