//! When a thought may stop: signals, smoothing, boundaries, policies, budgets.
//!
//! Plain arithmetic on plain numbers; nothing here knows of tensors, models or files. A sequence's
//! state is a [`Thought`]; the module [`thought`] explains how a decoding loop drives it.

mod ahead;
mod boundary;
mod error;
mod exit;
mod hopeless;
mod loops;
mod markers;
mod policy;
mod random;
mod signals;
mod smoothing;
mod span;
mod stall;
pub mod text;
pub mod thought;
mod thresholds;
mod vocabulary;

pub use ahead::Ahead;
pub use boundary::{BoundaryRules, BoundaryTable};
pub use error::{ParseError, SettingError};
pub use exit::{Exit, ExitReason};
pub use hopeless::Hopeless;
pub use loops::Loops;
pub use markers::Markers;
pub use policy::{Policy, Profile, SmoothUnit};
pub use random::RandomExit;
pub use signals::Signals;
pub use smoothing::{Smoother, Smoothers, Smoothing};
pub use span::Phase;
pub use stall::Stall;
pub use thought::{Thought, ThoughtConfig, Verdict};
pub use thresholds::Thresholds;
pub use vocabulary::Vocabulary;

/// A token's number in the target's vocabulary.
pub type TokenId = u32;
