//! Answers given as they grow: server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::app::{App, Plan};
use crate::error::ApiError;
use crate::handle::Answers;
use crate::reply::{
    Message, Usage, chat_logprobs, completion_logprobs, outcome, trace_signals, trace_tokens,
};
use crate::routes::Form;
use crate::worker::{Delta, Update};

/// Quiet connections are cut by what lies between; a comment tells that somebody is there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The response to a streaming request.
pub(crate) fn response(
    app: Arc<App>,
    plan: Plan,
    answers: Answers,
    count: usize,
    form: Form,
) -> Response {
    let writer = Writer {
        usage: Usage::of_prompt(plan.prompt),
        choices: (0..count).map(|_| Told::default()).collect(),
        waiting: std::collections::VecDeque::new(),
        ended: false,
        app,
        plan,
        answers,
        form,
    };
    let events = futures_util::stream::unfold(writer, async |mut writer| {
        let event = writer.next().await?;
        Some((Ok::<_, Infallible>(event), writer))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Sse::new(events).keep_alive(keep_alive).into_response()
}

/// What has been told of a choice.
#[derive(Default)]
struct Told {
    message: Message,
    begun: bool,
    /// Characters of a completion.
    length: usize,
}

struct Writer {
    app: Arc<App>,
    plan: Plan,
    answers: Answers,
    form: Form,
    choices: Vec<Told>,
    usage: Usage,
    /// Chunks that are ready.
    waiting: std::collections::VecDeque<String>,
    ended: bool,
}

impl Writer {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(data) = self.waiting.pop_front() {
                return Some(Event::default().data(data));
            }
            if self.ended {
                return None;
            }
            match self.answers.next().await {
                Some((place, Update::Delta(delta))) => self.delta(place, delta),
                Some((place, Update::Done(done))) => {
                    self.usage.add(&done);
                    let specexit = outcome(&self.plan.mode, &done);
                    let finish = done.finish_reason();
                    self.chunk(place, json!({}), Value::Null, Some(finish), Some(specexit));
                }
                Some((_, Update::Failed(message))) => {
                    self.waiting.push_back(ApiError::failed(message).body().to_string());
                    self.ended = true;
                }
                None => {
                    if self.plan.include_usage {
                        let mut chunk = self.frame();
                        chunk["choices"] = json!([]);
                        chunk["usage"] = self.usage.json();
                        self.waiting.push_back(chunk.to_string());
                    }
                    self.waiting.push_back("[DONE]".to_owned());
                    self.ended = true;
                }
            }
        }
    }

    fn delta(&mut self, place: usize, delta: Delta) {
        let Some(told) = self.choices.get_mut(place) else { return };
        let said = told.message.push(&delta.segments);
        let mut fields = serde_json::Map::new();
        if self.form == Form::Chat {
            if !told.begun {
                fields.insert("role".to_owned(), "assistant".into());
            }
            if !said.reasoning.is_empty() {
                fields.insert("reasoning_content".to_owned(), said.reasoning.clone().into());
                fields.insert("reasoning".to_owned(), said.reasoning.into());
            }
            if !said.content.is_empty() || !told.begun {
                fields.insert("content".to_owned(), said.content.into());
            }
        } else {
            let text: String = delta.segments.iter().map(|segment| segment.text.as_str()).collect();
            if !text.is_empty() {
                fields.insert("text".to_owned(), text.into());
            }
        }
        told.begun = true;
        let logprobs = match (self.plan.logprobs && !delta.tokens.is_empty(), self.form) {
            (false, _) => Value::Null,
            (true, Form::Chat) => chat_logprobs(&self.app.spelling, &delta.tokens),
            (true, Form::Completion) => {
                let at = told.length;
                told.length += delta.tokens.iter().map(|t| t.text.chars().count()).sum::<usize>();
                completion_logprobs(&self.app.spelling, &delta.tokens, at)
            }
        };
        let specexit = self.plan.trace.then(|| {
            let (first, signals) = delta.signals.unwrap_or_default();
            json!({"tokens": trace_tokens(&delta.tokens), "signals": trace_signals(first, &signals)})
        });
        if !fields.is_empty() || !logprobs.is_null() || specexit.is_some() {
            self.chunk(place, Value::Object(fields), logprobs, None, specexit);
        }
    }

    /// What all chunks have.
    fn frame(&self) -> Value {
        let object = match self.form {
            Form::Chat => "chat.completion.chunk",
            Form::Completion => "text_completion",
        };
        json!({"id": self.plan.id, "object": object, "created": self.plan.created, "model": self.app.name})
    }

    fn chunk(
        &mut self,
        place: usize,
        delta: Value,
        logprobs: Value,
        finish: Option<&str>,
        specexit: Option<Value>,
    ) {
        let mut choice = match (self.form, delta) {
            (Form::Chat, delta) => json!({"index": place, "delta": delta}),
            (Form::Completion, delta) => {
                json!({"index": place, "text": delta["text"].as_str().unwrap_or_default()})
            }
        };
        choice["logprobs"] = logprobs;
        choice["finish_reason"] = finish.into();
        let mut chunk = self.frame();
        chunk["choices"] = json!([choice]);
        if self.plan.include_usage {
            chunk["usage"] = Value::Null;
        }
        if let Some(specexit) = specexit {
            chunk["specexit"] = specexit;
        }
        self.waiting.push_back(chunk.to_string());
    }
}
