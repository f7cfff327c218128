//! `config.json` and `generation_config.json` of a Hugging Face model folder.

use std::path::Path;

use serde_json::{Map, Value};

use super::{Architecture, ModelConfig, Place, RopeScaling};
use crate::error::{ModelError, Result, shown};

impl ModelConfig {
    /// Reads the text of a `config.json`; `path` is only named in errors.
    ///
    /// # Errors
    /// When the text is not JSON, lacks a needed key, has a value of the wrong kind, or asks for
    /// something specexit does not implement (each named).
    pub fn from_json(text: &str, path: &Path) -> Result<Self> {
        let json = Json::parse(text, path)?;
        let architecture = Architecture::parse(json.text("model_type")?, path)?;
        json.refuse_what_is_not_implemented(architecture)?;

        let hidden_size = json.size("hidden_size")?;
        let num_attention_heads = json.size("num_attention_heads")?;
        let head_dim = match json.optional_size("head_dim")? {
            Some(head_dim) => head_dim,
            // Qwen3's heads are wider than H / heads, so the quotient would load and compute nonsense.
            None if architecture == Architecture::Qwen3 => {
                return Err(json.place.bad("head_dim", "is missing, but Qwen3 needs it"));
            }
            None if num_attention_heads > 0 && hidden_size.is_multiple_of(num_attention_heads) => {
                hidden_size / num_attention_heads
            }
            None => {
                return Err(json.place.bad(
                    "head_dim",
                    format!(
                        "is missing, and hidden_size ({hidden_size}) is not a multiple of \
                         num_attention_heads ({num_attention_heads})"
                    ),
                ));
            }
        };
        let (rope_theta, rope_scaling) = json.rope()?;
        let config = Self {
            architecture,
            hidden_size,
            intermediate_size: json.size("intermediate_size")?,
            num_hidden_layers: json.size("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads: json
                .optional_size("num_key_value_heads")?
                .unwrap_or(num_attention_heads),
            head_dim,
            vocab_size: json.size("vocab_size")?,
            rms_norm_eps: json.optional_number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            rope_theta,
            rope_scaling,
            max_position_embeddings: json.size("max_position_embeddings")?,
            tie_word_embeddings: json.flag("tie_word_embeddings")?,
            attention_bias: architecture == Architecture::Qwen2,
            qk_norm: architecture == Architecture::Qwen3,
            eos_token_ids: json.ids("eos_token_id")?,
            bos_token_id: json.ids("bos_token_id")?.first().copied(),
        };
        config.validate_as(path)?;
        Ok(config)
    }

    /// Adds the end ids of a `generation_config.json`, which for chat models lists more than
    /// `config.json` does.
    ///
    /// # Errors
    /// When the text is not JSON, or `eos_token_id` is neither an id nor a list of ids of the vocabulary.
    pub fn merge_generation_config(&mut self, text: &str, path: &Path) -> Result<()> {
        let json = Json::parse(text, path)?;
        self.eos_token_ids.extend(json.ids("eos_token_id")?);
        self.eos_token_ids.sort_unstable();
        self.eos_token_ids.dedup();
        if self.bos_token_id.is_none() {
            self.bos_token_id = json.ids("bos_token_id")?.first().copied();
        }
        self.validate_as(path)
    }

    /// Reads `config.json` of a model folder and, where present, `generation_config.json`.
    ///
    /// # Errors
    /// As [`Self::from_json`]; and when the folder has no `config.json`.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        if !path.is_file() {
            return Err(ModelError::MissingFile {
                folder: folder.to_owned(),
                file: "config.json".to_owned(),
                advice: "give a folder that holds a Hugging Face model, or a .gguf file".to_owned(),
            });
        }
        let read = |path: &Path| {
            std::fs::read_to_string(path)
                .map_err(|source| ModelError::Io { path: path.to_owned(), source })
        };
        let mut config = Self::from_json(&read(&path)?, &path)?;
        let generation = folder.join("generation_config.json");
        if generation.is_file() {
            config.merge_generation_config(&read(&generation)?, &generation)?;
        }
        Ok(config)
    }
}

/// A JSON object and where it was read. A key whose value is `null` counts as absent.
struct Json {
    place: Place,
    object: Map<String, Value>,
}

