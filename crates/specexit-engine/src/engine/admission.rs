//! From a request to a running sequence: what is refused, what waits, what a sequence begins with.

use std::sync::Arc;

use specexit_exit::{BoundaryRules, Profile, Thought, ThoughtConfig, Vocabulary};

use super::{Engine, MAX_DRAFT_TOKENS};
use crate::error::{EngineError, Result};
use crate::logprobs::MAX_TOP_LOGPROBS;
use crate::request::{Method, Request, RequestId};
use crate::sequence::Sequence;

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

    /// Admits waiting requests while there is room in the batch.
    pub(super) fn receive(&mut self) -> Result<()> {
        while self.running.len() < self.options.max_batch {
            let Some((id, request)) = self.waiting.pop_front() else { break };
            let sequence = self.admit(id, request)?;
            self.running.push(sequence);
        }
        Ok(())
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
            closing,
            markers: self.markers.clone(),
        };
        config.validate()?;
        Ok(Thought::new(Arc::new(config), self.vocabulary(rules), request.phase))
    }

    fn admit(&mut self, id: RequestId, request: Request) -> Result<Sequence> {
        let thought = self.thought(&request)?;
        // Signals read off draft rows need these, drafting or not.
        let head = self.head.as_ref().filter(|head| {
            request.method.drafts() || (request.record_signals && head.probe_reads_draft())
        });
        // The head must see every state, so a drafting request reads its whole prompt itself.
        let cache = match &request.prefix {
            Some(prefix) if head.is_none() => prefix.shared_with(&request.prompt),
            _ => self.target.new_cache(),
        };
        let stop_ids = if request.stop_ids.is_empty() {
            Arc::clone(&self.stop_ids)
        } else {
            request.stop_ids.clone().into()
        };
        let draft_cache = head.map(|head| head.new_cache());
        Ok(Sequence::new(id, request, cache, draft_cache, thought, stop_ids))
    }

    /// The vocabulary under `rules`, built once per set of rules.
    fn vocabulary(&mut self, rules: BoundaryRules) -> Arc<Vocabulary> {
        if let Some((_, known)) = self.vocabularies.iter().find(|(r, _)| *r == rules) {
            return Arc::clone(known);
        }
        let built = Arc::new(Vocabulary::new(Arc::clone(&self.token_bytes), &rules));
        self.vocabularies.push((rules, Arc::clone(&built)));
        built
    }
}
