//! The engine: requests in, one batch of rows a step, tokens out.

use std::collections::VecDeque;
use std::sync::Arc;

use specexit_exit::{
    BoundaryRules, Markers, Profile, Signals, Thought, ThoughtConfig, TokenId, Vocabulary,
};
use specexit_model::{
    DraftHead, LogitRows, PREFILL_CHUNK, Target, TargetRows, Tokenizer, Workspace,
};

use crate::commit::{Forwarded, Place, Round, accept, commit_reading, commit_round};
use crate::draft::{DraftBuffers, draft};
use crate::error::{EngineError, Result};
use crate::prefix::Prefix;
use crate::request::{Event, Finish, Method, Output, Request, RequestId};
use crate::score::{Scored, score};
use crate::sequence::Sequence;
use crate::signals::{probe, read_signals};

/// Drafted tokens per round that make sense; a longer chain is refused.
const MAX_DRAFT_TOKENS: usize = 32;

/// Limits of an engine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Sequences served together; others wait.
    pub max_batch: usize,
    /// Rows of one forward at most; long prompts are read in several steps.
    pub max_rows: usize,
    /// Texts around a thought; `<think>` and `</think>` when `None`.
    pub markers: Option<Markers>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions { max_batch: 8, max_rows: 2 * PREFILL_CHUNK, markers: None }
    }
}

/// Serves requests on one target, with or without a draft head.
pub struct Engine {
    target: Arc<Target>,
    head: Option<Arc<DraftHead>>,
    tokenizer: Arc<Tokenizer>,
    markers: Markers,
    stop_ids: Arc<[u32]>,
    token_bytes: Arc<Vec<Vec<u8>>>,
    vocabularies: Vec<(BoundaryRules, Arc<Vocabulary>)>,
    options: EngineOptions,
    waiting: VecDeque<(RequestId, Request)>,
    running: Vec<Sequence>,
    next_id: RequestId,
    workspace: Workspace,
    drafting: DraftBuffers,
    probs: Vec<f32>,
}

/// Rows that one sequence puts into a step.
struct Rows {
    /// Index among the running sequences.
    sequence: usize,
    tokens: Vec<u32>,
    logits: LogitRows,
}

impl Engine {
    /// An engine without requests.
    ///
    /// # Errors
    /// Thinking markers that the tokenizer cannot write.
    pub fn new(
        target: Arc<Target>,
        tokenizer: Arc<Tokenizer>,
        head: Option<Arc<DraftHead>>,
        options: EngineOptions,
    ) -> Result<Engine> {
        let markers = match &options.markers {
            Some(markers) => markers.clone(),
            None => Markers::think(
                tokenizer.encode("<think>", false)?,
                tokenizer.encode("</think>", false)?,
            ),
        };
        markers.validate()?;
        Ok(Engine {
            stop_ids: target.config.eos_token_ids.clone().into(),
            token_bytes: Arc::new(tokenizer.token_bytes(target.config.vocab_size)),
            vocabularies: Vec::new(),
            target,
            head,
            tokenizer,
            markers,
            options,
            waiting: VecDeque::new(),
            running: Vec::new(),
            next_id: 0,
            workspace: Workspace::default(),
            drafting: DraftBuffers::default(),
            probs: Vec::new(),
        })
    }

    /// The target it serves.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// The draft head, if any.
    pub fn head(&self) -> Option<&Arc<DraftHead>> {
        self.head.as_ref()
    }

    /// The texts and tokens around a thought.
    pub fn markers(&self) -> &Markers {
        &self.markers
    }

    /// Sequences that run together at most.
    pub fn max_batch(&self) -> usize {
        self.options.max_batch
    }

    /// Whether no request waits or runs.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Queues a request.
    ///
    /// # Errors
    /// One sentence on what in the request cannot be served; the engine is unchanged then.
    pub fn submit(&mut self, mut request: Request) -> Result<RequestId> {
        self.check(&request)?;
        let room = self.target.config.max_position_embeddings - request.prompt.len();
        request.max_new_tokens = request.max_new_tokens.min(room);
        let id = self.next_id;
        self.next_id += 1;
        self.waiting.push_back((id, request));
        Ok(id)
    }

    /// Drops a request that waits or runs.
    ///
    /// # Errors
    /// When no such request is there (it may have finished).
    pub fn cancel(&mut self, id: RequestId) -> Result<()> {
        let before = self.waiting.len() + self.running.len();
        self.waiting.retain(|(other, _)| *other != id);
        self.running.retain(|s| s.id != id);
        if self.waiting.len() + self.running.len() == before {
            return Err(EngineError::UnknownRequest { id });
        }
        Ok(())
    }

