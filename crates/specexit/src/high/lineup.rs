//! The methods of one comparison, checked against each other and the flags.

use specexit_engine::{Method, Request, Sampling};
use specexit_eval::{MethodSpec, check_methods};

use super::HeadChoice;
use super::method::{base, policy};
use crate::failure::{UsageError, usage};
use crate::low::{BudgetArgs, ExitArgs};

/// Methods, and what they share.
pub(crate) struct Lineup {
    /// What every method starts from, with the policy of a bare `specexit`.
    pub(crate) base: Request,
    pub(crate) methods: Vec<MethodSpec>,
    /// The head, where a method drafts.
    pub(crate) head: Option<HeadChoice>,
}

impl Lineup {
    /// The methods called `names`; settings that these do not name are those of the flags.
    pub(crate) fn new(
        names: &[String],
        head: Option<HeadChoice>,
        draft_tokens: Option<usize>,
        exit: &ExitArgs,
        length: &BudgetArgs,
        sampling: Sampling,
    ) -> anyhow::Result<Self> {
        let base = Request {
            policy: Some(policy(exit, head.as_ref())?),
            draft_tokens: draft_tokens.unwrap_or(4),
            ..base(length, sampling)?
        };
        let methods = names.iter().map(|name| MethodSpec::parse(name, &base));
        let methods = methods.collect::<Result<Vec<_>, _>>();
        let methods = methods.map_err(|e| UsageError(e.to_string()))?;
        check_methods(&methods).map_err(|e| UsageError(e.to_string()))?;
        let drafts = methods.iter().any(|method| method.request.method.drafts());
        let head = head.filter(|head| head.counts(drafts));
        check_head(&methods, head.as_ref())?;
        check_flags(exit, length, draft_tokens, &methods)?;
        Ok(Self { base, methods, head })
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
fn check_flags(
    exit: &ExitArgs,
    length: &BudgetArgs,
    draft_tokens: Option<usize>,
    methods: &[MethodSpec],
) -> anyhow::Result<()> {
    let any = |uses: fn(&MethodSpec) -> bool| methods.iter().any(uses);
    if let Some(flag) = exit.given()
        && !any(|m| m.request.method == Method::SpecExit)
    {
        return usage(format!("{flag} does not apply: no method of --methods is specexit"));
    }
    if draft_tokens.is_some() && !any(|m| m.request.method.drafts()) {
        return usage("--draft-tokens does not apply: no method of --methods drafts");
    }
    let closes = |m: &MethodSpec| {
        m.request.policy.is_some() || m.request.thinking_budget.is_some() || m.rule.is_some()
    };
    if length.closing_text.is_some() && !methods.iter().any(closes) {
        return usage("--closing-text does not apply: no method of --methods closes a thought");
    }
    Ok(())
}
