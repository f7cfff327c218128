//! What `eval` is to do.

use std::path::{Path, PathBuf};

use specexit_answer::AnswerKind;
use specexit_engine::Request;
use specexit_eval::{EvalPageOptions, MethodSpec};
use specexit_problems::{Difficulty, Family, Problems, Split};
use specexit_train::{Grading, Question};

use super::compare::{graded, repeats};
use super::lineup::Lineup;
use super::method::sampling;
use super::{HeadChoice, Judging, ModelChoice, PromptStyle};
use crate::failure::usage;
use crate::low;

/// One evaluation.
pub(crate) struct Eval {
    pub(crate) model: ModelChoice,
    pub(crate) head: Option<HeadChoice>,
    /// Questions by the name of their task.
    pub(crate) tasks: Vec<(String, Vec<Question>)>,
    pub(crate) style: PromptStyle,
    pub(crate) methods: Vec<MethodSpec>,
    /// What recordings are made by; absent where there is no frontier.
    pub(crate) record: Option<Request>,
    pub(crate) batch: usize,
    /// Questions answered at a time, in the order in which they are measured.
    pub(crate) concurrencies: Vec<usize>,
    pub(crate) judging: Judging,
    /// Answers to each question.
    pub(crate) repeats: usize,
    pub(crate) out: PathBuf,
    pub(crate) page: EvalPageOptions,
    pub(crate) json: bool,
}

impl Eval {
    pub(crate) fn new(args: low::Eval) -> anyhow::Result<Self> {
        if args.limit == 0 || args.batch == 0 {
            return usage("--limit and --batch must be at least 1");
        }
        let mut concurrencies = args.concurrency;
        concurrencies.sort_unstable();
        concurrencies.dedup();
        if concurrencies.first() == Some(&0) {
            return usage("--concurrency 0 answers nothing; give numbers from 1");
        }
        let model = ModelChoice::new(&args.model)?;
        let made = args.task.iter().any(|task| task.parse::<Family>().is_ok());
        let sampling = sampling(&args.sampling, made)?;
        let lineup = Lineup::new(
            &args.methods,
            HeadChoice::new(&args.head, &model)?,
            args.draft_tokens,
            &args.exit,
            &args.length,
            sampling,
        )?;
        let seed = args.sampling.seed.unwrap_or(0);
        let mut tasks: Vec<(String, Vec<Question>)> = Vec::new();
        for task in &args.task {
            let (name, questions) = task_of(task, args.limit, seed)?;
            if tasks.iter().any(|(other, _)| *other == name) || name == "provenance" {
                return usage(format!(
                    "there can be only one task called {name}; name the file otherwise"
                ));
            }
            tasks.push((name, questions));
        }
        let probes = lineup.head.as_ref().is_some_and(|head| head.has_probe);
        let records = probes && !args.no_frontier && sampling.is_greedy();
        Ok(Self {
            model,
            head: lineup.head,
            tasks,
            style: PromptStyle::chat(args.prompting),
            methods: lineup.methods,
            record: records.then_some(lineup.base),
            batch: args.batch,
            concurrencies,
            judging: Judging::new(args.judging),
            repeats: repeats(args.repeats, &sampling)?,
            out: args.out,
            page: EvalPageOptions { thoughts: args.thoughts },
            json: args.json,
        })
    }
}

/// A task by the name of a family, or of a file of questions.
fn task_of(task: &str, limit: usize, seed: u64) -> anyhow::Result<(String, Vec<Question>)> {
    if let Ok(family) = task.parse::<Family>() {
        let levels = Difficulty::MIN..=Difficulty::MAX;
        let problems = Problems::new(&[family], levels, Split::Test, seed).take(limit);
        let question = |problem: specexit_problems::Problem| Question {
            id: problem.id(),
            question: problem.question,
            gold: Some(problem.answer),
            group: None,
            grading: Grading::Answer(AnswerKind::Auto),
        };
        return Ok((task.to_owned(), problems.map(question).collect()));
    }
    let path = Path::new(task);
    let Some(stem) = path.file_stem().filter(|_| path.exists()) else {
        return usage(format!(
            "there is no task {task}: neither words, algebra, code or logic, nor a file"
        ));
    };
    Ok((stem.to_string_lossy().into_owned(), graded(path, 0, Some(limit))?))
}
