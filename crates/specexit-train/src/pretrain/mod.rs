//! `pretrain`: a small Qwen3-shaped target from nothing but texts, on a CPU.

mod batch;
mod export;
mod metrics;
mod options;
mod run;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use export::MODEL_FOLDER;
pub use metrics::{PretrainHeldOut, PretrainStep};
pub use options::{Corpus, PretrainOptions, Sample};
pub use run::{PretrainSummary, pretrain};
