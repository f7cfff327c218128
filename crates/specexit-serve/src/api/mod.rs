//! Requests as clients write them, and what they mean.

mod chat;
mod completion;
mod control;
mod fields;
mod sampling;

pub(crate) use chat::Chat;
pub(crate) use completion::{Completion, Prompt};
pub(crate) use control::Budget;
pub(crate) use sampling::Common;
