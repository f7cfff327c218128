//! From generated tokens to a verdict.

use specexit_answer::{AnswerKind, extract, matches_gold};
use specexit_engine::TokenId;
use specexit_exit::Markers;
use specexit_model::Model;

use crate::compare::Task;
use crate::error::Result;
use crate::thought_text::answer_part;

/// What an output says.
pub(crate) struct Graded {
    /// The generated text without special tokens, the markers of the thought excepted.
    pub(crate) text: String,
    /// The answer found after the thought, if there is one.
    pub(crate) answer: Option<String>,
    /// Whether it is the right one.
    pub(crate) correct: bool,
}

/// Reads the output `ids` to `task`.
pub(crate) fn grade(
    model: &Model,
    markers: &Markers,
    task: &Task,
    ids: &[TokenId],
    kind: AnswerKind,
) -> Result<Graded> {
    let shown = |id: &&TokenId| {
        !model.tokenizer.is_special(**id)
            || markers.open_ids.contains(id)
            || markers.close_ids.contains(id)
    };
    let ids: Vec<TokenId> = ids.iter().filter(shown).copied().collect();
    let text = model.tokenizer.decode(&ids, false)?;
    let given = answer_part(&text, task.phase, markers);
    let correct = matches_gold(given, &task.gold, kind) == Some(true);
    let answer = extract(given, kind).map(|answer| answer.text);
    Ok(Graded { text, answer, correct })
}
