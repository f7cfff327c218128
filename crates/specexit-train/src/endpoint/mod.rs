//! Continuations from a server with an OpenAI-compatible completions API: vLLM, SGLang, llama-server.
//!
//! Prompts are rendered here and sent as token ids; the server's token ids come back and pass through
//! the same rules as the engine's own, so that everything behind is shared. Where a server can say less,
//! [`Endpoint`] refuses what depends on it instead of guessing.

mod handshake;
mod http;
mod pool;
mod replay;
mod retry;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use specexit_engine::{Prefix, Scored, TokenId};
use specexit_exit::Markers;
use specexit_model::ModelText;

use self::handshake::{Session, echoed, shake};
use self::http::Api;
use self::pool::{Clock, Line, Pool};
use self::replay::Replay;
use self::retry::Patience;
use self::wire::{Body, IdPlace, Prompt, Reply};
use crate::completer::{Ask, AskId, Completer, Completion, EndpointId, Needs};
use crate::error::{Result, TrainError};

/// Which server, and how it is asked.
#[derive(Clone)]
pub struct EndpointOptions {
    /// `http://` or `https://`, host and port; `/v1` is added where no path is given.
    pub url: String,
    /// The model's name on the server; the only one it has when absent.
    pub model: Option<String>,
    /// Sent as a bearer token.
    pub api_key: Option<String>,
    /// Requests in flight at a time.
    pub concurrency: usize,
    /// Tries after the first, for failures that may pass.
    pub retries: usize,
    /// The first pause between two tries, about; each further one is twice as long.
    pub backoff: Duration,
    /// Longest time for one try, connecting and reading included.
    pub timeout: Duration,
    /// Tokenise the server's text instead of using its token ids.
    pub retokenize: bool,
    /// Seed of the pauses' jitter.
    pub seed: u64,
}

impl Default for EndpointOptions {
    fn default() -> Self {
        Self {
            url: String::new(),
            model: None,
            api_key: None,
            concurrency: 16,
            retries: 6,
            backoff: Duration::from_secs(1),
            timeout: Duration::from_secs(1800),
            retokenize: false,
            seed: 0,
        }
    }
}

/// A server as a [`Completer`].
pub struct Endpoint {
    options: EndpointOptions,
    text: ModelText,
    markers: Markers,
    line: Line,
    replay: Replay,
    connected: Option<(Session, Pool)>,
    /// Asks without an answer yet.
    asked: HashMap<AskId, Ask>,
    /// Answers that came while something else was waited for.
    early: Vec<(AskId, Result<Completion>)>,
    next: AskId,
}

impl Endpoint {
    /// A server for the model whose tokenizer and template are `text`; it is first spoken to in
    /// [`Completer::prepare`].
    ///
    /// # Errors
    /// An address that is none, or markers that the tokenizer cannot write.
    pub fn new(options: EndpointOptions, text: ModelText) -> Result<Self> {
        Self::with_clock(options, text, Clock::Real)
    }

    fn with_clock(options: EndpointOptions, text: ModelText, clock: Clock) -> Result<Self> {
        let encode = |marker: &str| text.tokenizer.encode(marker, false);
        let markers = Markers::think(encode("<think>")?, encode("</think>")?);
        markers.validate().map_err(specexit_engine::EngineError::from)?;
        let api = Api::new(base(&options.url)?, options.api_key.clone(), options.timeout);
        let patience = Patience { retries: options.retries, base: options.backoff };
        Ok(Self {
            line: Line::new(api, patience, clock, options.seed),
            replay: Replay::new(&text, &markers),
            options,
            text,
            markers,
            connected: None,
            asked: HashMap::new(),
            early: Vec::new(),
            next: 1,
        })
    }

    fn connected(&self) -> Result<&(Session, Pool)> {
        self.connected.as_ref().ok_or_else(|| self.line.error("was not prepared"))
    }

    fn number(&mut self) -> AskId {
        self.next += 1;
        self.next
    }

    /// What became of an ask that was not dropped meanwhile.
    fn settle(&mut self, id: AskId, reply: Result<Reply>) -> Option<(AskId, Result<Completion>)> {
        let ask = self.asked.remove(&id)?;
        let completion = reply.and_then(|reply| {
            let ids = self.ids(&reply)?;
            self.replay.completion(&ask, &reply, ids).map_err(|problem| self.line.error(problem))
        });
        Some((id, completion))
    }

    /// The tokens of an output.
    fn ids(&self, reply: &Reply) -> Result<Vec<TokenId>> {
        let place = self.connected()?.0.ids;
        let Some(place) = place else { return self.retokenized(&reply.text) };
        let Some((_, ids)) = reply.ids.as_ref().filter(|(found, _)| *found == place) else {
            return Err(self.line.error("left out the token ids of an output"));
        };
        // The end-of-sequence token may be counted and left out.
        let counted = reply.completion_tokens.unwrap_or(ids.len() as u64);
        if counted != ids.len() as u64 && counted != ids.len() as u64 + 1 {
            return Err(self.line.error(format!(
                "sent {} token ids for {counted} tokens (llama-server leaves out those that end inside \
                 a character); have its text tokenised anew with retokenize",
                ids.len()
            )));
        }
        Ok(ids.clone())
    }

