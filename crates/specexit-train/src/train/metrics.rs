//! What each step reports, one JSON line a step.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::evaluate::Quality;
use crate::error::{Result, TrainError};
use crate::jsonl::{Appender, Reader};

/// Name of the format in the header.
pub(crate) const FORMAT: &str = "specexit-metrics";
/// Version of the format.
const VERSION: u32 = 1;

/// One training step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Number of the step, from 1.
    pub step: u64,
    /// The pass it belongs to, from 0; passes with the probe alone count on.
    pub epoch: u64,
    /// Tokens read, prompts included; 0 in passes with the probe alone.
    pub tokens: usize,
    /// `sum_k decay^k loss_k`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_loss: Option<f64>,
    /// Cross-entropy at each depth of the training-time test.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loss_per_depth: Vec<f64>,
    /// Share of positions at each depth where the draft's choice is the target's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agreement_per_depth: Vec<f64>,
    /// Losses of confidence, progress, remaining; absent while a probe waits for the draft layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal_losses: Option<[f64; 3]>,
    /// Weights λ of these losses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lambda: Option<[f64; 3]>,
    /// Learning rate of the draft layer; 0 in passes with the probe alone.
    pub lr: f64,
    /// Learning rate of the probe; 0 while it waits.
    pub probe_lr: f64,
    /// Gradient norm of the draft layer before clipping.
    pub grad_norm: f64,
    /// Gradient norm of the probe before clipping, weighted by λ.
    pub probe_grad_norm: f64,
}

/// One measurement on the held-out questions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HeldOutMetrics {
    /// Steps done before it.
    pub step: u64,
    /// The pass that had just ended.
    pub epoch: u64,
    /// What was measured.
    pub held_out: Quality,
}

/// The metrics file of a run.
pub(crate) struct MetricsFile(Appender);

impl MetricsFile {
    /// Opens the file of run `run`, whose header says `format`, dropping lines of steps after `step`:
    /// they will come again.
    pub(crate) fn open(path: &Path, format: &str, run: &str, step: u64) -> Result<Self> {
        let header = json!({"format": format, "version": VERSION, "run": run});
        if path.exists() {
            keep_until(path, &header, step)?;
        }
        Appender::open(path, format, VERSION, &header, |_: Value| Ok(())).map(Self)
    }

    /// Appends one line.
    pub(crate) fn append(&mut self, record: &impl Serialize) -> Result<()> {
        self.0.append(record)
    }
}

/// Drops what a run that goes on after `step` will write again, and anything torn.
fn keep_until(path: &Path, header: &Value, step: u64) -> Result<()> {
    let text = std::fs::read_to_string(path).map_err(TrainError::io("read", path))?;
    let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let value = |line: &str| serde_json::from_str::<Value>(line).unwrap_or_default();
    let step_of = |line: &str| value(line).get("step").and_then(Value::as_u64);
    let mut kept = String::new();
    // Lines of another run are nothing to go on with.
    if let Some(first) = lines.next().filter(|first| value(first) == *header) {
        kept.push_str(first);
        // Lines as they are, not parsed and written again: that could change a last digit.
        kept.extend(lines.take_while(|line| step_of(line).is_some_and(|s| s <= step)));
    }
    specexit_model::head_file::write_atomically(path, kept.as_bytes())
        .map_err(TrainError::io("write", path))
}

/// Reads all step records of a metrics file.
///
/// # Errors
/// A file that is missing, of another kind, or broken.
pub fn read_step_metrics(path: &Path) -> Result<Vec<StepMetrics>> {
    Ok(read_metrics(path)?.0)
}

/// Reads a metrics file: its steps and its held-out measurements. What a kill left of a last line is
/// left out.
pub(crate) fn read_metrics(path: &Path) -> Result<(Vec<StepMetrics>, Vec<HeldOutMetrics>)> {
    let (_, records) = Reader::<Value>::open::<Value>(path, FORMAT, VERSION)?;
    let (mut steps, mut held_out) = (Vec::new(), Vec::new());
    let broken = |e| TrainError::bad_file(path, format!("broken step: {e}"));
    for record in records {
        let record = record?;
        if record.get("held_out").is_none() {
            steps.push(serde_json::from_value(record).map_err(broken)?);
        } else {
            held_out.push(serde_json::from_value(record).map_err(broken)?);
        }
    }
    Ok((steps, held_out))
}
