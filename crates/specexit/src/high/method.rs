//! Which method decides tokens, and whether the flags that were given apply to it.

use specexit_engine::{Method, Policy, Request, Sampling};

use super::model::HeadChoice;
use crate::failure::usage;
use crate::low::{BudgetArgs, ExitArgs, SamplingArgs};

/// The method asked for, or the best that the head can do.
pub(crate) fn method(asked: Option<Method>, head: Option<&HeadChoice>) -> anyhow::Result<Method> {
    let best = match head {
        Some(head) if head.has_probe => Method::SpecExit,
        Some(_) => Method::Eagle3,
        None => Method::Plain,
    };
    let method = asked.unwrap_or(best);
    match head {
        None if method.drafts() => {
            usage(format!("method {method} needs a draft head; name one with --head"))
        }
        Some(_) if !method.drafts() => usage("--head does not apply to method plain"),
        Some(head) if method == Method::SpecExit && !head.has_probe => usage(format!(
            "method specexit needs a head with a signal probe, and the one in {} is plain EAGLE-3; \
             use --method eagle3, or train the signals",
            head.path().display()
        )),
        _ => Ok(method),
    }
}

/// The policy that the exit flags describe; without a profile it starts from the head's own, where
/// that has one.
///
/// A risk at which no early exit is safe gives a policy that never exits.
pub(crate) fn policy(args: &ExitArgs, head: Option<&HeadChoice>) -> anyhow::Result<Policy> {
    if let (Some(risk), Some(head)) = (args.risk, head) {
        return head.promised(risk);
    }
    let own = head.and_then(|head| head.policy.clone());
    let mut policy = match (args.profile, own) {
        (None, Some(own)) => own,
        (profile, _) => profile.unwrap_or_default().policy(),
    };
    let limits = &mut policy.thresholds;
    for (limit, given) in [
        (&mut limits.confidence, args.confidence),
        (&mut limits.progress, args.progress),
        (&mut limits.remaining, args.remaining),
    ] {
        if let Some(given) = given {
            *limit = given.0;
        }
    }
    policy.smoothing = args.smoothing.unwrap_or(policy.smoothing);
    policy.min_thinking_tokens = args.min_thinking_tokens.unwrap_or(policy.min_thinking_tokens);
    Ok(policy)
}

/// How tokens are drawn; filters of a distribution that is never drawn from are a mistake, and so
/// is a seed, unless `seeded` says that something else is drawn.
pub(crate) fn sampling(args: &SamplingArgs, seeded: bool) -> anyhow::Result<Sampling> {
    let sampling = Sampling {
        temperature: args.temperature,
        top_p: args.top_p.unwrap_or(1.0),
        top_k: args.top_k.unwrap_or(0),
        min_p: args.min_p.unwrap_or(0.0),
        seed: args.seed.unwrap_or(0),
    };
    let filters = [
        ("--top-p", args.top_p.is_some()),
        ("--top-k", args.top_k.is_some()),
        ("--min-p", args.min_p.is_some()),
        ("--seed", args.seed.is_some() && !seeded),
    ];
    if sampling.is_greedy()
        && let Some((flag, _)) = filters.into_iter().find(|(_, given)| *given)
    {
        return usage(format!("{flag} does not apply to temperature 0; set --temperature"));
    }
    if let Err(error) = sampling.validate() {
        return usage(error.to_string());
    }
    Ok(sampling)
}

/// Drafted tokens per round where none are asked for.
const DRAFT_TOKENS: usize = 4;

/// The request that `method` makes of any prompt.
pub(crate) fn request(
    method: Method,
    head: Option<&HeadChoice>,
    draft_tokens: Option<usize>,
    exit: &ExitArgs,
    length: &BudgetArgs,
    sampling: Sampling,
) -> anyhow::Result<Request> {
    if method != Method::SpecExit
        && let Some(flag) = exit.given()
    {
        return usage(format!("{flag} does not apply to method {method}"));
    }
    if !method.drafts() && draft_tokens.is_some() {
        return usage(format!("--draft-tokens does not apply to method {method}"));
    }
    let closes = method == Method::SpecExit || length.max_thinking_tokens.is_some();
    if length.closing_text.is_some() && !closes {
        return usage(format!(
            "--closing-text does not apply to method {method} without --max-thinking-tokens"
        ));
    }
    Ok(Request {
        method,
        draft_tokens: draft_tokens.unwrap_or(DRAFT_TOKENS),
        policy: (method == Method::SpecExit).then(|| policy(exit, head)).transpose()?,
        ..base(length, sampling)?
    })
}

