//! Where checkpoints keep their chat template and the special tokens it uses.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::ChatTemplate;
use crate::error::{ModelError, Result, shown};
use crate::weights::GgufMetadata;

/// Special tokens that templates use as variables.
const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl ChatTemplate {
    /// Reads the template of a model folder: `chat_template.jinja`, or `chat_template` in
    /// `tokenizer_config.json` (a text, or a list of named templates), or `chat_template.json`.
    ///
    /// # Errors
    /// When a file cannot be read, a list has no template named `default`, or the template cannot be
    /// parsed.
    pub fn from_tokenizer_config(folder: &Path) -> Result<Option<Self>> {
        let config_path = folder.join("tokenizer_config.json");
        let config = read_object(&config_path)?.unwrap_or_default();
        let special_tokens = special_tokens(&config);

        let file = folder.join("chat_template.jinja");
        if file.is_file() {
            let text = read(&file)?;
            // transformers keeps a template for tools beside it.
            let tools = folder.join("additional_chat_templates").join("tool_use.jinja");
            let tools = if tools.is_file() { Some(read(&tools)?) } else { None };
            return Self::new(file, text, tools, special_tokens).map(Some);
        }
        if let Some(named) = Named::read(config.get("chat_template"), &config_path)? {
            return named.build(config_path, special_tokens).map(Some);
        }
        let file = folder.join("chat_template.json");
        let object = read_object(&file)?.unwrap_or_default();
        match Named::read(object.get("chat_template"), &file)? {
            Some(named) => named.build(file, special_tokens).map(Some),
            None => Ok(None),
        }
    }

    /// Reads the template of a GGUF file, if it has one.
    ///
    /// # Errors
    /// When the template cannot be parsed.
    pub fn from_gguf(metadata: &GgufMetadata) -> Result<Option<Self>> {
        const KEY: &str = "tokenizer.chat_template";
        let Some(text) = metadata.text(KEY)? else { return Ok(None) };
        let tools = metadata.text(&format!("{KEY}.tool_use"))?.map(str::to_owned);

        let tokens = metadata.texts("tokenizer.ggml.tokens")?.unwrap_or_default();
        let mut special_tokens = Map::new();
        for name in SPECIAL_TOKENS {
            // GGUF spells two of them out.
            let key = match name {
                "unk_token" => "tokenizer.ggml.unknown_token_id".to_owned(),
                "sep_token" => "tokenizer.ggml.seperator_token_id".to_owned(),
                "pad_token" => "tokenizer.ggml.padding_token_id".to_owned(),
                _ => format!("tokenizer.ggml.{name}_id"),
            };
            if let Some(id) = metadata.id(&key)?
                && let Some(token) = tokens.get(id as usize)
            {
                special_tokens.insert(name.to_owned(), token.as_str().into());
            }
        }
        Self::new(metadata.path().to_owned(), text.to_owned(), tools, special_tokens).map(Some)
    }
}

/// The templates that a `chat_template` key holds.
struct Named {
    default: String,
    tools: Option<String>,
}

impl Named {
    fn read(value: Option<&Value>, path: &Path) -> Result<Option<Self>> {
        let bad = |problem: &str| {
            Err(ModelError::BadField {
                path: path.to_owned(),
                field: "chat_template".to_owned(),
                problem: problem.to_owned(),
            })
        };
        match value {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(Self { default: text.clone(), tools: None })),
            Some(Value::Array(entries)) => {
                let named = |name: &str| {
                    let entry = entries.iter().find(|entry| entry["name"] == name)?;
                    entry["template"].as_str().map(str::to_owned)
                };
                match named("default") {
                    Some(default) => Ok(Some(Self { default, tools: named("tool_use") })),
                    None => bad("is a list without a template named `default`; add one"),
                }
            }
            Some(_) => bad("is neither a text nor a list of named templates"),
        }
    }

    fn build(self, path: PathBuf, special_tokens: Map<String, Value>) -> Result<ChatTemplate> {
        ChatTemplate::new(path, self.default, self.tools, special_tokens)
    }
}

/// The special tokens of a `tokenizer_config.json`: texts, or objects with the text as `content`.
fn special_tokens(config: &Map<String, Value>) -> Map<String, Value> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(object) => object.get("content")?.as_str().map(str::to_owned),
        _ => None,
    };
    SPECIAL_TOKENS
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), config.get(name).and_then(text)?.into())))
        .collect()
}

/// The JSON object in a file, or nothing when there is no such file.
fn read_object(path: &Path) -> Result<Option<Map<String, Value>>> {
    if !path.is_file() {
        return Ok(None);
    }
    serde_json::from_str(&read(path)?).map(Some).map_err(|error| ModelError::BadFile {
        path: path.to_owned(),
        problem: format!("it is not a JSON object ({})", shown(error)),
    })
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| ModelError::Io { path: path.to_owned(), source })
}
