//! Policies: when the signals end a thought; and the named profiles.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    boundary::BoundaryRules,
    error::{ParseError, SettingError},
    exit::ExitReason,
    hopeless::Hopeless,
    random::RandomExit,
    signals::Signals,
    smoothing::Smoothing,
    stall::Stall,
    thresholds::Thresholds,
};

/// What one smoothing step stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SmoothUnit {
    /// One committed thinking token: the outcome does not depend on how the rounds fell.
    Token,
    /// One round, by the mean over the thinking tokens of its accepted run.
    RoundMean,
    /// One round, by the last thinking token of its accepted run.
    RoundLast,
}

impl SmoothUnit {
    fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::RoundMean => "round-mean",
            Self::RoundLast => "round-last",
        }
    }
}

impl fmt::Display for SmoothUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for SmoothUnit {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wanted = text.replace('_', "-");
        [Self::Token, Self::RoundMean, Self::RoundLast]
            .into_iter()
            .find(|unit| unit.as_str() == wanted)
            .ok_or_else(|| {
                ParseError::new("smoothing unit", text, "token, round-mean or round-last")
            })
    }
}

/// Everything that decides whether the signals end a thought at a boundary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The profile it started from, for reports.
    pub profile: String,
    /// What the smoothed signals must pass.
    pub thresholds: Thresholds,
    /// How they are smoothed.
    pub smoothing: Smoothing,
    /// What one smoothing step stands for.
    pub unit: SmoothUnit,
    /// Decide with the signals of one step earlier (a round, or under [`SmoothUnit::Token`] a
    /// token), as SpecExit's released code does.
    pub lag: bool,
    /// Look at every boundary of the accepted run in order, not only at the first.
    pub scan_all: bool,
    /// A smoothed value of exactly 0 counts as missing and so prevents the exit.
    pub zero_is_missing: bool,
    /// Where a thought may be cut.
    pub boundaries: BoundaryRules,
    /// No exit by signals before this many thinking tokens.
    pub min_thinking_tokens: usize,
    /// Thoughts that are given up, whatever the thresholds say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hopeless: Option<Hopeless>,
    /// Thoughts that no longer get further, whatever the thresholds say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<Stall>,
    /// Exits by chance instead of by signals: a baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random: Option<RandomExit>,
}

impl Policy {
    /// Why a thought ends at a boundary, if it does: after so many thinking tokens and generated tokens, by the
    /// smoothed signals that count there, `flat` thinking tokens after its progress last rose by what
    /// [`Stall::gain`] says (0 where nobody counts them).
    #[must_use]
    pub fn ends(
        &self,
        thinking: usize,
        generated: usize,
        smoothed: &Signals,
        flat: usize,
    ) -> Option<ExitReason> {
        let (wanted, reason) = match &self.random {
            Some(random) => (random.exits(generated), ExitReason::Random),
            None => (self.thresholds.pass(smoothed, self.zero_is_missing), ExitReason::Signals),
        };
        if wanted && thinking >= self.min_thinking_tokens {
            return Some(reason);
        }
        if self.hopeless.is_some_and(|rule| rule.gives_up(thinking, smoothed)) {
            return Some(ExitReason::Hopeless);
        }
        let stalled = self.stall.is_some_and(|rule| rule.gives_up(flat));
        stalled.then_some(ExitReason::Stalled)
    }

    /// Says what is wrong with the numbers, if anything is.
    pub fn validate(&self) -> Result<(), SettingError> {
        self.thresholds.validate()?;
        let rate = self.random.map_or(0.0, |random| random.rate);
        if !(0.0..=1.0).contains(&rate) {
            return Err(SettingError::Rate(rate));
        }
        self.stall.as_ref().map_or(Ok(()), Stall::validate)?;
        self.smoothing.validate()
    }
}

/// The named policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// SpecExit's released code (`Eagle3Model.eagle_generate` of AngelSlim) exactly: the mean over
    /// the round's accepted tokens, EWMA 0.1 per round, decided with the signals up to the round
    /// before, six newline strings, first boundary of the run, 0.8 / 0.3 / 200, zero blocks.
    Angelslim,
    /// The article (arXiv 2509.24248) exactly: the last accepted token, no lag, connectors too.
    /// Its EWMA factor is not published; 0.1 is the released code's.
    Paper,
    /// This project's own: per committed token, every boundary in order, blank lines, so that the
    /// exit is a function of the committed tokens and their signals alone.
    #[default]
    Default,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 3] = [Self::Angelslim, Self::Paper, Self::Default];

    /// The spelling used in JSON and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Angelslim => "angelslim",
            Self::Paper => "paper",
            Self::Default => "default",
        }
    }

    /// The policy behind the name.
    #[must_use]
    pub fn policy(self) -> Policy {
        let newlines = BoundaryRules {
            strings: BoundaryRules::newline_strings(),
            blank_line: false,
            connectors: Vec::new(),
        };
        let angelslim = Policy {
            profile: self.as_str().to_owned(),
            thresholds: Thresholds::PUBLISHED,
            smoothing: Smoothing::Ewma { alpha: 0.1 },
            unit: SmoothUnit::RoundMean,
            lag: true,
            scan_all: false,
            zero_is_missing: true,
            boundaries: newlines.clone(),
            min_thinking_tokens: 0,
            hopeless: None,
            stall: None,
            random: None,
        };
        match self {
            Self::Angelslim => angelslim,
            Self::Paper => Policy {
                unit: SmoothUnit::RoundLast,
                lag: false,
                zero_is_missing: false,
                boundaries: BoundaryRules {
                    connectors: BoundaryRules::connector_words(),
                    ..newlines
                },
                ..angelslim
            },
            Self::Default => Policy {
                unit: SmoothUnit::Token,
                // A starting point, not a tuned value: the released code's 0.1 per round forgets in
                // about ten rounds, 20 to 40 tokens; 16 reacts within one short paragraph.
                smoothing: Smoothing::EwmaTokens { time_constant: 16.0 },
                lag: false,
                scan_all: true,
                zero_is_missing: false,
                boundaries: BoundaryRules { blank_line: true, ..BoundaryRules::default() },
                ..angelslim
            },
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Profile {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.as_str() == text)
            .ok_or_else(|| ParseError::new("profile", text, "angelslim, paper or default"))
    }
}