    /// One scheduler step.
    ///
    /// # Errors
    /// The model's, naming what it refused; the requests it was working on are then lost.
    pub fn step(&mut self) -> Result<Vec<Event>> {
        self.receive()?;
        let rows = self.schedule()?;
        let places = self.forward(&rows)?;
        self.commit(&rows, &places)
    }

    /// Serves one request to its end, beside whatever else is running.
    ///
    /// # Errors
    /// As [`Engine::submit`] and [`Engine::step`].
    pub fn run(&mut self, request: Request) -> Result<Output> {
        let mut outputs = Vec::with_capacity(1);
        self.run_all(vec![request], |_, output| outputs.push(output))?;
        outputs.pop().ok_or_else(|| EngineError::BadRequest {
            what: "the request ended without an output".to_owned(),
        })
    }

    /// Serves requests together; `done` gets each one's index and output as it finishes.
    ///
    /// # Errors
    /// As [`Engine::submit`] and [`Engine::step`].
    pub fn run_all(
        &mut self,
        requests: Vec<Request>,
        mut done: impl FnMut(usize, Output),
    ) -> Result<()> {
        let mut ids = Vec::with_capacity(requests.len());
        for request in requests {
            ids.push(self.submit(request)?);
        }
        let mut left = ids.len();
        while left > 0 {
            for event in self.step()? {
                if let Event::Done(output) = event
                    && let Some(index) = ids.iter().position(|&id| id == output.id)
                {
                    left -= 1;
                    done(index, *output);
                }
            }
        }
        Ok(())
    }

    /// Reads `tokens` once, for requests whose prompts begin with them.
    ///
    /// # Errors
    /// As [`Target::forward`].
    pub fn prefix(&mut self, tokens: &[u32]) -> Result<Arc<Prefix>> {
        let mut cache = self.target.new_cache();
        for tokens in tokens.chunks(PREFILL_CHUNK) {
            let rows = TargetRows { tokens, cache: &mut cache, logits: LogitRows::None };
            self.target.forward(&mut [rows], &mut self.workspace)?;
        }
        Ok(Arc::new(Prefix { tokens: tokens.to_vec(), cache }))
    }

    /// What the target has read of a running request so far, for requests that branch off it.
    ///
    /// # Errors
    /// When no such request runs.
    pub fn branch(&self, id: RequestId) -> Result<Arc<Prefix>> {
        let running = self.running.iter().find(|sequence| sequence.id == id);
        let sequence = running.ok_or(EngineError::UnknownRequest { id })?;
        let read = sequence.cache.len();
        let tokens = sequence.tokens[..read].to_vec();
        Ok(Arc::new(Prefix { tokens, cache: sequence.cache.fork(read) }))
    }

    /// Reads texts whose ends are given, beside each other, and says how probable these were.
    ///
    /// # Errors
    /// A text with nothing to score or nothing before it, and as [`Target::forward`].
    pub fn score(&mut self, scored: &[Scored]) -> Result<Vec<Vec<f32>>> {
        let room = self.options.max_batch.max(1);
        let mut scores = Vec::with_capacity(scored.len());
        for together in scored.chunks(room) {
            scores.extend(score(&self.target, together, &mut self.workspace)?);
        }
        Ok(scores)
    }

    /// The signals that the head predicts after each of `tokens[from..]`, as a request that recorded them
    /// would have: missing off the boundaries for a head that speaks at these only, of which `boundaries`
    /// tells for each token, and after the last token, which no request ever reads.
    ///
    /// # Errors
    /// A head without a signal probe, nothing before `from`, and as [`Target::forward`].
    pub fn signals(
        &mut self,
        tokens: &[TokenId],
        from: usize,
        boundaries: &[bool],
    ) -> Result<Vec<Signals>> {
        let head = self.head.as_ref().filter(|head| head.has_probe());
        let head = head.ok_or(EngineError::NoProbe)?;
        read_signals(&self.target, head, tokens, from, boundaries, &mut self.workspace)
    }

