//! From a question to a prompt.

use specexit_engine::{Phase, TokenId, phase_of_prompt};
use specexit_exit::Markers;
use specexit_model::{Message, Model, RenderOptions};

use crate::failure::usage;
use crate::low::PromptArgs;

/// How questions are asked.
pub(crate) enum PromptStyle {
    /// The text as it is.
    Raw,
    /// As the user's turn of a conversation.
    Chat(ChatStyle),
}

/// A conversation of one turn.
#[derive(Default)]
pub(crate) struct ChatStyle {
    system: Option<String>,
    suffix: Option<String>,
    enable_thinking: Option<bool>,
    think_open: bool,
}

impl Default for PromptStyle {
    /// A conversation as the model's template has it.
    fn default() -> Self {
        Self::Chat(ChatStyle::default())
    }
}

impl PromptStyle {
    pub(crate) fn chat(args: PromptArgs) -> Self {
        Self::Chat(ChatStyle {
            enable_thinking: args.enable_thinking(),
            system: args.system,
            suffix: args.suffix,
            think_open: args.think_open,
        })
    }

    /// The tokens of a question's prompt, and where in a thought they end.
    pub(crate) fn encode(
        &self,
        model: &Model,
        markers: &Markers,
        question: &str,
    ) -> anyhow::Result<(Vec<TokenId>, Phase)> {
        let (text, start_token) = match self {
            Self::Raw => (question.to_owned(), true),
            // Templates write the start token themselves; without one the tokenizer adds it.
            Self::Chat(style) => (style.render(model, question)?, model.chat_template.is_none()),
        };
        let (text, phase) = self.open_thought(text, markers);
        Ok((model.tokenizer.encode(&text, start_token)?, phase))
    }

    fn open_thought(&self, mut text: String, markers: &Markers) -> (String, Phase) {
        let phase = phase_of_prompt(&text, markers);
        match self {
            Self::Chat(style) if style.think_open && phase == Phase::Before => {
                text.push_str(&String::from_utf8_lossy(&markers.open));
                text.push('\n');
                (text, Phase::Thinking)
            }
            _ => (text, phase),
        }
    }
}

impl ChatStyle {
    fn render(&self, model: &Model, question: &str) -> anyhow::Result<String> {
        let user = match &self.suffix {
            Some(suffix) => format!("{question}\n{suffix}"),
            None => question.to_owned(),
        };
        let Some(template) = &model.chat_template else {
            if self.enable_thinking.is_some() {
                return usage(
                    "--thinking and --no-thinking do not apply: the model has no chat template",
                );
            }
            let system = self.system.iter().map(|text| format!("{text}\n\n"));
            return Ok(system.chain([format!("{user}\n\n")]).collect());
        };
        if self.enable_thinking.is_some() && !template.source().contains("enable_thinking") {
            return usage(
                "--thinking and --no-thinking do not apply: the model's chat template has no such \
                 switch; --think-open opens a thought in any prompt",
            );
        }
        let system = self.system.iter().map(|text| Message::new("system", text.as_str()));
        let messages: Vec<Message> = system.chain([Message::new("user", user)]).collect();
        let options = RenderOptions {
            add_generation_prompt: true,
            enable_thinking: self.enable_thinking,
            ..RenderOptions::default()
        };
        Ok(template.render(&messages, &options)?)
    }
}
