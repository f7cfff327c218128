//! The state of one request between rounds.

use std::sync::Arc;
use std::time::Instant;

use specexit_exit::{ExitReason, Phase, Signals, Thought, TokenId};
use specexit_model::KvCache;

use crate::depth::Acceptance;
use crate::logprobs::Logprob;
use crate::prefix::Prefix;
use crate::request::{Event, Finish, Output, Request, RequestId};
use crate::sampling::RequestRng;
use crate::verify::Drafted;

/// Random streams of one request.
const VERDICT_STREAM: u64 = 0;
const DRAFT_STREAM: u64 = 1;

/// A request being served.
pub(crate) struct Sequence {
    pub(crate) id: RequestId,
    pub(crate) request: Request,
    /// Prompt and committed tokens. Those from `cache.len()` on have not been read by the target.
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) cache: KvCache,
    pub(crate) thought: Thought,
    pub(crate) draft: Option<DraftState>,
    /// Drafted in this step, to be verified in it.
    pub(crate) drafted: Vec<Drafted>,
    pub(crate) acceptance: Acceptance,
    pub(crate) verdict_rng: RequestRng,
    pub(crate) stop_ids: Arc<[TokenId]>,
    pub(crate) finish: Option<Finish>,
    /// Bytes of keys and values that it may come to need.
    pub(crate) kv_need: usize,
    rounds: usize,
    offered: usize,
    accepted: usize,
    offered_at: Vec<usize>,
    accepted_at: Vec<usize>,
    /// Prompt tokens that were not read anew.
    prefix_tokens: usize,
    /// Whether the caches over its prompt were offered for keeping.
    pub(crate) prompt_offered: bool,
    started: Instant,
    first_answer_s: Option<f64>,
    logprobs: Vec<f32>,
    top_logprobs: Vec<Vec<(TokenId, f32)>>,
    pub(crate) first_entropy: Option<f32>,
    signals: Vec<Signals>,
}

/// What drafting needs to remember: the draft cache and the states it has not read yet.
pub(crate) struct DraftState {
    /// Holds one entry for each pair of state t and token t+1.
    pub(crate) cache: KvCache,
    /// Tapped states from position `cache.len()` on, `[pairs, 3 H_t]`.
    pub(crate) pending_taps: Vec<f32>,
    /// Signals after the token of the pair read last, the root's when a round begins; missing unless the
    /// probe reads draft rows.
    pub(crate) last_signals: Signals,
    pub(crate) rng: RequestRng,
}

impl Sequence {
    pub(crate) fn new(
        id: RequestId,
        request: Request,
        cache: KvCache,
        draft_cache: Option<KvCache>,
        thought: Thought,
        stop_ids: Arc<[TokenId]>,
        kv_need: usize,
    ) -> Sequence {
        let seed = request.sampling.seed;
        let draft = draft_cache.map(|cache| DraftState {
            cache,
            pending_taps: Vec::new(),
            last_signals: Signals::MISSING,
            rng: RequestRng::new(seed, DRAFT_STREAM),
        });
        Sequence {
            id,
            tokens: request.prompt.clone(),
            request,
            thought,
            draft,
            drafted: Vec::new(),
            acceptance: Acceptance::new(),
            verdict_rng: RequestRng::new(seed, VERDICT_STREAM),
            stop_ids,
            finish: None,
            kv_need,
            rounds: 0,
            offered: 0,
            accepted: 0,
            offered_at: Vec::new(),
            accepted_at: Vec::new(),
            prefix_tokens: cache.len(),
            prompt_offered: false,
            cache,
            started: Instant::now(),
            first_answer_s: None,
            logprobs: Vec::new(),
            top_logprobs: Vec::new(),
            first_entropy: None,
            signals: Vec::new(),
        }
    }

    /// Committed tokens that the target has not read.
    pub(crate) fn unread(&self) -> &[TokenId] {
        &self.tokens[self.cache.len()..]
    }

    /// Whether only the root is unread, so that drafts may follow it in the next forward.
    pub(crate) fn at_root(&self) -> bool {
        self.unread().len() == 1 && self.generated() > 0
    }

