//! What a caller asks of the engine and what comes back.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use specexit_exit::{Exit, Loops, Phase, Policy, Signals, TokenId};

use crate::prefix::Prefix;
use crate::sampling::Sampling;

/// Identifies a request inside one engine.
pub type RequestId = u64;

/// How tokens are decided. All methods share one engine, so that a comparison differs in nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// One token a round from the target alone.
    Plain,
    /// Chain drafting with the EAGLE-3 head; the target's distribution is kept.
    Eagle3,
    /// Like `Eagle3`, and the thought is closed when the policy says so.
    SpecExit,
}

impl Method {
    /// Whether this method needs a draft head.
    pub fn drafts(self) -> bool {
        self != Method::Plain
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Method::Plain => "plain",
            Method::Eagle3 => "eagle3",
            Method::SpecExit => "specexit",
        })
    }
}

impl std::str::FromStr for Method {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "plain" => Ok(Method::Plain),
            "eagle3" => Ok(Method::Eagle3),
            "specexit" => Ok(Method::SpecExit),
            other => {
                Err(format!("unknown method '{other}'; the methods are plain, eagle3 and specexit"))
            }
        }
    }
}

/// One generation.
#[derive(Clone)]
pub struct Request {
    /// Token ids of the whole prompt, template and all; at least one.
    pub prompt: Vec<TokenId>,
    /// Computed keys and values that the prompt may begin with, in the place of any that the engine has kept.
    pub prefix: Option<Arc<Prefix>>,
    /// Where in a thought the prompt ends.
    pub phase: Phase,
    /// How tokens are decided.
    pub method: Method,
    /// Drafted tokens per round (k); ignored by `plain`.
    pub draft_tokens: usize,
    /// Choose k anew in each round, from 0 to `draft_tokens`, by what forwards cost
    /// ([`crate::Engine::measure_depth_costs`]; unknown costs leave k as it is) and how often drafts are
    /// accepted. Greedy decoding says the same; sampling keeps its distribution, but its draws then depend on
    /// what else runs.
    pub adaptive: bool,
    /// Most tokens to generate, forced ones included; at least one.
    pub max_new_tokens: usize,
    /// Greedy or sampled.
    pub sampling: Sampling,
    /// When the signals may close the thought; only with [`Method::SpecExit`].
    pub policy: Option<Policy>,
    /// Most thinking tokens, never passed by even one.
    pub thinking_budget: Option<usize>,
    /// When a thought ends because it only repeats itself, under every method; `None` for never.
    pub loops: Option<Loops>,
    /// Sentence forced before the end-of-thinking token whenever the engine closes a thought.
    pub closing_text: Option<String>,
    /// End the request where the thought ends (collecting continues it by its own rules).
    pub stop_at_close: bool,
    /// Token ids that end the request; empty means the model's own.
    pub stop_ids: Vec<TokenId>,
    /// Keep per-token log probabilities (temperature 1, whole vocabulary).
    pub record_logprobs: bool,
    /// With the log probabilities, keep those of so many likeliest tokens in each place; at most 20.
    pub top_logprobs: usize,
    /// Keep per-token raw signals (needs a head with a signal probe).
    pub record_signals: bool,
}

impl Request {
    /// A greedy, plain request that generates at most `max_new_tokens`.
    pub fn new(prompt: Vec<TokenId>, max_new_tokens: usize) -> Request {
        Request {
            prompt,
            prefix: None,
            phase: Phase::Before,
            method: Method::Plain,
            draft_tokens: 4,
            adaptive: false,
            max_new_tokens,
            sampling: Sampling::greedy(),
            policy: None,
            thinking_budget: None,
            loops: None,
            closing_text: None,
            stop_at_close: false,
            stop_ids: Vec::new(),
            record_logprobs: false,
            top_logprobs: 0,
            record_signals: false,
        }
    }
}

/// Why a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// An end-of-sequence token.
    Stop,
    /// `max_new_tokens` or the model's context was reached.
    Length,
    /// The thought closed and the request asked to stop there.
    ThoughtClosed,
}

/// A finished request.
#[derive(Clone, Debug)]
pub struct Output {
    /// The request.
    pub id: RequestId,
    /// Generated tokens, the ending one included, forced ones included.
    pub token_ids: Vec<TokenId>,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens inside the thinking span, markers excluded.
    pub thinking_tokens: usize,
    /// How the thought ended; `None` while it has not.
    pub exit: Option<Exit>,
    /// Prompt tokens that were not read anew, because caches over them were at hand.
    pub prefix_tokens: usize,
    /// Target forwards that verified or decoded (prefill excluded).
    pub rounds: usize,
    /// Drafted tokens offered to the target.
    pub drafted: usize,
    /// Drafted tokens that the target accepted.
    pub accepted: usize,
    /// In how many rounds a draft was offered at each place behind the root; sums to `drafted`.
    pub offered_at: Vec<usize>,
    /// In how many of these it was accepted, as long as `offered_at`; sums to `accepted`.
    pub accepted_at: Vec<usize>,
    /// Seconds from admission to the end, prefill included.
    pub wall_s: f64,
    /// Seconds from admission to the first token of the answer, if there was one.
    pub first_answer_s: Option<f64>,
    /// Log probability of each generated token, if asked for (NaN for forced tokens).
    pub logprobs: Vec<f32>,
    /// Likeliest tokens in the place of each generated token with their log probabilities, likeliest first,
    /// if asked for (none for forced tokens).
    pub top_logprobs: Vec<Vec<(TokenId, f32)>>,
    /// Entropy, in nats, of what could have followed the prompt (temperature 1, whole vocabulary); kept
    /// with the log probabilities.
    pub first_entropy: Option<f32>,
    /// Raw signals after each generated token, if asked for (missing where never computed).
    pub signals: Vec<Signals>,
}

impl Output {
    /// Acceptance length: tokens committed per round, the recover token included.
    pub fn tau(&self) -> f64 {
        if self.rounds == 0 {
            return 0.0;
        }
        // The first token comes from the prefill, not from a round.
        self.token_ids.len().saturating_sub(1) as f64 / self.rounds as f64
    }
}

/// What a step produced.
#[derive(Clone, Debug)]
pub enum Event {
    /// New tokens of a request, in order; never taken back.
    Tokens {
        /// The request.
        id: RequestId,
        /// The new tokens.
        tokens: Vec<TokenId>,
        /// Log probability of each, NaN for forced tokens; empty unless asked for.
        logprobs: Vec<f32>,
        /// As [`Output::top_logprobs`]; empty unless asked for.
        top_logprobs: Vec<Vec<(TokenId, f32)>>,
    },
    /// Signals of a request that records them, as they become known: in order, at most once for a token, and
    /// not before the token itself.
    Signals {
        /// The request.
        id: RequestId,
        /// Index, among the generated tokens, of the token that the first of `signals` comes after.
        first: usize,
        /// Signals after this token and those that follow (missing where never computed).
        signals: Vec<Signals>,
    },
    /// The request ended.
    Done(Box<Output>),
}
