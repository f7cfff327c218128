//! Answers as clients read them.

use serde_json::{Value, json};
use specexit_engine::{Exit, Signals};

use crate::reader::Spelling;
use crate::worker::{Done, Token};
use specexit_exit::text::{Part, Segment};

/// What stands for the log probability of a token that was forced, as in OpenAI's documents for what is
/// too unlikely to say.
const FORCED: f32 = -9999.0;

/// Thought and answer of a message, without the newlines next to the markers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    /// Newlines that end the thought so far; they are told only if more of it comes.
    open: usize,
    /// Something of the thought has been told.
    thought: bool,
    /// Something of the answer has been told, or there never was a thought.
    answer: bool,
    /// A marker has been passed.
    marked: bool,
}

/// What comes to thought and answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) reasoning: String,
    pub(crate) content: String,
}

impl Message {
    /// Takes text in order.
    pub(crate) fn push(&mut self, segments: &[Segment]) -> Said {
        let mut said = Said::default();
        for Segment { part, text } in segments {
            match part {
                Part::Marker => {
                    self.marked = true;
                    self.open = 0;
                }
                Part::Thought => {
                    let text = if self.thought { text } else { text.trim_start_matches('\n') };
                    let kept = text.trim_end_matches('\n');
                    if !kept.is_empty() {
                        said.reasoning.extend(std::iter::repeat_n('\n', self.open));
                        said.reasoning.push_str(kept);
                        (self.thought, self.open) = (true, 0);
                    }
                    self.open += text.len() - kept.len();
                }
                Part::Before | Part::Answer => {
                    let behind = self.marked && !self.answer;
                    let text = if behind { text.trim_start_matches('\n') } else { text };
                    self.answer |= !text.is_empty();
                    said.content.push_str(text);
                }
            }
        }
        said
    }
}

/// How the thought went, for the `specexit` object.
pub(crate) fn outcome(mode: &str, done: &Done) -> Value {
    let output = &done.output;
    let exit = output.exit.map(|Exit { reason, token_index, signals }| {
        let Value::Object(mut exit) = values(&signals) else { return Value::Null };
        exit.insert("reason".to_owned(), reason.to_string().into());
        exit.insert("token_index".to_owned(), token_index.into());
        Value::Object(exit)
    });
    let depth = output.drafted as f64 / output.rounds.max(1) as f64;
    json!({
        "mode": mode,
        "exit": exit,
        "thinking_tokens": done.thinking_tokens(),
        "tau": output.tau(),
        "rounds": output.rounds,
        "draft_depth": depth,
    })
}

fn values(signals: &Signals) -> Value {
    json!({
        "confidence": number(signals.confidence),
        "progress": number(signals.progress),
        "remaining": number(signals.remaining),
    })
}

/// JSON has no number for what is missing.
fn number(value: f32) -> Value {
    if value.is_finite() { value.into() } else { Value::Null }
}

/// Tokens for a trace.
pub(crate) fn trace_tokens(tokens: &[Token]) -> Value {
    let token = |token: &Token| {
        let phase = match token.part {
            Part::Thought => "thinking",
            Part::Marker => "marker",
            Part::Before | Part::Answer => "answer",
        };
        json!({"index": token.index, "text": token.text, "phase": phase})
    };
    tokens.iter().map(token).collect()
}

/// Signals for a trace, of the token `first` and those behind it; where there is nothing to say of one, it is
/// left out.
pub(crate) fn trace_signals(first: usize, signals: &[Signals]) -> Value {
    let known =
        |s: &Signals| s.confidence.is_finite() || s.progress.is_finite() || s.remaining.is_finite();
    let at = |(offset, s): (usize, &Signals)| {
        let Value::Object(mut values) = values(s) else { return Value::Null };
        values.insert("index".to_owned(), (first + offset).into());
        Value::Object(values)
    };
    signals.iter().enumerate().filter(|(_, s)| known(s)).map(at).collect()
}

/// Log probabilities of a chat's tokens, thought and markers apart from the answer.
pub(crate) fn chat_logprobs(spelling: &Spelling, tokens: &[Token]) -> Value {
    let bytes = |id| spelling.bytes(id);
    let text = |id| String::from_utf8_lossy(bytes(id)).into_owned();
    let entry = |token: &Token| {
        let top: Vec<Value> = token
            .top
            .iter()
            .map(|&(id, p)| json!({"token": text(id), "logprob": p, "bytes": bytes(id)}))
            .collect();
        json!({
            "token": text(token.id),
            "logprob": logprob(token),
            "bytes": bytes(token.id),
            "top_logprobs": top,
        })
    };
    let of = |answer: bool| -> Vec<Value> {
        tokens.iter().filter(|t| (t.part == Part::Answer) == answer).map(entry).collect()
    };
    json!({"content": of(true), "reasoning_content": of(false), "refusal": null})
}

/// Log probabilities of a completion's tokens; `offset` is where the first stands in the text.
pub(crate) fn completion_logprobs(
    spelling: &Spelling,
    tokens: &[Token],
    mut offset: usize,
) -> Value {
    let text = |id| String::from_utf8_lossy(spelling.bytes(id)).into_owned();
    let (mut texts, mut logprobs, mut tops, mut offsets) = (vec![], vec![], vec![], vec![]);
    for token in tokens {
        texts.push(text(token.id));
        logprobs.push(logprob(token));
        let top = token.top.iter().map(|&(id, p)| (text(id), json!(p)));
        tops.push(Value::Object(top.collect()));
        offsets.push(offset);
        offset += token.text.chars().count();
    }
    json!({"tokens": texts, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": offsets})
}

fn logprob(token: &Token) -> f32 {
    token.logprob.filter(|p| p.is_finite()).unwrap_or(FORCED)
}

/// Tokens of a whole request, all its choices together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    prompt: usize,
    cached: usize,
    completion: usize,
    reasoning: usize,
}

impl Usage {
    pub(crate) fn of_prompt(prompt: usize) -> Self {
        Self { prompt, ..Self::default() }
    }

    pub(crate) fn add(&mut self, done: &Done) {
        self.cached = self.cached.max(done.output.prefix_tokens);
        self.completion += done.tokens;
        self.reasoning += done.thinking_tokens();
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
            // Where some servers and their clients have it.
            "reasoning_tokens": self.reasoning,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pieces: &[(Part, &str)]) -> (String, String) {
        let mut message = Message::default();
        let (mut reasoning, mut content) = (String::new(), String::new());
        for &(part, text) in pieces {
            let said = message.push(&[Segment { part, text: text.to_owned() }]);
            reasoning.push_str(&said.reasoning);
            content.push_str(&said.content);
        }
        (reasoning, content)
    }

    #[test]
    fn newlines_next_to_markers_belong_to_nobody() {
        use Part::{Answer, Marker, Thought};
        let pieces = [
            (Thought, "\n"),
            (Thought, "\na\n"),
            (Thought, "\nb\n\n"),
            (Marker, "</think>"),
            (Answer, "\n"),
            (Answer, "\nc\n"),
        ];
        assert_eq!(said(&pieces), ("a\n\nb".to_owned(), "c\n".to_owned()));
        assert_eq!(said(&[(Answer, "\nplain")]), (String::new(), "\nplain".to_owned()));
        assert_eq!(said(&[(Marker, "<think>"), (Thought, "a\n")]), ("a".to_owned(), String::new()));
    }
}