    /// What has been read of its first `count` tokens, or of all those read, for others to begin with.
    pub(crate) fn prefix(&self, count: usize) -> Prefix {
        let count = count.min(self.cache.len());
        Prefix {
            tokens: self.tokens[..count].to_vec(),
            cache: self.cache.fork(count),
            draft: self.draft.as_ref().map(|state| state.cache.fork(count)),
        }
    }

    /// Tokens committed beyond the prompt.
    pub(crate) fn generated(&self) -> usize {
        self.tokens.len() - self.request.prompt.len()
    }

    /// Tokens that may still be committed.
    pub(crate) fn remaining(&self) -> usize {
        self.request.max_new_tokens - self.generated()
    }

    /// Counts one round that offered `offered` drafts and committed `accepted` of them.
    pub(crate) fn count_round(&mut self, offered: usize, accepted: usize) {
        self.rounds += 1;
        self.offered += offered;
        self.accepted += accepted;
        for (counts, upto) in [(&mut self.offered_at, offered), (&mut self.accepted_at, accepted)] {
            counts.resize(counts.len().max(offered), 0);
            counts[..upto].iter_mut().for_each(|count| *count += 1);
        }
    }

    /// Appends a committed token.
    pub(crate) fn push(&mut self, token: TokenId, logprob: Logprob) {
        self.tokens.push(token);
        if self.request.record_logprobs {
            self.logprobs.push(logprob.token);
        }
        if self.request.top_logprobs > 0 {
            self.top_logprobs.push(logprob.top);
        }
        if self.request.record_signals {
            self.signals.push(Signals::MISSING);
        }
    }

    /// What was committed from generated token `first` on; `None` if nothing was.
    pub(crate) fn news(&self, first: usize) -> Option<Event> {
        let from = self.request.prompt.len() + first;
        (self.tokens.len() > from).then(|| Event::Tokens {
            id: self.id,
            tokens: self.tokens[from..].to_vec(),
            logprobs: self.logprobs.get(first..).unwrap_or_default().to_vec(),
            top_logprobs: self.top_logprobs.get(first..).unwrap_or_default().to_vec(),
        })
    }

    /// Records the signals after generated token `index`.
    pub(crate) fn record_signals(&mut self, index: usize, signals: Signals) {
        if let Some(slot) = self.signals.get_mut(index) {
            *slot = signals;
        }
    }

    /// Notes when the first token outside the thought was committed.
    pub(crate) fn note_answer(&mut self) {
        match self.thought.phase() {
            Phase::Thinking => self.first_answer_s = None,
            _ if self.first_answer_s.is_none() => {
                self.first_answer_s = Some(self.started.elapsed().as_secs_f64());
            }
            _ => {}
        }
    }

    /// The finished request, and what was read of it.
    pub(crate) fn end(mut self, finish: Finish) -> (Output, Prefix) {
        let why = match finish {
            Finish::Stop | Finish::ThoughtClosed => ExitReason::Stop,
            Finish::Length => ExitReason::Length,
        };
        let exit = self.thought.finish(why).copied();
        let mut tokens = self.tokens;
        let token_ids = tokens[self.request.prompt.len()..].to_vec();
        tokens.truncate(self.cache.len());
        let draft = self.draft.map(|state| state.cache);
        let prefix = Prefix { tokens, cache: self.cache, draft };
        let output = Output {
            id: self.id,
            token_ids,
            finish,
            thinking_tokens: self.thought.thinking_tokens(),
            exit,
            rounds: self.rounds,
            drafted: self.offered,
            accepted: self.accepted,
            prefix_tokens: self.prefix_tokens,
            wall_s: self.started.elapsed().as_secs_f64(),
            first_answer_s: self.first_answer_s,
            offered_at: self.offered_at,
            accepted_at: self.accepted_at,
            logprobs: self.logprobs,
            top_logprobs: self.top_logprobs,
            first_entropy: self.first_entropy,
            signals: self.signals,
        };
        (output, prefix)
    }
}
