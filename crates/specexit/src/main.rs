//! The `specexit` command: arguments in, one call per subcommand, printing out.
//!
//! What was typed ([`low`]) becomes what is meant ([`high`]), checked and built, before anything
//! runs; a command ([`commands`]) never sees a raw flag.

mod assets;
mod commands;
mod failure;
mod high;
mod low;
mod output;

use std::process::ExitCode;

use low::{Cli, Command};

fn main() -> ExitCode {
    match Cli::read().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Generate(args) => commands::generate(high::Generate::new(args)?),
        Command::Collect(args) => commands::collect(high::Collect::new(args)?),
        Command::Label(args) => commands::label(high::Label::new(args)?),
        Command::Train(args) => commands::train(high::Train::new(args)?),
        Command::Report(args) => commands::report(&args),
        Command::Serve(args) => commands::serve(high::Serve::new(args)?),
        Command::Compare(args) => commands::compare(high::Compare::new(args)?),
        Command::Eval(args) => commands::eval(high::Eval::new(args)?),
        Command::Calibrate(args) => commands::calibrate(high::Calibrate::new(args)?),
        Command::Inspect(args) => commands::inspect(&args),
        Command::Bench(args) => commands::bench(high::Bench::new(args)?),
        Command::Problems(args) => commands::problems(high::Problems::new(args)?),
        Command::Pretrain(args) => commands::pretrain(high::Pretrain::new(args)?),
        Command::Demo(args) => commands::demo(high::Demo::new(args)?),
    }
}
