//! `inspect`: what is in a model, a head or a file of this program.
//!
//! Every kind is described by one JSON document; the text is the same document, indented.

mod head;
mod model;
mod records;
mod text;

use std::path::Path;

use serde_json::Value;
use specexit_model::head_file::{HEAD_CONFIG, HEAD_WEIGHTS};

use crate::high::source;
use crate::low::Inspect;
use crate::output::{print, print_json};

pub(crate) fn inspect(args: &Inspect) -> anyhow::Result<()> {
    let path = Path::new(&args.path);
    let description = match path {
        _ if is_head(path) => head::describe(path)?,
        _ if is_records(path) => records::describe(path)?,
        _ => model::describe(&source(&args.path)?)?,
    };
    if args.json { print_json(&description) } else { Ok(print(&text::render(&description))?) }
}

/// Whether the folder holds a draft head: its config has keys that no target's has, or its weights
/// the layer that fuses the target's states.
fn is_head(path: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(path.join(HEAD_CONFIG)) else { return false };
    let config: Value = serde_json::from_str(&text).unwrap_or_default();
    let of_a_head = |key: &str| config.get(key).is_some();
    let weights = path.join(HEAD_WEIGHTS);
    of_a_head("draft_vocab_size")
        || of_a_head("specexit")
        || specexit_model::Weights::open_safetensors_file(&weights)
            .is_ok_and(|weights| weights.contains("fc.weight"))
}

fn is_records(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|kind| kind == "jsonl" || kind == "json")
}
