//! What is in a model.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use specexit_model::source::Resolved;
use specexit_model::{ModelConfig, ModelFiles, ModelSource, RopeScaling, Tokenizer, Weights};

pub(super) fn describe(source: &ModelSource) -> anyhow::Result<Value> {
    let files = ModelFiles::load(source)?;
    let ModelFiles { config, weights, tokenizer, chat_template, name, hash } = &files;
    let template = chat_template.as_ref();
    Ok(json!({
        "kind": "model",
        "name": name,
        "architecture": config.architecture.name(),
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "attention_heads": config.num_attention_heads,
        "key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "context": config.max_position_embeddings,
        "rope_theta": config.rope_theta,
        "rope_scaling": rope_scaling(&config.rope_scaling),
        "tied_embeddings": config.tie_word_embeddings,
        "taps": config.tap_layers(),
        "weights": describe_weights(weights),
        "tokenizer": describe_tokenizer(source, tokenizer, config)?,
        "chat_template": {
            "present": template.is_some(),
            "thinking_switch": template.map(|t| t.source().contains("enable_thinking")),
            "names_the_thought": template.map(|t| t.source().contains("</think>")),
        },
        "hash": hash,
    }))
}

fn rope_scaling(scaling: &RopeScaling) -> Option<String> {
    match scaling {
        RopeScaling::None => None,
        RopeScaling::Linear { factor } => Some(format!("linear, factor {factor}")),
        RopeScaling::Llama3 { factor, original_max_position_embeddings: original, .. } => {
            Some(format!("llama3, factor {factor} beyond {original} tokens"))
        }
        RopeScaling::Factors(factors) => Some(format!("{} factors", factors.len())),
    }
}

/// Number types of tensors that hold ids or flags.
const INDEX_TYPES: [&str; 4] = ["BOOL", "U8", "I32", "I64"];

/// Tensors, parameters, bytes, and how many tensors have which number type.
pub(super) fn describe_weights(weights: &Weights) -> Value {
    let names = weights.names();
    let mut types: BTreeMap<String, usize> = BTreeMap::new();
    let mut parameters = 0;
    for name in &names {
        let dtype = weights.dtype(name).unwrap_or_default();
        // The id maps of a draft vocabulary are stored as tensors, but nothing that is trained.
        if !INDEX_TYPES.contains(&dtype.as_str()) {
            parameters += weights.shape(name).unwrap_or_default().iter().product::<usize>();
        }
        *types.entry(dtype).or_default() += 1;
    }
    json!({
        "tensors": names.len(),
        "parameters": parameters,
        "bytes": weights.stored_bytes(),
        "tensors_by_type": types,
    })
}

fn describe_tokenizer(
    source: &ModelSource,
    tokenizer: &Tokenizer,
    config: &ModelConfig,
) -> anyhow::Result<Value> {
    let text = |ids: &[u32]| tokenizer.decode(ids, false).unwrap_or_default();
    let end: Vec<String> = config.eos_token_ids.iter().map(|id| text(&[*id])).collect();
    Ok(json!({
        "family": family(source)?,
        "size": tokenizer.vocab_size(),
        "end_tokens": end,
        "think_tokens": tokenizer.encode("<think>", false)?.len(),
        "end_of_think_tokens": tokenizer.encode("</think>", false)?.len(),
        "hash": tokenizer.hash(),
    }))
}

/// What kind of tokenizer the files say it is.
fn family(source: &ModelSource) -> anyhow::Result<Option<String>> {
    Ok(match source.resolve()? {
        Resolved::Folder(folder) => {
            let text = std::fs::read(folder.join("tokenizer.json")).ok();
            text.and_then(|text| family_of_json(&text))
        }
        Resolved::Embedded(files) => family_of_json(files.file("tokenizer.json")?),
        Resolved::Gguf(file) => {
            let (_, metadata) = Weights::open_gguf(&file)?;
            let kind = metadata.text("tokenizer.ggml.model")?;
            let pre = metadata.text("tokenizer.ggml.pre")?;
            kind.map(|kind| pre.map_or(kind.to_owned(), |pre| format!("{kind}, {pre}")))
        }
    })
}

fn family_of_json(text: &[u8]) -> Option<String> {
    let tokenizer: Value = serde_json::from_slice(text).ok()?;
    tokenizer.pointer("/model/type")?.as_str().map(str::to_owned)
}