    fn retokenized(&self, text: &str) -> Result<Vec<TokenId>> {
        let ids = self.text.tokenizer.encode(text, false)?;
        if self.text.tokenizer.decode(&ids, false)? != text || text.contains('\u{fffd}') {
            return Err(self.line.error(
                "sent a text that does not come back from the model's tokenizer, so that retokenize \
                 would change it",
            ));
        }
        Ok(ids)
    }
}

impl Completer for Endpoint {
    fn markers(&self) -> &Markers {
        &self.markers
    }

    fn context(&self) -> usize {
        let known = self.connected.as_ref().map(|(session, _)| session.context);
        known.unwrap_or(self.text.config.max_position_embeddings)
    }

    fn prepare(&mut self, needs: Needs) -> Result<Option<EndpointId>> {
        needs.sampling.validate()?;
        let session = shake(&self.line, &self.options, &self.text, &needs)?;
        let id = EndpointId { model: session.model.clone(), token_ids: session.token_ids() };
        let pool = match self.connected.take() {
            Some((_, pool)) => pool,
            None => Pool::start(&self.line, self.options.concurrency)?,
        };
        self.connected = Some((session, pool));
        Ok(Some(id))
    }

    fn submit(&mut self, mut ask: Ask) -> Result<AskId> {
        ask.fit(self.context())?;
        let id = self.number();
        let (session, pool) = self.connected()?;
        let close = String::from_utf8_lossy(&self.markers.close);
        let prompt = Prompt::Ids(&ask.prompt);
        let mut body = Body::new(&session.model, prompt, ask.max_new_tokens, &ask.sampling);
        if ask.record_logprobs || session.ids == Some(IdPlace::Logprobs) {
            body = body.logprobs();
        }
        // Other servers cut the marker off, and nothing would say what ended the output.
        if ask.stop_at_close && session.ids == Some(IdPlace::Field) {
            body = body.stop(&close);
        }
        pool.push(id, body.bytes());
        self.asked.insert(id, ask);
        Ok(id)
    }

    fn cancel(&mut self, id: AskId) {
        self.asked.remove(&id);
        self.early.retain(|(other, _)| *other != id);
        if let Some((_, pool)) = &self.connected {
            pool.forget(id);
        }
    }

    fn finished(&mut self) -> Result<Vec<(AskId, Result<Completion>)>> {
        let mut done = std::mem::take(&mut self.early);
        if done.is_empty() && !self.asked.is_empty() {
            let ended = self.connected()?.1.wait();
            let (id, reply) = ended.ok_or_else(|| self.line.error("has nobody left to ask it"))?;
            done.extend(self.settle(id, reply));
        }
        while let Some((id, reply)) = self.connected()?.1.poll() {
            done.extend(self.settle(id, reply));
        }
        Ok(done)
    }

    /// Servers keep prefixes by themselves.
    fn prefix(&mut self, _: &[TokenId]) -> Result<Option<Arc<Prefix>>> {
        Ok(None)
    }

    fn score(&mut self, scored: &[Scored]) -> Result<Vec<Vec<f32>>> {
        let mut waiting = HashMap::with_capacity(scored.len());
        for (index, scored) in scored.iter().enumerate() {
            let id = self.number();
            let (session, pool) = self.connected()?;
            let prompt = Prompt::Ids(&scored.tokens);
            let greedy = specexit_engine::Sampling::greedy();
            pool.push(id, Body::new(&session.model, prompt, 1, &greedy).echo().bytes());
            waiting.insert(id, index);
        }
        let mut scores = vec![Vec::new(); scored.len()];
        let mut failure: Option<TrainError> = None;
        while !waiting.is_empty() {
            let ended = self.connected()?.1.wait();
            let (id, reply) = ended.ok_or_else(|| self.line.error("has nobody left to ask it"))?;
            let Some(index) = waiting.remove(&id) else {
                let settled = self.settle(id, reply);
                self.early.extend(settled);
                continue;
            };
            let Scored { tokens, from, .. } = &scored[index];
            let found = reply.and_then(|reply| {
                echoed(&reply, tokens, *from)
                    .ok_or_else(|| self.line.error("left out log probabilities of given tokens"))
            });
            match found {
                Ok(found) => scores[index] = found,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(scores), Err)
    }
}

/// The address up to and including `/v1`, or the path that was given.
fn base(url: &str) -> Result<String> {
    let url = url.trim_end_matches('/');
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    match rest {
        Some(rest) if rest.contains('/') => Ok(url.to_owned()),
        Some(rest) if !rest.is_empty() => Ok(format!("{url}/v1")),
        _ => Err(TrainError::option(
            "endpoint",
            format!("= {url}; an address begins with http:// or https://"),
        )),
    }
}
