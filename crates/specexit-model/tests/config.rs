//! Configs: what is read from real ones, and what is said about unusable ones.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use specexit_model::{Architecture, ModelConfig, ModelFiles, ModelSource, RopeScaling};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn parse(config: &Value) -> Result<ModelConfig, String> {
    ModelConfig::from_json(&config.to_string(), Path::new("config.json")).map_err(|e| e.to_string())
}

/// `base` with some keys replaced; null removes one.
fn with(mut base: Value, changes: Value) -> Value {
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(base.as_object_mut().unwrap().remove(key)),
            value => base[key] = value.clone(),
        }
    }
    base
}

/// Qwen3-4B's, abridged.
fn qwen3() -> Value {
    json!({
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "bos_token_id": 151643,
        "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2560,
        "intermediate_size": 9728, "max_position_embeddings": 40960, "max_window_layers": 36,
        "model_type": "qwen3", "num_attention_heads": 32, "num_hidden_layers": 36,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": null,
        "rope_theta": 1000000, "sliding_window": null, "tie_word_embeddings": true,
        "use_sliding_window": false, "vocab_size": 151936
    })
}

/// Llama-3.1-8B's, abridged.
fn llama3() -> Value {
    json!({
        "attention_bias": false, "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009],
        "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
        "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"
        },
        "rope_theta": 500000.0, "tie_word_embeddings": false, "vocab_size": 128256
    })
}

/// Qwen2.5-7B's, abridged.
fn qwen2() -> Value {
    json!({
        "bos_token_id": 151643, "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 3584,
        "intermediate_size": 18944, "max_position_embeddings": 131072, "max_window_layers": 28,
        "model_type": "qwen2", "num_attention_heads": 28, "num_hidden_layers": 28,
        "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
        "sliding_window": 131072, "tie_word_embeddings": false, "use_sliding_window": false,
        "vocab_size": 152064
    })
}

#[test]
fn the_families_are_told_apart() {
    let config = parse(&qwen3()).unwrap();
    assert_eq!(config.architecture, Architecture::Qwen3);
    assert!(config.qk_norm && !config.attention_bias && config.tie_word_embeddings);
    assert_eq!((config.head_dim, config.rope_scaling.clone()), (128, RopeScaling::None));
    assert_eq!((config.eos_token_ids.clone(), config.bos_token_id), (vec![151_645], Some(151_643)));
    assert_eq!(config.tap_layers(), [2, 18, 33]);

    let config = parse(&qwen2()).unwrap();
    assert_eq!(config.architecture, Architecture::Qwen2);
    assert!(config.attention_bias && !config.qk_norm);
    assert_eq!(config.head_dim, 128);

    let config = parse(&llama3()).unwrap();
    assert_eq!(config.architecture, Architecture::Llama);
    assert!(!config.attention_bias && !config.qk_norm && !config.tie_word_embeddings);
    assert_eq!(config.eos_token_ids, [128_001, 128_008, 128_009]);
    assert!(matches!(
        config.rope_scaling,
        RopeScaling::Llama3 { original_max_position_embeddings: 8192, .. }
    ));
    assert_eq!(config.inv_freq().len(), 64);
    assert_eq!(config.tap_layers(), [2, 16, 29]);
}

#[test]
fn older_and_newer_files_say_the_same() {
    let read = |name: &str| {
        let path = golden("llama3").join(name);
        ModelConfig::from_json(&std::fs::read_to_string(&path).unwrap(), &path).unwrap()
    };
    assert_eq!(read("config.json"), read("config.v5.json"));
    let older = with(llama3(), json!({ "rope_scaling": { "type": "linear", "factor": 2 } }));
    let newer = with(
        llama3(),
        json!({
            "rope_theta": null, "rope_scaling": null,
            "rope_parameters": { "rope_type": "linear", "factor": 2, "rope_theta": 500000 }
        }),
    );
    assert_eq!(parse(&older).unwrap(), parse(&newer).unwrap());
    assert_eq!(parse(&older).unwrap().rope_scaling, RopeScaling::Linear { factor: 2.0 });
    // SmolLM2 and DeepSeek-R1-Distill-Qwen: defaults spelled out.
    let spelled =
        with(llama3(), json!({ "rope_scaling": null, "head_dim": 128, "pretraining_tp": 1 }));
    assert_eq!(parse(&spelled).unwrap().rope_scaling, RopeScaling::None);
}

