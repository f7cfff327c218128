//! Commit: what a verified run and its recover token mean for a sequence.
//!
//! In order: find the accepted run, probe its signals, ask the thought whether it
//! is cut, truncate the caches to what stays, append.

use specexit_exit::{Phase, Signals, TokenId};
use specexit_model::{DraftHead, Positions, Workspace};

use crate::request::{Finish, Method};
use crate::sampling::{log_probability, pick};
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

/// Takes a sequence's part of the step's forward; returns the tokens it committed.
pub(crate) fn commit(
    sequence: &mut Sequence,
    place: &Place,
    forwarded: Forwarded<'_>,
) -> Vec<TokenId> {
    let before = sequence.tokens.len();
    if place.verifies {
        commit_round(sequence, place, forwarded);
    } else {
        commit_reading(sequence, place, forwarded);
    }
    sequence.tokens[before..].to_vec()
}

/// Prompt or forced tokens were read; the first token after them is drawn once all are.
fn commit_reading(sequence: &mut Sequence, place: &Place, forwarded: Forwarded<'_>) {
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
    let logprob = recorded_logprob(sequence, logits, next as TokenId);
    if sequence.generated() > 0 {
        // Forced tokens were read: this forward was a round of its own.
        sequence.count_round(0, 0);
    }
    settle(sequence, &[], &[], next as TokenId, &[logprob]);
}

/// A root and drafts were verified.
fn commit_round(sequence: &mut Sequence, place: &Place, forwarded: Forwarded<'_>) {
    let Forwarded { workspace, head, probs } = forwarded;
    let drafted = std::mem::take(&mut sequence.drafted);
    let row = |i: usize| workspace.logits(place.logits + i);
    let d2t = head.and_then(DraftHead::d2t);
    let sampling = sequence.request.sampling;
    let rng = &mut sequence.verdict_rng;
    let Verified { accepted, recover } = verify(&sampling, &drafted, d2t, row, rng, probs);

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
    let logprobs: Vec<f32> = news[..run.len()]
        .iter()
        .enumerate()
        .map(|(i, &token)| recorded_logprob(sequence, row(i), token))
        .collect();
    let signals = probe(sequence, workspace, head, place, &run, next);
    let first = sequence.generated() - 1;
    let start = sequence.cache.len() - place.rows.len();
    let kept = settle(sequence, &run, &signals, next, &logprobs);
    sequence.cache.truncate(start + kept);
    for (i, &signals) in signals[..kept.min(signals.len())].iter().enumerate() {
        sequence.record_signals(first + i, signals);
    }
    sequence.count_round(drafted.len(), kept - 1);
    keep_taps(sequence, workspace, place.rows.start..place.rows.start + kept);
}

/// Asks the thought what stays of a run, and appends it with what follows; returns the run tokens kept.
fn settle(
    sequence: &mut Sequence,
    run: &[TokenId],
    signals: &[Signals],
    next: TokenId,
    logprobs: &[f32],
) -> usize {
    if sequence.request.stop_at_close {
        return settle_until_close(sequence, run, next, logprobs);
    }
    let verdict = sequence.thought.commit(run, signals, next);
    for i in 1..verdict.keep {
        sequence.push(run[i], logprobs[i - 1]);
    }
    if verdict.force.is_some() {
        for token in sequence.thought.take_forced() {
            if sequence.remaining() == 0 {
                break;
            }
            sequence.push(token, f32::NAN);
        }
    } else {
        sequence.push(next, logprobs[run.len().saturating_sub(1)]);
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

/// As [`settle`], token by token, so that nothing behind the end of the thought is committed.
fn settle_until_close(
    sequence: &mut Sequence,
    run: &[TokenId],
    next: TokenId,
    logprobs: &[f32],
) -> usize {
    let news = run.iter().skip(1).copied().chain([next]);
    for (i, (token, &logprob)) in news.zip(logprobs).enumerate() {
        let root = if run.is_empty() { &[][..] } else { &run[i..=i] };
        let verdict = sequence.thought.commit(root, &[], token);
        if verdict.force.is_some() {
            for token in sequence.thought.take_forced() {
                if sequence.remaining() > 0 {
                    sequence.push(token, f32::NAN);
                }
            }
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

/// Signals after each token of the run; missing for a head without a probe, and off the boundaries for
/// one that was trained at boundaries only.
fn probe(
    sequence: &Sequence,
    workspace: &Workspace,
    head: Option<&DraftHead>,
    place: &Place,
    run: &[TokenId],
    next: TokenId,
) -> Vec<Signals> {
    let wanted = sequence.request.method == Method::SpecExit || sequence.request.record_signals;
    let Some(head) = head.filter(|h| wanted && h.has_probe()) else { return Vec::new() };
    let read = |row: usize| {
        let logits = head.signal_logits(workspace.taps(row));
        logits.map_or(Signals::MISSING, Signals::from_logits)
    };
    let rows = place.rows.start..place.rows.start + run.len();
    match head.signal_positions() {
        Positions::Dense => rows.map(read).collect(),
        Positions::Boundaries => rows
            .zip(sequence.thought.boundaries(run, next))
            .map(|(row, boundary)| if boundary { read(row) } else { Signals::MISSING })
            .collect(),
    }
}

/// Keeps the tapped states of committed rows for the draft cache.
fn keep_taps(sequence: &mut Sequence, workspace: &Workspace, rows: std::ops::Range<usize>) {
    if let Some(state) = &mut sequence.draft {
        for row in rows {
            state.pending_taps.extend_from_slice(workspace.taps(row));
        }
    }
}

fn recorded_logprob(sequence: &Sequence, logits: &[f32], token: TokenId) -> f32 {
    if sequence.request.record_logprobs { log_probability(logits, token) } else { f32::NAN }
}
