//! `train`: labels to a draft head with a signal probe.

pub(crate) mod checkpoint;
mod draft_trainer;
mod evaluate;
mod export;
mod joint;
pub(crate) mod metrics;
mod options;
mod probe_trainer;
mod report;
mod run;
pub(crate) mod schedule;
mod signals_only;
mod trainer;

#[cfg(test)]
mod tests;

pub use evaluate::{DraftQuality, Quality, SignalQuality};
pub use metrics::{HeldOutMetrics, StepMetrics, read_step_metrics};
pub use options::{LossWeights, Sequences, TrainOptions};
pub use report::{
    Curve, Curves, DataReport, ErrorBin, HeadSizes, HeldOutCurve, PAGE_FILE, PageSummary,
    REPORT_FILE, Reading, ReliabilityBin, RunReport, Scale, SignalPlots, TrainReport, Verdict,
    write_page,
};
pub use run::{HEAD_FOLDER, TrainSummary, train};