    fn check(&self, request: &Request) -> Result<()> {
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
    fn receive(&mut self) -> Result<()> {
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

    /// Drafts, and decides which rows each sequence puts into the forward.
    fn schedule(&mut self) -> Result<Vec<Rows>> {
        if let Some(head) = &self.head {
            draft(head, &mut self.running, &mut self.drafting, |sequence| {
                let speculates = sequence.request.method.drafts() && sequence.at_root();
                let room = sequence.remaining() - 1;
                if speculates { room.min(sequence.request.draft_tokens) } else { 0 }
            })?;
        }
        let mut left = self.options.max_rows.max(MAX_DRAFT_TOKENS + 1);
        let mut rows = Vec::with_capacity(self.running.len());
        for (index, sequence) in self.running.iter().enumerate() {
            let unread = sequence.unread();
            let wanted = unread.len() + sequence.drafted.len();
            if sequence.at_root() {
                if wanted > left {
                    continue;
                }
                let drafts = sequence.drafted.iter().map(|d| d.token);
                let tokens = unread.iter().copied().chain(drafts).collect();
                rows.push(Rows { sequence: index, tokens, logits: LogitRows::All });
                left -= wanted;
            } else {
                let take = unread.len().min(left);
                if take == 0 {
                    continue;
                }
                let logits = if take == unread.len() { LogitRows::Last } else { LogitRows::None };
                rows.push(Rows { sequence: index, tokens: unread[..take].to_vec(), logits });
                left -= take;
            }
        }
        Ok(rows)
    }

    /// One target forward over the rows of all sequences.
    fn forward(&mut self, rows: &[Rows]) -> Result<Vec<Place>> {
        let (mut places, mut at, mut logits) = (Vec::with_capacity(rows.len()), 0, 0);
        let mut batch = Vec::with_capacity(rows.len());
        let mut wanted = rows.iter().peekable();
        for (index, sequence) in self.running.iter_mut().enumerate() {
            let Some(rows) = wanted.next_if(|rows| rows.sequence == index) else { continue };
            places.push(Place {
                rows: at..at + rows.tokens.len(),
                logits,
                verifies: rows.logits == LogitRows::All,
            });
            at += rows.tokens.len();
            logits += match rows.logits {
                LogitRows::None => 0,
                LogitRows::Last => 1,
                LogitRows::All => rows.tokens.len(),
            };
            let cache = &mut sequence.cache;
            batch.push(TargetRows { tokens: &rows.tokens, cache, logits: rows.logits });
        }
        if !batch.is_empty() {
            self.target.forward(&mut batch, &mut self.workspace)?;
        }
        Ok(places)
    }

    /// Commits every sequence's part and takes out those that ended.
    fn commit(&mut self, rows: &[Rows], places: &[Place]) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        let rounds = self.rounds(rows, places)?;
        let mut rounds = rounds.iter().peekable();
        for (rows, place) in rows.iter().zip(places) {
            let sequence = &mut self.running[rows.sequence];
            let before = sequence.tokens.len();
            match rounds.next_if(|round| round.sequence == rows.sequence) {
                Some(round) => commit_round(sequence, round, &self.workspace),
                None => {
                    let workspace = &self.workspace;
                    let (head, probs) = (self.head.as_deref(), &mut self.probs);
                    commit_reading(sequence, place, Forwarded { workspace, head, probs });
                }
            }
            if sequence.tokens.len() > before {
                let tokens = sequence.tokens[before..].to_vec();
                events.push(Event::Tokens { id: sequence.id, tokens });
            }
        }
        for sequence in self.running.extract_if(.., |s| s.finish.is_some()) {
            let finish = sequence.finish.unwrap_or(Finish::Stop);
            events.push(Event::Done(Box::new(sequence.into_output(finish))));
        }
        if rows.len() < self.running.len() {
            // Somebody found no room in this step: another one goes first in the next.
            self.running.rotate_left(1);
        }
        Ok(events)
    }

    /// What the target accepts of each sequence's drafts, with the signals of these runs.
    fn rounds(&mut self, rows: &[Rows], places: &[Place]) -> Result<Vec<Round>> {
        let mut rounds = Vec::with_capacity(rows.len());
        for (rows, place) in rows.iter().zip(places).filter(|(_, place)| place.verifies) {
            let sequence = &mut self.running[rows.sequence];
            let workspace = &self.workspace;
            let (head, probs) = (self.head.as_deref(), &mut self.probs);
            let forwarded = Forwarded { workspace, head, probs };
            rounds.push(accept(sequence, rows.sequence, place, forwarded));
        }
        if let Some(head) = &self.head {
            probe(head, &self.workspace, &mut self.running, &mut rounds, &mut self.drafting)?;
        }
        Ok(rounds)
    }
}
