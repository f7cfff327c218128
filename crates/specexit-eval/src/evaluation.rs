//! Methods on several tasks: the numbers of all of them in one document.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::calibrate::Shift;
use crate::comparison::{Comparison, Named};
use crate::frontier::Curve;
use crate::machine::Machine;
use crate::makespan::Makespan;
use crate::statistics::{Difference, Proportion};
use crate::summary::Summary;

/// Everything that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Where, with what and when.
    pub provenance: Provenance,
    /// By task, then by method.
    #[serde(flatten)]
    pub tasks: BTreeMap<String, BTreeMap<String, Numbers>>,
}

/// What the numbers were measured with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
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
    /// The methods in the order in which they were named.
    pub methods: Vec<String>,
    /// How far the signals have shifted from those that the head was calibrated on, by task.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drift: BTreeMap<String, Vec<Shift>>,
    /// Curves of accuracy against tokens, by task.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub frontier: BTreeMap<String, Vec<Curve>>,
}

/// What a method did on a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// Questions.
    pub n: usize,
    /// Share of right answers.
    pub accuracy: f64,
    /// Its Wilson interval at 95 %.
    pub ci95: [f64; 2],
    /// Mean thinking tokens.
    pub thinking_tokens_mean: f64,
    /// Mean generated tokens.
    pub total_tokens_mean: f64,
    /// Mean tokens of trials that did not become the answer.
    pub probe_tokens_mean: f64,
    /// Seconds of the whole task.
    pub wall_s: f64,
    /// Median seconds per question.
    pub p50_s: f64,
    /// 95th percentile of seconds per question.
    pub p95_s: f64,
    /// Median seconds to the first token of the answer.
    pub first_answer_p50_s: Option<f64>,
    /// Acceptance length.
    pub tau: f64,
    /// How many thoughts ended for which reason.
    pub exits: BTreeMap<String, usize>,
    /// Of the answers that `plain` gets right: those lost.
    pub lost_correct: Option<Proportion>,
    /// Of the answers that `plain` gets wrong: those gained.
    pub gained_correct: Option<Proportion>,
    /// Accuracy less that of `plain`, question by question.
    pub accuracy_change: Option<Difference>,
    /// P-value of McNemar's exact test of a change of accuracy.
    pub mcnemar_p: Option<f64>,
    /// Thinking tokens less those of `plain`, question by question.
    pub thinking_change: Option<Difference>,
    /// Seconds of `plain` over those of this method.
    pub speed_up: Option<f64>,
    /// Times for all questions with several at a time, where they were measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub makespans: Vec<Together>,
}

/// A time for all questions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Together {
    /// Questions answered at a time.
    pub concurrency: usize,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Generated tokens per second of that.
    pub tokens_per_s: f64,
}

/// What was measured on one task.
pub struct Measured {
    /// Methods beside each other.
    pub comparison: Comparison,
    /// Accuracy against tokens; empty where nothing was recorded.
    pub curves: Vec<Curve>,
    /// Shifts of the signals, where the head is calibrated and they were recorded.
    pub shifts: Option<Vec<Shift>>,
    /// Times with several questions at a time.
    pub makespans: Vec<Makespan>,
}

impl From<&Summary> for Numbers {
    fn from(s: &Summary) -> Self {
        Self {
            n: s.accuracy.of,
            accuracy: s.accuracy.rate,
            ci95: [s.accuracy.low, s.accuracy.high],
            thinking_tokens_mean: s.thinking_tokens,
            total_tokens_mean: s.total_tokens,
            probe_tokens_mean: s.probe_tokens,
            wall_s: s.wall_sum_s,
            p50_s: s.wall_p50_s,
            p95_s: s.wall_p95_s,
            first_answer_p50_s: s.first_answer_p50_s,
            tau: s.tau,
            exits: s.exits.clone(),
            lost_correct: s.lost_correct,
            gained_correct: s.gained_correct,
            accuracy_change: s.accuracy_change,
            mcnemar_p: s.mcnemar_p,
            thinking_change: s.thinking_change,
            speed_up: s.speed_up,
            makespans: Vec::new(),
        }
    }
}

