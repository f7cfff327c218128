//! Answers given at once.

use serde_json::{Value, json};

use crate::app::{App, Plan};
use crate::error::{ApiError, Result};
use crate::handle::Answers;
use crate::reply::{
    Message, Usage, chat_logprobs, completion_logprobs, outcome, trace_signals, trace_tokens,
};
use crate::routes::Form;
use crate::worker::{Delta, Done, Token, Update};

/// One choice as it grows.
#[derive(Default)]
struct Choice {
    message: Message,
    reasoning: String,
    content: String,
    /// Everything, markers and all.
    text: String,
    tokens: Vec<Token>,
    signals: Vec<Value>,
    done: Option<Box<Done>>,
}

/// Waits for all choices.
pub(crate) async fn answer(
    app: &App,
    plan: &Plan,
    mut answers: Answers,
    count: usize,
    form: Form,
) -> Result<Value> {
    let mut choices: Vec<Choice> = (0..count).map(|_| Choice::default()).collect();
    while let Some((place, update)) = answers.next().await {
        let Some(choice) = choices.get_mut(place) else { continue };
        match update {
            Update::Delta(delta) => choice.add(delta),
            Update::Done(done) => choice.done = Some(done),
            Update::Failed(message) => return Err(ApiError::failed(message)),
        }
    }
    let mut usage = Usage::of_prompt(plan.prompt);
    choices.iter().filter_map(|choice| choice.done.as_deref()).for_each(|done| usage.add(done));
    let one = match &choices[..] {
        [choice] => Some(choice.specexit(plan)),
        _ => None,
    };
    let listed = choices.iter().enumerate();
    let listed: Vec<Value> = listed.map(|(i, choice)| choice.json(app, plan, i, form)).collect();
    let object = match form {
        Form::Chat => "chat.completion",
        Form::Completion => "text_completion",
    };
    let mut whole = json!({
        "id": plan.id,
        "object": object,
        "created": plan.created,
        "model": app.name,
        "choices": listed,
        "usage": usage.json(),
    });
    if let Some(specexit) = one {
        whole["specexit"] = specexit;
    }
    Ok(whole)
}

impl Choice {
    fn add(&mut self, delta: Delta) {
        let said = self.message.push(&delta.segments);
        self.reasoning.push_str(&said.reasoning);
        self.content.push_str(&said.content);
        delta.segments.iter().for_each(|segment| self.text.push_str(&segment.text));
        self.tokens.extend(delta.tokens);
        if let Some((first, signals)) = delta.signals
            && let Value::Array(signals) = trace_signals(first, &signals)
        {
            self.signals.extend(signals);
        }
    }

    fn specexit(&self, plan: &Plan) -> Value {
        let mut specexit =
            self.done.as_deref().map_or(Value::Null, |done| outcome(&plan.mode, done));
        if plan.trace {
            specexit["tokens"] = trace_tokens(&self.tokens);
            specexit["signals"] = self.signals.clone().into();
        }
        specexit
    }

    fn json(&self, app: &App, plan: &Plan, index: usize, form: Form) -> Value {
        let finish = self.done.as_deref().map(Done::finish_reason);
        let logprobs = match (plan.logprobs, form) {
            (false, _) => Value::Null,
            (true, Form::Chat) => chat_logprobs(&app.spelling, &self.tokens),
            (true, Form::Completion) => completion_logprobs(&app.spelling, &self.tokens, 0),
        };
        let reasoning = (!self.reasoning.is_empty()).then_some(&self.reasoning);
        let mut choice = match form {
            Form::Chat => json!({"index": index, "message": {
                "role": "assistant",
                "content": self.content,
                "reasoning_content": reasoning,
                "reasoning": reasoning,
                "refusal": null,
            }}),
            Form::Completion => json!({"index": index, "text": self.text}),
        };
        choice["logprobs"] = logprobs;
        choice["finish_reason"] = finish.into();
        choice["specexit"] = self.specexit(plan);
        choice
    }
}
