//! Promises on disk, beside the head that they are about.

use std::path::Path;

use serde::{Deserialize, Serialize};
use specexit_exit::Policy;
use specexit_model::head_file::write_atomically;

use super::drift::Spread;
use crate::comparison::Named;
use crate::error::{EvalError, Result};

/// Name of the file in a head's folder.
pub const CALIBRATION_FILE: &str = "calibration.json";
/// The value of `format`.
const FORMAT: &str = "specexit-calibration";
/// The version of that format.
const VERSION: u32 = 3;

/// What was promised about a head, and on which questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    format: String,
    version: u32,
    /// Program version that measured.
    pub program: String,
    /// Day of the measurement, UTC.
    pub date: String,
    /// The target.
    pub model: Named,
    /// The head.
    pub head: Named,
    /// What the target computed in (`Kernels::arithmetic`); absent for bf16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arithmetic: Option<String>,
    /// Identity of questions, prompts and gold answers.
    pub questions_hash: String,
    /// Questions asked.
    pub questions: usize,
    /// Those of them that full thinking answers right.
    pub right: usize,
    /// Mean thinking tokens of full thinking.
    pub full_thinking_tokens: f64,
    /// Each promise holds with probability 1 − δ over the draw of the questions.
    pub delta: f64,
    /// Further questions that promises are about; absent: they are about the long run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub horizon: Option<usize>,
    /// From the smallest risk to the largest.
    pub promises: Vec<Promise>,
    /// How the signals were distributed at boundaries, by which drift is known.
    pub spreads: Vec<Spread>,
}

/// One risk and the setting for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promise {
    /// At most this share of the answers that full thinking gets right is lost.
    pub risk: f64,
    /// The setting; absent where no early exit could be shown to be that safe.
    pub policy: Option<Policy>,
    /// Losses among the questions that tested it.
    pub lost: usize,
    /// Those questions that full thinking answers right.
    pub of: usize,
    /// Upper end of the one-sided 1 − δ interval of the setting's own risk, or of what the horizon loses.
    pub bound: f64,
    /// Thinking tokens as a share of those of full thinking, with the rule for giving up where there is one.
    pub thinking_share: f64,
    /// Settings tested in turn.
    pub tested: usize,
    /// The further risk of giving thoughts up, where that was asked for; the rule is part of the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hopeless: Option<GivenUp>,
    /// How the signals were distributed at the boundaries up to where this policy ends thoughts.
    pub spreads: Vec<Spread>,
}

/// What is promised about a rule for giving thoughts up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenUp {
    /// At most this share of the answers that full thinking gets right is lost by it.
    pub risk: f64,
    /// Losses among the questions that tested it.
    pub lost: usize,
    /// Those questions that full thinking answers right.
    pub of: usize,
    /// Upper end of the one-sided 1 − δ interval of its own risk, or of what the horizon loses.
    pub bound: f64,
    /// Rules tested in turn.
    pub tested: usize,
}

impl Calibration {
    /// Promises about `head` on `model`.
    #[must_use]
    pub fn new(model: Named, head: Named, date: String, questions_hash: String) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            date,
            model,
            head,
            arithmetic: None,
            questions_hash,
            questions: 0,
            right: 0,
            full_thinking_tokens: 0.0,
            delta: 0.0,
            horizon: None,
            promises: Vec::new(),
            spreads: Vec::new(),
        }
    }

    /// Writes the file whole or not at all.
    ///
    /// # Errors
    /// The operating system's refusal.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        write_atomically(path, text.as_bytes()).map_err(EvalError::io("write", path))
    }

    /// Reads the text of a file that messages call `path`.
    ///
    /// # Errors
    /// A text of another kind or version.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let bad = |problem: String| EvalError::Line { path: path.to_owned(), line: 1, problem };
        let value: serde_json::Value = serde_json::from_str(text)
            .map_err(|e| bad(format!("not a calibration: {e}; calibrate the head anew")))?;
        let field = |key: &str| value.get(key).cloned().unwrap_or_default();
        if field("format") != FORMAT || field("version") != VERSION {
            return Err(bad(format!(
                "{} of version {} instead of {FORMAT} of version {VERSION}; calibrate the head anew",
                field("format"),
                field("version")
            )));
        }
        serde_json::from_value(value)
            .map_err(|e| bad(format!("broken calibration: {e}; calibrate the head anew")))
    }

    /// The promise for a user who accepts `risk`: that of the largest risk not above it. Whoever uses it
    /// compares [`Self::model`] with the target.
    ///
    /// # Errors
    /// Another head than the one calibrated, or nothing promised at so small a risk.
    pub fn promise(&self, risk: f64, head_hash: &str) -> Result<&Promise> {
        let Named { name, hash } = &self.head;
        if hash != head_hash {
            let hash = hash.get(..12).unwrap_or(hash);
            return Err(EvalError::Nothing(format!(
                "the calibration is about another head ({name}, {hash}); calibrate this one"
            )));
        }
        let fitting = self.promises.iter().filter(|promise| promise.risk <= risk);
        let best = fitting.max_by(|a, b| a.risk.total_cmp(&b.risk));
        best.ok_or_else(|| {
            let risks: Vec<String> = self.promises.iter().map(|p| p.risk.to_string()).collect();
            EvalError::Nothing(format!(
                "nothing was promised at a risk of {risk} or less, only at {}; calibrate for it",
                risks.join(", ")
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use specexit_exit::Profile;

    #[test]
    fn the_largest_risk_that_fits_is_taken() {
        let named = |hash: &str| Named { name: "x".to_owned(), hash: hash.to_owned() };
        let promise = |risk| Promise {
            risk,
            policy: (risk > 0.006).then(|| Profile::Default.policy()),
            lost: 1,
            of: 500,
            bound: 0.9 * risk,
            thinking_share: 0.4,
            tested: 12,
            hopeless: None,
            spreads: Vec::new(),
        };
        let promises = [0.005, 0.01, 0.05].map(promise).to_vec();
        let all = Calibration {
            promises,
            ..Calibration::new(named("m"), named("h"), "2026-01-01".to_owned(), "q".to_owned())
        };
        let text = serde_json::to_string(&all).unwrap();
        let all = Calibration::parse(&text, Path::new("c.json")).unwrap();
        assert_eq!(all.promise(0.02, "h").unwrap().risk, 0.01);
        assert_eq!(all.promise(0.005, "h").unwrap().policy, None);
        let error = |risk, head| all.promise(risk, head).unwrap_err().to_string();
        assert!(error(0.001, "h").contains("only at 0.005, 0.01, 0.05"));
        assert!(error(0.01, "g").contains("another head (x, h)"));
        let other = text.replace("\"version\":3", "\"version\":7");
        let error = Calibration::parse(&other, Path::new("c.json")).unwrap_err().to_string();
        assert!(error.contains("version 7"), "{error}");
        assert!(Calibration::parse("{", Path::new("c.json")).is_err());
    }
}
