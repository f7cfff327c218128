//! Whether live signals are distributed as those that the head was calibrated on.

use std::collections::VecDeque;

use specexit_engine::{Method, Output, Policy, Signals};
use specexit_eval::calibrate::{Shift, Spread, shifts};
use specexit_exit::Thought;

use crate::exits::Exits;

/// Boundaries that are compared: the last so many.
const WINDOW: usize = 4096;
/// Fewer say nothing.
const LEAST: usize = 200;
/// Boundaries after which it is worth to look again.
const EVERY: usize = 100;

/// The last boundaries' signals, of thoughts that end as those did which they are compared with.
pub(crate) struct Drift {
    spreads: Vec<Spread>,
    /// What ends these thoughts early; absent where nothing does.
    policy: Option<Policy>,
    signals: VecDeque<Signals>,
    new: usize,
}

impl Drift {
    /// What a server compares: the thoughts that get its default. Those under a calibrated policy are compared
    /// with what calibration saw up to that policy's exits, those without any early exit with all of it; for
    /// other policies there is nothing to compare with.
    pub(crate) fn of(exits: &Exits) -> Option<Self> {
        let calibration = exits.calibration.as_ref()?;
        let (policy, spreads) = match exits.mode {
            Method::SpecExit => {
                let mut promises = calibration.promises.iter();
                let promise = promises.find(|p| p.policy.as_ref() == Some(&exits.policy))?;
                (promise.policy.clone(), promise.spreads.clone())
            }
            Method::Plain | Method::Eagle3 => (None, calibration.spreads.clone()),
        };
        Some(Self { spreads, policy, signals: VecDeque::new(), new: 0 })
    }

    /// Takes the boundaries of an output, whose thought before its first token is `thought`; whether shifts are
    /// to be looked at again.
    pub(crate) fn add(&mut self, thought: &Thought, output: &Output) -> bool {
        if thought.config().policy != self.policy {
            return false;
        }
        let Some((&last, run)) = output.token_ids.split_last() else { return false };
        // Behind an exit stands what was forced.
        let own = output.exit.map_or(usize::MAX, |exit| exit.token_index);
        for (ahead, signals) in thought.ahead(run, last).iter().zip(&output.signals).take(own) {
            if ahead.boundary && !ahead.closing {
                self.signals.push_back(*signals);
                self.new += 1;
            }
        }
        while self.signals.len() > WINDOW {
            self.signals.pop_front();
        }
        let enough = self.signals.len() >= LEAST && self.new >= EVERY;
        if enough {
            self.new = 0;
        }
        enough
    }

    /// How far they have shifted.
    pub(crate) fn shifts(&mut self) -> Vec<Shift> {
        shifts(&self.spreads, self.signals.make_contiguous())
    }
}
