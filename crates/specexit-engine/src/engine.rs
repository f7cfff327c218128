//! The engine: requests in, one batch of rows a step, tokens out.

mod admission;
mod reading;
mod rounds;

use std::collections::VecDeque;
use std::sync::Arc;

use specexit_exit::{BoundaryRules, Markers, Vocabulary};
use specexit_model::{DraftHead, PREFILL_CHUNK, Target, Tokenizer, Workspace};

use crate::draft::DraftBuffers;
use crate::error::{EngineError, Result};
use crate::request::{Event, Output, Request, RequestId};
use crate::sequence::Sequence;

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
}
