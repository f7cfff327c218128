//! From what a server sent to the same outcome that the engine gives, token by token.

use std::sync::Arc;

use specexit_engine::{ExitReason, Finish, TokenId};
use specexit_exit::{BoundaryRules, Markers, Phase, Thought, ThoughtConfig, Vocabulary};
use specexit_model::ModelText;

use super::wire::{Ended, IdPlace, Reply};
use crate::completer::{Ask, Completion};

/// The rules by which tokens end a thought and an output.
pub(super) struct Replay {
    config: Arc<ThoughtConfig>,
    vocabulary: Arc<Vocabulary>,
    stop_ids: Vec<TokenId>,
    size: usize,
}

impl Replay {
    pub(super) fn new(text: &ModelText, markers: &Markers) -> Self {
        let size = text.config.vocab_size;
        let bytes = Arc::new(text.tokenizer.token_bytes(size));
        let markers = markers.clone();
        let config =
            ThoughtConfig { policy: None, budget: None, loops: None, closing: Vec::new(), markers };
        Self {
            config: Arc::new(config),
            vocabulary: Arc::new(Vocabulary::new(bytes, &BoundaryRules::default())),
            stop_ids: text.config.eos_token_ids.clone(),
            size,
        }
    }

    /// What the engine would have said, had it generated `ids`; or what is wrong, as the end of a
    /// sentence that begins with the server.
    pub(super) fn completion(
        &self,
        ask: &Ask,
        reply: &Reply,
        mut ids: Vec<TokenId>,
    ) -> Result<Completion, String> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.size) {
            return Err(format!(
                "sent the token id {id}, which is not among the {} of the model; it serves another \
                 model",
                self.size
            ));
        }
        let mut logprobs = self.logprobs(ask, reply, &ids)?;
        let mut thought =
            Thought::new(Arc::clone(&self.config), Arc::clone(&self.vocabulary), ask.phase);
        let mut finish = self.commit(ask, &ids, &mut thought);
        if finish.is_none() {
            // The tokens are all there is of the output, and none of them ends it.
            let stop = self.unsaid_stop(ask, reply, ids.len())?;
            ids.push(stop);
            logprobs.extend(ask.record_logprobs.then_some(f32::NAN));
            thought.commit(&[], &[], stop);
            finish = Some((ids.len(), Finish::Stop));
        }
        let (kept, finish) = finish.unwrap_or((ids.len(), Finish::Stop));
        ids.truncate(kept);
        logprobs.truncate(kept);
        let why = match finish {
            Finish::Stop | Finish::ThoughtClosed => ExitReason::Stop,
            Finish::Length => ExitReason::Length,
        };
        let exit = thought.finish(why).copied();
        Ok(Completion { token_ids: ids, logprobs, finish, exit })
    }

    /// How many tokens stay, and why the output ends there; servers may have gone on.
    fn commit(&self, ask: &Ask, ids: &[TokenId], thought: &mut Thought) -> Option<(usize, Finish)> {
        for (index, &token) in ids.iter().enumerate() {
            thought.commit(&[], &[], token);
            let closed = ask.stop_at_close && thought.phase() == Phase::Answer;
            let finish = match () {
                () if closed => Finish::ThoughtClosed,
                () if self.stop_ids.contains(&token) => Finish::Stop,
                () if index + 1 == ask.max_new_tokens => Finish::Length,
                () => continue,
            };
            return Some((index + 1, finish));
        }
        None
    }

    fn logprobs(&self, ask: &Ask, reply: &Reply, ids: &[TokenId]) -> Result<Vec<f32>, String> {
        if !ask.record_logprobs {
            return Ok(Vec::new());
        }
        let logprobs = reply.logprobs.clone().unwrap_or_default();
        if logprobs.len() != ids.len() {
            return Err(format!(
                "sent {} log probabilities for {} tokens",
                logprobs.len(),
                ids.len()
            ));
        }
        Ok(logprobs)
    }

    /// The end-of-sequence token that the server took out of its output.
    fn unsaid_stop(&self, ask: &Ask, reply: &Reply, tokens: usize) -> Result<TokenId, String> {
        if reply.ended == Ended::Length {
            return Err(format!(
                "ended its output after {tokens} of {} tokens; give it a context as long as the \
                 model's, or ask for fewer tokens",
                ask.max_new_tokens
            ));
        }
        // Where the stop text was sent, see `Endpoint::submit`.
        let asked_to_stop = ask.stop_at_close && matches!(reply.ids, Some((IdPlace::Field, _)));
        let named = reply.stop_token.map(|id| TokenId::try_from(id).unwrap_or(TokenId::MAX));
        match (named, &self.stop_ids[..]) {
            (Some(id), stops) if stops.contains(&id) => Ok(id),
            (Some(id), _) => Err(format!(
                "ended its output with the token {id}, which is no end-of-sequence token of the \
                 model; it serves another model, or has stop tokens of its own"
            )),
            (None, _) if asked_to_stop => {
                Err("does not say whether the end of the thought or of the text ended its output"
                    .to_owned())
            }
            // Nothing else can have ended it.
            (None, [only]) => Ok(*only),
            (None, stops) => Err(format!(
                "does not say which of the {} end-of-sequence tokens ended its output",
                stops.len()
            )),
        }
    }
}
