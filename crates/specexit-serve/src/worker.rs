//! The engine on a thread of its own: requests come in, steps are made, updates go out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use specexit_engine::{
    Engine, EngineError, Event, ExitReason, Finish, Output, Request, RequestId, Signals, TokenId,
};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::drift::Drift;
use crate::handle::{Shared, Ticket};
use crate::metrics::Metrics;
use crate::reader::{Reader, Spelling};
use specexit_exit::text::{Part, Segment};

/// One answer to be generated.
pub(crate) struct Job {
    pub(crate) request: Request,
    /// Strings that end the answer.
    pub(crate) stops: Vec<String>,
    /// Whether its tokens are told one by one.
    pub(crate) details: bool,
}

/// What is asked of the worker.
pub(crate) enum Command {
    /// Serve jobs, or say why not; updates are told with the job's place among them.
    Submit {
        ticket: Ticket,
        jobs: Vec<Job>,
        room: OwnedSemaphorePermit,
        updates: UnboundedSender<(usize, Update)>,
        taken: oneshot::Sender<Result<(), EngineError>>,
    },
    /// Nobody waits for these any more.
    Cancel(Ticket),
}

/// What has become of a job.
#[derive(Debug)]
pub(crate) enum Update {
    /// It has gone on.
    Delta(Delta),
    /// It has ended.
    Done(Box<Done>),
    /// It was lost.
    Failed(String),
}

/// What a step added to an answer.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    /// Text, in order.
    pub(crate) segments: Vec<Segment>,
    /// Tokens one by one, where they are asked for.
    pub(crate) tokens: Vec<Token>,
    /// The first token that `signals` are about, and they.
    pub(crate) signals: Option<(usize, Vec<Signals>)>,
}

/// A generated token.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    /// Its place among the generated tokens.
    pub(crate) index: usize,
    pub(crate) id: TokenId,
    pub(crate) text: String,
    pub(crate) part: Part,
    /// Where log probabilities are asked for; NaN for one that was forced.
    pub(crate) logprob: Option<f32>,
    pub(crate) top: Vec<(TokenId, f32)>,
}

/// How an answer ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) output: Output,
    /// Tokens up to the end, which a stop string may have brought.
    pub(crate) tokens: usize,
    /// A stop string ended it.
    pub(crate) stopped: bool,
}

/// A job on its way.
struct Running {
    ticket: Ticket,
    /// Its place among the jobs of its ticket.
    place: usize,
    reader: Reader,
    details: bool,
    /// Kept to find the boundaries afterwards.
    request: Request,
    updates: UnboundedSender<(usize, Update)>,
    submitted: Instant,
    first_token: bool,
    /// Room in the queue, for as long as any job of the ticket needs it.
    _room: Arc<OwnedSemaphorePermit>,
}

/// Owns the engine.
pub(crate) struct Worker {
    engine: Engine,
    commands: Receiver<Command>,
    spelling: Arc<Spelling>,
    metrics: Arc<Metrics>,
    shared: Arc<Shared>,
    drift: Option<Drift>,
    running: HashMap<RequestId, Running>,
}

impl Worker {
    pub(crate) fn new(
        engine: Engine,
        commands: Receiver<Command>,
        spelling: Arc<Spelling>,
        metrics: Arc<Metrics>,
        shared: Arc<Shared>,
        drift: Option<Drift>,
    ) -> Self {
        Self { engine, commands, spelling, metrics, shared, drift, running: HashMap::new() }
    }

    /// Serves until nobody can ask for anything any more.
    pub(crate) fn run(mut self) {
        while self.receive() {
            match self.engine.step() {
                Ok(events) => events.into_iter().for_each(|event| self.tell(event)),
                Err(error) => self.fail(&error),
            }
            self.metrics.engine(&self.engine);
        }
    }

    /// Takes what has been asked meanwhile, and waits for it when there is nothing to do.
    fn receive(&mut self) -> bool {
        loop {
            let command = if self.engine.is_idle() {
                match self.commands.recv() {
                    Ok(command) => command,
                    Err(_) => return false,
                }
            } else {
                match self.commands.try_recv() {
                    Ok(command) => command,
                    Err(TryRecvError::Empty) => return true,
                    Err(TryRecvError::Disconnected) => return false,
                }
            };
            match command {
                Command::Submit { ticket, jobs, room, updates, taken } => {
                    let submitted = self.submit(ticket, jobs, Arc::new(room), &updates);
                    if submitted.is_err() {
                        self.cancel(ticket);
                    }
                    // Who has gone meanwhile has said so by a command of its own.
                    let _ = taken.send(submitted);
                }
                Command::Cancel(ticket) => {
                    if self.cancel(ticket) {
                        self.metrics.cancelled.inc();
                        self.metrics.engine(&self.engine);
                    }
                }
            }
        }
    }

