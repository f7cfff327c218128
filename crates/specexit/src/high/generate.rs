//! What `generate` is to do.

use std::io::{self, IsTerminal, Read};

use anyhow::Context;
use specexit_engine::Request;

use super::method::{method, request, sampling};
use super::{HeadChoice, ModelChoice, PromptStyle};
use crate::failure::usage;
use crate::low;

/// One generation.
pub(crate) struct Generate {
    pub(crate) model: ModelChoice,
    pub(crate) head: Option<HeadChoice>,
    pub(crate) prompt: String,
    pub(crate) style: PromptStyle,
    /// Without its prompt.
    pub(crate) request: Request,
    pub(crate) json: bool,
}

impl Generate {
    pub(crate) fn new(args: low::Generate) -> anyhow::Result<Self> {
        let model = ModelChoice::new(&args.model)?;
        let drafts = args.method.is_none_or(|method| method.drafts());
        let head = HeadChoice::new(&args.head, &model)?.filter(|head| head.counts(drafts));
        let method = method(args.method, head.as_ref())?;
        let sampling = sampling(&args.sampling, false)?;
        let request =
            request(method, head.as_ref(), args.draft_tokens, &args.exit, &args.length, sampling)?;
        let prompt = read_prompt(&args)?;
        if prompt.trim().is_empty() {
            return usage("the prompt is empty; give at least one word");
        }
        let style = if args.raw { PromptStyle::Raw } else { PromptStyle::chat(args.prompting) };
        Ok(Self { model, head, prompt, style, request, json: args.json })
    }
}

/// The prompt from wherever it was given. The newline that ends a file or an `echo` is not part of
/// it, except with --raw, which changes nothing.
fn read_prompt(args: &low::Generate) -> anyhow::Result<String> {
    let mut text = match (&args.prompt, &args.prompt_file) {
        (Some(prompt), _) => return Ok(prompt.clone()),
        (None, Some(path)) => std::fs::read_to_string(path)
            .map_err(|e| anyhow::anyhow!("cannot read {}: {e}", path.display()))?,
        (None, None) if io::stdin().is_terminal() => {
            return usage("no prompt is given; write it after the flags, or name a --prompt-file");
        }
        (None, None) => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).context("stdin is not readable as UTF-8 text")?;
            text
        }
    };
    if !args.raw && text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}
