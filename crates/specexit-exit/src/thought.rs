//! The state of one sequence's thought, and the protocol by which a decoding loop drives it.
//!
//! # The protocol
//!
//! A round verifies drafted tokens and ends with an *accepted run* `c_0 … c_a` and the *recover
//! token* `next`. `c_0` is the token that the round before committed as its `next` (its row had not
//! been computed yet), so the tokens that are new in a round are `c_1 … c_a` and `next`; the signals
//! are those of `c_0 … c_a`, because a state that has seen `next` does not exist yet. Right after
//! prefill the run is empty and there is only `next`.
//!
//! [`Thought::commit`] is called once per round, with the outcome only: rejected drafts never reach
//! it, so the state is a function of committed tokens, and undoing a round is keeping a clone. Its
//! [`Verdict`] says how much of the run stays:
//!
//! - `force` is `None`: everything stays; `next` is the root of the next round.
//! - `force` is `Some(exit)`: the first `keep` tokens of the run stay, the rest of the run and
//!   `next` are dropped, and [`Thought::forced`] (the closing sentence and the end-of-thinking
//!   marker) follows. The caches keep `old length + keep` rows.
//!
//! Forced tokens are certain, so they are committed the moment the verdict is given: they are
//! counted, and the phase is [`Phase::Answer`] from then on, whence nothing can trigger while they
//! are fed. The loop then feeds them in one of two ways:
//!
//! - *as run tokens*: the next calls of `commit` have them at the front of `run` (all in one round,
//!   or spread over several, then with the next forced token as `next`). They are recognised and not
//!   counted again; their signals are ignored.
//! - *outside rounds*, like a prefill: [`Thought::take_forced`], feed them, sample, and go on with
//!   `commit(&[], &[], next)`.
//!
//! # A worked example
//!
//! Tokens by their text; the closing sentence is `Enough.`; the policy exits after `.\n\n`.
//!
//! | call | verdict | phase after | forced after |
//! |---|---|---|---|
//! | `commit([], [], "We")` (prefill) | keep 0 | thinking | |
//! | `commit(["We"," add"], s, " 2")` | keep 2 | thinking | |
//! | `commit([" 2",".\n\n","So"], s, " we")` | keep 2, force, token_index 4 | answer | `Enough.` `</think>` |
//! | `commit(["Enough.","</think>"], _, "The")` | keep 2 | answer | |
//! | `commit(["The"," sum"], _, " is")` | keep 2 | answer | |
//!
//! The output is `We| add| 2|.\n\n|Enough.|</think>|The| sum| is`, with 5 thinking tokens (the closing
//! sentence is one of them) and an exit at token_index 4.
//!
//! # What counts
//!
//! Thinking tokens are the committed tokens strictly inside the span, closing sentence included,
//! markers excluded. A token belongs where its first byte lies. The first tokens of a marker that
//! takes several are counted until the marker is complete (up to the budget), and then no longer.
//!
//! # The budget
//!
//! The number of thinking tokens never exceeds the budget, not by one, and not for a moment within a
//! marker spread over tokens: before a token is committed it is tried on a copy. The closing
//! sentence is reserved out of the budget; a budget smaller than the sentence drops the sentence.
//! If the token that would go over completes the end-of-thinking marker, the thought ends naturally.
//! If it only begins the marker (in the tokens of `close_ids`), it is let through, and should the
//! target not go on with the marker after all, the rest of the marker is forced, without the
//! sentence: a begun marker is completed rather than repeated.
//!
//! # At one place, several reasons
//!
//! The target's own end comes first: at a boundary directly followed by the end-of-thinking marker,
//! or by the first token of one that takes several, nothing is forced, and likewise where a loop is
//! found. Then signals, then loops, then the budget. Under a per-round unit the run as a whole comes first, as in SpecExit's released code: a
//! run that contains the end-of-thinking marker is not looked at. Under [`SmoothUnit::Token`] only
//! the very next token matters, because what lies behind it may or may not be in the run. A loop is
//! cut after the token that completes it, boundary or not, and under every unit: it is a matter of
//! the committed tokens alone.

use std::sync::Arc;

use crate::{
    TokenId,
    error::SettingError,
    exit::{Exit, ExitReason},
    loops::{LoopWatch, Loops},
    markers::Markers,
    policy::{Policy, SmoothUnit},
    signals::Signals,
    smoothing::Smoothers,
    span::{Phase, Span},
    stall::Climb,
    vocabulary::Vocabulary,
};

