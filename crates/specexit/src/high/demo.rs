//! What `demo` is to show.

use specexit_engine::{Method, Policy, Request};
use specexit_eval::MethodSpec;
use specexit_exit::Profile;
use specexit_problems::{Difficulty, Problem, Problems, Split};

use super::{HeadChoice, ModelChoice};
use crate::failure::usage;
use crate::low;

/// Longest output; the reasoner's context leaves room for it after any of its problems.
const MAX_NEW_TOKENS: usize = 1500;
/// Drafted tokens per round: the fastest in `docs/results/reference.md`.
const DRAFT_TOKENS: usize = 3;

/// One demonstration.
pub(crate) struct Demo {
    pub(crate) model: ModelChoice,
    pub(crate) head: HeadChoice,
    pub(crate) problems: Vec<Problem>,
    pub(crate) methods: Vec<MethodSpec>,
    pub(crate) json: bool,
}

impl Demo {
    pub(crate) fn new(args: low::Demo) -> anyhow::Result<Self> {
        if args.threads == Some(0) {
            return usage("--threads is 0; at least one thread is needed");
        }
        let head = HeadChoice::reference()?;
        let levels = Difficulty::MIN..=Difficulty::MAX;
        let draw = Problems::new(&args.family, levels, Split::Test, args.seed);
        let count = args.problems as usize;
        let problems: Vec<Problem> = draw.take(count).collect();
        if problems.len() < count {
            return usage(format!("there are only {} such problems", problems.len()));
        }
        let methods = [Method::Plain, Method::Eagle3, Method::SpecExit];
        let policy = head.policy.clone().unwrap_or_else(|| Profile::Default.policy());
        Ok(Self {
            model: ModelChoice::reference(args.threads),
            head,
            problems,
            methods: methods.map(|method| spec(method, &policy)).to_vec(),
            json: args.json,
        })
    }
}

fn spec(method: Method, policy: &Policy) -> MethodSpec {
    let request = Request {
        method,
        draft_tokens: DRAFT_TOKENS,
        policy: (method == Method::SpecExit).then(|| policy.clone()),
        ..Request::new(Vec::new(), MAX_NEW_TOKENS)
    };
    MethodSpec::new(method.to_string(), request)
}
