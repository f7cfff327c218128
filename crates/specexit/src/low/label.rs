//! Flags of `label`.

use std::path::PathBuf;

use clap::Args;
use specexit_answer::AnswerKind;
use specexit_exit::Profile;
use specexit_train::{ConfidenceKind, ProgressNorm};

use super::shared::word;
use super::{EndpointArgs, ModelArgs};

/// Find the earliest sufficient cut of every trace
#[derive(Debug, Args)]
#[command(after_help = "\
At boundaries of the thought the end-of-thinking marker is forced and the target answers; the
earliest cut whose answer is the trace's own gives the labels. Repeating the command goes on where it was.

Example:
  specexit label --model model.gguf --traces traces.jsonl --out labels.jsonl")]
pub(crate) struct Label {
    /// Trace file of `collect`, made with the same model
    #[arg(long, value_name = "FILE")]
    pub(crate) traces: PathBuf,
    /// Label file to write or to complete
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Use at most so many traces
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Trial answers generated together [default: 8]
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<usize>,
    /// What sort of answer the questions have: auto, number, boxed or option
    #[arg(long, value_name = "KIND", default_value_t)]
    pub(crate) answer_kind: AnswerKind,
    /// Use only traces whose own answer is the known one
    #[arg(long)]
    pub(crate) only_correct: bool,
    /// Print the summary as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) endpoint: EndpointArgs,
    #[command(flatten)]
    pub(crate) cuts: CutArgs,
    #[command(flatten)]
    pub(crate) labels: SignalArgs,
}

/// Where thoughts are cut.
#[derive(Debug, Args)]
#[command(next_help_heading = "Cuts")]
pub(crate) struct CutArgs {
    /// Boundaries of this profile: default, paper or angelslim
    #[arg(long, value_name = "PROFILE", default_value_t)]
    pub(crate) boundaries: Profile,
    /// Try every so many boundaries
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) stride: usize,
    /// Most cuts per trace, spread evenly
    #[arg(long, value_name = "N")]
    pub(crate) max_cuts: Option<usize>,
    /// Try all cuts instead of stopping at the earliest sufficient one
    #[arg(long)]
    pub(crate) all_cuts: bool,
    /// So many further cuts must give the same answer
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub(crate) stable_k: usize,
    /// Longest trial answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) max_answer_tokens: usize,
    /// What is written to end the thought [default: what the trace itself has]
    #[arg(long, value_name = "TEXT")]
    pub(crate) close_text: Option<String>,
}

/// What the labels say.
#[derive(Debug, Args)]
#[command(next_help_heading = "Labels")]
pub(crate) struct SignalArgs {
    /// Tokens whose probabilities confidence averages: C1 trial answer, C2 paragraph, C3 the trace's
    /// own answer read after each cut [default: C1]
    #[arg(long, value_name = "KIND", value_parser = word::<ConfidenceKind>)]
    pub(crate) confidence_kind: Option<ConfidenceKind>,
    /// Leave the first token of the trial answer out of C1
    #[arg(long)]
    pub(crate) confidence_skip_first: bool,
    /// Progress relative to the cut or to the full thought: cut or full [default: cut]
    #[arg(long, value_name = "KIND", value_parser = word::<ProgressNorm>)]
    pub(crate) progress_norm: Option<ProgressNorm>,
}
