//! What a finished run says about its head.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::evaluate::Quality;
use crate::error::{Result, TrainError};
use crate::provenance::ModelId;

/// Name of the report inside a run's folder.
pub const REPORT_FILE: &str = "report.json";
/// Name of the format.
pub(crate) const FORMAT: &str = "specexit-train-report";
/// Version of the format.
pub(crate) const VERSION: u32 = 1;

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
    /// What was trained on.
    pub data: DataReport,
    /// How the run went.
    pub run: RunReport,
    /// The kept head on the held-out questions. The best state was chosen on the same questions, so
    /// these numbers flatter a little; judge a head on questions that training never saw.
    pub held_out: Option<Quality>,
}

impl TrainReport {
    /// Reads a report.
    ///
    /// # Errors
    /// A file that is missing, broken or of another version.
    pub fn open(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(TrainError::io("read", path))?;
        let report: Self = serde_json::from_slice(&text)
            .map_err(|e| TrainError::bad_file(path, format!("it is not a training report: {e}")))?;
        if (report.format.as_str(), report.version) != (FORMAT, VERSION) {
            let problem = format!(
                "it is version {} of {}, this program reads version {VERSION} of {FORMAT}",
                report.version, report.format
            );
            return Err(TrainError::bad_file(path, problem));
        }
        Ok(report)
    }

    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|e| TrainError::bad_file(path, format!("it cannot be written: {e}")))?;
        specexit_model::head_file::write_atomically(path, &text)
            .map_err(TrainError::io("write", path))
    }
}
