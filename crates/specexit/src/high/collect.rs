//! What `collect` is to do.

use specexit_train::{CollectOptions, CollectRules, WaitCount};

use super::Decoding;
use super::method::sampling;
use crate::failure::usage;
use crate::low;

/// Traces to record.
pub(crate) struct Collect {
    pub(crate) decoding: Decoding,
    pub(crate) options: CollectOptions,
    pub(crate) json: bool,
}

impl Collect {
    pub(crate) fn new(args: low::Collect) -> anyhow::Result<Self> {
        for (flag, value) in
            [("--samples", args.samples), ("--max-new-tokens", args.max_new_tokens)]
        {
            if value == 0 {
                return usage(format!("{flag} is 0; at least one is needed"));
            }
        }
        let forcing = args.forcing;
        if forcing.waits == 0 && (forcing.wait_text.is_some() || forcing.wait_count.is_some()) {
            return usage("--wait-text and --wait-count do not apply without --waits");
        }
        if forcing.max_thinking_tokens == Some(0) {
            return usage("--max-thinking-tokens is 0; use --no-thinking instead");
        }
        let wait_count = forcing.wait_count.unwrap_or_default();
        let drawn = wait_count == WaitCount::Drawn || args.samples > 1;
        let sampling = sampling(&args.sampling, drawn)?;
        let default = CollectRules::default();
        let rules = CollectRules {
            enable_thinking: args.prompting.enable_thinking(),
            system: args.prompting.system,
            user_suffix: args.prompting.suffix,
            think_open: args.prompting.think_open,
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            min_p: sampling.min_p,
            max_new_tokens: args.max_new_tokens,
            max_thinking_tokens: forcing.max_thinking_tokens,
            waits: forcing.waits,
            wait_count,
            wait_text: forcing.wait_text.unwrap_or(default.wait_text),
            force_close: !forcing.no_force_close,
            close_text: forcing.close_text.unwrap_or(default.close_text),
            record_logprobs: args.record_logprobs,
            seed: sampling.seed,
        };
        let decoding = Decoding::new(&args.model, args.endpoint, args.batch, rules.seed)?;
        let options = CollectOptions {
            questions: args.questions,
            out: args.out,
            offset: args.offset,
            limit: args.limit,
            samples: args.samples,
            batch: decoding.batch,
            answer_kind: args.answer_kind,
            rules,
        };
        Ok(Self { decoding, options, json: args.json })
    }
}