#[test]
fn unusable_configs_name_the_field() {
    for (config, parts) in [
        (with(qwen3(), json!({ "hidden_size": null })), ["`hidden_size`", "is missing"]),
        (with(qwen3(), json!({ "vocab_size": null })), ["`vocab_size`", "is missing"]),
        (with(qwen3(), json!({ "model_type": null })), ["`model_type`", "is missing"]),
        (with(qwen3(), json!({ "head_dim": null })), ["`head_dim`", "Qwen3 needs it"]),
        (with(qwen3(), json!({ "hidden_size": "big" })), ["`hidden_size`", "whole number"]),
        (with(qwen3(), json!({ "hidden_size": -1 })), ["`hidden_size`", "whole number"]),
        (with(qwen3(), json!({ "hidden_size": 0 })), ["`hidden_size`", "from 1 to"]),
        (
            with(qwen3(), json!({ "num_hidden_layers": 9e9 as u64 })),
            ["`num_hidden_layers`", "from 1 to"],
        ),
        (with(qwen3(), json!({ "num_key_value_heads": 5 })), ["`num_key_value_heads`", "divide"]),
        (with(qwen3(), json!({ "head_dim": 127 })), ["`head_dim`", "even"]),
        (with(qwen3(), json!({ "rms_norm_eps": 0 })), ["`rms_norm_eps`", "(0, 1)"]),
        (with(qwen3(), json!({ "rope_theta": -1.0 })), ["`rope_theta`", "1 or more"]),
        (
            with(qwen3(), json!({ "eos_token_id": 151936 })),
            ["eos_token_id", "outside the vocabulary"],
        ),
        (with(qwen3(), json!({ "eos_token_id": [1, "a"] })), ["`eos_token_id`", "not a token id"]),
        (
            with(qwen3(), json!({ "tie_word_embeddings": 1 })),
            ["`tie_word_embeddings`", "true or false"],
        ),
        (with(llama3(), json!({ "hidden_size": 4097 })), ["`head_dim`", "not a multiple"]),
        (with(llama3(), json!({ "rope_scaling": 3 })), ["`rope_scaling`", "an object"]),
        (
            with(llama3(), json!({ "rope_scaling": { "rope_type": "llama3", "factor": 8 } })),
            ["`low_freq_factor`", "is missing"],
        ),
        (
            with(llama3(), json!({ "rope_scaling": { "rope_type": "linear", "factor": 0 } })),
            ["`rope_scaling`", "positive"],
        ),
    ] {
        let error = parse(&config).unwrap_err();
        assert!(
            error.contains("config.json") && parts.iter().all(|part| error.contains(part)),
            "{error}"
        );
    }
    for text in ["", "[]", "3", "{", "{\"a\": }"] {
        assert!(ModelConfig::from_json(text, Path::new("config.json")).is_err(), "{text}");
    }
}

