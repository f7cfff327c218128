//! The result of a comparison.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::record::Record;
use crate::summary::Summary;

/// The name and identity of something loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// What the user called it.
    pub name: String,
    /// Identity of its weights.
    pub hash: String,
}

/// Several methods on the same questions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Program version that measured.
    pub program: String,
    /// Day of the run, UTC.
    pub date: String,
    /// What it ran on.
    pub machine: Machine,
    /// The target.
    pub model: Named,
    /// The draft head, if any.
    pub head: Option<Named>,
    /// Questions answered by every method.
    pub questions: usize,
    /// Those of them that were answered in an earlier, interrupted run of the same settings.
    pub resumed: usize,
    /// One row per method.
    pub methods: Vec<Summary>,
    /// The same for each kind of question, where their file says kinds.
    pub groups: BTreeMap<String, Vec<Summary>>,
    /// Every answer.
    pub records: Vec<Record>,
}
