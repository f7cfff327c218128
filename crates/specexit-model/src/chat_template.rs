//! How a conversation becomes a prompt: the checkpoint's own Jinja template, rendered as
//! transformers renders it.

mod clock;
mod environment;
mod json;
mod load;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use minijinja::Environment;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::error::{ModelError, Result};

/// One message of a conversation. Keys without a field of their own reach the template as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`, or what else the template knows.
    pub role: String,
    /// The text. Read from null (an assistant that only calls tools) as no text.
    #[serde(default, deserialize_with = "text_or_null")]
    pub content: String,
    /// The thought that came before the text, for templates that take it apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The calls that an assistant made, in OpenAI's form; null for none.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub tool_calls: Value,
    /// Further keys.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    /// A message of plain text.
    #[must_use]
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), ..Self::default() }
    }
}

/// What to render beside the messages.
#[derive(Clone, Debug, Default)]
pub struct RenderOptions {
    /// End the prompt with the start of the assistant's turn.
    pub add_generation_prompt: bool,
    /// Given to templates that can switch thinking on and off; left to the template when absent.
    pub enable_thinking: Option<bool>,
    /// Tool definitions in OpenAI's form.
    pub tools: Option<Value>,
    /// Further variables for the template; they replace those of the checkpoint (`bos_token`).
    pub extra: Map<String, Value>,
    /// The time that `strftime_now` shows, in UTC; the clock's when absent.
    pub now: Option<SystemTime>,
}

/// A checkpoint's chat template.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    /// Where it came from, for error messages.
    path: PathBuf,
    /// The parsed templates, by the names below.
    environment: Environment<'static>,
    /// The Jinja text of the default template.
    source: String,
    /// Whether there is another template for conversations with tools.
    has_tool_template: bool,
    /// `bos_token`, `eos_token` and so on.
    special_tokens: Map<String, Value>,
}

/// Names of the parsed templates; error messages show them.
const DEFAULT: &str = "chat_template";
const WITH_TOOLS: &str = "chat_template.tool_use";

impl ChatTemplate {
    /// Parses a template given by the user; `special_tokens` are variables such as `bos_token`.
    ///
    /// # Errors
    /// When the template cannot be parsed.
    pub fn from_source(
        path: &Path,
        source: String,
        special_tokens: Map<String, Value>,
    ) -> Result<Self> {
        Self::new(path.to_owned(), source, None, special_tokens)
    }

    /// Parses a template. `tools` is another one for conversations with tools, where the checkpoint
    /// has it; `special_tokens` are variables such as `bos_token`.
    ///
    /// # Errors
    /// When a template cannot be parsed.
    fn new(
        path: PathBuf,
        source: String,
        tools: Option<String>,
        special_tokens: Map<String, Value>,
    ) -> Result<Self> {
        let mut environment = environment::new();
        let has_tool_template = tools.is_some();
        let templates = [(DEFAULT, Some(source.clone())), (WITH_TOOLS, tools)];
        for (name, text) in templates {
            if let Some(text) = text {
                environment
                    .add_template_owned(name, environment::without_generation_tags(&text))
                    .map_err(|error| ModelError::ChatTemplate {
                    path: Some(path.clone()),
                    problem: format!("it cannot be parsed: {}", environment::sentence(&error)),
                })?;
            }
        }
        Ok(Self { path, environment, source, has_tool_template, special_tokens })
    }

    /// The Jinja text.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt for `messages`.
    ///
    /// # Errors
    /// When the template refuses the messages (`raise_exception`) or fails.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String> {
        let messages = messages
            .iter()
            .map(|message| {
                serde_json::to_value(message).map_err(|error| self.failed(error.to_string()))
            })
            .collect::<Result<Vec<Value>>>()?;
        self.render_json(messages, options)
    }

    /// The prompt for messages in any shape the template knows: content may be null or a list of
    /// parts.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn render_json(&self, messages: Vec<Value>, options: &RenderOptions) -> Result<String> {
        let mut context = self.special_tokens.clone();
        let messages = messages.into_iter().map(with_reasoning_names).collect();
        let tools = options.tools.clone().unwrap_or(Value::Null);
        let with_tools = self.has_tool_template && !tools.is_null();
        context.insert("messages".to_owned(), Value::Array(messages));
        context.insert("tools".to_owned(), tools);
        context.insert("documents".to_owned(), Value::Null);
        context.insert("add_generation_prompt".to_owned(), options.add_generation_prompt.into());
        if let Some(enable_thinking) = options.enable_thinking {
            context.insert("enable_thinking".to_owned(), enable_thinking.into());
        }
        context.extend(options.extra.clone());

        let name = if with_tools { WITH_TOOLS } else { DEFAULT };
        let now = options.now.unwrap_or_else(SystemTime::now);
        environment::render(&self.environment, name, &Value::Object(context), now)
            .map_err(|error| self.failed(environment::sentence(&error)))
    }

    fn failed(&self, problem: String) -> ModelError {
        ModelError::ChatTemplate { path: Some(self.path.clone()), problem }
    }
}

fn text_or_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<String, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The message with its reasoning under each name that templates read it by, as transformers gives it.
fn with_reasoning_names(message: Value) -> Value {
    const STANDARD: &str = "reasoning_content";
    const OLDER: [&str; 2] = ["thinking", "reasoning"];
    let Value::Object(mut message) = message else { return message };
    let reasoning = [STANDARD, OLDER[0], OLDER[1]]
        .into_iter()
        .find_map(|name| message.get(name).filter(|value| !value.is_null()))
        .cloned();
    if let Some(reasoning) = reasoning {
        message.entry(OLDER[0]).or_insert_with(|| reasoning.clone());
        message.insert(STANDARD.to_owned(), reasoning);
    }
    Value::Object(message)
}
