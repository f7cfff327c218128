//! What all requests share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use specexit_engine::{Method, Phase, Request, TokenId, phase_of_prompt};
use specexit_model::{ModelText, RenderOptions};

use crate::api::{Budget, Chat, Common, Completion, Prompt};
use crate::error::{ApiError, Result};
use crate::exits::{Control, Exits};
use crate::handle::Handle;
use crate::metrics::Metrics;
use crate::reader::Spelling;
use crate::worker::Job;

/// A served model.
pub(crate) struct App {
    /// What clients call it.
    pub(crate) name: String,
    pub(crate) model: ModelText,
    pub(crate) exits: Exits,
    pub(crate) spelling: Arc<Spelling>,
    pub(crate) handle: Handle,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) api_key: Option<String>,
    /// Tokens generated where a request names no limit.
    pub(crate) max_tokens: usize,
    /// Signals are compared with the calibration's.
    pub(crate) tells_drift: bool,
    /// How long the body of a request may take to come.
    pub(crate) body_timeout: Duration,
    /// Questions that the page offers.
    pub(crate) examples: Vec<String>,
    /// When the server began, in seconds since 1970; part of all ids.
    pub(crate) began: u64,
    pub(crate) next: AtomicU64,
}

/// A request, ready for the engine.
pub(crate) struct Plan {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) mode: String,
    pub(crate) prompt: usize,
    pub(crate) jobs: Vec<Job>,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) trace: bool,
    /// Log probabilities are asked for.
    pub(crate) logprobs: bool,
}

impl App {
    /// Seconds since 1970.
    pub(crate) fn now() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    /// What a chat asks the engine.
    pub(crate) fn chat(&self, chat: &Chat) -> Result<Plan> {
        self.is_served(chat.model.as_deref())?;
        let text = self.render(chat)?;
        let phase = phase_of_prompt(&text, &self.spelling.markers);
        // Templates write the start token themselves; without one the tokenizer adds it.
        let start = self.model.chat_template.is_none();
        let prompt = self.encode(&text, start, "messages")?;
        let asked = Asked {
            common: &chat.common,
            control: &chat.control,
            budget: chat.budget,
            logprobs: chat.logprobs,
        };
        self.plan("chatcmpl", prompt, phase, &asked)
    }

