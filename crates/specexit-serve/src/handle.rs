//! The way from a request to the engine and back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{Semaphore, TryAcquireError, oneshot};

use crate::error::{ApiError, Result};
use crate::worker::{Command, Job, Update};

/// Identifies the jobs of one request.
pub(crate) type Ticket = u64;

/// Seconds that a full queue asks to wait at most.
const LONGEST_WAIT: f64 = 60.0;

/// What worker and handlers both see.
pub(crate) struct Shared {
    /// New requests are refused.
    pub(crate) draining: AtomicBool,
    /// The worker still serves.
    pub(crate) alive: AtomicBool,
    /// Moving mean of the seconds that an answer takes.
    seconds: Mutex<f64>,
}

impl Shared {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            draining: AtomicBool::new(false),
            alive: AtomicBool::new(true),
            seconds: Mutex::new(0.0),
        })
    }

    /// An answer took so long.
    pub(crate) fn took(&self, seconds: f64) {
        let mut mean = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        *mean = if *mean == 0.0 { seconds } else { 0.9 * *mean + 0.1 * seconds };
    }
}

/// Where requests are handed in.
pub(crate) struct Handle {
    commands: Sender<Command>,
    room: Arc<Semaphore>,
    /// Answers that may be asked for at once, waiting or running.
    places: usize,
    batch: usize,
    next: AtomicU64,
    pub(crate) shared: Arc<Shared>,
}

impl Handle {
    /// Room for `batch` answers that run and `queue` that wait.
    pub(crate) fn new(
        commands: Sender<Command>,
        batch: usize,
        queue: usize,
        shared: Arc<Shared>,
    ) -> Self {
        let places = batch + queue;
        let room = Arc::new(Semaphore::new(places));
        Self { commands, room, places, batch, next: AtomicU64::new(0), shared }
    }

    /// Hands jobs in; their updates come as the engine goes on. Dropping what is returned cancels them.
    ///
    /// # Errors
    /// A full queue, a server that shuts down, or what the engine refuses.
    pub(crate) async fn submit(&self, jobs: Vec<Job>) -> Result<Answers> {
        if self.shared.draining.load(Ordering::Relaxed) {
            return Err(ApiError::draining());
        }
        let count = jobs.len();
        if count > self.places {
            let message =
                format!("n is {count}, and this server holds {} answers at a time", self.places);
            return Err(ApiError::field("n", message));
        }
        let room = Arc::clone(&self.room).try_acquire_many_owned(count as u32);
        let room = room.map_err(|error| match error {
            TryAcquireError::NoPermits => self.full(),
            TryAcquireError::Closed => ApiError::draining(),
        })?;
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        let (updates, receiver) = unbounded_channel();
        let (taken, submitted) = oneshot::channel();
        let gone = || ApiError::failed("the engine has stopped; restart the server");
        let mut answers =
            Answers { ticket, updates: receiver, open: count, commands: self.commands.clone() };
        self.commands
            .send(Command::Submit { ticket, jobs, room, updates, taken })
            .map_err(|_| gone())?;
        match submitted.await {
            Ok(Ok(())) => Ok(answers),
            Ok(Err(error)) => {
                answers.open = 0;
                Err(ApiError::refused(&error))
            }
            Err(_) => Err(gone()),
        }
    }

    fn full(&self) -> ApiError {
        let seconds = *self.shared.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        let rounds = self.places.div_ceil(self.batch.max(1)) as f64;
        let message = "the queue is full; try again after the seconds in Retry-After";
        ApiError {
            retry_after: Some((seconds * rounds).ceil().clamp(1.0, LONGEST_WAIT) as u64),
            ..ApiError::new(StatusCode::TOO_MANY_REQUESTS, message).with_code("queue_full")
        }
    }
}

/// The updates of one request's jobs.
pub(crate) struct Answers {
    ticket: Ticket,
    updates: UnboundedReceiver<(usize, Update)>,
    /// Jobs that have not ended.
    open: usize,
    commands: Sender<Command>,
}

impl Answers {
    /// The next update with the place of its job; none once all have ended.
    pub(crate) async fn next(&mut self) -> Option<(usize, Update)> {
        if self.open == 0 {
            return None;
        }
        let lost = || "the engine has stopped; restart the server".to_owned();
        let (place, update) =
            self.updates.recv().await.unwrap_or_else(|| (0, Update::Failed(lost())));
        match update {
            Update::Delta(_) => {}
            Update::Done(_) => self.open -= 1,
            Update::Failed(_) => self.open = 0,
        }
        Some((place, update))
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        if self.open > 0 {
            // A worker that is gone has nothing left to cancel.
            let _ = self.commands.send(Command::Cancel(self.ticket));
        }
    }
}
