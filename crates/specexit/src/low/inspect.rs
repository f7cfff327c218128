//! Flags of `inspect`.

use clap::Args;

/// Say what is in a model, a draft head, a trace file, a label file or a comparison
#[derive(Debug, Args)]
#[command(after_help = "Example:
  specexit inspect model.gguf")]
pub(crate) struct Inspect {
    /// A model (folder, .gguf file or hub id), a head's folder, or a JSONL file of this program
    #[arg(value_name = "PATH")]
    pub(crate) path: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
