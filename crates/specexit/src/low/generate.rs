//! Flags of `generate`.

use std::path::PathBuf;

use clap::Args;
use specexit_engine::Method;

use super::{BudgetArgs, ExitArgs, HeadArgs, ModelArgs, PromptArgs, SamplingArgs};

/// Answer one prompt, streaming the text
#[derive(Debug, Args)]
#[command(
    after_help = "The prompt is PROMPT, --prompt-file or stdin. On a terminal the thought is dimmed.

Example:
  specexit generate --model model.gguf --head run/head --max-thinking-tokens 512 \"What is 17 * 23?\""
)]
pub(crate) struct Generate {
    /// The question
    #[arg(value_name = "PROMPT")]
    pub(crate) prompt: Option<String>,
    /// Read the question from a file
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub(crate) prompt_file: Option<PathBuf>,
    /// plain, eagle3 or specexit [default: what the head can do; plain without a head]
    #[arg(long, value_name = "NAME")]
    pub(crate) method: Option<Method>,
    /// Drafted tokens per round [default: 4]
    #[arg(long, value_name = "K")]
    pub(crate) draft_tokens: Option<usize>,
    /// Print one JSON document at the end instead of streaming
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) head: HeadArgs,
    #[command(flatten)]
    pub(crate) prompting: PromptArgs,
    /// Take the prompt as it is, without the chat template
    #[arg(
        long,
        help_heading = "Prompt",
        conflicts_with_all = ["system", "suffix", "thinking", "no_thinking", "think_open"]
    )]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) exit: ExitArgs,
    #[command(flatten)]
    pub(crate) length: BudgetArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}
