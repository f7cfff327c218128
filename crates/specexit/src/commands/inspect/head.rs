//! What is in a draft head.

use std::path::Path;

use serde_json::{Value, json};
use specexit_model::head_file::{HEAD_WEIGHTS, HeadFile};
use specexit_model::{Probe, Weights};

use super::model::describe_weights;

pub(super) fn describe(dir: &Path) -> anyhow::Result<Value> {
    let head = HeadFile::open(dir)?;
    let weights = Weights::open_safetensors_file(&dir.join(HEAD_WEIGHTS))?;
    let config = &head.config;
    let probe = Probe::of_head(&head);
    Ok(json!({
        "kind": if probe.is_some() { "SpecExit head" } else { "EAGLE-3 head" },
        "signal_probe": probe.is_some(),
        "probe_kind": probe.map(|probe| probe.kind()),
        "hidden_size": config.hidden_size,
        "target_hidden_size": config.target_hidden(),
        "intermediate_size": config.intermediate_size,
        "attention_heads": config.num_attention_heads,
        "key_value_heads": config.kv_heads(),
        "head_dim": config.head_dim(),
        "rope_theta": config.rope_theta,
        "vocab_size": config.vocab_size,
        "draft_vocab_size": config.draft_vocab(),
        "own_embedding": weights.contains("embed_tokens.weight"),
        "weights": describe_weights(&weights),
        "origin": config.specexit,
        "hash": weights.hash(),
    }))
}
