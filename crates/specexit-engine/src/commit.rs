//! Commit: what a verified run and its recover token mean for a sequence.
//!
//! In order: find the accepted run, probe its signals ([`crate::signals`]), ask the thought whether it
//! is cut, truncate the caches to what stays, append.

use specexit_exit::{Phase, Signals, TokenId};
use specexit_model::{DraftHead, Workspace};

use crate::logprobs::{Logprob, entropy};
use crate::request::Finish;
use crate::sampling::pick;
use crate::sequence::Sequence;
use crate::verify::{Verified, verify};

/// Where a sequence's rows and logits lie in the step's forward.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Rows of the batch.
    pub(crate) rows: std::ops::Range<usize>,
    /// Index of the first of its logits rows.
    pub(crate) logits: usize,
    /// The rows are a root and drafts to be verified, not text being read.
    pub(crate) verifies: bool,
}

/// What a commit needs besides the sequence.
pub(crate) struct Forwarded<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) head: Option<&'a DraftHead>,
    pub(crate) probs: &'a mut Vec<f32>,
}

/// A run that the target accepted, before the thought has been asked about it.
pub(crate) struct Round {
    /// Index among the running sequences.
    pub(crate) sequence: usize,
    /// Rows of the forward; those of the run come first.
    pub(crate) rows: std::ops::Range<usize>,
    /// Root and accepted drafts.
    pub(crate) run: Vec<TokenId>,
    /// The recover token, or what ends the run before it.
    pub(crate) next: TokenId,
    /// Signals after each token of the run; none when nobody asks for them.
    pub(crate) signals: Vec<Signals>,
    /// Log probabilities of `run[1..]` and `next`.
    logprobs: Vec<Logprob>,
    /// Tokens that had been drafted.
    offered: usize,
}

/// Prompt or forced tokens were read; the first token after them is drawn once all are.
pub(crate) fn commit_reading(sequence: &mut Sequence, place: &Place, forwarded: Forwarded<'_>) {
    let Forwarded { workspace, probs, .. } = forwarded;
    keep_taps(sequence, workspace, place.rows.clone());
    if !sequence.unread().is_empty() {
        return;
    }
    let logits = workspace.logits(place.logits);
    let sampling = sequence.request.sampling;
    let next = if sampling.is_greedy() {
        specexit_kernels::argmax(logits)
    } else {
        sampling.distribution(logits, probs);
        pick(probs, sequence.verdict_rng.uniform())
    };
    let logprob = Logprob::of(&sequence.request, logits, next as TokenId);
    if sequence.generated() == 0 && sequence.request.record_logprobs {
        sequence.first_entropy = Some(entropy(logits));
    }
    if sequence.generated() > 0 {
        // Forced tokens were read: this forward was a round of its own.
        sequence.count_round(0, 0);
    }
    settle(sequence, &[], &[], next as TokenId, vec![logprob]);
}

/// Verifies a root and its drafts.
pub(crate) fn accept(
    sequence: &mut Sequence,
    index: usize,
    place: &Place,
    forwarded: Forwarded<'_>,
) -> Round {
    let Forwarded { workspace, head, probs } = forwarded;
    let drafted = std::mem::take(&mut sequence.drafted);
    let row = |i: usize| workspace.logits(place.logits + i);
    let d2t = head.and_then(DraftHead::d2t);
    let sampling = sequence.request.sampling;
    let rng = &mut sequence.verdict_rng;
    let Verified { accepted, recover } = verify(&sampling, &drafted, d2t, row, rng, probs);
    sequence.acceptance.saw(drafted.len(), accepted);

    let root = sequence.tokens[sequence.tokens.len() - 1];
    let mut run = vec![root];
    run.extend(drafted[..accepted].iter().map(|d| d.token));
    // The new tokens are run[1..] and the recover token; what lies behind a stop token or the limit
    // was never said.
    let mut next = recover;
    let news: Vec<TokenId> = run[1..].iter().copied().chain([recover]).collect();
    let end = news.iter().position(|t| sequence.stop_ids.contains(t));
    let last = end.unwrap_or(usize::MAX).min(sequence.remaining() - 1);
    if let Some(&token) = news.get(last) {
        next = token;
        run.truncate(last + 1);
    }
    let logprobs = news[..run.len()]
        .iter()
        .enumerate()
        .map(|(i, &token)| Logprob::of(&sequence.request, row(i), token))
        .collect();
    Round {
        sequence: index,
        rows: place.rows.clone(),
        run,
        next,
        signals: Vec::new(),
        logprobs,
        offered: drafted.len(),
    }
}

