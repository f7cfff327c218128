//! Flags of `report`.

use std::path::PathBuf;

use clap::Args;

/// Make the page about a training run again, or of one that still runs or was stopped
#[derive(Debug, Args)]
#[command(after_help = "\
`train` itself makes the page when it finishes. The page is one file that any browser shows, offline.

Example:
  specexit report run")]
pub(crate) struct Report {
    /// Folder of the run, the --out of `train`
    #[arg(value_name = "RUN")]
    pub(crate) run: PathBuf,
    /// Write the page here [default: report.html in the run's folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}