#[test]
fn what_is_not_implemented_is_named() {
    for (config, part) in [
        (with(qwen3(), json!({ "model_type": "qwen3_moe" })), "`qwen3_moe`"),
        (with(qwen3(), json!({ "model_type": "gemma3" })), "`gemma3`"),
        (with(qwen3(), json!({ "hidden_act": "gelu" })), "`hidden_act`"),
        (with(qwen2(), json!({ "use_sliding_window": true })), "`use_sliding_window`"),
        (with(llama3(), json!({ "sliding_window": 4096 })), "`sliding_window` 4096"),
        (
            with(qwen3(), json!({ "layer_types": ["full_attention", "sliding_attention"] })),
            "sliding_attention",
        ),
        (with(llama3(), json!({ "attention_bias": true })), "`attention_bias`"),
        (with(llama3(), json!({ "mlp_bias": true })), "`mlp_bias`"),
        (with(qwen3(), json!({ "quantization_config": { "quant_method": "awq" } })), "(awq)"),
        (with(qwen3(), json!({ "quantization_config": [] })), "`quantization_config`"),
        (with(qwen3(), json!({ "rope_scaling": { "rope_type": "yarn", "factor": 4 } })), "`yarn`"),
        (with(qwen3(), json!({ "rope_scaling": { "type": "dynamic", "factor": 4 } })), "`dynamic`"),
        (
            with(qwen3(), json!({ "rope_parameters": { "partial_rotary_factor": 0.5 } })),
            "`partial_rotary_factor`",
        ),
    ] {
        let error = parse(&config).unwrap_err();
        assert!(error.contains(part) && error.contains("is not supported"), "{error}");
    }
}

#[test]
fn end_ids_come_from_both_files() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let load = || ModelConfig::from_folder(folder.path()).map_err(|error| error.to_string());
    assert!(load().unwrap_err().contains("has no config.json"));
    write("config.json", &qwen2().to_string());
    assert_eq!(load().unwrap().eos_token_ids, [151_643]);
    write("generation_config.json", r#"{"eos_token_id": [151645, 151643]}"#);
    assert_eq!(load().unwrap().eos_token_ids, [151_643, 151_645]);
    write("generation_config.json", r#"{"eos_token_id": [999999]}"#);
    assert!(load().unwrap_err().contains("generation_config.json"));
}

#[test]
fn taps_stay_inside_small_models() {
    let taps = |layers: usize| {
        parse(&with(qwen3(), json!({ "num_hidden_layers": layers }))).unwrap().tap_layers()
    };
    for layers in 1..100 {
        let [low, mid, high] = taps(layers);
        assert!(low <= mid && mid <= high && high < layers, "{layers}: {low} {mid} {high}");
        // Only the usual formula at six layers takes one of them twice.
        let different = low < mid && mid < high;
        assert!(different || layers < 3 || layers == 6, "{layers}: {low} {mid} {high}");
    }
    assert_eq!(taps(7), [2, 3, 4]);
    assert_eq!(taps(6), [2, 3, 3]);
    assert_eq!(taps(5), [1, 2, 4]);
}

#[test]
fn what_is_loaded_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<ModelFiles>();
    shared::<specexit_model::ModelError>();
}

#[test]
fn a_folder_loads_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let load = || {
        ModelFiles::load(&ModelSource::Folder(folder.path().to_owned())).map_err(|e| e.to_string())
    };
    let copy = |from: PathBuf| {
        std::fs::copy(&from, folder.path().join(from.file_name().unwrap())).unwrap();
    };
    assert!(load().unwrap_err().contains("has no config.json"));
    copy(golden("qwen3/config.json"));
    assert!(load().unwrap_err().contains("has no tokenizer.json"));
    copy(golden("tokenizer/tokenizer.json"));
    assert!(load().unwrap_err().contains("has no model.safetensors"));
    copy(golden("qwen3/model.safetensors"));
    // The tiny tokenizer has more tokens than the tiny model.
    assert!(load().unwrap_err().contains("belongs to another model"));
    let path = folder.path().join("config.json");
    let config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    std::fs::write(&path, with(config, json!({ "vocab_size": 512 })).to_string()).unwrap();
    let files = load().unwrap();
    assert_eq!(files.hash, files.weights.hash());
    assert!(files.chat_template.is_none());
    assert_eq!(files.name, folder.path().file_name().unwrap().to_string_lossy());
}
