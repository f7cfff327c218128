//! What is meant: flags checked against each other and turned into what the libraries take.

mod bench;
mod collect;
mod compare;
mod generate;
mod label;
mod method;
mod model;
mod prompt;
mod train;

pub(crate) use bench::Bench;
pub(crate) use collect::Collect;
pub(crate) use compare::Compare;
pub(crate) use generate::Generate;
pub(crate) use label::Label;

pub(crate) use model::{HeadChoice, ModelChoice, engine};
pub(crate) use prompt::PromptStyle;
pub(crate) use train::Train;
