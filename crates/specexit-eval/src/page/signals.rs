//! Signals against what closing a thought would have given.

use specexit_train::page::{Figure, Reliability, Table, reliability, reliability_table};
use specexit_train::{Reading, Scale, SignalPlots};

use super::cuts::Sufficient;
use super::folder::TaskFiles;
use crate::calibrate::{SHIFTED, Shift};
use crate::error::Result;
use crate::replay::{Closed, Recording};

/// What is read at a boundary: a prediction, and what came of it.
struct Signal {
    scale: Scale,
    about: Reliability<'static>,
    read: fn(&At<'_>) -> Option<(f64, f64)>,
}

/// A boundary of a recorded thought.
struct At<'a> {
    recording: &'a Recording,
    closed: &'a Closed,
    signals: Option<specexit_engine::Signals>,
}

impl At<'_> {
    fn right(&self) -> f64 {
        f64::from(u8::from(self.closed.correct))
    }
}

const RIGHT: &str = "share of right answers";

/// The signals that have a diagram.
const SIGNALS: [Signal; 4] = [
    Signal {
        scale: Scale::Linear,
        about: Reliability {
            title: "confidence: reliability",
            note: "Of the boundaries at which the head says about the same confidence, the share at which closing \
                   gives the right answer, with its 95 % interval over questions.",
            truth: RIGHT,
            counted: "boundaries",
        },
        read: |at| Some((f64::from(at.signals?.confidence), at.right())),
    },
    Signal {
        scale: Scale::Linear,
        about: Reliability {
            title: "progress: reliability",
            note: "The same for progress. It is no probability: what matters is that the answer is right where \
                   progress is 1.",
            truth: RIGHT,
            counted: "boundaries",
        },
        read: |at| Some((f64::from(at.signals?.progress), at.right())),
    },
    Signal {
        scale: Scale::Log1p,
        about: Reliability {
            title: "remaining: reliability",
            note: "Predicted against true tokens to the earliest sufficient cut, in questions that have one, by \
                   log(1 + tokens).",
            truth: "tokens to the cut",
            counted: "boundaries",
        },
        read: |at| {
            let cut = Sufficient::First.of(at.recording)?;
            let left = cut.at.saturating_sub(at.closed.at);
            Some((f64::from(at.signals?.remaining), left as f64))
        },
    },
    Signal {
        scale: Scale::Linear,
        about: Reliability {
            title: "trial answers: reliability",
            note: "No signal of the head: the mean probability of the answer that the target writes when closed \
                   there, which methods that probe go by.",
            truth: RIGHT,
            counted: "boundaries",
        },
        read: |at| Some((f64::from(at.closed.confidence?), at.right())),
    },
];

/// Diagrams and tables of all signals that were read.
pub(super) fn diagrams(files: &TaskFiles) -> Result<Vec<(Figure, Table)>> {
    let mut diagrams = Vec::new();
    for signal in &SIGNALS {
        let readings = readings(files, signal.read);
        if readings.is_empty() {
            continue;
        }
        let mut plots = SignalPlots::of(&readings, signal.scale);
        // A share stays between 0 and 1, whatever the normal approximation says.
        for [low, high] in plots.reliability.iter_mut().filter_map(|bin| bin.interval.as_mut()) {
            *low = low.max(0.0);
            *high = high.min(plots.top);
        }
        let of = &signal.about;
        diagrams.push((reliability(of, &plots)?, reliability_table(of, &plots)));
    }
    Ok(diagrams)
}

fn readings(files: &TaskFiles, read: fn(&At<'_>) -> Option<(f64, f64)>) -> Vec<Reading> {
    let mut readings = Vec::new();
    for (number, recording) in files.recordings.iter().enumerate() {
        let signals = files.signals.get(&recording.question);
        for closed in &recording.closed {
            let after = closed.at.checked_sub(1);
            let signals = signals.zip(after).and_then(|(all, after)| all.get(after)).copied();
            let Some((predicted, truth)) = read(&At { recording, closed, signals }) else {
                continue;
            };
            if predicted.is_finite() {
                readings.push(Reading { predicted, truth, progress: 0.0, question: number as u32 });
            }
        }
    }
    readings
}

/// How far signals have shifted from those that the head was calibrated on.
pub(super) fn drift(shifts: &[Shift]) -> Table {
    let rows = shifts.iter().map(|Shift { signal, index }| {
        let shifted = if *index > SHIFTED { " (shifted)" } else { "" };
        vec![signal.clone(), format!("{index:.2}{shifted}")]
    });
    let caption = format!(
        "Drift: distribution of the signals at boundaries against that of the calibration. Above {SHIFTED} promises \
         may not hold"
    );
    Table { kind: "drift", ..Table::new(&caption, &["Signal", "Stability index"], rows.collect()) }
}