/// What does not depend on the method.
pub(crate) fn base(length: &BudgetArgs, sampling: Sampling) -> anyhow::Result<Request> {
    if length.max_new_tokens == 0 {
        return usage("--max-new-tokens is 0; at least one token is needed");
    }
    Ok(Request {
        draft_tokens: DRAFT_TOKENS,
        sampling,
        thinking_budget: length.max_thinking_tokens,
        closing_text: length.closing_text.clone(),
        ..Request::new(Vec::new(), length.max_new_tokens)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::low::{Cli, Command, Generate};
    use clap::Parser;
    use specexit_exit::Profile;

    fn args(flags: &str) -> Generate {
        let words = ["specexit", "generate", "--model", "m", "hi"].into_iter();
        let cli = Cli::try_parse_from(words.chain(flags.split_whitespace())).unwrap();
        let Command::Generate(args) = cli.command else { panic!("not generate") };
        args
    }

    fn made(method: Method, flags: &str) -> anyhow::Result<Request> {
        let args = args(flags);
        let sampling = sampling(&args.sampling, false)?;
        request(method, None, args.draft_tokens, &args.exit, &args.length, sampling)
    }

    #[test]
    fn flags_change_the_profile() {
        let flags = "--profile paper --confidence 0.9 --remaining off --smoothing mean:4 \
                     --min-thinking-tokens 20 --draft-tokens 7 --max-thinking-tokens 99";
        let request = made(Method::SpecExit, flags).unwrap();
        let policy = request.policy.unwrap();
        assert_eq!(policy.thresholds.to_string(), "0.9,0.3,-");
        assert_eq!(policy.smoothing.to_string(), "mean:4");
        assert_eq!((policy.profile.as_str(), policy.min_thinking_tokens), ("paper", 20));
        assert_eq!((request.draft_tokens, request.thinking_budget), (7, Some(99)));
        let policy = made(Method::SpecExit, "").unwrap().policy.unwrap();
        assert_eq!(policy, Profile::Default.policy());
    }

    #[test]
    fn flags_that_do_not_apply_are_refused() {
        for (method, flags, refusal) in [
            (Method::Plain, "--profile paper", "--profile does not apply to method plain"),
            (Method::Eagle3, "--confidence 1", "--confidence does not apply to method eagle3"),
            (Method::Plain, "--draft-tokens 3", "--draft-tokens does not apply to method plain"),
            (Method::Plain, "--top-p 0.9", "--top-p does not apply to temperature 0"),
            (Method::Plain, "--seed 1", "--seed does not apply to temperature 0"),
            (Method::Plain, "--temperature 1 --top-p 7", "top_p is 7"),
            (Method::Eagle3, "--closing-text so", "--closing-text does not apply"),
            (Method::Plain, "--max-new-tokens 0", "--max-new-tokens is 0"),
        ] {
            let error = made(method, flags).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.starts_with(refusal), "{flags}: {error}");
        }
        assert!(made(Method::Plain, "--max-thinking-tokens 9 --closing-text so").is_ok());
    }

    #[test]
    fn the_head_decides_the_method() {
        let head = |has_probe| HeadChoice::for_tests(has_probe);
        assert_eq!(method(None, None).unwrap(), Method::Plain);
        assert_eq!(method(None, Some(&head(false))).unwrap(), Method::Eagle3);
        assert_eq!(method(None, Some(&head(true))).unwrap(), Method::SpecExit);
        assert_eq!(method(Some(Method::Eagle3), Some(&head(true))).unwrap(), Method::Eagle3);
        assert!(method(Some(Method::Plain), Some(&head(true))).is_err());
        assert!(method(Some(Method::SpecExit), Some(&head(false))).is_err());
        assert!(method(Some(Method::Eagle3), None).is_err());
    }
}
