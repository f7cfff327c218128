//! What is kept of one answer.

use serde::{Deserialize, Serialize};
use specexit_engine::{Exit, Finish, Output};

use crate::compare::Task;
use crate::grading::Graded;

/// One question answered by one method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The question's id.
    pub question: String,
    /// How often it had been answered before, each time with another seed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repeat: usize,
    /// What kind of question it is, where its file says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The method's name.
    pub method: String,
    /// Whether the answer agrees with the gold answer.
    pub correct: bool,
    /// Tokens inside the thinking span.
    pub thinking_tokens: usize,
    /// All generated tokens.
    pub total_tokens: usize,
    /// Tokens of trials that did not become the answer.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub probe_tokens: usize,
    /// Seconds from admission to the end.
    pub wall_s: f64,
    /// Seconds from admission to the first token of the answer; absent where there was none.
    pub first_answer_s: Option<f64>,
    /// Acceptance length: tokens committed per round.
    pub tau: f64,
    /// Target forwards after the prefill.
    pub rounds: usize,
    /// Drafted tokens offered to the target.
    pub drafted: usize,
    /// Drafted tokens that the target accepted.
    pub accepted: usize,
    /// Why, where and at which signals the thought ended.
    pub exit: Option<Exit>,
    /// Why generation ended.
    pub finish: Finish,
    /// The answer found in the text, if there is one.
    pub answer: Option<String>,
    /// The whole generated text.
    pub text: String,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Record {
    /// Which answer it is to which question.
    pub(crate) fn key(&self) -> (&str, usize) {
        (&self.question, self.repeat)
    }

    /// The record of an output.
    #[must_use]
    pub(crate) fn new(task: &Task, method: &str, output: &Output, graded: Graded) -> Self {
        let Graded { text, answer, correct } = graded;
        Self {
            question: task.id.clone(),
            repeat: task.repeat,
            group: task.group.clone(),
            method: method.to_owned(),
            correct,
            thinking_tokens: output.thinking_tokens,
            total_tokens: output.token_ids.len(),
            probe_tokens: 0,
            wall_s: output.wall_s,
            first_answer_s: output.first_answer_s,
            tau: output.tau(),
            rounds: output.rounds,
            drafted: output.drafted,
            accepted: output.accepted,
            exit: output.exit,
            finish: output.finish,
            answer,
            text,
        }
    }
}
