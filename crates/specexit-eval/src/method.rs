//! The methods of a comparison, as they are named on a command line.
//!
//! `plain`, `eagle3`, `specexit`, `specexit:paper`, `specexit:confidence=0.9:remaining=off`,
//! `budget:256`, `random:0.2`: a decoding method, then a profile or settings, each after a colon.

use std::str::FromStr;

use serde_json::{Value, json};
use specexit_engine::{Method, Policy, Request};
use specexit_exit::{BoundaryRules, Profile, RandomExit, Smoothing};

use crate::error::{EvalError, Result};
use crate::probing::Rule;

/// What a specification may look like, for help and errors.
pub const METHOD_SYNTAX: &str = "plain, eagle3 or specexit, then for specexit a profile \
    (default, paper, angelslim) and for each any of confidence=X, progress=X, remaining=X, \
    smoothing=S, min=N (specexit), k=N (drafted tokens; k=auto: as many as pay) and budget=N (all), each after a colon; \
    budget:N is plain:budget=N, nothinking closes every thought before it begins, random:P ends it at \
    each boundary with probability P; deer:P, dynasor:N and eat:V try answers at boundaries (each then \
    :eagle3 for a thought that is drafted)";

/// Drafted tokens a round at most, where as many are drafted as pay.
const MOST_DRAFTED: usize = 8;

/// One method: its name and the request it makes of every question.
#[derive(Clone)]
pub struct MethodSpec {
    /// The name, as given: unique within a comparison.
    pub name: String,
    /// The request without a prompt.
    pub request: Request,
    /// How trials end its thoughts, for a method that probes.
    pub rule: Option<Rule>,
    /// Where they are made.
    pub boundaries: BoundaryRules,
}

impl MethodSpec {
    /// A method that does not probe.
    #[must_use]
    pub fn new(name: String, request: Request) -> Self {
        let boundaries = Profile::Default.policy().boundaries;
        Self { name, request, rule: None, boundaries }
    }

    /// Reads a specification; settings that it does not name are those of `base`.
    ///
    /// `base.policy` is what a bare `specexit` uses, and what its settings change; naming a profile
    /// takes that profile as it is.
    ///
    /// # Errors
    /// A sentence naming the part that is not understood.
    pub fn parse(text: &str, base: &Request) -> Result<Self> {
        let unknown = |problem: String| EvalError::Method { given: text.to_owned(), problem };
        let own = base.policy.clone().unwrap_or_else(|| Profile::Default.policy());
        let spec = |request, rule| {
            let (name, boundaries) = (text.to_owned(), own.boundaries.clone());
            Ok(Self { name, request, rule, boundaries })
        };
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let mut request = base.clone();
        let shorthand = || unknown(format!("expected {METHOD_SYNTAX}"));
        if name == "budget" {
            request.method = Method::Plain;
            request.policy = None;
            request.thinking_budget = Some(sole(parts).ok_or_else(shorthand)?);
            return spec(request, None);
        }
        if name == "nothinking" {
            if parts.next().is_some() {
                return Err(shorthand());
            }
            request.method = Method::Plain;
            request.policy = None;
            request.thinking_budget = Some(0);
            return spec(request, None);
        }
        if matches!(name, "deer" | "dynasor" | "eat") {
            let limit = parts.next().unwrap_or_default();
            let number = || limit.parse::<f32>().ok().filter(|limit| *limit >= 0.0);
            let rule = match name {
                "deer" => number().map(Rule::Deer),
                "eat" => number().map(Rule::Eat),
                _ => limit.parse().ok().filter(|&times| times > 0).map(Rule::Dynasor),
            };
            request.method = match (parts.next(), parts.next()) {
                (None, _) => Method::Plain,
                (Some("eagle3"), None) => Method::Eagle3,
                _ => return Err(shorthand()),
            };
            request.policy = None;
            return spec(request, Some(rule.ok_or_else(shorthand)?));
        }
        if name == "random" {
            let rate = sole(parts).filter(|rate| (0.0..=1.0).contains(rate));
            let mut policy = own.clone();
            policy.random = Some(RandomExit { rate: rate.ok_or_else(shorthand)?, seed: 0 });
            request.method = Method::SpecExit;
            request.policy = Some(policy);
            return spec(request, None);
        }
        request.method = name.parse().map_err(|_| shorthand())?;
        let mut policy = (request.method == Method::SpecExit).then(|| own.clone());
        for (place, part) in parts.enumerate() {
            let profile = part.parse::<Profile>().ok().filter(|_| place == 0);
            match (part.split_once('='), profile, &mut policy) {
                (None, Some(profile), Some(policy)) => *policy = profile.policy(),
                (Some(("k", "auto")), ..) if request.method.drafts() => {
                    request.adaptive = true;
                    request.draft_tokens = MOST_DRAFTED;
                }
                (Some(("k", n)), ..) if request.method.drafts() => {
                    request.draft_tokens = n
                        .parse()
                        .ok()
                        .filter(|&n| n > 0)
                        .ok_or_else(|| unknown(format!("`{part}` has no number above 0")))?;
                }
                (Some(("budget", n)), ..) => {
                    let budget =
                        n.parse().map_err(|_| unknown(format!("`{part}` has no number")))?;
                    request.thinking_budget = Some(budget);
                }
                (Some((key, value)), _, Some(policy)) => {
                    set(policy, key, value).map_err(unknown)?;
                }
                _ => {
                    return Err(unknown(format!(
                        "`{part}` does not apply; expected {METHOD_SYNTAX}"
                    )));
                }
            }
        }
        request.policy = policy;
        spec(request, None)
    }

