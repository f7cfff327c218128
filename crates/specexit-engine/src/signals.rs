//! The signals of accepted runs, read before their thoughts are asked.
//!
//! A probe of the target's states finds them in the step's forward. One that reads the draft layer needs,
//! for each token, the draft row that pairs the state before the token with the token. The root's row was
//! read before this step drafted; those of the run are due in the next step, and are read now instead: the
//! draft cache grows by the same rows in the same order, only earlier, so that nothing drafted later has
//! another bit for it. All sequences' runs go through the layer together.

use specexit_exit::{Phase, Signals};
use specexit_model::{DraftHead, Positions, Workspace};

use crate::commit::Round;
use crate::draft::{Ahead, DraftBuffers, read_ahead};
use crate::error::Result;
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
