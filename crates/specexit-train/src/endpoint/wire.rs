//! The completions API as vLLM, SGLang and llama-server speak it: what is sent, and what is read.

use serde::Serialize;
use serde_json::Value;
use specexit_engine::{Sampling, TokenId};

/// What is continued.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Prompt<'a> {
    Ids(&'a [TokenId]),
    Text(&'a str),
}

/// Body of a request to `/completions`.
///
/// Every sampling option is always sent: servers put their own in place of those left out, often from
/// the model's `generation_config.json`. Options that only one server knows are ignored by the others.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Body<'a> {
    model: &'a str,
    prompt: Prompt<'a>,
    max_tokens: usize,
    temperature: f32,
    top_p: f32,
    /// −1 keeps all: the one spelling that all three servers know.
    top_k: i64,
    min_p: f32,
    /// llama-server takes 32 bits, others a signed number.
    seed: u32,
    presence_penalty: f32,
    frequency_penalty: f32,
    repetition_penalty: f32,
    /// llama-server's name for the same.
    repeat_penalty: f32,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<Vec<&'a str>>,
    include_stop_str_in_output: bool,
    /// SGLang's name for the same.
    no_stop_trim: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    echo: Option<bool>,
    /// vLLM and SGLang.
    return_token_ids: bool,
    /// Older vLLM: ids in place of texts beside the log probabilities.
    return_tokens_as_token_ids: bool,
    /// llama-server.
    return_tokens: bool,
    add_special_tokens: bool,
    skip_special_tokens: bool,
    spaces_between_special_tokens: bool,
}

impl<'a> Body<'a> {
    pub(super) fn new(
        model: &'a str,
        prompt: Prompt<'a>,
        max_tokens: usize,
        sampling: &Sampling,
    ) -> Self {
        Self {
            model,
            prompt,
            max_tokens,
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: if sampling.top_k == 0 { -1 } else { sampling.top_k as i64 },
            min_p: sampling.min_p,
            seed: (sampling.seed & 0x7fff_ffff) as u32,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            repeat_penalty: 1.0,
            stream: false,
            stop: None,
            include_stop_str_in_output: true,
            no_stop_trim: true,
            logprobs: None,
            echo: None,
            return_token_ids: true,
            return_tokens_as_token_ids: true,
            return_tokens: true,
            add_special_tokens: false,
            skip_special_tokens: false,
            spaces_between_special_tokens: false,
        }
    }

    /// End behind this text.
    pub(super) fn stop(mut self, text: &'a str) -> Self {
        self.stop = Some(vec![text]);
        self
    }

    /// With the log probability of each token.
    pub(super) fn logprobs(mut self) -> Self {
        self.logprobs = Some(1);
        self
    }

    /// With the prompt before the output, and its log probabilities.
    pub(super) fn echo(mut self) -> Self {
        self.echo = Some(true);
        self.logprobs()
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        // Strings and numbers always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Where a reply has its token ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdPlace {
    /// In a list of their own.
    Field,
    /// Beside the log probabilities, which must be asked for.
    Logprobs,
}

/// Why the server ended an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Stop,
    Length,
}

/// What is read of a completion; absent fields are those that a server may leave out.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) text: String,
    pub(super) ids: Option<(IdPlace, Vec<TokenId>)>,
    /// NaN where there is none.
    pub(super) logprobs: Option<Vec<f32>>,
    pub(super) ended: Ended,
    /// The token that ended the output, where the server names it.
    pub(super) stop_token: Option<u64>,
    pub(super) prompt_ids: Option<Vec<u64>>,
    pub(super) prompt_tokens: Option<u64>,
    pub(super) completion_tokens: Option<u64>,
}

impl Reply {
    /// Reads a reply; what is wrong with it otherwise, as the end of a sentence.
    pub(super) fn read(reply: &Value) -> Result<Self, String> {
        let choice = reply.pointer("/choices/0").ok_or("has no choices")?;
        let ended = match choice.get("finish_reason").and_then(Value::as_str) {
            Some("stop") => Ended::Stop,
            Some("length") => Ended::Length,
            other => return Err(format!("ended for the reason {}", other.unwrap_or("null"))),
        };
        let logprobs = choice.get("logprobs").filter(|l| !l.is_null());
        let usage = |field: &str| reply.pointer(field).and_then(Value::as_u64);
        let token = |field: &str| choice.get(field).and_then(Value::as_u64);
        Ok(Self {
            text: choice.get("text").and_then(Value::as_str).unwrap_or_default().to_owned(),
            ids: token_ids(reply, choice, logprobs)?,
            logprobs: logprobs.and_then(read_logprobs),
            ended,
            stop_token: token("stop_reason").or_else(|| token("matched_stop")),
            prompt_ids: choice.get("prompt_token_ids").and_then(numbers),
            prompt_tokens: usage("/usage/prompt_tokens"),
            completion_tokens: usage("/usage/completion_tokens"),
        })
    }

    /// Whether the end-of-sequence token was all there was, and the server took it out.
    pub(super) fn only_stopped(&self) -> bool {
        let counted = self.completion_tokens.is_some_and(|count| count > 0);
        self.ended == Ended::Stop && (counted || self.stop_token.is_some())
    }
}

fn numbers(list: &Value) -> Option<Vec<u64>> {
    list.as_array()?.iter().map(Value::as_u64).collect()
}

