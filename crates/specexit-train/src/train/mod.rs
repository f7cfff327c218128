//! `train`: labels to a draft head with a signal probe.

mod checkpoint;
mod evaluate;
mod export;
mod metrics;
mod options;
mod report;
mod run;
mod schedule;
mod trainer;

#[cfg(test)]
mod tests;

pub use evaluate::{DraftQuality, Quality, SignalQuality};
pub use metrics::{HeldOutMetrics, StepMetrics, read_step_metrics};
pub use options::{LossWeights, TrainOptions};
pub use report::{DataReport, REPORT_FILE, RunReport, TrainReport};
pub use run::{HEAD_FOLDER, TrainSummary, train};
