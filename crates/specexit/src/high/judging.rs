//! How answers are judged.

use std::path::PathBuf;
use std::sync::Arc;

use specexit_answer::AnswerKind;
use specexit_code::{Isolation, Limits, Sandbox};
use specexit_eval::Judge;
use specexit_train::{Grading, Question};

use crate::low;

/// What is the same for all questions.
#[derive(Default)]
pub(crate) struct Judging {
    /// Looked for instead of what the questions say.
    answer_kind: Option<AnswerKind>,
    python: PathBuf,
    isolation: Isolation,
}

impl Judging {
    pub(crate) fn new(args: low::JudgingArgs) -> Self {
        let isolation =
            if args.code_limits_only { Isolation::LimitsOnly } else { Isolation::Namespaces };
        Self { answer_kind: args.answer_kind, python: args.python, isolation }
    }

    /// How answers to each of `questions` are judged, which all have an answer or tests. The sandbox is tried
    /// where there are tests.
    pub(crate) fn judges(&self, questions: &[Question]) -> anyhow::Result<Vec<Judge>> {
        let tested = questions.iter().any(|q| matches!(q.grading, Grading::Tests(_)));
        let sandbox = if tested { Some(Arc::new(self.sandbox()?)) } else { None };
        let judge = |question: &Question| match (&question.grading, &sandbox) {
            (Grading::Tests(task), Some(sandbox)) => {
                Judge::Tests { task: task.clone(), sandbox: Arc::clone(sandbox) }
            }
            (grading, _) => {
                let own =
                    if let Grading::Answer(kind) = grading { *kind } else { AnswerKind::Auto };
                let gold = question.gold.clone().unwrap_or_default();
                Judge::Answer { gold, kind: self.answer_kind.unwrap_or(own) }
            }
        };
        Ok(questions.iter().map(judge).collect())
    }

    fn sandbox(&self) -> anyhow::Result<Sandbox> {
        Sandbox::new(&self.python, Limits::default(), self.isolation).map_err(|e| {
            let more = match self.isolation {
                Isolation::Namespaces => {
                    "; --code-limits-only runs code that you trust without one, --python names another interpreter"
                }
                Isolation::LimitsOnly => "; --python names another interpreter",
            };
            anyhow::anyhow!("the questions come with tests to run, but {e}{more}")
        })
    }
}
