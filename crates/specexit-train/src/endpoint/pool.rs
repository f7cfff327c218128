//! Calls in flight: a few threads, each with one call at a time, repeated where that may help.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::http::Api;
use super::retry::{Failure, Patience};
use super::wire::Reply;
use crate::completer::AskId;
use crate::error::{Result, TrainError};

/// The operation that continues prompts.
const COMPLETIONS: &str = "completions";

/// How a pause passes.
#[derive(Clone, Debug)]
pub(super) enum Clock {
    /// By waiting.
    Real,
    /// By noting it.
    #[cfg(test)]
    Noted(Arc<Mutex<Vec<Duration>>>),
}

/// The server, and how much patience it gets.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) api: Api,
    pub(super) patience: Patience,
    pub(super) clock: Clock,
    /// Of the jitter.
    pub(super) seed: u64,
    queue: Arc<Queue>,
}

/// What waits for a thread, and whether there is still anybody to work for.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    calls: VecDeque<(AskId, Vec<u8>)>,
    closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one statement, so what a panicking thread left is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next call; `None` once the queue is closed.
    fn take(&self) -> Option<(AskId, Vec<u8>)> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(call) = state.calls.pop_front() {
                return Some(call);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets a pause pass; false when the queue was closed meanwhile.
    fn pause(&self, pause: Duration) -> bool {
        let end = Instant::now() + pause;
        let mut state = self.lock();
        while !state.closed {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }
}

impl Line {
    pub(super) fn new(api: Api, patience: Patience, clock: Clock, seed: u64) -> Self {
        Self { api, patience, clock, seed, queue: Arc::default() }
    }

    /// Makes a call until it gives something or patience ends.
    pub(super) fn call<T>(
        &self,
        operation: &str,
        number: AskId,
        call: impl Fn(&Api) -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        let mut retry = 0;
        loop {
            let failure = match call(&self.api) {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            let url = self.api.url(operation);
            if !failure.again {
                return Err(TrainError::Endpoint { url, problem: failure.reason });
            }
            retry += 1;
            let seed = self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            if retry > self.patience.retries || !self.pause(retry, failure.after, seed) {
                let tries = if retry == 1 { "1 try".to_owned() } else { format!("{retry} tries") };
                let problem = format!(
                    "{} (the last of {tries}); once it answers again, repeat the command to go on",
                    failure.reason
                );
                return Err(TrainError::Endpoint { url, problem });
            }
        }
    }

    fn pause(&self, retry: usize, after: Option<Duration>, seed: u64) -> bool {
        let pause = self.patience.pause(retry, after, seed);
        match &self.clock {
            Clock::Real => self.queue.pause(pause),
            #[cfg(test)]
            Clock::Noted(pauses) => {
                pauses.lock().unwrap_or_else(PoisonError::into_inner).push(pause);
                true
            }
        }
    }

    /// One completion.
    pub(super) fn complete(&self, number: AskId, body: &[u8]) -> Result<Reply> {
        self.call(COMPLETIONS, number, |api| {
            let reply = api.post(COMPLETIONS, body)?;
            let read = Reply::read(&reply).and_then(|read| match &read.ids {
                Some((_, ids)) if ids.is_empty() && !read.only_stopped() => {
                    Err("has no tokens".to_owned())
                }
                _ => Ok(read),
            });
            read.map_err(|problem| Failure::passing(format!("sent an answer that {problem}")))
        })
    }

    /// An error about what the server said.
    pub(super) fn error(&self, problem: impl Into<String>) -> TrainError {
        TrainError::Endpoint { url: self.api.url(COMPLETIONS), problem: problem.into() }
    }
}

/// Threads at work.
pub(super) struct Pool {
    queue: Arc<Queue>,
    done: Receiver<(AskId, Result<Reply>)>,
}

impl Pool {
    /// Starts `threads` threads.
    pub(super) fn start(line: &Line, threads: usize) -> Result<Self> {
        let (sender, done) = channel();
        for number in 0..threads.max(1) {
            let (line, sender) = (line.clone(), sender.clone());
            std::thread::Builder::new()
                .name(format!("endpoint-{number}"))
                .spawn(move || work(&line, &sender))
                .map_err(no_thread)?;
        }
        Ok(Self { queue: Arc::clone(&line.queue), done })
    }

    pub(super) fn push(&self, id: AskId, body: Vec<u8>) {
        self.queue.lock().calls.push_back((id, body));
        self.queue.changed.notify_one();
    }

    /// Drops calls that no thread has begun.
    pub(super) fn forget(&self, id: AskId) {
        self.queue.lock().calls.retain(|(other, _)| *other != id);
    }

    /// Waits for a call to end.
    pub(super) fn wait(&self) -> Option<(AskId, Result<Reply>)> {
        self.done.recv().ok()
    }

    /// A call that has ended already.
    pub(super) fn poll(&self) -> Option<(AskId, Result<Reply>)> {
        self.done.try_recv().ok()
    }
}

/// The threads are left to themselves: one that waits for a server would hold up the end.
impl Drop for Pool {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.changed.notify_all();
    }
}

fn work(line: &Line, done: &Sender<(AskId, Result<Reply>)>) {
    while let Some((id, body)) = line.queue.take() {
        let reply = line.complete(id, &body);
        if done.send((id, reply)).is_err() {
            return;
        }
    }
}

fn no_thread(source: std::io::Error) -> TrainError {
    TrainError::NoData(format!("no thread can be started for the endpoint: {source}"))
}
