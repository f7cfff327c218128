//! What `serve` is to do.

use std::net::SocketAddr;
use std::time::Duration;

use specexit_engine::{EngineOptions, Method, Policy};
use specexit_exit::{Loops, Stall};
use specexit_serve::ServeOptions;

use super::method::{method, policy};
use super::{HeadChoice, ModelChoice};
use crate::failure::usage;
use crate::low;

/// Drafted tokens per round at most, where none are named.
const DRAFT_TOKENS: usize = 5;
/// Bytes of a GiB.
const GIB: f64 = (1_u64 << 30) as f64;

/// A server.
pub(crate) struct Serve {
    pub(crate) address: SocketAddr,
    pub(crate) model: ModelChoice,
    pub(crate) head: Option<HeadChoice>,
    /// That of requests that name none.
    pub(crate) mode: Method,
    /// When signals end thoughts, where requests say nothing else.
    pub(crate) policy: Policy,
    pub(crate) loops: Option<Loops>,
    pub(crate) stall: Option<Stall>,
    pub(crate) closing_text: Option<String>,
    pub(crate) draft_tokens: usize,
    pub(crate) engine: EngineOptions,
    /// The name is that of the model where it is empty.
    pub(crate) options: ServeOptions,
}

impl Serve {
    pub(crate) fn new(args: low::Serve) -> anyhow::Result<Self> {
        let limits = &args.limits;
        for (flag, value) in [
            ("--max-batch", limits.max_batch),
            ("--max-connections", limits.max_connections),
            ("--max-body-kb", limits.max_body_kb),
            ("--max-tokens", args.max_tokens),
            ("--draft-tokens", args.draft_tokens.unwrap_or(1)),
        ] {
            if value == 0 {
                return usage(format!("{flag} is 0; it must be at least 1"));
            }
        }
        if args.api_key.as_deref().is_some_and(|key| key.trim().is_empty()) {
            return usage(
                "the API key is empty; give one, or leave the flag and SPECEXIT_API_KEY out",
            );
        }
        let kv_bytes = bytes("--kv-gb", limits.kv_gb)?;
        if kv_bytes == 0 {
            return usage("--kv-gb is 0; running answers need memory for keys and values");
        }
        let model = ModelChoice::new(&args.model)?;
        let head = HeadChoice::new(&args.head, &model)?;
        // Requests may draft where the server's default does not, so a head is of use in any mode.
        let asked = args.mode.filter(|mode| mode.drafts() || head.is_none());
        let mode = match args.mode {
            Some(Method::Plain) => Method::Plain,
            _ => method(asked, head.as_ref())?,
        };
        if mode != Method::SpecExit
            && let Some(flag) = args.exit.given()
        {
            return usage(format!("{flag} does not apply to mode {mode}"));
        }
        if mode != Method::SpecExit && args.stall.is_some() {
            return usage(format!("--stall does not apply to mode {mode}"));
        }
        if head.is_none() && args.draft_tokens.is_some() {
            return usage("--draft-tokens needs a draft head; name one with --head");
        }
        let engine = EngineOptions {
            max_batch: limits.max_batch,
            kv_bytes: Some(kv_bytes),
            prefix_bytes: bytes("--prefix-gb", limits.prefix_gb)?,
            ..EngineOptions::default()
        };
        let options = ServeOptions {
            name: args.served_name.unwrap_or_default(),
            head: head.as_ref().map(HeadChoice::name).unwrap_or_default(),
            api_key: args.api_key,
            queue: limits.queue,
            max_tokens: args.max_tokens,
            max_body_bytes: limits.max_body_kb << 10,
            max_connections: limits.max_connections,
            drain: Duration::from_secs(limits.drain),
            ..ServeOptions::default()
        };
        Ok(Self {
            address: SocketAddr::new(args.host, args.port),
            mode,
            policy: policy(&args.exit, head.as_ref())?,
            model,
            head,
            loops: args.loops,
            stall: args.stall,
            closing_text: args.closing_text,
            draft_tokens: args.draft_tokens.unwrap_or(DRAFT_TOKENS),
            engine,
            options,
        })
    }
}

fn bytes(flag: &str, gib: f64) -> anyhow::Result<usize> {
    if !(0.0..1e6).contains(&gib) {
        return usage(format!("{flag} is {gib}; it must be a number of GiB"));
    }
    Ok((gib * GIB) as usize)
}
