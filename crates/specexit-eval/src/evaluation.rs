//! Methods on several tasks: the numbers of all of them in one document.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::calibrate::Shift;
use crate::comparison::{Comparison, Named};
use crate::frontier::Curve;
use crate::machine::Machine;
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
        }
    }
}

impl Evaluation {
    /// From the comparisons of tasks, which are all by the same methods, and their curves.
    #[must_use]
    pub fn new(tasks: &BTreeMap<String, (Comparison, Vec<Curve>)>) -> Option<Self> {
        let (first, _) = tasks.values().next()?;
        let methods = |of: &Comparison| {
            of.methods.iter().map(|s| (s.method.clone(), Numbers::from(s))).collect()
        };
        let curves = tasks.iter().filter(|(_, (_, curves))| !curves.is_empty());
        Some(Self {
            provenance: Provenance {
                program: first.program.clone(),
                date: first.date.clone(),
                machine: first.machine.clone(),
                model: first.model.clone(),
                head: first.head.clone(),
                methods: first.methods.iter().map(|s| s.method.clone()).collect(),
                drift: BTreeMap::new(),
                frontier: curves.map(|(task, (_, c))| (task.clone(), c.clone())).collect(),
            },
            tasks: tasks.iter().map(|(task, (of, _))| (task.clone(), methods(of))).collect(),
        })
    }

    /// One line per task and method.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut text = "task,method,n,accuracy,accuracy_low,accuracy_high,thinking_tokens_mean,\
                        total_tokens_mean,probe_tokens_mean,wall_s,p50_s,p95_s,tau,lost_correct,\
                        gained_correct,mcnemar_p,speed_up\n"
            .to_owned();
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
                let cells: Vec<String> = cells.chain(rest.map(number)).collect();
                text.push_str(&cells.join(","));
                text.push('\n');
            }
        }
        text
    }
}
