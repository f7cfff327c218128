//! Smoothing a signal over time.
//!
//! The formulas are those of SpecExit's released code (the classes ending in `ScorePredictor`),
//! plus one that counts its time in tokens, so that it does not care how the rounds fell.

use std::{collections::VecDeque, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    error::{ParseError, SettingError},
    signals::Signals,
};

/// How the values of one signal are smoothed; written `ewma:0.1` on the command line and in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Smoothing {
    /// The latest value as it is.
    None,
    /// Exponentially weighted moving average: the first value starts it, then `e = a·x + (1−a)·e`.
    Ewma {
        /// Weight of a new value, in (0, 1]; the released code uses 0.1.
        alpha: f64,
    },
    /// The same average with its weight given as a time: a value that stands for `m` tokens has
    /// the weight `1 − exp(−m / time_constant)`.
    EwmaTokens {
        /// After this many tokens an old value has lost 63 % of its weight.
        time_constant: f64,
    },
    /// The latest value plus the mean of the last `window − 1` differences; no value before that
    /// many differences exist.
    Momentum {
        /// Number of values kept, at least 2; the released code uses 10.
        window: usize,
    },
    /// Mean of the last `window` values, or of those that exist.
    Mean {
        /// Number of values kept, at least 1; the released code uses 10.
        window: usize,
    },
    /// As `Mean`, but after each boundary that was looked at only the latest value is kept.
    ParagraphMean {
        /// Number of values kept, at least 1.
        window: usize,
    },
}

const EXPECTED: &str = "none, ewma:ALPHA, ewma-tokens:TOKENS, momentum:WINDOW, mean:WINDOW or \
                        paragraph-mean:WINDOW; for example ewma:0.1";

impl Smoothing {
    /// Says what is wrong with the numbers, if anything is.
    pub fn validate(&self) -> Result<(), SettingError> {
        let window = |least, given| {
            if given < least { Err(SettingError::Window { least, given }) } else { Ok(()) }
        };
        match *self {
            Self::None => Ok(()),
            Self::Ewma { alpha } if alpha > 0.0 && alpha <= 1.0 => Ok(()),
            Self::Ewma { alpha } => Err(SettingError::Alpha(alpha)),
            Self::EwmaTokens { time_constant: t } if t > 0.0 && t.is_finite() => Ok(()),
            Self::EwmaTokens { time_constant } => Err(SettingError::TimeConstant(time_constant)),
            Self::Momentum { window: w } => window(2, w),
            Self::Mean { window: w } | Self::ParagraphMean { window: w } => window(1, w),
        }
    }
}

impl fmt::Display for Smoothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Ewma { alpha } => write!(f, "ewma:{alpha}"),
            Self::EwmaTokens { time_constant } => write!(f, "ewma-tokens:{time_constant}"),
            Self::Momentum { window } => write!(f, "momentum:{window}"),
            Self::Mean { window } => write!(f, "mean:{window}"),
            Self::ParagraphMean { window } => write!(f, "paragraph-mean:{window}"),
        }
    }
}

impl FromStr for Smoothing {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let unknown = || ParseError::new("smoothing", text, EXPECTED);
        let (name, number) = text.split_once(':').unwrap_or((text, ""));
        let real = || number.parse().map_err(|_| unknown());
        let count = || number.parse().map_err(|_| unknown());
        let parsed = match name {
            "none" if number.is_empty() => Self::None,
            "ewma" => Self::Ewma { alpha: real()? },
            "ewma-tokens" => Self::EwmaTokens { time_constant: real()? },
            "momentum" => Self::Momentum { window: count()? },
            "mean" => Self::Mean { window: count()? },
            "paragraph-mean" => Self::ParagraphMean { window: count()? },
            _ => return Err(unknown()),
        };
        parsed.validate().map_err(|_| unknown())?;
        Ok(parsed)
    }
}

