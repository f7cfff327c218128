//! Flags of `calibrate`.

use std::path::PathBuf;

use clap::Args;

use super::{HeadArgs, JudgingArgs, ModelArgs, PromptArgs};

/// Find the exit setting that saves most at a risk that you accept, with a guarantee
#[derive(Debug, Args)]
#[command(after_help = "\
The risk is the share of the answers right after full thinking that the early exit may lose. Every
question is answered once in full and once from each boundary; hundreds of settings are replayed on
that. With confidence 1 - DELTA over the draw of the questions, the setting found keeps the promise
on questions of the same kind. A risk of 0.01 takes about 500 questions or more.

The promises go into calibration.json in the head's folder (a built-in head has none); then
`--risk 0.01` uses them. DIR keeps what was recorded: repeating the command goes on where it was,
and another head needs no new recording.

Example:
  specexit calibrate --model model.gguf --head run/head --questions calibration.jsonl \\
    --risk 0.01,0.02 --out calibration")]
pub(crate) struct Calibrate {
    /// JSONL with question, problem or prompt, and answer; none that you will report results on
    #[arg(long, value_name = "FILE")]
    pub(crate) questions: PathBuf,
    /// Use at most so many questions
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Skip so many questions at the beginning of the file
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) offset: usize,
    /// Risks to calibrate for, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "0.01")]
    pub(crate) risk: Vec<f64>,
    /// Give long thoughts up that are far from their end, at this further risk
    #[arg(long, value_name = "X", conflicts_with = "splits")]
    pub(crate) hopeless_risk: Option<f64>,
    /// Probability that a promise may be wrong
    #[arg(long, value_name = "X", default_value_t = 0.05)]
    pub(crate) delta: f64,
    /// Promise about the next N questions themselves, not about the long run: takes more care, as any N
    /// questions may have bad luck
    #[arg(long, value_name = "N")]
    pub(crate) horizon: Option<usize>,
    /// Instead of promising, check promises: calibrate on N random halves of the questions, and count how
    /// often more is lost on all of them, and, with the other halves as horizon, on these
    #[arg(long, value_name = "N", conflicts_with = "horizon")]
    pub(crate) splits: Option<usize>,
    /// Folder of what is recorded
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Questions recorded together
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) batch: usize,
    /// Sentence written before the end-of-thinking token when a thought is closed early
    #[arg(long, value_name = "TEXT")]
    pub(crate) closing_text: Option<String>,
    /// Most tokens to generate, thought and answer together
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub(crate) max_new_tokens: usize,
    /// Print JSON, with what every setting costs and saves
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
}
