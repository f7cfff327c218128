//! Flags that several commands share.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use serde::de::DeserializeOwned;
use specexit_answer::AnswerKind;
use specexit_exit::{Profile, Smoothing};
use specexit_kernels::CacheNumbers;

/// Which target, and how it runs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// Target: a folder with config.json and safetensors, a .gguf file, a hub id (org/name), or
    /// reference: the small reasoner inside this program
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: String,
    /// Threads of the kernels [default: all that this process may use]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Compute with f32 activations, keys and values instead of bf16 and 8 bits: slower, closer to the
    /// reference
    #[arg(long)]
    pub(crate) f32: bool,
    /// Keep keys and values as f32, bf16 or int8: 8 bits with a scale for each head and position, where
    /// nearly twice as many tokens fit and many sequences at once are faster [default: bf16, or f32 with
    /// --f32]
    #[arg(long, value_name = "NUMBERS")]
    pub(crate) kv_cache: Option<CacheNumbers>,
}

/// Where the target decodes, if not in this process.
#[derive(Debug, Args)]
#[command(next_help_heading = "Decoding on a server")]
pub(crate) struct EndpointArgs {
    /// Let a server with a completions API decode: vLLM, SGLang or llama-server. MODEL, the same
    /// model, gives tokenizer and chat template; its weights are not loaded
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// The model's name on the server [default: the only one it has]
    #[arg(long, value_name = "NAME", requires = "endpoint")]
    pub(crate) endpoint_model: Option<String>,
    /// Environment variable that holds the server's API key
    #[arg(long, value_name = "VAR", requires = "endpoint")]
    pub(crate) api_key_env: Option<String>,
    /// Requests in flight at a time [default: 16]
    #[arg(long, value_name = "N", requires = "endpoint")]
    pub(crate) concurrency: Option<usize>,
    /// Tries after the first, on 429, 5xx, broken connections and timeouts [default: 6]
    #[arg(long, value_name = "N", requires = "endpoint")]
    pub(crate) retries: Option<usize>,
    /// Longest time for one try, in seconds: a whole output takes one [default: 1800]
    #[arg(long, value_name = "S", requires = "endpoint")]
    pub(crate) timeout: Option<u64>,
    /// Where a server returns no token ids, tokenise its text anew; the file's header says so
    #[arg(long, requires = "endpoint")]
    pub(crate) retokenize: bool,
}

/// Which draft head.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct HeadArgs {
    /// Draft head: a folder with config.json and model.safetensors [default for the reference model:
    /// its own]
    #[arg(long, value_name = "DIR")]
    pub(crate) head: Option<PathBuf>,
    /// Use the head although it records another target's weights
    #[arg(long, requires = "head")]
    pub(crate) allow_other_target: bool,
}

/// How a question becomes a prompt.
#[derive(Debug, Args)]
#[command(next_help_heading = "Prompt")]
pub(crate) struct PromptArgs {
    /// System message before the question
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Text added after the question, on a line of its own
    #[arg(long, value_name = "TEXT")]
    pub(crate) suffix: Option<String>,
    /// Ask the chat template for a thought (enable_thinking = true)
    #[arg(long, conflicts_with = "no_thinking")]
    pub(crate) thinking: bool,
    /// Ask the chat template for no thought (enable_thinking = false)
    #[arg(long)]
    pub(crate) no_thinking: bool,
    /// Open the thought with "<think>\n" where the chat template does not
    #[arg(long, conflicts_with = "no_thinking")]
    pub(crate) think_open: bool,
}

impl PromptArgs {
    /// What the chat template is told about thinking.
    pub(crate) fn enable_thinking(&self) -> Option<bool> {
        match (self.thinking, self.no_thinking) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    }
}

/// How tokens are drawn.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Sampling temperature; 0 always takes the most probable token
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub(crate) temperature: f32,
    /// Keep the smallest set of most probable tokens that reaches this sum
    #[arg(long, value_name = "P")]
    pub(crate) top_p: Option<f32>,
    /// Keep so many most probable tokens
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<usize>,
    /// Keep tokens of at least this share of the most probable one's probability
    #[arg(long, value_name = "P")]
    pub(crate) min_p: Option<f32>,
    /// Seed of the random numbers [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