impl TryFrom<String> for Smoothing {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<Smoothing> for String {
    fn from(smoothing: Smoothing) -> Self {
        smoothing.to_string()
    }
}

/// The running state of one smoothed signal.
#[derive(Debug, Clone, PartialEq)]
pub struct Smoother {
    smoothing: Smoothing,
    average: Option<f64>,
    recent: VecDeque<f64>,
}

impl Smoother {
    /// A smoother that has seen nothing.
    #[must_use]
    pub fn new(smoothing: Smoothing) -> Self {
        Self { smoothing, average: None, recent: VecDeque::new() }
    }

    /// Takes one more value, which stands for `tokens` tokens (only `ewma-tokens` cares). A value
    /// that is not finite is skipped: one missing value must not spoil all later ones.
    pub fn push(&mut self, value: f32, tokens: usize) {
        if !value.is_finite() {
            return;
        }
        let value = f64::from(value);
        match self.smoothing {
            Smoothing::None => self.average = Some(value),
            Smoothing::Ewma { alpha } => self.blend(value, alpha),
            Smoothing::EwmaTokens { time_constant } => {
                self.blend(value, -(-(tokens as f64) / time_constant).exp_m1());
            }
            Smoothing::Momentum { window }
            | Smoothing::Mean { window }
            | Smoothing::ParagraphMean { window } => {
                self.recent.push_back(value);
                while self.recent.len() > window {
                    self.recent.pop_front();
                }
            }
        }
    }

    fn blend(&mut self, value: f64, weight: f64) {
        self.average = Some(match self.average {
            None => value,
            Some(old) => weight * value + (1.0 - weight) * old,
        });
    }

    /// A boundary has been looked at and the thought goes on.
    pub fn boundary_checked(&mut self) {
        if matches!(self.smoothing, Smoothing::ParagraphMean { .. }) {
            let old = self.recent.len().saturating_sub(1);
            self.recent.drain(..old);
        }
    }

    /// The smoothed value; NaN while there is none.
    #[must_use]
    pub fn value(&self) -> f32 {
        let value = match self.smoothing {
            Smoothing::None | Smoothing::Ewma { .. } | Smoothing::EwmaTokens { .. } => self.average,
            Smoothing::Momentum { window } => self.momentum(window),
            Smoothing::Mean { .. } | Smoothing::ParagraphMean { .. } => self.mean(),
        };
        value.map_or(f32::NAN, |v| v as f32)
    }

    fn mean(&self) -> Option<f64> {
        let count = self.recent.len();
        (count > 0).then(|| self.recent.iter().sum::<f64>() / count as f64)
    }

    /// The differences telescope: their mean is (last − first) / (window − 1).
    fn momentum(&self, window: usize) -> Option<f64> {
        let (first, last) = (self.recent.front()?, self.recent.back()?);
        (window >= 2 && self.recent.len() == window)
            .then(|| last + (last - first) / (window - 1) as f64)
    }
}

/// One smoother per signal.
#[derive(Debug, Clone, PartialEq)]
pub struct Smoothers {
    confidence: Smoother,
    progress: Smoother,
    remaining: Smoother,
}

impl Smoothers {
    /// Three smoothers that have seen nothing.
    #[must_use]
    pub fn new(smoothing: Smoothing) -> Self {
        let one = Smoother::new(smoothing);
        Self { confidence: one.clone(), progress: one.clone(), remaining: one }
    }

    /// Takes one more set of signals, which stands for `tokens` tokens.
    pub fn push(&mut self, signals: Signals, tokens: usize) {
        self.confidence.push(signals.confidence, tokens);
        self.progress.push(signals.progress, tokens);
        self.remaining.push(signals.remaining, tokens);
    }

    /// A boundary has been looked at and the thought goes on.
    pub fn boundary_checked(&mut self) {
        self.confidence.boundary_checked();
        self.progress.boundary_checked();
        self.remaining.boundary_checked();
    }

    /// The smoothed signals; NaN in a field that has no value yet.
    #[must_use]
    pub fn value(&self) -> Signals {
        Signals {
            confidence: self.confidence.value(),
            progress: self.progress.value(),
            remaining: self.remaining.value(),
        }
    }
}
