//! Flags of `compare`.

use std::path::PathBuf;

use clap::Args;

use super::{BudgetArgs, ExitArgs, HeadArgs, JudgingArgs, ModelArgs, PromptArgs, SamplingArgs};

/// Answer the same questions by several methods and print one table
#[derive(Debug, Args)]
#[command(after_help = "\
Methods take turns on every question, one sequence at a time. A method is plain, eagle3 or specexit,
then settings, each after a colon: a profile (specexit:paper), confidence=X, progress=X,
remaining=X, smoothing=KIND/N, min=N, k=N (drafted tokens; k=auto drafts as many as pay), budget=N. budget:N is plain:budget=N;
nothinking closes every thought before it begins; random:P ends it at each boundary with probability P.
deer:P, dynasor:N and eat:V try answers at boundaries, and end the thought at a probability above P, N
equal answers in a row, or a variance of the entropy below V; :eagle3 behind them drafts the thought.
A bare specexit uses the exit flags above.

Example:
  specexit compare --model model.gguf --head run/head --questions test.jsonl --limit 30 \\
    --methods plain,eagle3,specexit,specexit:confidence=0.9,budget:256 --out compare.jsonl")]
pub(crate) struct Compare {
    /// JSONL with question, problem or prompt, and answer
    #[arg(long, value_name = "FILE")]
    pub(crate) questions: PathBuf,
    /// Use at most so many questions
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Skip so many questions at the beginning of the file
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) offset: usize,
    /// Methods, separated by commas
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "plain,eagle3,specexit"
    )]
    pub(crate) methods: Vec<String>,
    /// Answer each question so many times, each time with the next seed; needs a --temperature. Intervals are then
    /// over questions
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) repeats: usize,
    /// Drafted tokens per round [default: 4]
    #[arg(long, value_name = "K")]
    pub(crate) draft_tokens: Option<usize>,
    /// Keep every answer in this JSONL file; repeating the command goes on where it was
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Print JSON, with every answer, instead of the table
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) head: HeadArgs,
    #[command(flatten)]
    pub(crate) prompting: PromptArgs,
    #[command(flatten)]
    pub(crate) judging: JudgingArgs,
    #[command(flatten)]
    pub(crate) exit: ExitArgs,
    #[command(flatten)]
    pub(crate) length: BudgetArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}
