//! One function per subcommand.

mod bench;
mod calibrate;
mod collect;
mod compare;
mod demo;
mod eval;
mod generate;
mod inspect;
mod label;
mod pretrain;
mod problems;
mod recorded;
mod report;
mod serve;
mod train;

pub(crate) use bench::bench;
pub(crate) use calibrate::calibrate;
pub(crate) use collect::collect;
pub(crate) use compare::compare;
pub(crate) use demo::demo;
pub(crate) use eval::eval;
pub(crate) use generate::generate;
pub(crate) use inspect::inspect;
pub(crate) use label::label;
pub(crate) use pretrain::pretrain;
pub(crate) use problems::problems;
pub(crate) use report::report;
pub(crate) use serve::serve;
pub(crate) use train::train;