    /// Everything that distinguishes this method from another, for the record.
    #[must_use]
    pub fn settings(&self) -> Value {
        let r = &self.request;
        json!({
            "name": self.name,
            "method": r.method,
            "rule": self.rule,
            "boundaries": self.rule.map(|_| &self.boundaries),
            "policy": r.policy,
            "draft_tokens": r.method.drafts().then_some(r.draft_tokens),
            "adaptive": r.adaptive,
            "thinking_budget": r.thinking_budget,
            "closing_text": r.closing_text,
            "max_new_tokens": r.max_new_tokens,
            "sampling": r.sampling,
        })
    }
}

/// The only part that is left, if it is one and can be read.
fn sole<'a, T: FromStr>(mut parts: impl Iterator<Item = &'a str>) -> Option<T> {
    let only = parts.next()?;
    if parts.next().is_some() { None } else { only.parse().ok() }
}

/// Changes one setting of a policy.
fn set(policy: &mut Policy, key: &str, value: &str) -> std::result::Result<(), String> {
    let limit = || match value {
        "off" => Ok(None),
        number => match number.parse::<f32>() {
            Ok(limit) if !limit.is_nan() => Ok(Some(limit)),
            _ => Err(format!("`{key}={value}` needs a number or off")),
        },
    };
    match key {
        "confidence" => policy.thresholds.confidence = limit()?,
        "progress" => policy.thresholds.progress = limit()?,
        "remaining" => policy.thresholds.remaining = limit()?,
        // A method's parts are separated by colons, so a smoothing's own is written as a slash.
        "smoothing" => {
            policy.smoothing =
                value.replace('/', ":").parse::<Smoothing>().map_err(|e| e.to_string())?;
        }
        "min" => {
            policy.min_thinking_tokens =
                value.parse().map_err(|_| format!("`{key}={value}` needs a number of tokens"))?;
        }
        _ => return Err(format!("`{key}` is no setting; expected {METHOD_SYNTAX}")),
    }
    Ok(())
}

/// Whether a method drafts as many tokens as pay, for which the engine must know what drafting costs.
#[must_use]
pub fn adaptive(methods: &[MethodSpec]) -> bool {
    methods.iter().any(|method| method.request.adaptive)
}

/// Sequences that an engine needs room for: a trial runs beside its thought.
#[must_use]
pub fn room(methods: &[MethodSpec]) -> usize {
    if methods.iter().any(|method| method.rule.is_some()) { 2 } else { 1 }
}

