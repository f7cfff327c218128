//! When thoughts end early: what the server was started with, and what a request makes of it.

use specexit_engine::{Method, Policy};
use specexit_eval::calibrate::Calibration;
use specexit_exit::{Loops, Profile, Stall, Thresholds};

use crate::error::{ApiError, Result};

/// What requests get that say nothing, and what they may ask for.
#[derive(Clone, Debug)]
pub struct Exits {
    /// Methods that model and head allow, the simplest first.
    pub modes: Vec<Method>,
    /// That of requests that name none.
    pub mode: Method,
    /// The policy of requests that name neither profile nor risk.
    pub policy: Policy,
    /// What was promised about the head on this model, if anything was.
    pub calibration: Option<Calibration>,
    /// Identity of the head's weights.
    pub head_hash: String,
    /// Loops that end the thoughts of requests that say nothing else.
    pub loops: Option<Loops>,
    /// Stalls that end them, where signals may.
    pub stall: Option<Stall>,
    /// Sentence before a forced end of the thought.
    pub closing_text: Option<String>,
    /// Drafted tokens per round at most.
    pub draft_tokens: usize,
}

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Control {
    pub(crate) mode: Option<Method>,
    /// No early exit, drafting where there is a head.
    pub(crate) off: bool,
    pub(crate) profile: Option<Profile>,
    pub(crate) risk: Option<f64>,
    /// Changes of single thresholds; `None` inside is off.
    pub(crate) confidence: Option<Option<f32>>,
    pub(crate) progress: Option<Option<f32>>,
    pub(crate) remaining: Option<Option<f32>>,
    pub(crate) min_thinking_tokens: Option<usize>,
    /// `None` inside is off.
    pub(crate) stall: Option<Option<Stall>>,
    /// `None` inside is off.
    pub(crate) loops: Option<Option<Loops>>,
    pub(crate) closing_text: Option<String>,
    pub(crate) draft_tokens: Option<usize>,
    pub(crate) trace: bool,
}

impl Exits {
    /// The method of a request.
    pub(crate) fn mode(&self, control: &Control) -> Result<Method> {
        let exact = || self.modes.iter().rfind(|mode| **mode != Method::SpecExit).copied();
        let mode = if control.off { exact() } else { control.mode };
        let mode = mode.unwrap_or(self.mode);
        if !self.modes.contains(&mode) {
            let all: Vec<String> = self.modes.iter().map(Method::to_string).collect();
            let message = format!(
                "mode {mode} is not possible with this model and head, only {}",
                all.join(", ")
            );
            return Err(ApiError::field("specexit.mode", message));
        }
        Ok(mode)
    }

    /// When the signals end its thought; nothing where the method has no exit, in which case nothing about
    /// it may be asked for.
    pub(crate) fn policy(&self, control: &Control, mode: Method) -> Result<Option<Policy>> {
        if mode != Method::SpecExit {
            return match control.exit_field() {
                None => Ok(None),
                Some(name) => {
                    let message = format!(
                        "{name} does not apply to mode {mode}, which never ends a thought by signals"
                    );
                    Err(ApiError::field(format!("specexit.{name}"), message))
                }
            };
        }
        let mut policy = match (control.risk, control.profile) {
            (Some(risk), _) => self.promised(control, risk)?,
            (None, Some(profile)) => profile.policy(),
            (None, None) => self.policy.clone(),
        };
        let limits = &mut policy.thresholds;
        for (limit, given) in [
            (&mut limits.confidence, control.confidence),
            (&mut limits.progress, control.progress),
            (&mut limits.remaining, control.remaining),
        ] {
            *limit = given.unwrap_or(*limit);
        }
        policy.min_thinking_tokens =
            control.min_thinking_tokens.unwrap_or(policy.min_thinking_tokens);
        policy.stall = control.stall.unwrap_or(policy.stall.or(self.stall));
        policy.validate().map_err(|e| ApiError::field("specexit", e.to_string()))?;
        Ok(Some(policy))
    }

    /// The setting that was calibrated for `risk`; where no early exit was safe, one that never exits.
    fn promised(&self, control: &Control, risk: f64) -> Result<Policy> {
        let bad = |message: String| Err(ApiError::field("specexit.risk", message));
        if let Some(name) = control.exit_field().filter(|name| *name != "risk") {
            return bad(format!("risk stands for a whole setting, so {name} cannot go with it"));
        }
        let Some(calibration) = &self.calibration else {
            return bad(
                "risk needs a calibrated head; run `specexit calibrate`, or give thresholds"
                    .to_owned(),
            );
        };
        match calibration.promise(risk, &self.head_hash) {
            Ok(promise) => {
                let never = || Policy { thresholds: Thresholds::OFF, ..Profile::Default.policy() };
                Ok(promise.policy.clone().unwrap_or_else(never))
            }
            Err(error) => bad(error.to_string()),
        }
    }

    /// Risks for which there are promises.
    pub(crate) fn risks(&self) -> Vec<f64> {
        let promises = self.calibration.iter().flat_map(|c| &c.promises);
        promises.filter(|promise| promise.policy.is_some()).map(|promise| promise.risk).collect()
    }
}

impl Control {
    /// The first field that is about exits by signals, if there is one.
    fn exit_field(&self) -> Option<&'static str> {
        [
            ("risk", self.risk.is_some()),
            ("profile", self.profile.is_some()),
            ("thresholds.confidence", self.confidence.is_some()),
            ("thresholds.progress", self.progress.is_some()),
            ("thresholds.remaining", self.remaining.is_some()),
            ("min_thinking_tokens", self.min_thinking_tokens.is_some()),
            ("stall", self.stall.is_some()),
        ]
        .into_iter()
        .find_map(|(name, given)| given.then_some(name))
    }
}
