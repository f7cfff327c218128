//! The signals of accepted runs, read before their thoughts are asked.
//!
//! A probe of the target's states finds them in the step's forward. One that reads the draft layer needs,
//! for each token, the draft row that pairs the state before the token with the token. The root's row was
//! read before this step drafted; those of the run are due in the next step, and are read now instead: the
//! draft cache grows by the same rows in the same order, only earlier, so that nothing drafted later has
//! another bit for it. All sequences' runs go through the layer together.

use specexit_exit::{Phase, Signals, TokenId};
use specexit_model::{
    DraftHead, DraftRows, DraftWorkspace, LogitRows, PREFILL_CHUNK, Positions, Target, TargetRows,
    Workspace,
};

use crate::commit::Round;
use crate::draft::{Ahead, DraftBuffers, read_ahead};
use crate::error::{EngineError, Result};
use crate::request::Method;
use crate::sequence::Sequence;

/// Fills in the signals of all rounds; none for a sequence that has no use for them.
///
/// # Errors
/// As [`DraftHead::forward`].
pub(crate) fn probe(
    head: &DraftHead,
    workspace: &Workspace,
    sequences: &mut [Sequence],
    rounds: &mut [Round],
    buffers: &mut DraftBuffers,
) -> Result<()> {
    let (mut ahead, mut due) = (Vec::new(), rounds.iter_mut().peekable());
    for (index, sequence) in sequences.iter_mut().enumerate() {
        let Some(round) = due.next_if(|round| round.sequence == index) else { continue };
        let Some(wanted) = wanted(head, sequence, round) else { continue };
        round.signals = vec![Signals::MISSING; wanted.len()];
        let Round { run, rows, signals, .. } = round;
        if !head.probe_reads_draft() {
            for (i, _) in wanted.iter().enumerate().filter(|(_, wanted)| **wanted) {
                let logits = head.signal_logits(workspace.taps(rows.start + i));
                signals[i] = logits.map_or(Signals::MISSING, Signals::from_logits);
            }
            continue;
        }
        let Some(state) = &sequence.draft else { continue };
        if wanted[0] {
            signals[0] = state.last_signals;
        }
        let Some(last) = wanted.iter().rposition(|wanted| *wanted).filter(|last| *last > 0) else {
            continue;
        };
        ahead.push(Ahead {
            sequence,
            tokens: &run[1..=last],
            rows: rows.start..rows.start + last,
            wanted: wanted[1..=last].to_vec(),
            signals: &mut signals[1..=last],
        });
    }
    read_ahead(head, workspace, ahead, buffers)
}

/// Which tokens of the run have signals: all, or for a probe trained at boundaries those that end in one.
/// `None` where nobody would look at them.
fn wanted(head: &DraftHead, sequence: &Sequence, round: &Round) -> Option<Vec<bool>> {
    let decides =
        sequence.request.method == Method::SpecExit && sequence.thought.phase() != Phase::Answer;
    if !head.has_probe() || !(decides || sequence.request.record_signals) {
        return None;
    }
    Some(match head.signal_positions() {
        Positions::Dense => vec![true; round.run.len()],
        Positions::Boundaries => sequence.thought.boundaries(&round.run, round.next),
    })
}

/// See [`crate::Engine::signals`].
pub(crate) fn read_signals(
    target: &Target,
    head: &DraftHead,
    tokens: &[TokenId],
    from: usize,
    boundaries: &[bool],
    workspace: &mut Workspace,
) -> Result<Vec<Signals>> {
    if from == 0 || from > tokens.len() || boundaries.len() != tokens.len() - from {
        let what = format!(
            "signals from token {from} on of {} cannot be read: something must precede them, and each \
             is at a boundary or not",
            tokens.len()
        );
        return Err(EngineError::BadRequest { what });
    }
    let speaks = |position: usize| {
        position >= from
            && (head.signal_positions() == Positions::Dense || boundaries[position - from])
    };
    let mut found = vec![Signals::MISSING; tokens.len() - from];
    let (mut cache, mut draft_cache) = (target.new_cache(), head.new_cache());
    let mut drafting = DraftWorkspace::default();
    let (mut taps, mut residual) = (Vec::new(), Vec::new());
    // The state after the last token is never computed: no token follows from it.
    let read = tokens.len() - 1;
    for start in (0..read).step_by(PREFILL_CHUNK) {
        let chunk = start..read.min(start + PREFILL_CHUNK);
        let rows = TargetRows {
            tokens: &tokens[chunk.clone()],
            cache: &mut cache,
            logits: LogitRows::None,
        };
        target.forward(&mut [rows], workspace)?;
        if !head.probe_reads_draft() {
            for (row, position) in chunk.enumerate().filter(|(_, position)| speaks(*position)) {
                let logits = head.signal_logits(workspace.taps(row));
                found[position - from] = logits.map_or(Signals::MISSING, Signals::from_logits);
            }
            continue;
        }
        taps.clear();
        (0..chunk.len()).for_each(|row| taps.extend_from_slice(workspace.taps(row)));
        head.fuse(&taps, &mut residual);
        // The row of a position pairs its state with the token after it, and speaks for that.
        let pairs = DraftRows {
            tokens: &tokens[chunk.start + 1..chunk.end + 1],
            residual: &residual,
            cache: &mut draft_cache,
            logits: LogitRows::None,
        };
        head.forward(&mut [pairs], &mut drafting)?;
        let after = chunk.map(|position| position + 1).enumerate();
        for (row, position) in after.filter(|(_, p)| *p < read && speaks(*p)) {
            let logits = head.draft_signal_logits(drafting.hidden(row));
            found[position - from] = logits.map_or(Signals::MISSING, Signals::from_logits);
        }
    }
    Ok(found)
}
