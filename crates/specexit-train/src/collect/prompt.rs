//! From a question to the tokens the target reads.

use specexit_engine::phase_of_prompt;
use specexit_exit::{Markers, Phase, TokenId};
use specexit_model::{Message, ModelText, RenderOptions};

use super::CollectRules;
use crate::error::Result;
use crate::questions::Question;

/// A rendered prompt.
#[derive(Clone, Debug)]
pub(crate) struct Prompt {
    /// As text.
    pub(crate) text: String,
    /// As tokens.
    pub(crate) ids: Vec<TokenId>,
    /// Where in a thought it ends.
    pub(crate) phase: Phase,
}

/// Renders a question with the model's chat template, or plainly where it has none.
pub(crate) fn render(
    rules: &CollectRules,
    model: &ModelText,
    markers: &Markers,
    question: &Question,
) -> Result<Prompt> {
    let user = match &rules.user_suffix {
        Some(suffix) => format!("{}\n{suffix}", question.question),
        None => question.question.clone(),
    };
    let mut text = match &model.chat_template {
        Some(template) => {
            let system = rules.system.iter().map(|text| Message::new("system", text.as_str()));
            let messages: Vec<Message> = system.chain([Message::new("user", user)]).collect();
            let options = RenderOptions {
                add_generation_prompt: true,
                enable_thinking: rules.enable_thinking,
                ..RenderOptions::default()
            };
            template.render(&messages, &options)?
        }
        None => {
            let system = rules.system.as_ref().map_or(String::new(), |text| format!("{text}\n\n"));
            format!("{system}{user}\n\n")
        }
    };
    let mut phase = phase_of_prompt(&text, markers);
    if rules.think_open && phase == Phase::Before {
        text.push_str(&String::from_utf8_lossy(&markers.open));
        text.push('\n');
        phase = Phase::Thinking;
    }
    // Templates write the start token themselves; without one the tokenizer adds it.
    let ids = model.tokenizer.encode(&text, model.chat_template.is_none())?;
    Ok(Prompt { text, ids, phase })
}
