//! The model as it stands, in Hugging Face's layout.

use std::path::Path;

use half::bf16;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use specexit_model::head_file::write_atomically;

use super::options::PretrainOptions;
use crate::error::{Result, TrainError};
use crate::net::decoder::DecoderShape;
use crate::net::params::Param;

/// Folder of the model inside a run's folder.
pub const MODEL_FOLDER: &str = "model";

/// Writes weights, configuration and `options.files` to `folder`, each file whole or not at all.
pub(super) fn write_model(
    folder: &Path,
    options: &PretrainOptions,
    params: &[Param],
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(TrainError::io("create", folder))?;
    let write = |name: &str, data: &[u8]| {
        let path = folder.join(name);
        write_atomically(&path, data).map_err(TrainError::io("write", &path))
    };
    let write_json = |name: &str, value: &Value| {
        let text = serde_json::to_vec_pretty(value).map_err(|e| {
            TrainError::bad_file(&folder.join(name), format!("it cannot be written: {e}"))
        })?;
        write(name, &text)
    };
    for (name, data) in &options.files {
        write(name, data)?;
    }
    write_json("config.json", &config(options))?;
    write_json("generation_config.json", &generation_config(options))?;
    // Last, so that a folder with weights is complete.
    write("model.safetensors", &weights(folder, &options.shape, params)?)
}

fn weights(folder: &Path, shape: &DecoderShape, params: &[Param]) -> Result<Vec<u8>> {
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for param in params {
        let mut put = |name: String, rows: std::ops::Range<usize>| {
            let width = param.shape.get(1).copied().unwrap_or(1);
            let numbers = &param.value[rows.start * width..rows.end * width];
            let bytes = numbers.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect();
            let mut dims = param.shape.clone();
            dims[0] = rows.len();
            tensors.push((name, dims, bytes));
        };
        let (q, kv, i) = (shape.q(), shape.kv(), shape.intermediate_size);
        if let Some(prefix) = param.name.strip_suffix("qkv_proj.weight") {
            put(format!("{prefix}q_proj.weight"), 0..q);
            put(format!("{prefix}k_proj.weight"), q..q + kv);
            put(format!("{prefix}v_proj.weight"), q + kv..q + 2 * kv);
        } else if let Some(prefix) = param.name.strip_suffix("gate_up_proj.weight") {
            put(format!("{prefix}gate_proj.weight"), 0..i);
            put(format!("{prefix}up_proj.weight"), i..2 * i);
        } else {
            put(param.name.clone().into_owned(), 0..param.shape[0]);
        }
    }
    let path = folder.join("model.safetensors");
    let unwritable = |e: safetensors::SafeTensorError| {
        TrainError::bad_file(&path, format!("it cannot be written: {e}"))
    };
    let views = tensors.iter().map(|(name, dims, bytes)| {
        Ok((name.as_str(), TensorView::new(Dtype::BF16, dims.clone(), bytes)?))
    });
    let views = views.collect::<std::result::Result<Vec<_>, _>>().map_err(unwritable)?;
    let format = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(format)).map_err(unwritable)
}

/// One id as a number, several as a list, none as null.
fn ids(ids: &[u32]) -> Value {
    match ids {
        [] => Value::Null,
        [id] => json!(id),
        ids => json!(ids),
    }
}

fn config(options: &PretrainOptions) -> Value {
    let s = &options.shape;
    json!({
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": options.bos_token_id,
        "eos_token_id": ids(&options.eos_token_id),
        "pad_token_id": options.pad_token_id,
        "head_dim": s.head_dim,
        "hidden_act": "silu",
        "hidden_size": s.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": s.intermediate_size,
        "max_position_embeddings": s.max_position_embeddings,
        "max_window_layers": s.num_hidden_layers,
        "num_attention_heads": s.num_attention_heads,
        "num_hidden_layers": s.num_hidden_layers,
        "num_key_value_heads": s.num_key_value_heads,
        "rms_norm_eps": s.rms_norm_eps,
        "rope_scaling": null,
        "rope_theta": s.rope_theta,
        "sliding_window": null,
        "tie_word_embeddings": true,
        "torch_dtype": "bfloat16",
        "use_cache": true,
        "use_sliding_window": false,
        "vocab_size": s.vocab_size,
    })
}

fn generation_config(options: &PretrainOptions) -> Value {
    let mut config = serde_json::Map::new();
    let entries = [
        ("bos_token_id", json!(options.bos_token_id)),
        ("eos_token_id", ids(&options.eos_token_id)),
        ("pad_token_id", json!(options.pad_token_id)),
    ];
    config.extend(entries.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.into(), v)));
    Value::Object(config)
}
