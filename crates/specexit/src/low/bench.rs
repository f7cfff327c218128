//! Flags of `bench`.

use std::path::PathBuf;

use clap::Args;

use super::ModelArgs;

/// Measure decoding: tokens per second, and the cost of verifying several rows
#[derive(Debug, Args)]
#[command(after_help = "Medians over repetitions, one sequence, after a context of 128 tokens.

Example:
  specexit bench --model model.gguf --vs-llama-cpp llama.cpp/build/bin/llama-bench")]
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
}
