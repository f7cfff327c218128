//! From questions to a trained draft head: [`collect`] traces of a target's own reasoning,
//! [`label`] them with the earliest sufficient cut, [`train`] an EAGLE-3 head with a signal probe.
//!
//! All three append to files that carry their provenance, report to a [`Progress`], and go on
//! exactly where they were when called again after a kill.

mod collect;
mod completer;
mod data;
mod endpoint;
mod error;
pub mod jsonl;
mod label;
mod net;
mod ops;
pub mod page;
mod pretrain;
mod progress;
mod provenance;
mod questions;
mod random;
mod reasoner;
mod train;

pub use collect::{
    CollectOptions, CollectRules, CollectSummary, Dropped, Span, Trace, TraceFile, TraceHeader,
    Wait, WaitCount, collect,
};
pub use completer::{Ask, AskId, Completer, Completion, EndpointId, Needs, TokenIds};
pub use endpoint::{Endpoint, EndpointOptions};
pub use error::{Result, TrainError};
pub use label::{
    ConfidenceKind, Cut, DropReason, LabelFile, LabelHeader, LabelOptions, LabelRecord, LabelRules,
    LabelSummary, ProgressNorm, label,
};
pub use net::decoder::DecoderShape;
pub use net::init::Init;
pub use net::probe::ProbeKind;
pub use ops::Products;
pub use pretrain::{
    Corpus, MODEL_FOLDER, PretrainHeldOut, PretrainOptions, PretrainStep, PretrainSummary, Sample,
    pretrain,
};
pub use progress::{Bar, Progress, Silent};
pub use provenance::{ModelId, PROGRAM};
pub use questions::{Grading, Question, read_questions};
pub use random::shuffle;
pub use reasoner::{
    CHAT_TEMPLATE, DataRecipe, EOS, PAD, RECIPE_FILE, ReasonerCorpus, Recipe, THINK_END,
    THINK_START, tokenizer_files,
};
pub use train::{
    Curve, Curves, DataReport, DraftQuality, ErrorBin, HEAD_FOLDER, HeadSizes, HeldOutCurve,
    HeldOutMetrics, LossWeights, PAGE_FILE, PageSummary, Quality, REPORT_FILE, Reading,
    ReliabilityBin, RunReport, Scale, Sequences, SignalPlots, SignalQuality, StepMetrics,
    TrainOptions, TrainReport, TrainSummary, Verdict, read_step_metrics, train, write_page,
};
