//! Flags of `eval`.

use std::path::PathBuf;

use clap::Args;

use super::{BudgetArgs, ExitArgs, HeadArgs, JudgingArgs, ModelArgs, PromptArgs, SamplingArgs};

/// Measure what methods save and lose on whole tasks, with intervals and the whole frontier
#[derive(Debug, Args)]
#[command(after_help = "\
A task is words, algebra, code or logic (problems made on the spot, after --seed, that the built-in
reasoner has never seen), or a file of questions with answers. Methods are those of `compare`. With a head that
has a signal probe, every question is also closed at each of its boundaries, once; from that
recording, accuracy against tokens is replayed for every signal, for chance and for the methods that
probe, over the whole range of their settings (--no-frontier leaves it out).

DIR gets every answer, the recordings, eval.json, eval.csv and the page report.html, which any browser
shows offline; repeating the command goes on where it was.

Example:
  specexit eval --model model.gguf --head run/head --task gsm8k.jsonl --limit 200 \\
    --methods plain,eagle3,specexit,deer:0.95,nothinking --out eval")]
pub(crate) struct Eval {
    /// Tasks, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', required = true)]
    pub(crate) task: Vec<String>,
    /// Methods, separated by commas
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "plain,eagle3,specexit"
    )]
    pub(crate) methods: Vec<String>,
    /// Questions of each task at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: usize,
    /// Folder of all that is measured
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Leave out what is not asked for by --methods
    #[arg(long)]
    pub(crate) no_frontier: bool,
    /// Also measure how long all questions take with so many answered at a time, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) concurrency: Vec<usize>,
    /// Questions recorded together for the frontier
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) batch: usize,
    /// Answer each question so many times, each time with the next seed; needs a --temperature. Intervals are then
    /// over questions
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) repeats: usize,
    /// Drafted tokens per round [default: 4]
    #[arg(long, value_name = "K")]
    pub(crate) draft_tokens: Option<usize>,
    /// Single thoughts of each task that the page shows at most
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub(crate) thoughts: usize,
    /// Print eval.json instead of tables
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
