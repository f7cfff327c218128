//! What a finished run says about its head: `report.json`, and a page made of the same numbers.

pub(crate) mod curves;
mod folder;
pub(crate) mod numbers;
mod page;
mod sections;
#[cfg(test)]
mod tests;
pub(crate) mod verdict;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use curves::{Curve, Curves, HeldOutCurve};
pub use folder::{PAGE_FILE, PageSummary, write_page};
pub use numbers::{ErrorBin, Reading, ReliabilityBin, Scale, SignalPlots};
pub use verdict::Verdict;

use super::evaluate::Quality;
use crate::error::{Result, TrainError};
use crate::provenance::ModelId;

/// Name of the report inside a run's folder.
pub const REPORT_FILE: &str = "report.json";
/// Name of the format.
pub(crate) const FORMAT: &str = "specexit-train-report";
/// Version of the format.
pub(crate) const VERSION: u32 = 2;

/// What was trained on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DataReport {
    /// Hash of the label file.
    pub labels_hash: String,
    /// Training sequences.
    pub train_sequences: usize,
    /// Held-out sequences, of questions that no training sequence has.
    pub held_out_sequences: usize,
    /// Positions that draft in a training pass.
    pub train_positions: usize,
    /// Labelled thinking tokens in a training pass.
    pub train_labels: usize,
    /// Tokens the draft can name.
    pub draft_vocabulary: usize,
    /// Longest remaining length among the training labels.
    pub label_max_len: usize,
    /// How the labels were made.
    pub label_options: Value,
}

/// Sizes of the draft layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HeadSizes {
    /// Width, that of the target.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Query heads.
    pub attention_heads: usize,
    /// Key/value heads.
    pub key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

/// How the run went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// Trained numbers, probe included.
    pub parameters: usize,
    /// Steps of all passes.
    pub steps: u64,
    /// Step after which the kept draft layer was measured; absent without held-out questions.
    pub best_draft_step: Option<u64>,
    /// Step after which the kept row of each signal was measured.
    pub best_probe_steps: [Option<u64>; 3],
}

/// `report.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainReport {
    /// `specexit-train-report`.
    pub format: String,
    /// Version of the format.
    pub version: u32,
    /// Version of the program that wrote it.
    pub program: String,
    /// The target.
    pub model: ModelId,
    /// The options that decide what is learned.
    pub options: Value,
    /// Hash of the head that got a probe, where only that was trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_head: Option<String>,
    /// The draft layer.
    pub head: HeadSizes,
    /// What was trained on.
    pub data: DataReport,
    /// How the run went.
    pub run: RunReport,
    /// The kept head on the held-out questions. The best state was chosen on the same questions, so
    /// these numbers flatter a little; judge a head on questions that training never saw.
    pub held_out: Option<Quality>,
    /// How training went.
    pub curves: Curves,
    /// What all this says, in words.
    pub verdict: Verdict,
}

impl TrainReport {
    /// Reads a report.
    ///
    /// # Errors
    /// A file that is missing, broken or of another version.
    pub fn open(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(TrainError::io("read", path))?;
        let broken = |e| TrainError::bad_file(path, format!("it is not a training report: {e}"));
        // The version first: a report of another one may lack what this one needs.
        let value: Value = serde_json::from_slice(&text).map_err(broken)?;
        let format = value.get("format").and_then(Value::as_str).unwrap_or_default();
        let version = value.get("version").and_then(Value::as_u64).unwrap_or_default();
        if (format, version) != (FORMAT, u64::from(VERSION)) {
            let problem = format!(
                "it is version {version} of {format:?}, this program reads version {VERSION} of \
                 {FORMAT}; the `train` command of the run, repeated, makes it anew"
            );
            return Err(TrainError::bad_file(path, problem));
        }
        serde_json::from_value(value).map_err(broken)
    }

    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|e| TrainError::bad_file(path, format!("it cannot be written: {e}")))?;
        specexit_model::head_file::write_atomically(path, &text)
            .map_err(TrainError::io("write", path))
    }
}