/// Checks that the methods can stand in one table.
///
/// # Errors
/// No method, or two of the same name.
pub fn check_methods(methods: &[MethodSpec]) -> Result<()> {
    if methods.is_empty() {
        return Err(EvalError::Nothing("no method is named; give at least one".to_owned()));
    }
    for (index, method) in methods.iter().enumerate() {
        if methods[..index].iter().any(|other| other.name == method.name) {
            return Err(EvalError::SameMethod(method.name.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Request> {
        MethodSpec::parse(text, &Request::new(Vec::new(), 64)).map(|method| method.request)
    }

    fn policy(text: &str) -> Policy {
        parse(text).unwrap().policy.unwrap()
    }

    #[test]
    fn names_and_settings_are_read() {
        assert_eq!(parse("plain").unwrap().method, Method::Plain);
        assert!(parse("eagle3").unwrap().policy.is_none());
        assert_eq!(policy("specexit"), Profile::Default.policy());
        assert_eq!(policy("specexit:angelslim"), Profile::Angelslim.policy());
        let tuned = policy("specexit:paper:confidence=0.9:remaining=off:smoothing=ewma/0.2:min=32");
        assert_eq!(tuned.thresholds.to_string(), "0.9,0.3,-");
        assert_eq!(tuned.smoothing, Smoothing::Ewma { alpha: 0.2 });
        assert_eq!((tuned.min_thinking_tokens, tuned.profile.as_str()), (32, "paper"));
        assert_eq!(policy("specexit:progress=0.5").thresholds.progress, Some(0.5));
        let rule = |text| MethodSpec::parse(text, &Request::new(Vec::new(), 64)).unwrap();
        assert_eq!(rule("deer:0.95").rule, Some(Rule::Deer(0.95)));
        assert_eq!(rule("dynasor:3").request.method, Method::Plain);
        assert_eq!(rule("eat:0.1:eagle3").request.method, Method::Eagle3);
        assert_eq!((room(&[rule("plain")]), room(&[rule("plain"), rule("deer:0.9")])), (1, 2));
        assert_eq!(parse("nothinking").unwrap().thinking_budget, Some(0));
        let budget = parse("budget:256").unwrap();
        assert_eq!((budget.method, budget.thinking_budget), (Method::Plain, Some(256)));
        assert_eq!(parse("eagle3:budget=9").unwrap().thinking_budget, Some(9));
        assert_eq!(parse("eagle3:k=6").unwrap().draft_tokens, 6);
        assert_eq!(policy("random:0.25").random, Some(RandomExit { rate: 0.25, seed: 0 }));
        assert_eq!(parse("specexit:budget=9").unwrap().thinking_budget, Some(9));
    }

    #[test]
    fn a_bare_specexit_takes_the_base_policy_and_a_profile_its_own() {
        let mut base = Request::new(Vec::new(), 64);
        base.policy = Some(Policy { min_thinking_tokens: 7, ..Profile::Paper.policy() });
        let read = |text: &str| MethodSpec::parse(text, &base).unwrap().request.policy;
        assert_eq!(read("specexit").unwrap().min_thinking_tokens, 7);
        assert_eq!(read("specexit:default").unwrap(), Profile::Default.policy());
        assert!(read("plain").is_none() && read("eagle3").is_none() && read("budget:3").is_none());
    }

    #[test]
    fn nonsense_is_named() {
        for (text, part) in [
            ("greedy", "expected plain"),
            ("", "expected plain"),
            ("budget", "expected plain"),
            ("budget:3:4", "expected plain"),
            ("plain:k=3", "`k=3` does not apply"),
            ("eagle3:k=0", "has no number above 0"),
            ("random", "expected plain"),
            ("random:1.5", "expected plain"),
            ("nothinking:1", "expected plain"),
            ("deer", "expected plain"),
            ("deer:-1", "expected plain"),
            ("dynasor:0", "expected plain"),
            ("eat:0.1:plain", "expected plain"),
            ("plain:paper", "`paper` does not apply"),
            ("eagle3:confidence=1", "`confidence=1` does not apply"),
            ("specexit:fast", "`fast` does not apply"),
            ("specexit:confidence=high", "needs a number or off"),
            ("specexit:progress=nan", "needs a number or off"),
            ("specexit:min=-1", "needs a number of tokens"),
            ("specexit:speed=3", "`speed` is no setting"),
            ("specexit:budget=x", "has no number"),
            ("specexit:min=1:paper", "`paper` does not apply"),
        ] {
            let error = parse(text).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_name_stands_once() {
        let base = Request::new(Vec::new(), 64);
        let plain = MethodSpec::parse("plain", &base).unwrap();
        assert!(check_methods(&[]).is_err());
        assert!(check_methods(std::slice::from_ref(&plain)).is_ok());
        assert!(check_methods(&[plain.clone(), plain]).is_err());
    }
}
