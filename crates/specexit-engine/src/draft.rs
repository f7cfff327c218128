//! Drafting: the head reads the states that the target has produced and runs ahead in a chain.

use std::ops::Range;

use specexit_exit::{Signals, TokenId};
use specexit_kernels::argmax;
use specexit_model::{DraftHead, DraftRows, DraftWorkspace, KvCache, LogitRows, Workspace};

use crate::error::Result;
use crate::sampling::pick;
use crate::sequence::{DraftState, Sequence};
use crate::verify::{DraftDistribution, Drafted};

/// Buffers of drafting, reused from round to round.
#[derive(Default)]
pub(crate) struct DraftBuffers {
    workspace: DraftWorkspace,
    taps: Vec<f32>,
    residual: Vec<f32>,
    chain: Vec<f32>,
}

/// Extends every draft cache by the pairs that became known and drafts for the sequences at a root.
///
/// `rooms` says for each sequence how many tokens it drafts in this step.
pub(crate) fn draft(
    head: &DraftHead,
    sequences: &mut [Sequence],
    buffers: &mut DraftBuffers,
    rooms: &[usize],
) -> Result<()> {
    for sequence in sequences.iter_mut() {
        sequence.drafted.clear();
    }
    let mut chains = extend(head, sequences, rooms, buffers)?;
    let width = head.config.hidden_size;
    while !chains.is_empty() {
        // The chain of a sequence ends where its room does.
        let keep: Vec<bool> =
            chains.iter().map(|&i| sequences[i].drafted.len() < rooms[i]).collect();
        let mut from = buffers.chain.chunks_exact(width).zip(&keep);
        let residual: Vec<f32> =
            from.by_ref().filter(|(_, keep)| **keep).flat_map(|(row, _)| row).copied().collect();
        chains = chains.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(&i, _)| i).collect();
        if chains.is_empty() {
            break;
        }
        buffers.residual = residual;
        step(head, sequences, &chains, buffers)?;
    }
    for sequence in sequences.iter_mut() {
        let pairs = sequence.cache.len();
        if let Some(state) = &mut sequence.draft {
            // What the chain appended was speculative.
            state.cache.truncate(pairs);
        }
    }
    Ok(())
}

/// Reads the pending pairs of all sequences; drafts the first token where there is room for one.
///
/// Returns the indices that drafted; their fed-back states lie in `buffers.chain`.
fn extend(
    head: &DraftHead,
    sequences: &mut [Sequence],
    rooms: &[usize],
    buffers: &mut DraftBuffers,
) -> Result<Vec<usize>> {
    let width = head.config.hidden_size;
    buffers.taps.clear();
    let mut pairs = vec![0; sequences.len()];
    for (i, sequence) in sequences.iter_mut().enumerate() {
        let known = sequence.cache.len();
        if let Some(state) = &mut sequence.draft {
            pairs[i] = known - state.cache.len();
            buffers.taps.append(&mut state.pending_taps);
        }
    }
    buffers.chain.clear();
    if buffers.taps.is_empty() {
        return Ok(Vec::new());
    }
    head.fuse(&buffers.taps, &mut buffers.residual);
    let (mut batch, mut reading, mut chains, mut at) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for (i, sequence) in sequences.iter_mut().enumerate() {
        if pairs[i] == 0 {
            continue;
        }
        let drafts = rooms[i] > 0 && sequence.at_root();
        let Some(DraftState { cache, .. }) = &mut sequence.draft else { continue };
        let first = cache.len() + 1;
        batch.push(DraftRows {
            tokens: &sequence.tokens[first..first + pairs[i]],
            residual: &buffers.residual[at * width..(at + pairs[i]) * width],
            cache,
            logits: if drafts { LogitRows::Last } else { LogitRows::None },
        });
        at += pairs[i];
        reading.push((i, at - 1));
        if drafts {
            chains.push((i, at - 1));
        }
    }
    head.forward(&mut batch, &mut buffers.workspace)?;
    if head.probe_reads_draft() {
        for (i, row) in reading {
            if let Some(state) = &mut sequences[i].draft {
                state.last_signals = signals(head, buffers.workspace.hidden(row));
            }
        }
    }
    for (index, &(i, row)) in chains.iter().enumerate() {
        buffers.chain.extend_from_slice(buffers.workspace.hidden(row));
        propose(head, &mut sequences[i], buffers.workspace.logits(index));
    }
    Ok(chains.into_iter().map(|(i, _)| i).collect())
}

