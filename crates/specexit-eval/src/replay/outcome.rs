//! One policy on one recording.

use specexit_engine::{Exit, Signals};
use specexit_exit::{ExitReason, Policy, SmoothUnit, Thought};

use super::recording::{Closed, Recording};
use crate::error::{EvalError, Result};
use crate::probing::{Probing, Rule};

/// What a policy would have made of a question.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Index among [`Recording::closed`] where the thought ends early; `None` where it does not.
    pub cut: Option<usize>,
    /// Tokens inside the thinking span.
    pub thinking_tokens: usize,
    /// All generated tokens.
    pub total_tokens: usize,
    /// Tokens of trials that did not become the answer.
    pub probe_tokens: usize,
    /// Whether the answer is the right one.
    pub correct: bool,
}

impl Outcome {
    /// The outcome of an exit at a cut, or of none.
    pub(crate) fn at(recording: &Recording, cut: Option<usize>) -> Self {
        match cut.and_then(|cut| recording.closed.get(cut)) {
            Some(closed) => Self {
                cut,
                thinking_tokens: closed.thinking_tokens,
                total_tokens: closed.at + closed.token_ids.len(),
                probe_tokens: 0,
                correct: closed.correct,
            },
            None => Self {
                cut: None,
                thinking_tokens: recording.thinking_tokens,
                total_tokens: recording.token_ids.len(),
                probe_tokens: 0,
                correct: recording.correct,
            },
        }
    }
}

/// What a rule that probes would have made of a recording.
#[must_use]
pub fn replay_probing(recording: &Recording, rule: Rule) -> Outcome {
    let mut probing = Probing::new(rule);
    let closed = &recording.closed;
    let cut = closed.iter().position(|closed| probing.ends(&closed.trial()));
    // The trial of the exit is the answer, unless a single token was all that was tried.
    let tried = &closed[..cut.map_or(closed.len(), |cut| cut + usize::from(rule.one_token()))];
    let cost = |closed: &Closed| if rule.one_token() { 1 } else { closed.written };
    let probe_tokens = tried.iter().map(cost).sum();
    Outcome { probe_tokens, ..Outcome::at(recording, cut) }
}

/// Whether a recording tells what `policy` would have done.
///
/// # Errors
/// A policy whose outcome depends on how rounds fell, or on where between two cuts progress rose.
pub(crate) fn check(policy: &Policy) -> Result<()> {
    if policy.stall.is_some() {
        let problem = "a policy that ends stalled thoughts cannot be replayed: leave `stall` out";
        return Err(EvalError::Nothing(problem.to_owned()));
    }
    if policy.unit == SmoothUnit::Token && policy.scan_all {
        return Ok(());
    }
    Err(EvalError::Nothing(format!(
        "profile {} decides round by round, and rounds are not recorded; only policies that decide \
         token by token can be replayed",
        policy.profile
    )))
}

/// Asks the exit logic itself what it makes of a recording: `thought` is the thought of the request, with
/// its policy, and `signals` those after each generated token.
///
/// # Errors
/// A policy that decides by rounds, an end of loops or stalls, or an exit where the recording has no cut.
pub fn replay(recording: &Recording, signals: &[Signals], mut thought: Thought) -> Result<Outcome> {
    if let Some(policy) = &thought.config().policy {
        check(policy)?;
    }
    if thought.config().loops.is_some() {
        // A loop is cut where it is found, and recordings have cuts at boundaries only.
        let problem = "requests that end loops cannot be replayed: leave `loops` out";
        return Err(EvalError::Nothing(problem.to_owned()));
    }
    let ids = &recording.token_ids;
    let mut exit: Option<Exit> = None;
    if let Some(&first) = ids.first() {
        exit = thought.commit(&[], &[], first).force;
    }
    for (pair, signals) in ids.windows(2).zip(signals) {
        if exit.is_some() {
            break;
        }
        exit = thought.commit(&pair[..1], &[*signals], pair[1]).force;
    }
    let by_policy = |exit: &Exit| {
        matches!(exit.reason, ExitReason::Signals | ExitReason::Hopeless | ExitReason::Random)
    };
    let early = exit.filter(by_policy);
    let Some(exit) = early else { return Ok(Outcome::at(recording, None)) };
    let at = exit.token_index;
    match recording.closed.iter().position(|closed| closed.at == at) {
        Some(cut) => Ok(Outcome::at(recording, Some(cut))),
        None => Err(EvalError::NoCut { question: recording.question.clone(), at }),
    }
}
