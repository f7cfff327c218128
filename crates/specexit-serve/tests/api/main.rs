//! The server as its clients see it.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod answers;
#[path = "../page/cdp.rs"]
#[allow(dead_code, reason = "the tests of the page need more of it")]
mod cdp;
mod client;
mod limits;
mod live;
mod served;
