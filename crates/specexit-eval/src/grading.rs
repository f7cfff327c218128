//! From generated tokens to a verdict.

use std::sync::Arc;

use specexit_answer::{AnswerKind, extract, matches_gold};
use specexit_code::{Outcome, Sandbox, extract_code};
use specexit_engine::TokenId;
use specexit_exit::Markers;
use specexit_model::Model;
use specexit_model::hash::Hasher;

use crate::compare::Task;
use crate::error::{EvalError, Result};
use crate::thought_text::answer_part;

/// How answers to a task are judged.
#[derive(Clone, Debug)]
pub enum Judge {
    /// By comparison.
    Answer {
        /// The right answer.
        gold: String,
        /// What sort of answer is looked for in the text.
        kind: AnswerKind,
    },
    /// By running tests on the code in the answer.
    Tests {
        /// The code's surroundings and its tests.
        task: specexit_code::Task,
        /// Where it is run.
        sandbox: Arc<Sandbox>,
    },
}

impl Judge {
    /// What a text answers, as it can be compared with another answer to the same task.
    pub(crate) fn answer(&self, text: &str) -> Option<String> {
        match self {
            Self::Answer { kind, .. } => extract(text, *kind).map(|answer| answer.text),
            Self::Tests { task, .. } => extract_code(text, &task.entry_point),
        }
    }

    /// Whether a text answers rightly.
    ///
    /// # Errors
    /// A sandbox that cannot run the tests: that says nothing about the answer.
    fn right(&self, question: &str, text: &str) -> Result<bool> {
        match self {
            Self::Answer { gold, kind } => Ok(matches_gold(text, gold, *kind) == Some(true)),
            Self::Tests { task, sandbox } => match sandbox.grade(task, text).outcome {
                Outcome::Passed => Ok(true),
                Outcome::CannotRun { reason } => {
                    Err(EvalError::Sandbox { question: question.to_owned(), reason })
                }
                _ => Ok(false),
            },
        }
    }

    /// Enters what verdicts depend on.
    pub(crate) fn hash(&self, hasher: &mut Hasher) {
        match self {
            Self::Answer { gold, kind } => {
                hasher.text(&kind.to_string());
                hasher.text(gold);
            }
            Self::Tests { task, .. } => {
                for text in ["tests", &task.prompt, &task.entry_point, &task.test] {
                    hasher.text(text);
                }
            }
        }
    }
}

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
) -> Result<Graded> {
    let shown = |id: &&TokenId| {
        !model.tokenizer.is_special(**id)
            || markers.open_ids.contains(id)
            || markers.close_ids.contains(id)
    };
    let ids: Vec<TokenId> = ids.iter().filter(shown).copied().collect();
    let text = model.tokenizer.decode(&ids, false)?;
    let given = answer_part(&text, task.phase, markers);
    let correct = task.judge.right(&task.id, given)?;
    let answer = task.judge.answer(given);
    Ok(Graded { text, answer, correct })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use specexit_code::{Isolation, Limits};

    use super::*;

    fn hash(judge: &Judge) -> String {
        let mut hasher = Hasher::new();
        judge.hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn answers_are_compared_by_their_kind() {
        let judge = |kind| Judge::Answer { gold: "12".to_owned(), kind };
        let text = "So 5 and 7 make 12. I checked with 3.";
        assert!(!judge(AnswerKind::Auto).right("q", text).unwrap());
        assert!(judge(AnswerKind::Number).right("q", "They make 12 in all.").unwrap());
        assert!(!judge(AnswerKind::Boxed).right("q", "They make 12 in all.").unwrap());
        assert!(judge(AnswerKind::Boxed).right("q", "\\boxed{12}").unwrap());
        assert_ne!(hash(&judge(AnswerKind::Auto)), hash(&judge(AnswerKind::Boxed)));
    }

    #[test]
    fn code_is_judged_by_its_tests() {
        let sandbox = Sandbox::new(Path::new("python3"), Limits::default(), Isolation::Namespaces);
        let Ok(sandbox) = sandbox.map(Arc::new) else {
            eprintln!("skipped: there is no python3, or no namespace, to run code in");
            return;
        };
        let judge = |wanted: u8| Judge::Tests {
            task: specexit_code::Task {
                prompt: "def f(x):\n    \"\"\"Twice x.\"\"\"\n".to_owned(),
                entry_point: "f".to_owned(),
                test: format!("def check(candidate):\n    assert candidate(2) == {wanted}\n"),
            },
            sandbox: Arc::clone(&sandbox),
        };
        let text = "Here:\n```python\ndef f(x):\n    return 2 * x\n```\n";
        assert!(judge(4).right("q", text).unwrap());
        assert!(!judge(5).right("q", text).unwrap());
        assert!(!judge(4).right("q", "I cannot write code.").unwrap());
        assert_eq!(judge(4).answer(text).unwrap().trim(), "def f(x):\n    return 2 * x");
        assert_ne!(hash(&judge(4)), hash(&judge(5)));
    }
}
