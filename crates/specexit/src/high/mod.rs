//! What is meant: flags checked against each other and turned into what the libraries take.

mod bench;
mod calibrate;
mod collect;
mod compare;
mod decoding;
mod demo;
mod eval;
mod generate;
mod judging;
mod label;
mod lineup;
mod method;
mod model;
mod pretrain;
mod problems;
mod prompt;
mod serve;
mod train;

pub(crate) use bench::Bench;
pub(crate) use calibrate::Calibrate;
pub(crate) use collect::Collect;
pub(crate) use compare::Compare;
pub(crate) use decoding::Decoding;
pub(crate) use demo::Demo;
pub(crate) use eval::Eval;
pub(crate) use generate::Generate;
pub(crate) use judging::Judging;
pub(crate) use label::Label;

pub(crate) use model::{HeadChoice, ModelChoice, engine, engine_with, source};
pub(crate) use pretrain::Pretrain;
pub(crate) use problems::Problems;
pub(crate) use prompt::PromptStyle;
pub(crate) use serve::Serve;
pub(crate) use train::Train;