    /// What a completion asks the engine.
    pub(crate) fn completion(&self, completion: &Completion) -> Result<Plan> {
        self.is_served(completion.model.as_deref())?;
        let (prompt, phase) = match &completion.prompt {
            Prompt::Text(text) => {
                let phase = phase_of_prompt(text, &self.spelling.markers);
                (self.encode(text, true, "prompt")?, phase)
            }
            Prompt::Tokens(ids) => {
                let vocab = self.model.config.vocab_size;
                if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
                    let message =
                        format!("prompt holds token {id}, and the vocabulary ends before {vocab}");
                    return Err(ApiError::field("prompt", message));
                }
                let bytes: Vec<u8> =
                    ids.iter().flat_map(|id| self.spelling.bytes(*id)).copied().collect();
                let text = String::from_utf8_lossy(&bytes);
                (ids.clone(), phase_of_prompt(&text, &self.spelling.markers))
            }
        };
        let Completion { common, control, budget, logprobs, .. } = completion;
        let asked = Asked { common, control, budget: *budget, logprobs: *logprobs };
        self.plan("cmpl", prompt, phase, &asked)
    }

    fn is_served(&self, model: Option<&str>) -> Result<()> {
        match model {
            None => Ok(()),
            Some(name) if name == self.name => Ok(()),
            Some(name) => {
                let message = format!("there is no model {name} here, only {}", self.name);
                let error = ApiError::field("model", message).with_code("model_not_found");
                Err(ApiError { status: axum::http::StatusCode::NOT_FOUND, ..error })
            }
        }
    }

    fn render(&self, chat: &Chat) -> Result<String> {
        let Some(template) = &self.model.chat_template else {
            if chat.tools.is_some() {
                return Err(ApiError::field(
                    "tools",
                    "tools need a chat template, and the model has none",
                ));
            }
            if !chat.kwargs.is_empty() {
                let message = "chat_template_kwargs needs a chat template, and the model has none";
                return Err(ApiError::field("chat_template_kwargs", message));
            }
            let text = |message: &serde_json::Value| {
                format!("{}\n\n", message["content"].as_str().unwrap_or_default())
            };
            return Ok(chat.messages.iter().map(text).collect());
        };
        for name in chat.kwargs.keys() {
            if !template.source().contains(name.as_str()) {
                let message = format!(
                    "the model's chat template reads no {name}, so it would change nothing"
                );
                return Err(ApiError::field(format!("chat_template_kwargs.{name}"), message));
            }
        }
        if chat.tools.is_some() && !template.source().contains("tools") {
            let message = "the model's chat template has no place for tools";
            return Err(ApiError::field("tools", message));
        }
        let options = RenderOptions {
            add_generation_prompt: true,
            tools: chat.tools.clone(),
            extra: chat.kwargs.clone(),
            ..RenderOptions::default()
        };
        template
            .render_json(chat.messages.clone(), &options)
            .map_err(|error| ApiError::field("messages", error.to_string()))
    }

    fn encode(&self, text: &str, start: bool, field: &str) -> Result<Vec<TokenId>> {
        let ids = self.model.tokenizer.encode(text, start);
        ids.map_err(|error| ApiError::field(field, error.to_string()))
    }

    fn plan(
        &self,
        kind: &str,
        prompt: Vec<TokenId>,
        phase: Phase,
        asked: &Asked<'_>,
    ) -> Result<Plan> {
        let Asked { common, control, budget, logprobs } = *asked;
        let context = self.model.config.max_position_embeddings;
        let room = context.saturating_sub(prompt.len());
        let max_new_tokens = match common.max_tokens {
            None => room.min(self.max_tokens),
            Some(limit) if limit <= room || room == 0 => limit,
            Some(limit) => {
                let message = format!(
                    "max_tokens is {limit}, but the prompt has {} tokens and the model's context holds {context}, which \
                     leaves {room}",
                    prompt.len()
                );
                return Err(
                    ApiError::field("max_tokens", message).with_code("context_length_exceeded")
                );
            }
        };
        let mode = self.exits.mode(control)?;
        let policy = self.exits.policy(control, mode)?;
        let thinking_budget = budget.tokens(max_new_tokens);
        let loops = control.loops.unwrap_or(self.exits.loops);
        if control.closing_text.is_some()
            && policy.is_none()
            && thinking_budget.is_none()
            && loops.is_none()
        {
            let message =
                "closing_text does not apply: nothing in this request can close a thought";
            return Err(ApiError::field("specexit.closing_text", message));
        }
        if control.draft_tokens.is_some() && !mode.drafts() {
            let message = format!("draft_tokens does not apply to mode {mode}");
            return Err(ApiError::field("specexit.draft_tokens", message));
        }
        let request = Request {
            phase,
            method: mode,
            draft_tokens: control.draft_tokens.unwrap_or(self.exits.draft_tokens),
            // What is drawn depends on how much is drafted, and that on what else runs.
            adaptive: control.draft_tokens.is_none()
                && (common.sampling.is_greedy() || !common.seeded),
            sampling: common.sampling,
            policy,
            thinking_budget,
            loops,
            closing_text: control.closing_text.clone().or_else(|| self.exits.closing_text.clone()),
            record_logprobs: logprobs.is_some(),
            top_logprobs: logprobs.unwrap_or(0),
            record_signals: self.exits.modes.contains(&Method::SpecExit)
                && (control.trace || self.tells_drift),
            ..Request::new(prompt, max_new_tokens)
        };
        let job = |choice: usize| {
            let mut request = request.clone();
            request.sampling.seed = request.sampling.seed.wrapping_add(choice as u64);
            Job { request, stops: common.stop.clone(), details: control.trace }
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(Plan {
            id: format!("{kind}-{:x}-{number}", self.began),
            created: Self::now(),
            mode: mode.to_string(),
            prompt: request.prompt.len(),
            jobs: (0..common.n).map(job).collect(),
            stream: common.stream,
            include_usage: common.include_usage,
            trace: control.trace,
            logprobs: logprobs.is_some(),
        })
    }
}

/// What requests of both sorts ask for.
struct Asked<'a> {
    common: &'a Common,
    control: &'a Control,
    budget: Budget,
    logprobs: Option<usize>,
}
