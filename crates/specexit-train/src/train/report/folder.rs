//! From a run's folder to its page.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use specexit_model::head_file::write_atomically;

use super::curves::Curves;
use super::page::{Input, render};
use super::verdict::{Known, Verdict};
use super::{REPORT_FILE, TrainReport};
use crate::error::{Result, TrainError};
use crate::page::Fact;
use crate::train::evaluate::Quality;
use crate::train::metrics::{HeldOutMetrics, read_metrics};
use crate::train::trainer::{LAST, METRICS};

/// Name of the page inside a run's folder.
pub const PAGE_FILE: &str = "report.html";

/// What a page tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSummary {
    /// False for a run that goes on or was stopped: the page then shows its steps so far.
    pub finished: bool,
    /// Steps that the page tells of.
    pub steps: u64,
}

/// Writes the page about the run in the folder `run` to the file `out`: one HTML file that needs
/// nothing else. A finished run is told by the numbers of its `report.json`, any other by its
/// metrics so far.
///
/// # Errors
/// A folder that holds no run, a file in it that is broken or of another version, or a page that
/// cannot be written.
pub fn write_page(run: &Path, out: &Path) -> Result<PageSummary> {
    let report = run.join(REPORT_FILE);
    let time = wall_time(run);
    let (page, summary) = if report.exists() {
        let report = TrainReport::open(&report)?;
        (of_finished(&report, time)?, PageSummary { finished: true, steps: report.run.steps })
    } else {
        of_unfinished(run, time)?
    };
    write_atomically(out, page.as_bytes()).map_err(TrainError::io("write", out))?;
    Ok(summary)
}

pub(super) fn of_finished(report: &TrainReport, time: Option<Duration>) -> Result<String> {
    let TrainReport { model, head, data, run, .. } = report;
    let mut sizes = format!(
        "width {}, MLP {}, {} query and {} key/value heads of {}, {} tokens it can name",
        head.hidden_size,
        head.intermediate_size,
        head.attention_heads,
        head.key_value_heads,
        head.head_dim,
        data.draft_vocabulary
    );
    let mut trained_on = format!("{} sequences", data.train_sequences);
    match &report.base_head {
        Some(base) => sizes.push_str(&format!("; not trained, that of the head with hash {base}")),
        None => trained_on.push_str(&format!(", {} positions to draft from", data.train_positions)),
    }
    trained_on.push_str(&format!(", {} labelled tokens", data.train_labels));
    let mut facts = vec![
        Fact::new("Target", model.name.as_str()),
        Fact::new("Hash of its weights", model.hash.as_str()),
        Fact::new("Hash of its tokenizer", model.tokenizer_hash.as_str()),
        Fact::new("Hash of the labels", data.labels_hash.as_str()),
        Fact::new("Draft layer", sizes),
        Fact::new("Trained numbers", run.parameters.to_string()),
        Fact::new("Training data", trained_on),
        Fact::new(
            "Held out",
            format!("{} sequences of questions that are not trained on", data.held_out_sequences),
        ),
        Fact::new("Steps", run.steps.to_string()),
        Fact::new("Program", format!("specexit {}", report.program)),
    ];
    facts.extend(time_fact(time));
    render(&Input {
        target: &model.name,
        facts,
        unfinished: None,
        probe_alone: report.base_head.is_some(),
        verdict: &report.verdict,
        known: Known {
            data: Some(data),
            run: Some(run),
            held_out: report.held_out.as_ref(),
            curves: &report.curves,
        },
        options: &report.options,
        label_options: Some(&data.label_options),
    })
}

fn of_unfinished(run: &Path, time: Option<Duration>) -> Result<(String, PageSummary)> {
    let path = run.join("run.json");
    let text = std::fs::read(&path).map_err(TrainError::io("read", &path))?;
    let identity: Value = serde_json::from_slice(&text)
        .map_err(|e| TrainError::bad_file(&path, format!("it is broken: {e}")))?;
    let metrics = run.join(METRICS);
    // A run that still computes the states has no metrics yet.
    let (steps, held_out) =
        if metrics.exists() { read_metrics(&metrics)? } else { (Vec::new(), Vec::new()) };
    let said = |pointer: &str| {
        identity.pointer(pointer).and_then(Value::as_str).unwrap_or("not recorded").to_owned()
    };
    let done = steps.last().map_or(0, |s| s.step);
    let curves = Curves::of(&steps, &held_out);
    let last = last_quality(&held_out);
    let mut facts = vec![
        Fact::new("Hash of the target's weights", said("/model/hash")),
        Fact::new("Hash of its tokenizer", said("/model/tokenizer_hash")),
        Fact::new("Hash of the labels", said("/labels_hash")),
        Fact::new("Steps so far", done.to_string()),
        Fact::new("Program", format!("specexit {}", said("/program"))),
    ];
    facts.extend(time_fact(time));
    let known = Known { data: None, run: None, held_out: last.as_ref(), curves: &curves };
    let measured = match held_out.last() {
        Some(last) => {
            format!("what was measured is the state after step {}, not yet the best one", last.step)
        }
        None => "nothing has been measured yet".to_owned(),
    };
    let page = render(&Input {
        target: "a target known by its hash",
        facts,
        unfinished: Some(format!(
            "This run has not finished: the page tells of its first {done} steps, and {measured}."
        )),
        probe_alone: identity.get("base_head").is_some(),
        verdict: &Verdict::of(&known),
        known,
        options: identity.get("options").unwrap_or(&Value::Null),
        label_options: None,
    })?;
    Ok((page, PageSummary { finished: false, steps: done }))
}

/// The latest measurements; passes with the probe alone measure no draft layer.
fn last_quality(held_out: &[HeldOutMetrics]) -> Option<Quality> {
    let last = held_out.last()?;
    let drafted = held_out.iter().rev().find(|m| m.held_out.draft.positions > 0);
    let draft = drafted.map(|m| m.held_out.draft.clone()).unwrap_or_default();
    Some(Quality { draft, signals: last.held_out.signals.clone() })
}

/// Time from the run's beginning to its last checkpoint, as the times of its files tell: a report
/// must not depend on how often a run was interrupted, so the files record none.
fn wall_time(run: &Path) -> Option<Duration> {
    let modified = |name: &str| std::fs::metadata(run.join(name)).ok()?.modified().ok();
    modified(LAST)?.duration_since(modified("run.json")?).ok()
}

fn time_fact(time: Option<Duration>) -> Option<Fact> {
    let seconds = time?.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let value = match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes} min {} s", seconds % 60),
        _ => format!("{hours} h {minutes} min"),
    };
    Some(Fact::new(
        "Time",
        format!("{value} to the last checkpoint, pauses included, by the times of the files"),
    ))
}
