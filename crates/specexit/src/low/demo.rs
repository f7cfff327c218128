//! Flags of `demo`.

use clap::Args;
use specexit_problems::Family;

/// Watch the built-in reasoner overthink, and SpecExit stop it: one thought, then a table
#[derive(Debug, Args)]
#[command(after_help = "\
Works without a network: the reasoner and its draft head are inside the program. The problems are
drawn from those that neither was trained nor calibrated on. Colours appear on a terminal only, and
not where NO_COLOR is set.

Example:
  specexit demo --family logic --problems 40 --seed 7")]
pub(crate) struct Demo {
    /// How many problems the table is about, spread evenly over families and difficulties
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) problems: u32,
    /// Seed of the problems
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Only this family: words, algebra, code or logic; may be repeated [default: all]
    #[arg(long, value_name = "NAME")]
    pub(crate) family: Vec<Family>,
    /// Threads of the kernels [default: all that this process may use]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Print the numbers as JSON, and no thought
    #[arg(long)]
    pub(crate) json: bool,
}