/// Asks the thought what stays of a round, and keeps that; the signals after its first token and those that
/// follow, none where they are unknown.
pub(crate) fn commit_round(
    sequence: &mut Sequence,
    round: Round,
    workspace: &Workspace,
) -> Vec<Signals> {
    let Round { rows, run, next, mut signals, logprobs, offered, .. } = round;
    let first = sequence.generated() - 1;
    let start = sequence.cache.len() - rows.len();
    let kept = settle(sequence, &run, &signals, next, logprobs);
    sequence.cache.truncate(start + kept);
    signals.truncate(kept);
    for (i, &signals) in signals.iter().enumerate() {
        sequence.record_signals(first + i, signals);
    }
    sequence.count_round(offered, kept - 1);
    // The draft layer may have read pairs of the run for their signals: those behind the cut go, the
    // others need not be read again.
    let read = sequence.draft.as_mut().map_or(0, |state| {
        state.cache.truncate(start + kept - 1);
        state.cache.len() - start
    });
    keep_taps(sequence, workspace, rows.start + read..rows.start + kept);
    signals
}

/// Asks the thought what stays of a run, and appends it with what follows; returns the run tokens kept.
///
/// `logprobs` are those of `run[1..]` and `next`.
fn settle(
    sequence: &mut Sequence,
    run: &[TokenId],
    signals: &[Signals],
    next: TokenId,
    logprobs: Vec<Logprob>,
) -> usize {
    if sequence.request.stop_at_close {
        return settle_until_close(sequence, run, next, logprobs);
    }
    let verdict = sequence.thought.commit(run, signals, next);
    let mut logprobs = logprobs.into_iter();
    for (&token, logprob) in
        run.iter().skip(1).take(verdict.keep.saturating_sub(1)).zip(&mut logprobs)
    {
        sequence.push(token, logprob);
    }
    if verdict.force.is_some() {
        push_forced(sequence);
    } else if let Some(logprob) = logprobs.next() {
        sequence.push(next, logprob);
        if sequence.stop_ids.contains(&next) {
            sequence.finish = Some(Finish::Stop);
        }
    }
    sequence.note_answer();
    if sequence.finish.is_none() && sequence.remaining() == 0 {
        sequence.finish = Some(Finish::Length);
    }
    verdict.keep
}

/// Appends the forced tokens, as many as there is room for.
fn push_forced(sequence: &mut Sequence) {
    for token in sequence.thought.take_forced() {
        if sequence.remaining() > 0 {
            sequence.push(token, Logprob::forced());
        }
    }
}

/// As [`settle`], token by token, so that nothing behind the end of the thought is committed.
fn settle_until_close(
    sequence: &mut Sequence,
    run: &[TokenId],
    next: TokenId,
    logprobs: Vec<Logprob>,
) -> usize {
    let news = run.iter().skip(1).copied().chain([next]);
    for (i, (token, logprob)) in news.zip(logprobs).enumerate() {
        let root = if run.is_empty() { &[][..] } else { &run[i..=i] };
        let verdict = sequence.thought.commit(root, &[], token);
        if verdict.force.is_some() {
            push_forced(sequence);
        } else {
            sequence.push(token, logprob);
        }
        if sequence.thought.phase() == Phase::Answer {
            sequence.finish = Some(Finish::ThoughtClosed);
        } else if sequence.stop_ids.contains(&token) {
            sequence.finish = Some(Finish::Stop);
        } else if sequence.remaining() == 0 {
            sequence.finish = Some(Finish::Length);
        }
        if sequence.finish.is_some() || verdict.force.is_some() {
            return (i + 1).min(run.len());
        }
    }
    run.len()
}

/// Keeps the tapped states of committed rows for the draft cache.
fn keep_taps(sequence: &mut Sequence, workspace: &Workspace, rows: std::ops::Range<usize>) {
    if let Some(state) = &mut sequence.draft {
        for row in rows {
            state.pending_taps.extend_from_slice(workspace.taps(row));
        }
    }
}
