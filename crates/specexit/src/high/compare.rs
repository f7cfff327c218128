//! What `compare` is to do.

use std::path::{Path, PathBuf};

use specexit_answer::AnswerKind;
use specexit_engine::{Method, Request};
use specexit_eval::{MethodSpec, check_methods};
use specexit_train::{Question, read_questions};

use super::method::{base, policy, sampling};
use super::{HeadChoice, ModelChoice, PromptStyle};
use crate::failure::{UsageError, usage};
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
        let head = HeadChoice::new(&args.head, &model)?;
        let base = Request {
            policy: Some(policy(&args.exit, head.as_ref())?),
            draft_tokens: args.draft_tokens.unwrap_or(4),
            ..base(&args.length, sampling(&args.sampling, false)?)?
        };
        let parse = |spec: &String| MethodSpec::parse(spec, &base);
        let methods = args.methods.iter().map(parse).collect::<Result<Vec<_>, _>>();
        let methods = methods.map_err(|e| UsageError(e.to_string()))?;
        check_methods(&methods).map_err(|e| UsageError(e.to_string()))?;
        let drafts = methods.iter().any(|method| method.request.method.drafts());
        let head = head.filter(|head| head.counts(drafts));
        check_head(&methods, head.as_ref())?;
        check_flags(&args, &methods)?;
        let questions = graded(&args.questions, args.offset, args.limit)?;
        Ok(Self {
            model,
            head,
            questions,
            style: PromptStyle::chat(args.prompting),
            methods,
            answer_kind: args.answer_kind,
            out: args.out,
            json: args.json,
        })
    }
}

fn check_head(methods: &[MethodSpec], head: Option<&HeadChoice>) -> anyhow::Result<()> {
    for MethodSpec { name, request, .. } in methods {
        super::method::method(Some(request.method), head.filter(|_| request.method.drafts()))
            .map_err(|e| UsageError(format!("{name}: {e}")))?;
    }
    if head.is_some() && !methods.iter().any(|m| m.request.method.drafts()) {
        return usage("--head does not apply: no method of --methods drafts");
    }
    Ok(())
}

/// Flags that no method would use are a mistake.
fn check_flags(args: &low::Compare, methods: &[MethodSpec]) -> anyhow::Result<()> {
    let any = |uses: fn(&MethodSpec) -> bool| methods.iter().any(uses);
    if let Some(flag) = args.exit.given()
        && !any(|m| m.request.method == Method::SpecExit)
    {
        return usage(format!("{flag} does not apply: no method of --methods is specexit"));
    }
    if args.draft_tokens.is_some() && !any(|m| m.request.method.drafts()) {
        return usage("--draft-tokens does not apply: no method of --methods drafts");
    }
    let closes = |m: &MethodSpec| {
        m.request.policy.is_some() || m.request.thinking_budget.is_some() || m.rule.is_some()
    };
    if args.length.closing_text.is_some() && !methods.iter().any(closes) {
        return usage("--closing-text does not apply: no method of --methods closes a thought");
    }
    Ok(())
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
