//! From a request to a running sequence: what is refused, what waits, what a sequence begins with.

use std::sync::Arc;

use specexit_exit::{BoundaryRules, Profile, Thought, ThoughtConfig, Vocabulary};
use specexit_model::DraftHead;

use super::{Engine, MAX_DRAFT_TOKENS, Waiting};
use crate::error::{EngineError, Result};
use crate::logprobs::MAX_TOP_LOGPROBS;
use crate::request::{Method, Request};
use crate::sequence::Sequence;

/// Vocabularies under different rules that are kept.
const MAX_VOCABULARIES: usize = 16;

impl Engine {
    pub(super) fn check(&self, request: &Request) -> Result<()> {
        let bad = |what: &str| Err(EngineError::BadRequest { what: what.to_owned() });
        if request.prompt.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        let limit = self.target.config.max_position_embeddings;
        if request.prompt.len() >= limit {
            return Err(EngineError::PromptTooLong { prompt: request.prompt.len(), limit });
        }
        let vocab = self.target.config.vocab_size;
        if let Some(&id) = request.prompt.iter().find(|&&id| id as usize >= vocab) {
            return Err(specexit_model::ModelError::TokenOutOfRange { id, vocab }.into());
        }
        if request.max_new_tokens == 0 {
            return bad("max_new_tokens is 0; ask for at least one token");
        }
        if request.top_logprobs > MAX_TOP_LOGPROBS {
            return bad(&format!(
                "top_logprobs is {}; at most {MAX_TOP_LOGPROBS} are kept",
                request.top_logprobs
            ));
        }
        if request.top_logprobs > 0 && !request.record_logprobs {
            return bad("top_logprobs needs record_logprobs");
        }
        if request.method.drafts() {
            if self.head.is_none() {
                return Err(EngineError::NoHead { method: request.method });
            }
            if !(1..=MAX_DRAFT_TOKENS).contains(&request.draft_tokens) {
                return bad(&format!(
                    "draft_tokens is {}; a round drafts between 1 and {MAX_DRAFT_TOKENS} tokens",
                    request.draft_tokens
                ));
            }
        }
        if request.method == Method::SpecExit {
            if request.policy.is_none() {
                return bad("method specexit needs a policy; name a profile");
            }
            if request.stop_at_close {
                return bad("stop_at_close records whole thoughts; it does not go with specexit");
            }
            if !self.head.as_ref().is_some_and(|head| head.has_probe()) {
                return Err(EngineError::NoProbe);
            }
        } else if request.policy.is_some() {
            return bad("an exit policy needs method specexit");
        }
        if let Some(policy) = &request.policy {
            policy.validate()?;
        }
        request.sampling.validate()
    }

    /// Bytes of keys and values that `request` may come to need: those of the target and, where it reads
    /// draft rows, of the head, over its prompt and all tokens it may generate.
    pub fn kv_need(&self, request: &Request) -> usize {
        let context = self.target.config.max_position_embeddings;
        let positions = request.prompt.len().saturating_add(request.max_new_tokens).min(context);
        let of_draft = self.drafts_for(request).map_or(0, |head| head.cache_bytes(positions));
        self.target.cache_bytes(positions) + of_draft
    }

    /// The head, if `request` reads draft rows: to draft, or for signals that are read off these.
    fn drafts_for(&self, request: &Request) -> Option<&DraftHead> {
        self.head.as_deref().filter(|head| {
            request.method.drafts() || (request.record_signals && head.probe_reads_draft())
        })
    }

    /// Admits waiting requests, in order, while there is room in the batch and in memory.
    pub(super) fn receive(&mut self) {
        while self.running.len() < self.options.max_batch
            && let Some(first) = self.waiting.front()
        {
            let needed = self.kv_reserved().saturating_add(first.kv_need);
            if self.options.kv_bytes.is_some_and(|limit| needed > limit) {
                break;
            }
            if let Some(waiting) = self.waiting.pop_front() {
                let sequence = self.admit(waiting);
                self.running.push(sequence);
            }
        }
    }

    /// The thought of `request` as it is before its first token.
    ///
    /// # Errors
    /// Settings that no thought can have, or a closing text that the tokenizer cannot write.
    pub fn thought(&mut self, request: &Request) -> Result<Thought> {
        let closing = match &request.closing_text {
            Some(text) => self.tokenizer.encode(text, false)?,
            None => Vec::new(),
        };
        // Outside specexit the rules decide nothing, but a thought always has a boundary table.
        let rules = request
            .policy
            .as_ref()
            .map_or_else(|| Profile::Default.policy().boundaries, |p| p.boundaries.clone());
        let mut policy = request.policy.clone();
        if let Some(random) = policy.as_mut().and_then(|policy| policy.random.as_mut()) {
            // Chance must fall differently for every question.
            random.seed = request.prompt.iter().fold(random.seed, |seed, &token| {
                (seed ^ u64::from(token)).wrapping_mul(0x0100_0000_01b3)
            });
        }
        let config = ThoughtConfig {
            policy,
            budget: request.thinking_budget,
            loops: request.loops,
            closing,
            markers: self.markers.clone(),
        };
        config.validate()?;
        Ok(Thought::new(Arc::new(config), self.vocabulary(rules), request.phase))
    }

    fn admit(&mut self, waiting: Waiting) -> Sequence {
        let Waiting { id, request, thought, kv_need } = waiting;
        let drafts = self.drafts_for(&request).is_some();
        let known = match &request.prefix {
            Some(prefix) => Some((Arc::clone(prefix), prefix.shared(&request.prompt, drafts))),
            None => self.prefixes.find(&request.prompt, drafts),
        };
        let (mut cache, mut draft_cache) = match known {
            Some((prefix, count)) if count > 0 => prefix.fork(count, drafts),
            _ => (self.target.new_cache(), self.drafts_for(&request).map(DraftHead::new_cache)),
        };
        if self.options.kv_bytes.is_some() {
            // Growing by doubling could hold twice what was counted.
            let positions = request.prompt.len() + request.max_new_tokens;
            cache.reserve(positions);
            draft_cache.iter_mut().for_each(|cache| cache.reserve(positions));
        }
        let stop_ids = if request.stop_ids.is_empty() {
            Arc::clone(&self.stop_ids)
        } else {
            request.stop_ids.clone().into()
        };
        Sequence::new(id, request, cache, draft_cache, thought, stop_ids, kv_need)
    }

    /// The vocabulary under `rules`; those used last are kept.
    fn vocabulary(&mut self, rules: BoundaryRules) -> Arc<Vocabulary> {
        let known = self.vocabularies.iter().position(|(known, _)| *known == rules);
        let vocabulary = match known {
            Some(at) => self.vocabularies.remove(at).1,
            None => Arc::new(Vocabulary::new(Arc::clone(&self.token_bytes), &rules)),
        };
        if self.vocabularies.len() >= MAX_VOCABULARIES {
            // Every request may come with rules of its own.
            self.vocabularies.remove(0);
        }
        self.vocabularies.push((rules, Arc::clone(&vocabulary)));
        vocabulary
    }
}