impl Json {
    fn parse(text: &str, path: &Path) -> Result<Self> {
        let place = Place { path: path.to_owned() };
        match serde_json::from_str(text) {
            Ok(Value::Object(object)) => Ok(Self { place, object }),
            Ok(_) => Err(ModelError::BadFile {
                path: path.to_owned(),
                problem: "it holds JSON, but not an object".to_owned(),
            }),
            Err(error) => Err(ModelError::BadFile {
                path: path.to_owned(),
                problem: format!("it is not valid JSON ({})", shown(error)),
            }),
        }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn needed<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| {
            self.place.bad(key, "is missing, but the model cannot be built without it")
        })
    }

    fn text(&self, key: &str) -> Result<&str> {
        let value = self.needed(key, self.get(key))?;
        value
            .as_str()
            .ok_or_else(|| self.place.bad(key, format!("is {}, but must be a text", shown(value))))
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        self.get(key)
            .map(|value| {
                value.as_u64().and_then(|size| usize::try_from(size).ok()).ok_or_else(|| {
                    self.place.bad(key, format!("is {}, but must be a whole number", shown(value)))
                })
            })
            .transpose()
    }

    fn size(&self, key: &str) -> Result<usize> {
        let size = self.optional_size(key)?;
        self.needed(key, size)
    }

    fn optional_number(&self, key: &str) -> Result<Option<f64>> {
        self.get(key)
            .map(|value| {
                value.as_f64().ok_or_else(|| {
                    self.place.bad(key, format!("is {}, but must be a number", shown(value)))
                })
            })
            .transpose()
    }

    fn number(&self, key: &str) -> Result<f64> {
        let number = self.optional_number(key)?;
        self.needed(key, number)
    }

    fn flag(&self, key: &str) -> Result<bool> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => {
                Err(self.place.bad(key, format!("is {}, but must be true or false", shown(value))))
            }
        }
    }

    /// An id, a list of ids, or nothing.
    fn ids(&self, key: &str) -> Result<Vec<u32>> {
        let values = match self.get(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
        };
        let mut ids = values
            .iter()
            .map(|value| {
                value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
                    self.place.bad(key, format!("holds {}, which is not a token id", shown(value)))
                })
            })
            .collect::<Result<Vec<_>>>()?;
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Base and scaling of the rotary embedding.
    ///
    /// Older files have `rope_theta` beside an optional `rope_scaling`; transformers 5 writes both
    /// into `rope_parameters`.
    fn rope(&self) -> Result<(f64, RopeScaling)> {
        let object = |key: &str| match self.get(key) {
            None => Ok(None),
            Some(Value::Object(object)) => {
                Ok(Some(Self { place: self.place.clone(), object: object.clone() }))
            }
            Some(value) => {
                Err(self.place.bad(key, format!("is {}, but must be an object", shown(value))))
            }
        };
        let (key, parameters) = match object("rope_parameters")? {
            Some(parameters) => ("rope_parameters", Some(parameters)),
            None => ("rope_scaling", object("rope_scaling")?),
        };
        let nested = match &parameters {
            Some(parameters) => parameters.optional_number("rope_theta")?,
            None => None,
        };
        let theta = match nested {
            Some(theta) => theta,
            None => self.optional_number("rope_theta")?.unwrap_or(10_000.0),
        };
        let Some(parameters) = parameters else { return Ok((theta, RopeScaling::None)) };
        if let Some(part) = parameters.optional_number("partial_rotary_factor")?
            && part != 1.0
        {
            return Err(self
                .place
                .unsupported(format!("`partial_rotary_factor` {part}"), "only 1 is supported"));
        }
        // "type" is what the key was called before transformers 4.43.
        let kind = match (parameters.get("rope_type"), parameters.get("type")) {
            (Some(kind), _) | (None, Some(kind)) => kind.as_str().ok_or_else(|| {
                self.place.bad(key, format!("has the type {}, but it must be a text", shown(kind)))
            })?,
            (None, None) => "default",
        };
        let scaling = match kind {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: parameters.number("factor")? },
            "llama3" => RopeScaling::Llama3 {
                factor: parameters.number("factor")?,
                low_freq_factor: parameters.number("low_freq_factor")?,
                high_freq_factor: parameters.number("high_freq_factor")?,
                original_max_position_embeddings: parameters
                    .size("original_max_position_embeddings")?,
            },
            other => {
                return Err(self.place.unsupported(
                    format!("the rope type `{}` in `{key}`", shown(other)),
                    "supported are default, linear and llama3",
                ));
            }
        };
        Ok((theta, scaling))
    }

    /// Errors for settings that would load but compute something else than the model does.
    fn refuse_what_is_not_implemented(&self, architecture: Architecture) -> Result<()> {
        if let Some(act) = self.get("hidden_act")
            && act.as_str() != Some("silu")
        {
            return Err(self
                .place
                .unsupported(format!("`hidden_act` {}", shown(act)), "only \"silu\" is"));
        }
        if let Some(quantization) = self.get("quantization_config") {
            let method = quantization["quant_method"].as_str().unwrap_or("of unknown method");
            return Err(self.place.unsupported(
                format!("`quantization_config` ({})", shown(method)),
                "use the unquantised checkpoint, or a GGUF file",
            ));
        }
        let window = "turn it off or use a model with full attention";
        if self.flag("use_sliding_window")? {
            return Err(self.place.unsupported("`use_sliding_window`", window));
        }
        // Qwen always writes `sliding_window`; there only the switch above makes it count.
        if architecture == Architecture::Llama
            && let Some(size) = self.get("sliding_window")
        {
            return Err(self
                .place
                .unsupported(format!("`sliding_window` {}", shown(size)), window));
        }
        if let Some(Value::Array(kinds)) = self.get("layer_types")
            && let Some(kind) = kinds.iter().find(|kind| kind.as_str() != Some("full_attention"))
        {
            return Err(self.place.unsupported(
                format!("`layer_types` {}", shown(kind)),
                "every layer must be \"full_attention\"",
            ));
        }
        if self.flag("mlp_bias")? {
            return Err(self.place.unsupported("`mlp_bias`", "only models without it are"));
        }
        if architecture != Architecture::Qwen2 && self.flag("attention_bias")? {
            return Err(self.place.unsupported(
                "`attention_bias` (a bias on o_proj too)",
                "q, k and v biases are supported for qwen2 only",
            ));
        }
        Ok(())
    }
}
