//! `train`: labels to a draft head with a signal probe.

pub(crate) mod checkpoint;
mod evaluate;
mod export;
pub(crate) mod metrics;
mod options;
mod report;
mod run;
pub(crate) mod schedule;
mod trainer;

#[cfg(test)]
mod tests;

pub use evaluate::{DraftQuality, Quality, SignalQuality};
pub use metrics::{HeldOutMetrics, StepMetrics, read_step_metrics};
pub use options::{LossWeights, Sequences, TrainOptions};
pub use report::{
    Curve, Curves, DataReport, ErrorBin, HeadSizes, HeldOutCurve, PAGE_FILE, PageSummary,
    REPORT_FILE, ReliabilityBin, RunReport, Scale, SignalPlots, TrainReport, Verdict, write_page,
};
pub use run::{HEAD_FOLDER, TrainSummary, train};
