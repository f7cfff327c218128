//! Flags of `collect`.

use std::path::PathBuf;

use clap::Args;
use specexit_answer::AnswerKind;
use specexit_train::WaitCount;

use super::shared::word;
use super::{EndpointArgs, ModelArgs, PromptArgs, SamplingArgs};

/// Record the target's own outputs on a file of questions
#[derive(Debug, Args)]
#[command(after_help = "Repeating the command goes on where it was.

Examples:
  specexit collect --model model.gguf --questions train.jsonl --limit 200 --think-open \\
    --waits 2 --out traces.jsonl
  specexit collect --model org/model --questions train.jsonl --endpoint http://localhost:8000 \\
    --concurrency 64 --temperature 0.6 --samples 4 --out traces.jsonl")]
pub(crate) struct Collect {
    /// JSONL with question, problem or prompt, and where known answer
    #[arg(long, value_name = "FILE")]
    pub(crate) questions: PathBuf,
    /// Trace file to write or to complete
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Use at most so many questions
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Skip so many questions at the beginning of the file
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) offset: usize,
    /// Outputs per question
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) samples: usize,
    /// Outputs generated together [default: 8]
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<usize>,
    /// Most tokens per output, forced ones included
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub(crate) max_new_tokens: usize,
    /// What sort of answer is looked for in the summary: auto, number, boxed or option
    #[arg(long, value_name = "KIND", default_value_t)]
    pub(crate) answer_kind: AnswerKind,
    /// Record the log probability of every token
    #[arg(long)]
    pub(crate) record_logprobs: bool,
    /// Print the summary as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) endpoint: EndpointArgs,
    #[command(flatten)]
    pub(crate) prompting: PromptArgs,
    #[command(flatten)]
    pub(crate) forcing: ForcingArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

/// How thoughts are made longer, and closed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Budget forcing")]
pub(crate) struct ForcingArgs {
    /// Close a thought that is still open after so many tokens, and let the target answer
    #[arg(long, value_name = "N")]
    pub(crate) max_thinking_tokens: Option<usize>,
    /// When the target wants to end its thought, let it go on up to so many times
    #[arg(long, value_name = "W", default_value_t = 0)]
    pub(crate) waits: usize,
    /// fixed: always W; drawn: between 0 and W for each output, few of them long [default: fixed]
    #[arg(long, value_name = "KIND", value_parser = word::<WaitCount>)]
    pub(crate) wait_count: Option<WaitCount>,
    /// What the thought goes on with [default: "Wait, let me check."]
    #[arg(long, value_name = "TEXT")]
    pub(crate) wait_text: Option<String>,
    /// What is forced when the output ends inside the thought [default: </think> and a blank line]
    #[arg(long, value_name = "TEXT")]
    pub(crate) close_text: Option<String>,
    /// Leave a thought open when the output ends inside it
    #[arg(long, conflicts_with = "close_text")]
    pub(crate) no_force_close: bool,
}
