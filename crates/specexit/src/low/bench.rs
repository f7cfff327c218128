//! Flags of `bench`.

use std::path::PathBuf;

use clap::Args;

use super::{HeadArgs, ModelArgs};

/// Measure decoding, verifying and reading prompts, beside what the machine could do
#[derive(Debug, Args)]
#[command(after_help = "\
Medians over repetitions after a context of 128 tokens: plain decoding, the verification of 2 to
16 rows with the logits of all, 8 sequences together, and prompts of 128 and 512 tokens read in one
go. The floor of each is the time in which this machine could read the weights or do the products,
by its own measured memory bandwidth and product rate; 100 % of it is all that there is. With a
head, also what drafting 4 tokens and reading the signals cost.

The machine should have nothing else to do; the last line warns where it had.

Examples:
  specexit bench --model model.gguf --vs-llama-cpp llama.cpp/build/bin/llama-bench
  specexit bench --model model.gguf --head run/head --json")]
pub(crate) struct Bench {
    /// Repetitions
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) repetitions: usize,
    /// Also run llama.cpp's llama-bench on the same file, taking turns
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) vs_llama_cpp: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) head: HeadArgs,
}
