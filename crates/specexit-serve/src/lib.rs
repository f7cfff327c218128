//! The OpenAI-compatible server, with early exit as a feature of every request.
//!
//! A request's life: `routes` takes it, `api` reads it field by field, [`app`](crate) makes engine requests of it,
//! `handle` hands them to the `worker`, which owns the engine on a thread of its own. What the engine commits
//! goes through a `reader` (thought apart from answer, stop strings) and comes back as updates, of which
//! `whole` makes one answer and `stream` many small ones. Dropping the updates cancels the request.

mod api;
mod app;
mod drift;
mod error;
mod exits;
mod handle;
mod metrics;
mod page;
mod reader;
mod reply;
mod routes;
mod server;
mod stream;
mod whole;
mod worker;

pub use error::ApiError;
pub use exits::Exits;
pub use page::PAGE;
pub use server::{ServeError, ServeOptions, Server};

/// Reads a request's body as the routes do, for those who feed it with anything: whether it is a request.
#[must_use]
pub fn accepts(body: &[u8]) -> bool {
    api::Chat::parse(body).is_ok() || api::Completion::parse(body).is_ok()
}
