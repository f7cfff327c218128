//! What was typed: every command's flags, as clap reads them.

mod bench;
mod calibrate;
mod collect;
mod compare;
mod demo;
mod eval;
mod generate;
mod inspect;
mod label;
mod pretrain;
mod problems;
mod report;
mod serve;
mod shared;
mod train;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::failure::{Help, UsageError};

pub(crate) use bench::Bench;
pub(crate) use calibrate::Calibrate;
pub(crate) use collect::Collect;
pub(crate) use compare::Compare;
pub(crate) use demo::Demo;
pub(crate) use eval::Eval;
pub(crate) use generate::Generate;
pub(crate) use inspect::Inspect;
pub(crate) use label::Label;
pub(crate) use pretrain::Pretrain;
pub(crate) use problems::Problems;
pub(crate) use report::Report;
pub(crate) use serve::Serve;
pub(crate) use shared::{
    BudgetArgs, EndpointArgs, ExitArgs, HeadArgs, JudgingArgs, ModelArgs, PromptArgs, SamplingArgs,
};
pub(crate) use train::Train;

/// Speculative exit for large reasoning models: train and run draft heads that also predict when a
/// thought may stop.
#[derive(Debug, Parser)]
#[command(
    name = "specexit",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
#[command(after_help = "Start with `specexit demo`, or `specexit generate --help`.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Generate(Generate),
    Collect(Collect),
    Label(Label),
    Train(Train),
    Report(Report),
    Serve(Serve),
    Compare(Compare),
    Eval(Eval),
    Calibrate(Calibrate),
    Inspect(Inspect),
    Bench(Bench),
    Problems(Problems),
    Pretrain(Pretrain),
    Demo(Demo),
}

impl Cli {
    /// Reads the program's arguments.
    pub(crate) fn read() -> anyhow::Result<Self> {
        Self::try_parse().map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                Help(error.render().to_string()).into()
            }
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                UsageError("no command is given; see `specexit --help`".to_owned()).into()
            }
            _ => UsageError(one_sentence(&error.render().to_string())).into(),
        })
    }
}

/// The first paragraph of clap's message; the rest is usage that `--help` tells better.
fn one_sentence(message: &str) -> String {
    let first = message.split("\n\n").next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let words: Vec<&str> = first.split_whitespace().collect();
    format!("{}; see `--help`", words.join(" ").trim_end_matches('.'))
}
