//! Flags of `serve`.

use std::net::IpAddr;
use std::str::FromStr;

use clap::Args;
use specexit_engine::Method;
use specexit_exit::{Loops, Stall};

use super::{ExitArgs, HeadArgs, ModelArgs};

/// Serve the model over HTTP as OpenAI's API, with early exit as a feature of every request
#[derive(Debug, Args)]
#[command(after_help = "\
Any OpenAI client can ask. Thoughts come as reasoning_content (and reasoning); the field specexit of a request
sets mode, profile, risk, thresholds and more for it alone, and that of an answer tells how the thought
ended. A page to try it is at the address itself, metrics for Prometheus at /metrics. SIGTERM and Ctrl-C let
running answers finish. docs/serving/README.md says more.

Example:
  specexit serve --model model.gguf --head run/head --risk 0.01
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Why?\"}]}'")]
pub(crate) struct Serve {
    /// Address to listen on; 0.0.0.0 is every one of this machine, for which an API key is wanted
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,
    /// Port to listen on; 0 takes any free one
    #[arg(long, value_name = "N", default_value_t = 8000)]
    pub(crate) port: u16,
    /// Key that requests must bring; better given in the environment than here, where others on the machine
    /// see it
    #[arg(long, value_name = "KEY", env = "SPECEXIT_API_KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
    /// Name that clients know the model by [default: its own]
    #[arg(long, value_name = "NAME")]
    pub(crate) served_name: Option<String>,
    /// What requests get that name no mode: plain, eagle3 or specexit [default: the best that the head can do]
    #[arg(long, value_name = "MODE")]
    pub(crate) mode: Option<Method>,
    /// Drafted tokens per round at most; how many it is follows what is accepted and what it costs
    #[arg(long, value_name = "K")]
    pub(crate) draft_tokens: Option<usize>,
    /// End thoughts that repeat up to CYCLE tokens so many times in a row, whatever the mode, e.g. 64:4
    #[arg(long, value_name = "CYCLE:REPEATS", value_parser = loops)]
    pub(crate) loops: Option<Loops>,
    /// End thoughts whose progress has not risen by GAIN for so many tokens, e.g. 400:0.02; mode specexit
    #[arg(long, value_name = "TOKENS:GAIN", value_parser = stall)]
    pub(crate) stall: Option<Stall>,
    /// Sentence written before the end-of-thinking token when a thought is closed early
    #[arg(long, value_name = "TEXT")]
    pub(crate) closing_text: Option<String>,
    /// Tokens generated where a request sets no limit
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub(crate) max_tokens: usize,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) head: HeadArgs,
    #[command(flatten)]
    pub(crate) exit: ExitArgs,
}

fn loops(text: &str) -> Result<Loops, String> {
    let (cycle, repeats) = pair(text, "64:4")?;
    let loops = Loops { cycle, repeats };
    loops.validate().map_err(|e| e.to_string())?;
    Ok(loops)
}

fn stall(text: &str) -> Result<Stall, String> {
    let (tokens, gain) = pair(text, "400:0.02")?;
    let stall = Stall { tokens, gain };
    stall.validate().map_err(|e| e.to_string())?;
    Ok(stall)
}

fn pair<A: FromStr, B: FromStr>(text: &str, example: &str) -> Result<(A, B), String> {
    let both = text.split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    both.ok_or_else(|| format!("expected two numbers like {example}"))
}

/// What the server may use.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Answers generated together
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(crate) max_batch: usize,
    /// Answers that may wait; further requests get 429 with Retry-After
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) queue: usize,
    /// Memory for keys and values of running answers, in GiB; requests wait until theirs fits
    #[arg(long, value_name = "X", default_value_t = 4.0)]
    pub(crate) kv_gb: f64,
    /// Memory for keys and values kept for prompts that begin alike, in GiB; 0 keeps none
    #[arg(long, value_name = "X", default_value_t = 0.5)]
    pub(crate) prefix_gb: f64,
    /// Connections at a time
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) max_connections: usize,
    /// Largest body of a request, in KiB
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub(crate) max_body_kb: usize,
    /// Seconds for which running answers may go on once the server is told to end
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub(crate) drain: u64,
}
