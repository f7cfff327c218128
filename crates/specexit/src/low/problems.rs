//! Flags of `problems`.

use std::path::PathBuf;

use clap::Args;
use specexit_problems::{Family, Split};

/// Write generated problems with their answers, as questions for collect and compare
#[derive(Debug, Args)]
#[command(after_help = "Example:
  specexit problems --split train --count 500 --seed 1 --out train.jsonl")]
pub(crate) struct Problems {
    /// train, calibration or test: problems of one are never in another
    #[arg(long, value_name = "SPLIT")]
    pub(crate) split: Split,
    /// How many, spread evenly over families and difficulties
    #[arg(long, value_name = "N")]
    pub(crate) count: usize,
    /// Seed of the draw
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// words, algebra, code or logic; may be repeated [default: all]
    #[arg(long, value_name = "NAME")]
    pub(crate) family: Vec<Family>,
    /// Lowest difficulty
    #[arg(long, value_name = "1-4", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=4))]
    pub(crate) easiest: u8,
    /// Highest difficulty
    #[arg(long, value_name = "1-4", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=4))]
    pub(crate) hardest: u8,
    /// JSONL file to write [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}
