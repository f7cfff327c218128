//! What collecting and labelling need of the target: continuations of prompts, wherever it decodes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use specexit_engine::{
    Engine, EngineError, Event, Exit, Finish, Output, Phase, Prefix, Request, Sampling, Scored,
    TokenId,
};
use specexit_exit::Markers;

use crate::error::Result;

/// Identifies an ask inside one completer.
pub type AskId = u64;

/// A prompt to be continued, and how.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Token ids of the whole prompt, template and all; at least one.
    pub prompt: Vec<TokenId>,
    /// Computed keys and values that the prompt may begin with.
    pub prefix: Option<Arc<Prefix>>,
    /// Where in a thought the prompt ends.
    pub phase: Phase,
    /// End where the thought ends.
    pub stop_at_close: bool,
    /// Most new tokens, at least one.
    pub max_new_tokens: usize,
    /// Greedy or sampled.
    pub sampling: Sampling,
    /// Keep the log probability (temperature 1) of every token.
    pub record_logprobs: bool,
}

/// A finished continuation.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The new tokens, the ending one included.
    pub token_ids: Vec<TokenId>,
    /// Log probability of each, if asked for; NaN where there is none.
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
    /// How the thought ended, or that it did not.
    pub exit: Option<Exit>,
}

/// What is going to be asked, so that what cannot be had is refused before any work.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Needs {
    /// Log probabilities of generated tokens, for the option of this name.
    pub logprobs: Option<&'static str>,
    /// A number of tokens that decides how the output goes on, set by the option of this name.
    pub token_limit: Option<&'static str>,
    /// Log probabilities of given tokens.
    pub scores: bool,
    /// How tokens will be drawn.
    pub sampling: Sampling,
}

/// How token ids of an endpoint's outputs are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenIds {
    /// The server returned those it generated.
    Returned,
    /// The server returned text, which was tokenised anew; what it generated may have been cut into
    /// other tokens.
    Retokenized,
}

/// Which server continued the prompts, as file headers record it. Its address may change between
/// runs, so it is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointId {
    /// The name under which the server has the model.
    pub model: String,
    /// How the tokens are known.
    pub token_ids: TokenIds,
}

/// Continues prompts: the engine in this process, or an [`Endpoint`](crate::Endpoint).
pub trait Completer {
    /// The texts and tokens around a thought.
    fn markers(&self) -> &Markers;

    /// Most tokens of a prompt and its continuation together.
    fn context(&self) -> usize;

    /// What it computes in, where that is known and not bf16 (`Kernels::arithmetic`).
    fn arithmetic(&self) -> Option<String> {
        None
    }

    /// Makes sure that what is needed can be had; the server's identity, where there is one.
    ///
    /// # Errors
    /// What cannot be had, by the name of the option that asks for it.
    fn prepare(&mut self, needs: Needs) -> Result<Option<EndpointId>>;

    /// Queues an ask.
    ///
    /// # Errors
    /// What in the ask cannot be served.
    fn submit(&mut self, ask: Ask) -> Result<AskId>;

    /// Drops an ask; one that has ended is gone already.
    fn cancel(&mut self, id: AskId);

    /// Works or waits, and hands out what has ended since; may come back with nothing.
    ///
    /// # Errors
    /// Failures of the whole; those of one ask come in its place.
    fn finished(&mut self) -> Result<Vec<(AskId, Result<Completion>)>>;

    /// Reads `tokens` once for asks whose prompts begin with them, where that helps.
    ///
    /// # Errors
    /// As the target's forward.
    fn prefix(&mut self, tokens: &[TokenId]) -> Result<Option<Arc<Prefix>>>;

    /// Log probabilities (temperature 1) of the tokens from `from` on, text by text.
    ///
    /// # Errors
    /// A text that cannot be scored, or a server that scores nothing.
    fn score(&mut self, scored: &[Scored]) -> Result<Vec<Vec<f32>>>;
}

impl Completer for Engine {
    fn markers(&self) -> &Markers {
        Engine::markers(self)
    }

    fn context(&self) -> usize {
        self.target().config.max_position_embeddings
    }

    fn arithmetic(&self) -> Option<String> {
        self.target().kernels().arithmetic()
    }

    fn prepare(&mut self, needs: Needs) -> Result<Option<EndpointId>> {
        needs.sampling.validate()?;
        Ok(None)
    }

    fn submit(&mut self, ask: Ask) -> Result<AskId> {
        let request = Request {
            prefix: ask.prefix,
            phase: ask.phase,
            stop_at_close: ask.stop_at_close,
            sampling: ask.sampling,
            record_logprobs: ask.record_logprobs,
            ..Request::new(ask.prompt, ask.max_new_tokens)
        };
        Ok(Engine::submit(self, request)?)
    }

    fn cancel(&mut self, id: AskId) {
        let _ = Engine::cancel(self, id);
    }

    fn finished(&mut self) -> Result<Vec<(AskId, Result<Completion>)>> {
        let events = self.step()?;
        let done = events.into_iter().filter_map(|event| match event {
            Event::Done(output) => Some((output.id, Ok(Completion::from(*output)))),
            Event::Tokens { .. } | Event::Signals { .. } => None,
        });
        Ok(done.collect())
    }

    fn prefix(&mut self, tokens: &[TokenId]) -> Result<Option<Arc<Prefix>>> {
        Ok(Some(Engine::prefix(self, tokens)?))
    }

    fn score(&mut self, scored: &[Scored]) -> Result<Vec<Vec<f32>>> {
        Ok(Engine::score(self, scored)?)
    }
}

impl From<Output> for Completion {
    fn from(output: Output) -> Self {
        let Output { token_ids, logprobs, finish, exit, .. } = output;
        Self { token_ids, logprobs, finish, exit }
    }
}

impl Ask {
    /// Refuses a prompt that is empty or leaves no room in a context of `limit` tokens, and shortens
    /// what is asked for to the room there is.
    pub(crate) fn fit(&mut self, limit: usize) -> Result<()> {
        let prompt = self.prompt.len();
        if prompt == 0 {
            return Err(EngineError::EmptyPrompt.into());
        }
        if prompt >= limit {
            return Err(EngineError::PromptTooLong { prompt, limit }.into());
        }
        self.max_new_tokens = self.max_new_tokens.min(limit - prompt);
        Ok(())
    }
}