/// What ends a thought, for one request.
#[derive(Debug, Clone, PartialEq)]
pub struct ThoughtConfig {
    /// When signals end it; `None` for plain decoding and plain EAGLE-3.
    pub policy: Option<Policy>,
    /// The most thinking tokens there may be, closing sentence included; `None` for no limit.
    pub budget: Option<usize>,
    /// When it ends because it only repeats itself; `None` for never.
    pub loops: Option<Loops>,
    /// Tokens of the closing sentence, written before a forced end-of-thinking marker. May be
    /// empty; must not contain the marker itself.
    pub closing: Vec<TokenId>,
    /// The texts around the span.
    pub markers: Markers,
}

impl ThoughtConfig {
    /// Says what is wrong with the settings, if anything is.
    pub fn validate(&self) -> Result<(), SettingError> {
        self.policy.as_ref().map_or(Ok(()), Policy::validate)?;
        self.loops.as_ref().map_or(Ok(()), Loops::validate)?;
        self.markers.validate()
    }

    /// The closing sentence, or nothing when the budget has no room for it.
    #[must_use]
    pub fn closing_within_budget(&self) -> &[TokenId] {
        match self.budget {
            Some(budget) if budget < self.closing.len() => &[],
            _ => &self.closing,
        }
    }

    /// Thinking tokens the target may write itself: the budget less the closing sentence.
    #[must_use]
    pub fn own_limit(&self) -> usize {
        self.budget.map_or(usize::MAX, |budget| budget - self.closing_within_budget().len())
    }
}

/// What a round's outcome means for the thought.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Leading run tokens that stay; all of them when nothing is cut.
    pub keep: usize,
    /// `Some`: `next` is dropped, and [`Thought::forced`] follows the kept tokens.
    pub force: Option<Exit>,
}

/// The thought of one sequence. Only committed tokens change it; see the module's documentation.
#[derive(Debug, Clone)]
pub struct Thought {
    pub(crate) config: Arc<ThoughtConfig>,
    pub(crate) vocabulary: Arc<Vocabulary>,
    pub(crate) span: Span,
    smoothers: Option<Smoothers>,
    climb: Option<Climb>,
    watch: Option<LoopWatch>,
    /// Forced tokens that have been counted but not been fed yet.
    forced: Vec<TokenId>,
    /// The `next` of the last round: counted already when it comes back as `run[0]`.
    pub(crate) root: Option<TokenId>,
    exit: Option<Exit>,
}

impl PartialEq for Thought {
    /// Equal states under equal settings and the same vocabulary.
    fn eq(&self, other: &Self) -> bool {
        (Arc::ptr_eq(&self.vocabulary, &other.vocabulary) || self.vocabulary == other.vocabulary)
            && self.config == other.config
            && self.span == other.span
            && self.smoothers == other.smoothers
            && self.climb == other.climb
            && self.watch == other.watch
            && self.forced == other.forced
            && self.root == other.root
            && self.exit == other.exit
    }
}

/// One round seen as a whole, for the policies that smooth per round.
struct Round {
    /// The signals the round contributes, over this many thinking tokens.
    signals: Signals,
    tokens: usize,
    /// The run contains the end-of-thinking marker.
    closes: bool,
    /// A boundary of this run has been looked at.
    looked: bool,
}

impl Thought {
    /// The thought of a new sequence. `phase` is where the prompt left off: after a prompt that
    /// ends in the opening marker it is [`Phase::Thinking`].
    #[must_use]
    pub fn new(config: Arc<ThoughtConfig>, vocabulary: Arc<Vocabulary>, phase: Phase) -> Self {
        let smoothers = config.policy.as_ref().map(|policy| Smoothers::new(policy.smoothing));
        let climb = config.policy.as_ref().and_then(|policy| policy.stall).map(Climb::new);
        let watch = config.loops.map(LoopWatch::new);
        let exit = (phase == Phase::Answer).then_some(Exit {
            reason: ExitReason::NoThinking,
            token_index: 0,
            signals: Signals::MISSING,
        });
        Self {
            config,
            vocabulary,
            span: Span::new(phase),
            smoothers,
            climb,
            watch,
            forced: Vec::new(),
            root: None,
            exit,
        }
    }

    /// Takes the outcome of one round: the accepted run, the signals of its tokens (a missing tail
    /// counts as [`Signals::MISSING`]), and the recover token.
    pub fn commit(&mut self, run: &[TokenId], signals: &[Signals], next: TokenId) -> Verdict {
        let known = usize::from(self.root.is_some() && !run.is_empty());
        debug_assert!(
            known == 0 || run.first() == self.root.as_ref(),
            "the run must start with the token the last round committed as its recover token"
        );
        let signal = |i: usize| signals.get(i).copied().unwrap_or(Signals::MISSING);
        let mut round = self.survey(run, known, &signal);
        if !self.has_policy(|p| p.lag) {
            self.smooth_round(&round);
        }
        for (i, &token) in run.iter().enumerate() {
            if i >= known {
                if !self.admits(token) {
                    return self.cut(i, ExitReason::Budget);
                }
                self.accept(token);
            }
            let following = run.get(i + 1).copied().unwrap_or(next);
            if let Some((reason, signals)) = self.decide(signal(i), following, &mut round) {
                return self.cut_by_policy(i + 1, reason, signals);
            }
            if self.loops() && !self.closes_with(following) {
                return self.cut(i + 1, ExitReason::Loop);
            }
        }
        if !self.admits(next) {
            return self.cut(run.len(), ExitReason::Budget);
        }
        if self.has_policy(|p| p.lag) {
            self.smooth_round(&round);
        }
        self.accept(next);
        self.root = Some(next);
        Verdict { keep: run.len(), force: None }
    }

