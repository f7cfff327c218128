//! The engine of specexit: requests in, tokens out, several sequences at once.
//!
//! A [`Request`] becomes a sequence; every [`Engine::step`] drafts for the sequences that speculate,
//! runs one target forward over the rows of all of them, and commits what was accepted. Whether and where
//! a thought ends is decided by `specexit-exit` from committed tokens alone.

mod commit;
mod depth;
mod draft;
mod engine;
mod error;
mod logprobs;
mod prefix;
mod prompt;
mod request;
mod reuse;
mod sampling;
mod score;
mod sequence;
mod signals;
mod verify;

pub use depth::DepthCosts;
pub use engine::{Engine, EngineOptions, MAX_DRAFT_TOKENS};
pub use error::{EngineError, Result};
pub use logprobs::MAX_TOP_LOGPROBS;
pub use prefix::Prefix;
pub use prompt::phase_of_prompt;
pub use request::{Event, Finish, Method, Output, Request, RequestId};
pub use sampling::Sampling;
pub use score::Scored;
pub use specexit_exit::{Exit, ExitReason, Loops, Phase, Policy, Signals, TokenId};
