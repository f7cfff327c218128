//! What `compare` is to do.

use std::path::{Path, PathBuf};

use specexit_answer::AnswerKind;
use specexit_eval::MethodSpec;
use specexit_train::{Question, read_questions};

use super::lineup::Lineup;
use super::method::sampling;
use super::{HeadChoice, ModelChoice, PromptStyle};
use crate::failure::usage;
use crate::low;

/// One comparison.
pub(crate) struct Compare {
    pub(crate) model: ModelChoice,
    pub(crate) head: Option<HeadChoice>,
    pub(crate) questions: Vec<Question>,
    pub(crate) style: PromptStyle,
    pub(crate) methods: Vec<MethodSpec>,
    pub(crate) answer_kind: AnswerKind,
    pub(crate) out: Option<PathBuf>,
    pub(crate) json: bool,
}

impl Compare {
    pub(crate) fn new(args: low::Compare) -> anyhow::Result<Self> {
        let model = ModelChoice::new(&args.model)?;
        let sampling = sampling(&args.sampling, false)?;
        let lineup = Lineup::new(
            &args.methods,
            HeadChoice::new(&args.head, &model)?,
            args.draft_tokens,
            &args.exit,
            &args.length,
            sampling,
        )?;
        let questions = graded(&args.questions, args.offset, args.limit)?;
        Ok(Self {
            model,
            head: lineup.head,
            questions,
            style: PromptStyle::chat(args.prompting),
            methods: lineup.methods,
            answer_kind: args.answer_kind,
            out: args.out,
            json: args.json,
        })
    }
}

/// The questions asked for; each needs a known answer.
pub(super) fn graded(
    file: &Path,
    offset: usize,
    limit: Option<usize>,
) -> anyhow::Result<Vec<Question>> {
    let all = read_questions(file)?;
    let count = all.len();
    let limit = limit.unwrap_or(usize::MAX);
    let chosen: Vec<Question> = all.into_iter().skip(offset).take(limit).collect();
    if chosen.is_empty() {
        return usage(format!(
            "--offset {offset} and --limit leave no question of the {count} in {}",
            file.display()
        ));
    }
    if let Some(open) = chosen.iter().find(|q| q.gold.is_none()) {
        anyhow::bail!(
            "question {} in {} has no answer, so nothing can be compared with it",
            open.id,
            file.display()
        );
    }
    Ok(chosen)
}
