//! Flags of `pretrain`.

use std::path::PathBuf;

use clap::Args;

/// Train a small reasoner from nothing on generated thoughts
#[derive(Debug, Args)]
#[command(
    after_help = "Repeating the command goes on where it was; OUT/model can be tried at any time.

Example:
  specexit pretrain --recipe recipes/reference --out run
  specexit generate --model run/model --prompt 'Solve for x: 3x + 5 = 26.'"
)]
pub(crate) struct Pretrain {
    /// Folder with a pretrain.toml, or such a file
    #[arg(long, value_name = "RECIPE")]
    pub(crate) recipe: PathBuf,
    /// Folder of the run: checkpoints, metrics, and the model in OUT/model
    #[arg(long, value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// Print the summary as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