/// When the signals end a thought.
#[derive(Debug, Args)]
#[command(next_help_heading = "Exit by signals (method specexit)")]
pub(crate) struct ExitArgs {
    /// Named policy: default, paper or angelslim [default: default]
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<Profile>,
    /// Exit only above this confidence, or off
    #[arg(long, value_name = "X")]
    pub(crate) confidence: Option<Limit>,
    /// Exit only above this progress, or off
    #[arg(long, value_name = "X")]
    pub(crate) progress: Option<Limit>,
    /// Exit only below this many remaining tokens, or off
    #[arg(long, value_name = "X")]
    pub(crate) remaining: Option<Limit>,
    /// none, ewma:ALPHA, ewma-tokens:TOKENS, momentum:WINDOW, mean:WINDOW or paragraph-mean:WINDOW
    #[arg(long, value_name = "KIND")]
    pub(crate) smoothing: Option<Smoothing>,
    /// No exit by signals before this many thinking tokens
    #[arg(long, value_name = "N")]
    pub(crate) min_thinking_tokens: Option<usize>,
    /// The setting calibrated for this risk: the share of right answers that may be lost
    #[arg(long, value_name = "X", conflicts_with_all = [
        "profile", "confidence", "progress", "remaining", "smoothing", "min_thinking_tokens",
    ])]
    pub(crate) risk: Option<f64>,
}

impl ExitArgs {
    /// The first of these flags that was given, if any was.
    pub(crate) fn given(&self) -> Option<&'static str> {
        [
            ("--profile", self.profile.is_some()),
            ("--confidence", self.confidence.is_some()),
            ("--progress", self.progress.is_some()),
            ("--remaining", self.remaining.is_some()),
            ("--smoothing", self.smoothing.is_some()),
            ("--min-thinking-tokens", self.min_thinking_tokens.is_some()),
            ("--risk", self.risk.is_some()),
        ]
        .into_iter()
        .find_map(|(flag, given)| given.then_some(flag))
    }
}

/// How answers are judged.
#[derive(Debug, Args)]
#[command(next_help_heading = "Judging answers")]
pub(crate) struct JudgingArgs {
    /// What sort of answer is looked for: auto, number, boxed or option [default: what the question says, else
    /// auto]
    #[arg(long, value_name = "KIND")]
    pub(crate) answer_kind: Option<AnswerKind>,
    /// Python 3 that runs the tests of questions about code
    #[arg(long, value_name = "PATH", default_value = "python3")]
    pub(crate) python: PathBuf,
    /// Run them with limits alone: the network and all your files are within their reach
    #[arg(long)]
    pub(crate) code_limits_only: bool,
}

/// Bounds that hold whatever the signals say.
#[derive(Debug, Args)]
#[command(next_help_heading = "Length")]
pub(crate) struct BudgetArgs {
    /// Most thinking tokens, never passed by even one
    #[arg(long, value_name = "N")]
    pub(crate) max_thinking_tokens: Option<usize>,
    /// Sentence written before the end-of-thinking token when a thought is closed early
    #[arg(long, value_name = "TEXT")]
    pub(crate) closing_text: Option<String>,
    /// Most tokens to generate, thought and answer together
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub(crate) max_new_tokens: usize,
}

/// Reads one word of a library's enum by the spelling that its files use.
pub(super) fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(text.into()).map_err(|e| e.to_string())
}

/// The threshold of one signal: a number, or `off`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limit(pub(crate) Option<f32>);

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        match text.parse::<f32>() {
            Ok(limit) if !limit.is_nan() => Ok(Self(Some(limit))),
            _ => Err("expected a number or off".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_files() {
        use specexit_train::ConfidenceKind;
        assert_eq!(word::<ConfidenceKind>("C2"), Ok(ConfidenceKind::C2));
        let error = word::<ConfidenceKind>("C9").unwrap_err();
        assert_eq!(error, "unknown variant `C9`, expected one of `C1`, `C2`, `C3`");
    }

    #[test]
    fn a_limit_is_a_number_or_off() {
        assert_eq!("0.8".parse(), Ok(Limit(Some(0.8))));
        assert_eq!("off".parse(), Ok(Limit(None)));
        for text in ["", "nan", "OFF", "1,5"] {
            assert!(text.parse::<Limit>().is_err(), "{text}");
        }
    }
}