fn token_ids(
    reply: &Value,
    choice: &Value,
    logprobs: Option<&Value>,
) -> Result<Option<(IdPlace, Vec<TokenId>)>, String> {
    let field = [choice.get("token_ids"), reply.pointer("/__verbose/tokens")];
    let (place, ids) = match field.into_iter().flatten().find(|list| list.is_array()) {
        Some(list) => (IdPlace::Field, numbers(list).ok_or("has token ids that are no numbers")?),
        None => match logprobs.and_then(ids_of_logprobs) {
            Some(ids) => (IdPlace::Logprobs, ids),
            None => return Ok(None),
        },
    };
    let ids = ids.into_iter().map(TokenId::try_from).collect::<Result<_, _>>();
    Ok(Some((place, ids.map_err(|_| "has a token id beyond every vocabulary")?)))
}

/// llama-server gives each token's id beside its log probability; vLLM writes `token_id:17`.
fn ids_of_logprobs(logprobs: &Value) -> Option<Vec<u64>> {
    if let Some(content) = logprobs.get("content").and_then(Value::as_array) {
        return content.iter().map(|token| token.get("id")?.as_u64()).collect();
    }
    let tokens = logprobs.get("tokens")?.as_array()?;
    tokens.iter().map(|token| token.as_str()?.strip_prefix("token_id:")?.parse().ok()).collect()
}

fn read_logprobs(logprobs: &Value) -> Option<Vec<f32>> {
    let number =
        |value: Option<&Value>| value.and_then(Value::as_f64).map_or(f32::NAN, |p| p as f32);
    if let Some(content) = logprobs.get("content").and_then(Value::as_array) {
        return Some(content.iter().map(|token| number(token.get("logprob"))).collect());
    }
    let list = logprobs.get("token_logprobs")?.as_array()?;
    Some(list.iter().map(|value| number(Some(value))).collect())
}

/// A model that a server lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) names: Vec<String>,
    /// Most tokens, where the server says.
    pub(super) context: Option<usize>,
}

/// The models of a reply to `/models`.
pub(super) fn models(reply: &Value) -> Option<Vec<Listed>> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let list = reply.get("data")?.as_array()?;
    let models = list.iter().map(|model| {
        let aliases = model.get("aliases").and_then(Value::as_array).into_iter().flatten();
        let names = model.get("id").into_iter().chain(aliases).filter_map(text).collect();
        let context = ["/max_model_len", "/meta/n_ctx"];
        let context = context.into_iter().find_map(|at| model.pointer(at)?.as_u64());
        Listed { names, context: context.and_then(|n| usize::try_from(n).ok()) }
    });
    Some(models.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(choice: Value) -> Result<Reply, String> {
        Reply::read(&json!({"choices": [choice], "usage": {"completion_tokens": 2}}))
    }

    #[test]
    fn ids_are_found_where_each_server_has_them() {
        let logprobs = json!({"token_logprobs": [-0.5, null], "tokens": ["a", "b"]});
        let vllm = json!({"text": "ab", "finish_reason": "stop", "stop_reason": 7,
            "token_ids": [5, 7], "prompt_token_ids": [1], "logprobs": logprobs});
        let reply = read(vllm).unwrap();
        assert_eq!(reply.ids, Some((IdPlace::Field, vec![5, 7])));
        assert_eq!((reply.stop_token, reply.prompt_ids), (Some(7), Some(vec![1])));
        let logprobs = reply.logprobs.unwrap();
        assert!(logprobs[0] == -0.5 && logprobs[1].is_nan());

        let old = json!({"finish_reason": "length", "logprobs":
            {"token_logprobs": [-1, -2], "tokens": ["token_id:3", "token_id:4"]}});
        assert_eq!(read(old).unwrap().ids, Some((IdPlace::Logprobs, vec![3, 4])));

        let llama = json!({"finish_reason": "stop", "logprobs":
            {"content": [{"id": 9, "logprob": -0.25}]}});
        let reply = read(llama).unwrap();
        assert_eq!(reply.ids, Some((IdPlace::Logprobs, vec![9])));
        assert_eq!(reply.logprobs, Some(vec![-0.25]));

        let bare = json!({"text": "ab", "finish_reason": "stop", "logprobs": null});
        assert_eq!(read(bare).unwrap().ids, None);
    }

    #[test]
    fn what_is_no_completion_is_said() {
        assert_eq!(Reply::read(&json!({})).unwrap_err(), "has no choices");
        let error = read(json!({"finish_reason": "abort"})).unwrap_err();
        assert_eq!(error, "ended for the reason abort");
        let error = read(json!({"finish_reason": "stop", "token_ids": ["a"]})).unwrap_err();
        assert_eq!(error, "has token ids that are no numbers");
        let error = read(json!({"finish_reason": "stop", "token_ids": [1u64 << 40]})).unwrap_err();
        assert_eq!(error, "has a token id beyond every vocabulary");
    }

    #[test]
    fn numbers_are_sent_as_they_were_typed() {
        let sampling = Sampling { temperature: 0.7, seed: u64::MAX, ..Sampling::greedy() };
        let body = Body::new("m", Prompt::Ids(&[1, 2]), 5, &sampling).bytes();
        let text = String::from_utf8(body).unwrap();
        assert!(text.contains("\"temperature\":0.7,\"top_p\":1.0,\"top_k\":-1"), "{text}");
        assert!(
            text.contains("\"seed\":2147483647") && text.contains("\"prompt\":[1,2]"),
            "{text}"
        );
        assert!(!text.contains("stop\":") && !text.contains("echo"), "{text}");
    }
}
