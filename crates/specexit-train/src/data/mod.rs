//! Training data: sequences with labels, the draft vocabulary, and the target's states on disk.

pub(crate) mod batches;
pub(crate) mod examples;
pub(crate) mod source;
pub(crate) mod states;
pub(crate) mod vocabulary;

#[cfg(test)]
pub(crate) mod testing;