    /// Ends the thought from outside, after the last committed token (the root of the next round,
    /// which stays): [`Thought::forced`] follows it. Nothing happens outside a span.
    pub fn force(&mut self, reason: ExitReason) -> Option<Exit> {
        if self.phase() != Phase::Thinking {
            return None;
        }
        Some(self.close_by_force(reason, self.smoothed()))
    }

    /// Generation has ended for the reason `why` ([`ExitReason::Length`] or [`ExitReason::Stop`]).
    /// A thought that is still open gets that reason; one that never opened gets
    /// [`ExitReason::NoThinking`]. A stop token that was committed inside the span counts as a
    /// thinking token.
    pub fn finish(&mut self, why: ExitReason) -> Option<&Exit> {
        if self.exit.is_none() {
            let reason = if self.phase() == Phase::Before { ExitReason::NoThinking } else { why };
            self.exit =
                Some(Exit { reason, token_index: self.span.generated, signals: self.smoothed() });
        }
        self.exit.as_ref()
    }

    /// Forced tokens that are still to be fed.
    #[must_use]
    pub fn forced(&self) -> &[TokenId] {
        &self.forced
    }

    /// Takes the forced tokens out, for a loop that feeds them outside rounds.
    pub fn take_forced(&mut self) -> Vec<TokenId> {
        std::mem::take(&mut self.forced)
    }