    fn submit(
        &mut self,
        ticket: Ticket,
        jobs: Vec<Job>,
        room: Arc<OwnedSemaphorePermit>,
        updates: &UnboundedSender<(usize, Update)>,
    ) -> Result<(), EngineError> {
        for (place, Job { request, stops, details }) in jobs.into_iter().enumerate() {
            let id = self.engine.submit(request.clone())?;
            let reader = Reader::new(&self.spelling, request.phase, stops);
            let running = Running {
                ticket,
                place,
                reader,
                details,
                request,
                updates: updates.clone(),
                submitted: Instant::now(),
                first_token: false,
                _room: Arc::clone(&room),
            };
            self.running.insert(id, running);
        }
        Ok(())
    }

    /// Drops the jobs of a ticket; whether there were any.
    fn cancel(&mut self, ticket: Ticket) -> bool {
        let ids: Vec<RequestId> =
            self.running.iter().filter(|(_, r)| r.ticket == ticket).map(|(id, _)| *id).collect();
        for id in &ids {
            // It may have ended in the step before.
            let _ = self.engine.cancel(*id);
            self.running.remove(id);
        }
        !ids.is_empty()
    }

    /// Passes an event on.
    fn tell(&mut self, event: Event) {
        match event {
            Event::Tokens { id, tokens, logprobs, top_logprobs } => {
                let Some(running) = self.running.get_mut(&id) else { return };
                let logprobs = logprobs
                    .into_iter()
                    .zip(top_logprobs.into_iter().chain(std::iter::repeat(Vec::new())));
                let delta = running.read(&tokens, logprobs.collect());
                if !running.first_token {
                    running.first_token = true;
                    self.metrics.first_token.observe(running.submitted.elapsed().as_secs_f64());
                }
                running.send(Update::Delta(delta));
                if running.reader.stopped
                    && let Ok(output) = self.engine.take(id)
                {
                    self.done(output);
                }
            }
            Event::Signals { id, first, signals } => {
                if let Some(running) = self.running.get(&id).filter(|running| running.details) {
                    let signals = Some((first, signals));
                    running.send(Update::Delta(Delta { signals, ..Delta::default() }));
                }
            }
            Event::Done(output) => self.done(*output),
        }
    }

    fn done(&mut self, output: Output) {
        let Some(mut running) = self.running.remove(&output.id) else { return };
        let segments = running.reader.finish();
        if !segments.is_empty() {
            running.send(Update::Delta(Delta { segments, ..Delta::default() }));
        }
        let seconds = running.submitted.elapsed().as_secs_f64();
        let done = Done { tokens: running.reader.tokens, stopped: running.reader.stopped, output };
        self.metrics.done(&done, running.request.prompt.len(), seconds);
        self.shared.took(seconds);
        if let Some(drift) = &mut self.drift
            && let Ok(thought) = self.engine.thought(&running.request)
            && drift.add(&thought, &done.output)
        {
            self.metrics.drift(&drift.shifts());
        }
        running.send(Update::Done(Box::new(done)));
    }

    /// A step failed: what the engine was working on is lost, and said to be; what waits goes on.
    fn fail(&mut self, error: &EngineError) {
        let engine = &self.engine;
        for (_, running) in self.running.extract_if(|id, _| !engine.holds(*id)) {
            running.send(Update::Failed(error.to_string()));
        }
    }
}

impl Running {
    /// Reads new tokens, up to a stop string.
    fn read(&mut self, tokens: &[TokenId], logprobs: Vec<(f32, Vec<(TokenId, f32)>)>) -> Delta {
        let mut delta = Delta::default();
        let mut logprobs = logprobs.into_iter();
        for &id in tokens {
            if self.reader.stopped {
                break;
            }
            let index = self.reader.tokens;
            let read = self.reader.push(id);
            delta.segments.extend(read.segments);
            let (logprob, top) =
                logprobs.next().map_or((None, Vec::new()), |(p, top)| (Some(p), top));
            if self.details || logprob.is_some() {
                delta.tokens.push(Token {
                    index,
                    id,
                    text: read.text,
                    part: read.part,
                    logprob,
                    top,
                });
            }
        }
        delta
    }

    /// Nobody listens any more where this fails; a command to cancel is on its way then.
    fn send(&self, update: Update) {
        let _ = self.updates.send((self.place, update));
    }
}

impl Done {
    /// In OpenAI's words.
    pub(crate) fn finish_reason(&self) -> &'static str {
        match self.output.finish {
            Finish::Length if !self.stopped => "length",
            _ => "stop",
        }
    }

    /// Tokens inside the thought; none of them after the end that a stop string brought.
    pub(crate) fn thinking_tokens(&self) -> usize {
        self.output.thinking_tokens.min(self.tokens)
    }

    /// Whether the thought was ended early by what the signals or a rule said.
    pub(crate) fn early(&self) -> bool {
        use ExitReason::{Hopeless, Loop, Signals, Stalled};
        let early = |reason| matches!(reason, Signals | Hopeless | Loop | Stalled);
        self.output.exit.is_some_and(|exit| early(exit.reason))
    }
}
