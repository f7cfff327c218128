//! What `compare` is to do.

use std::path::{Path, PathBuf};

use specexit_engine::Sampling;
use specexit_eval::MethodSpec;
use specexit_train::{Grading, Question, read_questions};

use super::lineup::Lineup;
use super::method::sampling;
use super::{HeadChoice, Judging, ModelChoice, PromptStyle};
use crate::failure::usage;
use crate::low;

/// One comparison.
pub(crate) struct Compare {
    pub(crate) model: ModelChoice,
    pub(crate) head: Option<HeadChoice>,
    pub(crate) questions: Vec<Question>,
    pub(crate) style: PromptStyle,
    pub(crate) methods: Vec<MethodSpec>,
    pub(crate) judging: Judging,
    /// Answers to each question.
    pub(crate) repeats: usize,
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
            judging: Judging::new(args.judging),
            repeats: repeats(args.repeats, &sampling)?,
            out: args.out,
            json: args.json,
        })
    }
}

/// How often each question is answered.
pub(super) fn repeats(given: usize, sampling: &Sampling) -> anyhow::Result<usize> {
    match given {
        0 => usage("--repeats is 0; every question is answered at least once"),
        1 => Ok(1),
        _ if sampling.is_greedy() => usage(
            "--repeats does not apply to temperature 0, which answers the same each time; set --temperature",
        ),
        times => Ok(times),
    }
}

/// The questions asked for; each needs a known answer, or tests.
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
    let open = |q: &&Question| q.gold.is_none() && matches!(q.grading, Grading::Answer(_));
    if let Some(open) = chosen.iter().find(open) {
        anyhow::bail!(
            "question {} in {} has neither an answer nor tests, so what is answered cannot be judged",
            open.id,
            file.display()
        );
    }
    Ok(chosen)
}
