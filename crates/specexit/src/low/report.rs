//! Flags of `report`.

use std::path::PathBuf;

use clap::Args;

/// Make the page about an evaluation or a training run again, or of a run that still goes on or was stopped
#[derive(Debug, Args)]
#[command(after_help = "\
`train` and `eval` themselves make the page when they finish. It is made from the files of the folder alone,
without the model, and is one file that any browser shows, offline.

Examples:
  specexit report run
  specexit report eval --thoughts 200")]
pub(crate) struct Report {
    /// The --out of `train` or of `eval`
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
    /// Write the page here [default: report.html in the folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Single thoughts of each task of an evaluation at most [default: 40]
    #[arg(long, value_name = "N")]
    pub(crate) thoughts: Option<usize>,
}
