//! Methods that probe: at boundaries the thought is closed on trial, and the trial decides.
//!
//! They are the baselines that need no trained head, and pay for it in tokens. What each rule is called here
//! says what it looks at; where it differs from the published method it is said.

use serde::{Deserialize, Serialize};

/// When trial answers end a thought.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// As DEER (arXiv 2504.15895): the geometric mean of the probabilities of the trial answer's tokens is
    /// above this. DEER asks at words like "Wait"; here it is asked at every boundary.
    Deer(f32),
    /// As Dynasor (arXiv 2412.20993): so many trial answers in a row are the same. Dynasor asks every so
    /// many tokens and looks for words of doubt too; here it is asked at every boundary.
    Dynasor(usize),
    /// As EAT (arXiv 2509.26522): the moving variance of the entropy right after a forced end of the thought is
    /// below this. It costs one token a boundary.
    Eat(f32),
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Deer(limit) => write!(f, "deer:{limit}"),
            Self::Dynasor(times) => write!(f, "dynasor:{times}"),
            Self::Eat(limit) => write!(f, "eat:{limit}"),
        }
    }
}

/// What a rule sees of a trial.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial<'a> {
    /// The answer, if there is one.
    pub answer: Option<&'a str>,
    /// Geometric mean of the probabilities of its tokens.
    pub confidence: Option<f32>,
    /// Entropy, in nats, of what could have followed the forced end.
    pub entropy: Option<f32>,
}

/// A rule on its way along a thought.
#[derive(Clone, Debug)]
pub struct Probing {
    rule: Rule,
    /// The last answer, and how often it came in a row.
    last: Option<String>,
    repeated: usize,
    /// Moving mean and variance of the entropy, and how many it has seen.
    mean: f64,
    variance: f64,
    seen: usize,
}

/// How much each new entropy counts in the moving mean and variance.
const EAT_WEIGHT: f64 = 0.2;
/// Entropies before their variance means anything.
const EAT_LEAST: usize = 3;

impl Rule {
    /// Whether the rule looks at the end of the thought alone, so that one token of a trial is enough.
    #[must_use]
    pub fn one_token(self) -> bool {
        matches!(self, Self::Eat(_))
    }
}

impl Probing {
    /// At the beginning of a thought.
    #[must_use]
    pub fn new(rule: Rule) -> Self {
        Self { rule, last: None, repeated: 0, mean: 0.0, variance: 0.0, seen: 0 }
    }

    /// Whether the thought ends at the boundary that this trial was made at; to be asked in order.
    pub fn ends(&mut self, trial: &Trial<'_>) -> bool {
        match self.rule {
            Rule::Deer(limit) => trial.confidence.is_some_and(|confidence| confidence > limit),
            Rule::Dynasor(wanted) => {
                let same = trial.answer.is_some() && trial.answer == self.last.as_deref();
                self.repeated = match trial.answer {
                    None => 0,
                    Some(_) if same => self.repeated + 1,
                    Some(_) => 1,
                };
                self.last = trial.answer.map(str::to_owned);
                self.repeated >= wanted.max(1)
            }
            Rule::Eat(limit) => {
                let Some(entropy) = trial.entropy.map(f64::from) else { return false };
                let off = entropy - self.mean;
                let weight = if self.seen == 0 { 1.0 } else { EAT_WEIGHT };
                self.mean += weight * off;
                self.variance = (1.0 - weight) * (self.variance + weight * off * off);
                self.seen += 1;
                self.seen >= EAT_LEAST && self.variance < f64::from(limit)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(answer: &str, number: f32) -> Trial<'_> {
        let answer = Some(answer).filter(|answer| !answer.is_empty());
        Trial { answer, confidence: Some(number), entropy: Some(number) }
    }

    fn ends(rule: Rule, trials: &[(&str, f32)]) -> Option<usize> {
        let mut probing = Probing::new(rule);
        trials.iter().position(|(answer, number)| probing.ends(&trial(answer, *number)))
    }

    #[test]
    fn each_rule_by_hand() {
        assert_eq!(ends(Rule::Deer(0.9), &[("1", 0.9), ("2", 0.91)]), Some(1));
        let answers = [("1", 0.0), ("2", 0.0), ("2", 0.0), ("", 0.0), ("2", 0.0), ("2", 0.0)];
        assert_eq!(ends(Rule::Dynasor(2), &answers), Some(2));
        assert_eq!(ends(Rule::Dynasor(3), &answers), None);
        assert_eq!(ends(Rule::Dynasor(1), &answers), Some(0));
        // 1, 1, 1: no variance once three are seen; 1, 3: mean 1.4, variance 0.8 (0.2 · 4) = 0.64.
        assert_eq!(ends(Rule::Eat(0.01), &[("", 1.0), ("", 1.0), ("", 1.0)]), Some(2));
        let mut eat = Probing::new(Rule::Eat(0.01));
        eat.ends(&trial("", 1.0));
        eat.ends(&trial("", 3.0));
        assert!((eat.mean - 1.4).abs() < 1e-12 && (eat.variance - 0.64).abs() < 1e-12);
    }
}