impl Numbers {
    /// Seconds for all questions with `concurrency` at a time, if that was measured.
    #[must_use]
    pub fn makespan(&self, concurrency: usize) -> Option<f64> {
        let found = self.makespans.iter().find(|m| m.concurrency == concurrency);
        found.map(|together| together.seconds)
    }
}

impl Measured {
    /// By method.
    fn numbers(&self) -> BTreeMap<String, Numbers> {
        let numbers = |s: &Summary| {
            let own = self.makespans.iter().filter(|m| m.method == s.method);
            let makespans = own.map(|m| m.time).collect();
            (s.method.clone(), Numbers { makespans, ..Numbers::from(s) })
        };
        self.comparison.methods.iter().map(numbers).collect()
    }
}

impl Evaluation {
    /// Questions at a time for which there are times, in order.
    #[must_use]
    pub fn concurrencies(&self) -> Vec<usize> {
        let all = self.tasks.values().flat_map(BTreeMap::values).flat_map(|n| &n.makespans);
        let all: BTreeSet<usize> = all.map(|together| together.concurrency).collect();
        all.into_iter().collect()
    }

    /// From what was measured on each task, on all by the same methods.
    #[must_use]
    pub fn new(tasks: &BTreeMap<String, Measured>) -> Option<Self> {
        let first = &tasks.values().next()?.comparison;
        let curves = tasks.iter().filter(|(_, of)| !of.curves.is_empty());
        let shifts = |(task, of): (&String, &Measured)| Some((task.clone(), of.shifts.clone()?));
        Some(Self {
            provenance: Provenance {
                program: first.program.clone(),
                date: first.date.clone(),
                machine: first.machine.clone(),
                model: first.model.clone(),
                head: first.head.clone(),
                methods: first.methods.iter().map(|s| s.method.clone()).collect(),
                drift: tasks.iter().filter_map(shifts).collect(),
                frontier: curves.map(|(task, of)| (task.clone(), of.curves.clone())).collect(),
            },
            tasks: tasks.iter().map(|(task, of)| (task.clone(), of.numbers())).collect(),
        })
    }

    /// One line per task and method.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut text = "task,method,n,accuracy,accuracy_low,accuracy_high,thinking_tokens_mean,\
                        total_tokens_mean,probe_tokens_mean,wall_s,p50_s,p95_s,tau,lost_correct,\
                        gained_correct,mcnemar_p,speed_up"
            .to_owned();
        let concurrencies = self.concurrencies();
        concurrencies.iter().for_each(|n| text.push_str(&format!(",makespan_{n}_s")));
        text.push('\n');
        let number = |x: Option<f64>| x.map_or(String::new(), |x| x.to_string());
        for (task, methods) in &self.tasks {
            for method in &self.provenance.methods {
                let Some(n) = methods.get(method) else { continue };
                let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
                let numbers = [
                    n.n as f64,
                    n.accuracy,
                    n.ci95[0],
                    n.ci95[1],
                    n.thinking_tokens_mean,
                    n.total_tokens_mean,
                    n.probe_tokens_mean,
                    n.wall_s,
                    n.p50_s,
                    n.p95_s,
                    n.tau,
                ];
                let rest = [
                    n.lost_correct.map(|p| p.count as f64),
                    n.gained_correct.map(|p| p.count as f64),
                    n.mcnemar_p,
                    n.speed_up,
                ];
                let cells = [quoted(task), quoted(method)].into_iter();
                let cells = cells.chain(numbers.iter().map(f64::to_string));
                let times = concurrencies.iter().map(|at| number(n.makespan(*at)));
                let cells: Vec<String> = cells.chain(rest.map(number)).chain(times).collect();
                text.push_str(&cells.join(","));
                text.push('\n');
            }
        }
        text
    }
}