    /// What the next token belongs to; [`Phase::Answer`] as soon as an exit is decided.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.span.phase
    }

    /// Thinking tokens so far, forced ones included; never more than the budget.
    #[must_use]
    pub fn thinking_tokens(&self) -> usize {
        let counted = self.span.thinking_tokens();
        match self.phase() {
            // What begins the marker beyond the limit will be a marker for certain.
            Phase::Thinking => counted.min(self.config.own_limit()),
            _ => counted,
        }
    }

    /// Generated tokens so far, forced ones included.
    #[must_use]
    pub fn generated_tokens(&self) -> usize {
        self.span.generated
    }

    /// The smoothed signals; NaN where there is no value yet.
    #[must_use]
    pub fn smoothed(&self) -> Signals {
        self.smoothers.as_ref().map_or(Signals::MISSING, Smoothers::value)
    }

    /// How the thought ended, once it has.
    #[must_use]
    pub fn exit(&self) -> Option<&Exit> {
        self.exit.as_ref()
    }

    /// The settings it runs under.
    #[must_use]
    pub fn config(&self) -> &ThoughtConfig {
        &self.config
    }

    fn has_policy(&self, test: impl Fn(&Policy) -> bool) -> bool {
        self.config.policy.as_ref().is_some_and(test)
    }

    /// What a per-round policy has to know of the whole run before it looks at any part of it.
    fn survey(&self, run: &[TokenId], known: usize, signal: &impl Fn(usize) -> Signals) -> Round {
        let mut round =
            Round { signals: Signals::MISSING, tokens: 0, closes: false, looked: false };
        let unit = match &self.config.policy {
            Some(policy) if policy.unit != SmoothUnit::Token => policy.unit,
            _ => return round,
        };
        if self.phase() == Phase::Answer {
            return round;
        }
        let mut ahead = self.span.clone();
        let mut inside = Vec::with_capacity(run.len());
        for (i, &token) in run.iter().enumerate() {
            if i >= known {
                ahead.push(token, &self.config.markers, &self.vocabulary);
            }
            if ahead.last.thinking {
                inside.push(signal(i));
            }
        }
        round.closes = ahead.phase == Phase::Answer;
        round.tokens = inside.len();
        round.signals = match unit {
            SmoothUnit::RoundLast => inside.last().copied().unwrap_or_default(),
            _ => mean(&inside),
        };
        round
    }

    /// One smoothing step per round; nothing under [`SmoothUnit::Token`], and nothing once the
    /// thought is over.
    fn smooth_round(&mut self, round: &Round) {
        if let Some(smoothers) = &mut self.smoothers
            && round.tokens > 0
            && !round.closes
        {
            smoothers.push(round.signals, round.tokens);
        }
    }

    /// Whether `token` may be committed without passing the budget.
    fn admits(&self, token: TokenId) -> bool {
        let limit = self.config.own_limit();
        if limit == usize::MAX || self.phase() == Phase::Answer {
            return true;
        }
        let after = self.after(token);
        after.settled <= limit
            && (after.thinking_tokens() <= limit
                || after.begun_marker(&self.config.markers.close_ids).is_some())
    }

    /// The span as it would be after `token`.
    fn after(&self, token: TokenId) -> Span {
        let mut span = self.span.clone();
        span.push(token, &self.config.markers, &self.vocabulary);
        span
    }

    /// Commits one token, unless it is a forced one, which is committed already.
    fn accept(&mut self, token: TokenId) {
        if !self.forced.is_empty() {
            let expected = self.forced.remove(0);
            debug_assert_eq!(expected, token, "forced tokens must be fed first and in order");
            return;
        }
        if let Some(token_index) = self.span.push(token, &self.config.markers, &self.vocabulary) {
            let signals = self.smoothed();
            self.exit = Some(Exit { reason: ExitReason::Natural, token_index, signals });
        }
        if let Some(watch) = &mut self.watch
            && self.span.last.thinking
        {
            watch.push(token);
        }
    }

    /// Whether the last accepted token is a thinking token that completes a loop.
    fn loops(&self) -> bool {
        self.span.last.thinking && self.watch.as_ref().is_some_and(LoopWatch::found)
    }

    /// Whether the target closes the thought with `following`, or begins to, so that nothing is to be forced.
    fn closes_with(&self, following: TokenId) -> bool {
        let after = self.after(following);
        after.phase != Phase::Thinking
            || after.begun_marker(&self.config.markers.close_ids).is_some()
    }

    /// Whether the policy ends the thought after the last accepted token: why, and at which signals.
    fn decide(
        &mut self,
        signals: Signals,
        following: TokenId,
        round: &mut Round,
    ) -> Option<(ExitReason, Signals)> {
        let config = Arc::clone(&self.config);
        let policy = config.policy.as_ref()?;
        let last = self.span.last;
        if !last.thinking {
            return None;
        }
        let smoothers = self.smoothers.as_mut()?;
        let before = smoothers.value();
        if policy.unit == SmoothUnit::Token {
            smoothers.push(signals, 1);
        }
        let value = if policy.lag { before } else { smoothers.value() };
        let thinking = self.thinking_tokens();
        if let Some(climb) = &mut self.climb {
            climb.see(value.progress, thinking);
        }
        let boundary = last.boundary || self.vocabulary.table().is_connector(following);
        if !boundary || round.closes || (round.looked && !policy.scan_all) {
            return None;
        }
        round.looked = true;
        let flat = self.climb.as_ref().map_or(0, |climb| climb.flat(thinking));
        if let Some(reason) = policy.ends(thinking, self.span.generated, &value, flat)
            // The target is closing the thought by itself right here: leave it to it.
            && !self.closes_with(following)
        {
            return Some((reason, value));
        }
        if let Some(smoothers) = &mut self.smoothers {
            smoothers.boundary_checked();
        }
        None
    }

    fn cut(&mut self, keep: usize, reason: ExitReason) -> Verdict {
        self.root = None;
        Verdict { keep, force: Some(self.close_by_force(reason, self.smoothed())) }
    }

    fn cut_by_policy(&mut self, keep: usize, reason: ExitReason, signals: Signals) -> Verdict {
        self.root = None;
        Verdict { keep, force: Some(self.close_by_force(reason, signals)) }
    }

    /// Closes the span with the closing sentence and the marker, or with the rest of a begun marker.
    fn close_by_force(&mut self, reason: ExitReason, signals: Signals) -> Exit {
        let exit = Exit { reason, token_index: self.span.generated, signals };
        let config = Arc::clone(&self.config);
        let close_ids = &config.markers.close_ids;
        if let Some(begun) = self.span.begun_marker(close_ids) {
            self.forced = close_ids[begun..].to_vec();
            self.span.force(self.forced.len(), 0, true);
        } else {
            let closing = config.closing_within_budget();
            self.forced = [closing, close_ids].concat();
            self.span.force(self.forced.len(), closing.len(), false);
        }
        self.exit = Some(exit);
        exit
    }
}

/// The mean of each signal over the values that are there.
fn mean(values: &[Signals]) -> Signals {
    let field = |get: fn(&Signals) -> f32| {
        let present = values.iter().map(get).filter(|v| v.is_finite());
        let (sum, count) = present.fold((0.0, 0_u32), |(s, n), v| (s + f64::from(v), n + 1));
        if count == 0 { f32::NAN } else { (sum / f64::from(count)) as f32 }
    };
    Signals {
        confidence: field(|s| s.confidence),
        progress: field(|s| s.progress),
        remaining: field(|s| s.remaining),
    }
}
