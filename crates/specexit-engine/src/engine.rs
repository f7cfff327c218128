//! The engine: requests in, one batch of rows a step, tokens out.

mod admission;
mod measure;
mod reading;
mod rounds;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use specexit_exit::{BoundaryRules, Markers, Thought, Vocabulary};
use specexit_model::{DraftHead, PREFILL_CHUNK, Target, Tokenizer, Workspace};

use crate::depth::{DepthCosts, Elsewhere};
use crate::draft::DraftBuffers;
use crate::error::{EngineError, Result};
use crate::request::{Event, Finish, Output, Request, RequestId};
use crate::reuse::PrefixStore;
use crate::sequence::Sequence;

/// Drafted tokens per round that make sense; a longer chain is refused.
pub const MAX_DRAFT_TOKENS: usize = 32;

/// Limits of an engine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Sequences served together; others wait.
    pub max_batch: usize,
    /// Rows of one forward at most; long prompts are read in several steps.
    pub max_rows: usize,
    /// Most bytes of keys and values that running sequences may come to need, drafting included; `None` for
    /// no limit. What a sequence may need is counted when it is admitted, so that none is ever pushed out.
    pub kv_bytes: Option<usize>,
    /// Most bytes of keys and values kept of requests that ended and of prompts that were read, for requests
    /// whose prompts begin alike; besides `kv_bytes`. 0 keeps nothing.
    pub prefix_bytes: usize,
    /// Texts around a thought; `<think>` and `</think>` when `None`.
    pub markers: Option<Markers>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            max_batch: 8,
            max_rows: 2 * PREFILL_CHUNK,
            kv_bytes: None,
            prefix_bytes: 0,
            markers: None,
        }
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
    waiting: VecDeque<Waiting>,
    running: Vec<Sequence>,
    prefixes: PrefixStore,
    next_id: RequestId,
    workspace: Workspace,
    drafting: DraftBuffers,
    depth_costs: Option<DepthCosts>,
    elsewhere: Elsewhere,
    probs: Vec<f32>,
}

/// A request that has not been admitted.
struct Waiting {
    id: RequestId,
    request: Request,
    thought: Thought,
    /// Bytes of keys and values that it may come to need.
    kv_need: usize,
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
            prefixes: PrefixStore::new(options.prefix_bytes),
            options,
            waiting: VecDeque::new(),
            running: Vec::new(),
            next_id: 0,
            workspace: Workspace::default(),
            drafting: DraftBuffers::default(),
            depth_costs: None,
            elsewhere: Elsewhere::default(),
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

    /// Whether a request waits or runs; after a failed step, what that step was working on does not.
    pub fn holds(&self, id: RequestId) -> bool {
        self.waiting.iter().any(|waiting| waiting.id == id)
            || self.running.iter().any(|sequence| sequence.id == id)
    }

    /// Requests that have not been admitted yet.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Requests being served.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Bytes of keys and values that the running requests may come to need together.
    pub fn kv_reserved(&self) -> usize {
        self.running.iter().map(|sequence| sequence.kv_need).sum()
    }

    /// What [`EngineOptions::kv_bytes`] allows.
    pub fn kv_limit(&self) -> Option<usize> {
        self.options.kv_bytes
    }

    /// Bytes of keys and values that are kept for requests to come.
    pub fn prefix_bytes_held(&self) -> usize {
        self.prefixes.bytes()
    }

    /// Queues a request. Requests are admitted in the order in which they came: the first that finds no room
    /// blocks those behind it.
    ///
    /// # Errors
    /// One sentence on what in the request cannot be served, now or ever; the engine is unchanged then.
    pub fn submit(&mut self, mut request: Request) -> Result<RequestId> {
        self.check(&request)?;
        let room = self.target.config.max_position_embeddings - request.prompt.len();
        request.max_new_tokens = request.max_new_tokens.min(room);
        let kv_need = self.kv_need(&request);
        if let Some(limit) = self.options.kv_bytes.filter(|limit| kv_need > *limit) {
            return Err(EngineError::TooLarge { need: kv_need, limit });
        }
        let thought = self.thought(&request)?;
        let id = self.next_id;
        self.next_id += 1;
        self.waiting.push_back(Waiting { id, request, thought, kv_need });
        Ok(id)
    }

    /// Drops a request that waits or runs.
    ///
    /// # Errors
    /// When no such request is there (it may have finished).
    pub fn cancel(&mut self, id: RequestId) -> Result<()> {
        let before = self.waiting.len() + self.running.len();
        self.waiting.retain(|waiting| waiting.id != id);
        self.running.retain(|s| s.id != id);
        if self.waiting.len() + self.running.len() == before {
            return Err(EngineError::UnknownRequest { id });
        }
        Ok(())
    }

    /// Ends a running request here: what it has written so far is its output.
    ///
    /// # Errors
    /// When no such request runs (it may wait still, or have finished).
    pub fn take(&mut self, id: RequestId) -> Result<Output> {
        let place = self.running.iter().position(|sequence| sequence.id == id);
        let sequence = self.running.remove(place.ok_or(EngineError::UnknownRequest { id })?);
        Ok(self.ended(sequence, Finish::Stop))
    }

    /// One scheduler step.
    ///
    /// # Errors
    /// The model's, naming what it refused. All requests that were running are then lost; those that wait are
    /// not, and the engine goes on with them and with new ones.
    pub fn step(&mut self) -> Result<Vec<Event>> {
        self.receive();
        let events = self.work();
        if events.is_err() {
            // Their caches may hold half of what the step was to append.
            self.running.clear();
        }
        events
    }

    fn work(&mut self) -> Result<Vec<Event>> {
        let started = Instant::now();
        let rows = self.schedule()?;
        let depths = self.drafted();
        let places = self.forward(&rows)?;
        let events = self.commit(&rows, &places)?;
        if let (Some(depths), Some(costs)) = (depths, &self.depth_costs) {
            let rows = places.last().map_or(0, |place| place.rows.end);
            self.elsewhere.saw(costs, rows, &depths, started.elapsed().as_secs_f64());
        }
        Ok(events)
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
}
