//! The server: a port, an engine, and their end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use specexit_engine::Engine;
use specexit_model::ModelText;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::app::App;
use crate::drift::Drift;
use crate::exits::Exits;
use crate::handle::{Handle, Shared};
use crate::metrics::{About, Metrics};
use crate::reader::Spelling;
use crate::routes::router;
use crate::worker::Worker;

/// Limits and names of a server.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// What clients call the model.
    pub name: String,
    /// What the head is called in metrics; empty without one.
    pub head: String,
    /// The key that requests must bring, if any.
    pub api_key: Option<String>,
    /// Answers that may wait for a place in the batch.
    pub queue: usize,
    /// Tokens generated where a request names no limit.
    pub max_tokens: usize,
    /// Bytes of a request's body at most.
    pub max_body_bytes: usize,
    /// Connections at a time; further ones wait to be accepted.
    pub max_connections: usize,
    /// How long a client may take for the head of a request, and again for its body.
    pub read_timeout: Duration,
    /// How long answers may go on once the server is told to end.
    pub drain: Duration,
    /// Questions that the page offers.
    pub examples: Vec<String>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            name: "model".to_owned(),
            head: String::new(),
            api_key: None,
            queue: 64,
            max_tokens: 4096,
            max_body_bytes: 1 << 20,
            max_connections: 256,
            read_timeout: Duration::from_secs(15),
            drain: Duration::from_secs(30),
            examples: Vec::new(),
        }
    }
}

/// Headers of a request at most.
const MAX_HEADERS: usize = 64;
/// Bytes of a request's head at most.
const MAX_HEAD: usize = 32 << 10;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The port is taken, or not ours to take.
    #[error(
        "cannot listen on {address}: {source}; choose another --port, or end what listens there"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The operating system's reason.
        source: io::Error,
    },

    /// The operating system refused something else.
    #[error("the server cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    app: Arc<App>,
    options: ServeOptions,
    worker: std::thread::JoinHandle<()>,
}

impl Server {
    /// Takes a port and starts the engine's thread. Port 0 is any free one.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub async fn start(
        address: SocketAddr,
        engine: Engine,
        model: ModelText,
        exits: Exits,
        options: ServeOptions,
    ) -> Result<Self, ServeError> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| ServeError::Listen { address, source })?;
        let calibration = exits.calibration.as_ref();
        let metrics = Arc::new(Metrics::new(&About {
            model: &options.name,
            head: &options.head,
            kv_limit: engine.kv_limit(),
            full_thinking: calibration.map(|c| c.full_thinking_tokens),
        }));
        let spelling = Spelling::new(&model.tokenizer, model.config.vocab_size, engine.markers());
        let shared = Shared::new();
        let (commands, receiver) = channel();
        let handle = Handle::new(commands, engine.max_batch(), options.queue, Arc::clone(&shared));
        let drift = Drift::of(&exits);
        let tells_drift = drift.is_some();
        let worker = Worker::new(
            engine,
            receiver,
            Arc::clone(&spelling),
            Arc::clone(&metrics),
            Arc::clone(&shared),
            drift,
        );
        let worker = std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || {
                let _alive = Alive(shared);
                worker.run();
            })
            .map_err(|source| ServeError::System { action: "start the engine's thread", source })?;
        let app = Arc::new(App {
            name: options.name.clone(),
            model,
            exits,
            spelling,
            handle,
            metrics,
            api_key: options.api_key.clone(),
            max_tokens: options.max_tokens,
            tells_drift,
            body_timeout: options.read_timeout,
            examples: options.examples.clone(),
            began: App::now(),
            next: std::sync::atomic::AtomicU64::new(0),
        });
        Ok(Self { listener, app, options, worker })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub fn address(&self) -> Result<SocketAddr, ServeError> {
        let address = self.listener.local_addr();
        address.map_err(|source| ServeError::System { action: "tell its address", source })
    }

    /// Serves until `end` is ready; then no connection is accepted any more, new requests are refused, and
    /// those on their way may finish for the time that the options allow.
    ///
    /// # Errors
    /// None of a single connection's: these end that connection only.
    pub async fn run(self, end: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self { listener, app, options, worker } = self;
        let service = TowerToHyperService::new(router(Arc::clone(&app), options.max_body_bytes));
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(options.read_timeout)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD);
        let graceful = GracefulShutdown::new();
        let room = Arc::new(Semaphore::new(options.max_connections.max(1)));
        let mut end = std::pin::pin!(end);
        loop {
            let accepted = async {
                // The semaphore is never closed.
                let place = Arc::clone(&room).acquire_owned().await.ok();
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                accepted = accepted => accepted,
                () = &mut end => break,
            };
            let Ok((stream, _)) = accepted else {
                // Out of file descriptors, most likely: connections that end give some back.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            // Small pieces of an answer are to leave at once.
            let _ = stream.set_nodelay(true);
            let connection = http.serve_connection(TokioIo::new(stream), service.clone());
            let connection = graceful.watch(connection);
            let connections = app.metrics.connections.clone();
            connections.inc();
            tokio::spawn(async move {
                // A client that breaks off is no error of the server's.
                let _ = connection.await;
                connections.dec();
                drop(place);
            });
        }
        app.handle.shared.draining.store(true, Ordering::Relaxed);
        drop(listener);
        let _ = tokio::time::timeout(options.drain, graceful.shutdown()).await;
        drop((app, service));
        // With the last handle gone the worker ends; connections that were cut off may still hold one.
        let ended = tokio::task::spawn_blocking(move || worker.join());
        let _ = tokio::time::timeout(Duration::from_secs(1), ended).await;
        Ok(())
    }
}

/// Tells when the engine's thread has ended, whatever ended it.
struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.store(false, Ordering::Relaxed);
    }
}