/// Reads the pairs of the first rows of a forward over one sequence, whose states `tokens` come after.
pub(crate) fn read_pairs(
    head: &DraftHead,
    workspace: &Workspace,
    tokens: &[TokenId],
    cache: &mut KvCache,
    buffers: &mut DraftBuffers,
) -> Result<()> {
    if tokens.is_empty() {
        return Ok(());
    }
    buffers.taps.clear();
    (0..tokens.len()).for_each(|row| buffers.taps.extend_from_slice(workspace.taps(row)));
    head.fuse(&buffers.taps, &mut buffers.residual);
    let residual = &buffers.residual;
    let rows = DraftRows { tokens, residual, cache, logits: LogitRows::None };
    Ok(head.forward(&mut [rows], &mut buffers.workspace)?)
}

/// The beginning of an accepted run whose signals are asked for before it is committed.
pub(crate) struct Ahead<'a> {
    pub(crate) sequence: &'a mut Sequence,
    /// Tokens behind the root.
    pub(crate) tokens: &'a [TokenId],
    /// Rows of the target's forward that hold the state before each of them.
    pub(crate) rows: Range<usize>,
    /// Which of them have signals.
    pub(crate) wanted: Vec<bool>,
    /// Where these go.
    pub(crate) signals: &'a mut [Signals],
}

/// Reads pairs of accepted runs, so that the next step need not, and finds the signals of their tokens.
pub(crate) fn read_ahead(
    head: &DraftHead,
    workspace: &Workspace,
    mut ahead: Vec<Ahead<'_>>,
    buffers: &mut DraftBuffers,
) -> Result<()> {
    if ahead.is_empty() {
        return Ok(());
    }
    buffers.taps.clear();
    for row in ahead.iter().flat_map(|ahead| ahead.rows.clone()) {
        buffers.taps.extend_from_slice(workspace.taps(row));
    }
    head.fuse(&buffers.taps, &mut buffers.residual);
    let (width, mut at) = (head.config.hidden_size, 0);
    let mut batch = Vec::with_capacity(ahead.len());
    for Ahead { sequence, tokens, .. } in &mut ahead {
        let residual = &buffers.residual[at * width..(at + tokens.len()) * width];
        at += tokens.len();
        if let Some(DraftState { cache, .. }) = &mut sequence.draft {
            batch.push(DraftRows { tokens, residual, cache, logits: LogitRows::None });
        }
    }
    head.forward(&mut batch, &mut buffers.workspace)?;
    let found = ahead.iter_mut().flat_map(|a| a.signals.iter_mut().zip(&a.wanted));
    for (row, (to, _)) in found.enumerate().filter(|(_, (_, wanted))| **wanted) {
        *to = signals(head, buffers.workspace.hidden(row));
    }
    Ok(())
}

fn signals(head: &DraftHead, hidden: &[f32]) -> Signals {
    head.draft_signal_logits(hidden).map_or(Signals::MISSING, Signals::from_logits)
}

/// One more token of the chains of `chains`, whose fed-back states lie in `buffers.residual`.
fn step(
    head: &DraftHead,
    sequences: &mut [Sequence],
    chains: &[usize],
    buffers: &mut DraftBuffers,
) -> Result<()> {
    let width = head.config.hidden_size;
    let last: Vec<[u32; 1]> = chains
        .iter()
        .map(|&i| [sequences[i].drafted.last().map_or(0, |drafted| drafted.token)])
        .collect();
    let mut batch = Vec::with_capacity(chains.len());
    let mut rows = last.iter().zip(buffers.residual.chunks_exact(width));
    for (i, sequence) in sequences.iter_mut().enumerate() {
        if !chains.contains(&i) {
            continue;
        }
        if let (Some(state), Some((tokens, residual))) = (&mut sequence.draft, rows.next()) {
            let logits = LogitRows::Last;
            batch.push(DraftRows { tokens, residual, cache: &mut state.cache, logits });
        }
    }
    head.forward(&mut batch, &mut buffers.workspace)?;
    buffers.chain.clear();
    for (row, &i) in chains.iter().enumerate() {
        buffers.chain.extend_from_slice(buffers.workspace.hidden(row));
        propose(head, &mut sequences[i], buffers.workspace.logits(row));
    }
    Ok(())
}

/// Appends the token that the head proposes from `logits`, `[V_d]`.
fn propose(head: &DraftHead, sequence: &mut Sequence, logits: &[f32]) {
    let sampling = sequence.request.sampling;
    let Some(state) = &mut sequence.draft else { return };
    let drafted = if sampling.is_greedy() {
        Drafted { token: head.target_id(argmax(logits)), from: None }
    } else {
        let mut probs = Vec::new();
        sampling.distribution(logits, &mut probs);
        let drawn = pick(&probs, state.rng.uniform());
        Drafted { token: head.target_id(drawn), from: Some(DraftDistribution { probs, drawn }) }
    };
    sequence.drafted.push(drafted);
}
