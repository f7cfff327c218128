//! Methods compared on the same questions: accuracy, tokens, time, acceptance, exits; and how fast
//! a target decodes.
//!
//! [`compare()`] runs the comparison and [`table()`] prints it; [`SpeedMeter`] measures decoding,
//! [`MachineProbe`] what it could be, [`HeadMeter`] what a draft head adds, and [`LlamaBench`] what
//! llama.cpp does.

pub mod calibrate;
mod compare;
mod comparison;
mod error;
mod evaluation;
mod frontier;
mod grading;
mod llama_bench;
mod machine;
mod makespan;
mod method;
pub mod page;
mod prober;
mod probing;
mod record;
mod records_file;
pub mod replay;
mod speed;
mod statistics;
mod summary;
mod table;
mod texts;
mod thought_text;

pub use compare::{CompareOptions, Subject, Task, compare, named, tasks_hash};
pub use comparison::{Comparison, Named};
pub use error::{EvalError, Result};
pub use evaluation::{Evaluation, Measured, Numbers, Provenance, Together};
pub use frontier::{Curve, CurvePoint, frontier};
pub use grading::Judge;
pub use llama_bench::{LlamaBench, VsLlamaCpp};
pub use machine::{Machine, today};
pub use makespan::{Makespan, makespans};
pub use method::{METHOD_SYNTAX, MethodSpec, adaptive, check_methods, room};
pub use page::{EvalPage, EvalPageOptions, write_eval_page};
pub use probing::{Probing, Rule, Trial};
pub use record::Record;
pub use records_file::{RECORDS_FORMAT, RECORDS_VERSION, read_records};
pub use speed::{
    CpuTimes, DRAFTED, Floor, HeadCost, HeadMeter, MachineProbe, MachineSpeed, Memory, Rate, Shape,
    Speed, SpeedMeter, SpeedOptions,
};
pub use statistics::{Difference, Proportion, mcnemar, mean, median, quantile, wilson_interval};
pub use summary::{REFERENCE, Summary, by_group, summarise};
pub use table::table;
pub use texts::{TEXTS_FORMAT, Text, write_texts};
