//! What a draft head adds to a round: drafting, and reading signals and deciding by them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use specexit_engine::{Engine, Method, Phase, Policy, Request, Signals};
use specexit_exit::Thought;
use specexit_kernels::argmax;
use specexit_model::{
    DraftHead, DraftRows, DraftWorkspace, KvCache, LogitRows, PREFILL_CHUNK, Target, TargetRows,
    Workspace,
};

use super::tokens;
use crate::error::{EvalError, Result};
use crate::statistics::median;

/// Tokens drafted in a round (k).
pub const DRAFTED: usize = 4;

/// Rows of a round: the root and what was drafted.
const ROWS: usize = DRAFTED + 1;

/// Rounds in one repetition.
const ROUNDS: usize = 8;

/// Medians over rounds in which the whole draft is accepted, the dearest kind: the draft layer reads every row of
/// the round before, and every token of the run has signals.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeadCost {
    /// Seconds of drafting four tokens over those of the target's forward over five rows.
    pub draft4_share: f64,
    /// Seconds of reading the signals of five tokens and of deciding by them, over those of the whole round;
    /// `None` without a signal probe.
    pub signals_share: Option<f64>,
    /// Milliseconds of drafting four tokens.
    pub draft4_ms: f64,
    /// Milliseconds of the target's forward over five rows with all their logits.
    pub verify5_ms: f64,
    /// Milliseconds of the signals and the decision.
    pub signals_ms: Option<f64>,
}

/// Makes rounds like the engine's, part by part.
pub struct HeadMeter {
    target: Arc<Target>,
    head: Arc<DraftHead>,
    /// A thought that is thinking; `None` where the head has no probe.
    thought: Option<Thought>,
    /// Tokens in the caches, and the root.
    tokens: Vec<u32>,
    cache: KvCache,
    draft_cache: KvCache,
    workspace: Workspace,
    drafting: DraftWorkspace,
    /// Tapped states of the last rows, which the draft layer has not read.
    pending: Vec<f32>,
    residual: Vec<f32>,
    rounds: Vec<Round>,
}

/// Seconds of the parts of a round.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    draft: f64,
    verify: f64,
    signals: f64,
}

impl HeadMeter {
    /// Fills caches with `context` tokens; `policy` is what decides by the signals.
    ///
    /// # Errors
    /// An engine without a head, a context too short for a round or too long for the model, or what
    /// [`Target::forward`] refuses.
    pub fn new(engine: &mut Engine, context: usize, policy: Policy) -> Result<Self> {
        let target = Arc::clone(engine.target());
        let Some(head) = engine.head().cloned() else {
            return Err(EvalError::Nothing("drafting is measured with a draft head".into()));
        };
        let limit = target.config.max_position_embeddings;
        if context < ROWS || context + ROWS > limit {
            return Err(EvalError::Nothing(format!(
                "a context of {context} is not measured with rounds of {ROWS} rows; from {ROWS} on and with \
                 them up to the model's {limit} is"
            )));
        }
        let mut tokens = tokens(&target, context + 1);
        let thought = match head.has_probe() {
            true => Some(thinking(engine, policy, &mut tokens)?),
            false => None,
        };
        let mut meter = Self {
            cache: target.new_cache(),
            draft_cache: head.new_cache(),
            target,
            head,
            thought,
            tokens,
            workspace: Workspace::default(),
            drafting: DraftWorkspace::default(),
            pending: Vec::new(),
            residual: Vec::new(),
            rounds: Vec::new(),
        };
        meter.fill()?;
        Ok(meter)
    }

    /// A few rounds.
    ///
    /// # Errors
    /// As [`Target::forward`] and [`DraftHead::forward`].
    pub fn repeat(&mut self) -> Result<()> {
        for _ in 0..ROUNDS {
            let (drafts, draft) = timed(|| self.draft())?;
            let (next, verify) = timed(|| self.verify(&drafts))?;
            let thought = self.thought.clone();
            let signals = match thought {
                Some(thought) => timed(|| self.decide(thought, &drafts, next))?.1,
                None => Duration::ZERO,
            };
            // Nothing is kept of a round, so that all are alike.
            self.cache.truncate(self.tokens.len() - 1);
            self.draft_cache.truncate(self.tokens.len() - 1 - ROWS);
            let [draft, verify, signals] = [draft, verify, signals].map(|d| d.as_secs_f64());
            self.rounds.push(Round { draft, verify, signals });
        }
        Ok(())
    }

    /// Makes a few rounds without keeping their times.
    ///
    /// # Errors
    /// As [`HeadMeter::repeat`].
    pub fn warm_up(&mut self) -> Result<()> {
        let kept = std::mem::take(&mut self.rounds);
        self.repeat()?;
        self.rounds = kept;
        Ok(())
    }

    /// The medians over all rounds so far.
    #[must_use]
    pub fn result(&self) -> HeadCost {
        let mut cost = HeadCost::of(&self.rounds);
        if self.thought.is_none() {
            (cost.signals_share, cost.signals_ms) = (None, None);
        }
        cost
    }

    /// Bytes of weights that drafting reads.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.head.weight_bytes()
    }

    /// Bytes of keys and values that it holds.
    #[must_use]
    pub fn kv_bytes(&self) -> usize {
        let positions = self.tokens.len() - 1 + ROWS;
        self.target.cache_bytes(positions) + self.head.cache_bytes(positions)
    }

    /// Reads the context: the target all of it, the draft layer all but the rows that a round finds pending.
    fn fill(&mut self) -> Result<()> {
        let context = self.tokens.len() - 1;
        self.cache.reserve(context + ROWS);
        self.draft_cache.reserve(context + ROWS);
        let read = context - ROWS;
        for chunk in (0..read).step_by(PREFILL_CHUNK).chain([read]) {
            let end = if chunk < read { read.min(chunk + PREFILL_CHUNK) } else { context };
            let (tokens, cache) = (&self.tokens[chunk..end], &mut self.cache);
            let rows = TargetRows { tokens, cache, logits: LogitRows::None };
            self.target.forward(&mut [rows], &mut self.workspace)?;
            self.pending.clear();
            for row in 0..end - chunk {
                self.pending.extend_from_slice(self.workspace.taps(row));
            }
            if chunk < read {
                self.read_pending(chunk + 1..end + 1, LogitRows::None)?;
            }
        }
        Ok(())
    }

    /// Reads the pending states, each with the token after it.
    fn read_pending(&mut self, after: std::ops::Range<usize>, logits: LogitRows) -> Result<()> {
        self.head.fuse(&self.pending, &mut self.residual);
        let rows = DraftRows {
            tokens: &self.tokens[after],
            residual: &self.residual,
            cache: &mut self.draft_cache,
            logits,
        };
        Ok(self.head.forward(&mut [rows], &mut self.drafting)?)
    }

    fn draft(&mut self) -> Result<[u32; DRAFTED]> {
        let mut drafts = [0; DRAFTED];
        let end = self.tokens.len();
        self.read_pending(end - ROWS..end, LogitRows::Last)?;
        let mut last = ROWS - 1;
        for i in 0..DRAFTED {
            if i > 0 {
                self.residual.clear();
                self.residual.extend_from_slice(self.drafting.hidden(last));
                let rows = DraftRows {
                    tokens: &drafts[i - 1..i],
                    residual: &self.residual,
                    cache: &mut self.draft_cache,
                    logits: LogitRows::Last,
                };
                self.head.forward(&mut [rows], &mut self.drafting)?;
                last = 0;
            }
            drafts[i] = self.head.target_id(argmax(self.drafting.logits(0)));
        }
        Ok(drafts)
    }

    /// The target's forward, and the token that it puts after the drafts.
    fn verify(&mut self, drafts: &[u32; DRAFTED]) -> Result<u32> {
        let rows = self.run(drafts);
        let (cache, logits) = (&mut self.cache, LogitRows::All);
        self.target
            .forward(&mut [TargetRows { tokens: &rows, cache, logits }], &mut self.workspace)?;
        let found: [usize; ROWS] = std::array::from_fn(|row| argmax(self.workspace.logits(row)));
        Ok(found[DRAFTED] as u32)
    }

    /// Signals of every token of the run, and what the thought makes of them.
    fn decide(&mut self, mut thought: Thought, drafts: &[u32; DRAFTED], next: u32) -> Result<()> {
        let mut signals = [Signals::MISSING; ROWS];
        if self.head.probe_reads_draft() {
            // As in the engine: the rows of the run are read now instead of in the next round. That of the root was
            // read when the round drafted.
            self.draft_cache.truncate(self.tokens.len() - 1);
            let width = self.pending.len() / ROWS;
            let mut taps = Vec::with_capacity(DRAFTED * width);
            (0..DRAFTED).for_each(|row| taps.extend_from_slice(self.workspace.taps(row)));
            self.head.fuse(&taps, &mut self.residual);
            let rows = DraftRows {
                tokens: drafts,
                residual: &self.residual,
                cache: &mut self.draft_cache,
                logits: LogitRows::None,
            };
            self.head.forward(&mut [rows], &mut self.drafting)?;
            for (row, signals) in signals[1..].iter_mut().enumerate() {
                let logits = self.head.draft_signal_logits(self.drafting.hidden(row));
                *signals = logits.map_or(Signals::MISSING, Signals::from_logits);
            }
        } else {
            for (row, signals) in signals.iter_mut().enumerate() {
                let logits = self.head.signal_logits(self.workspace.taps(row));
                *signals = logits.map_or(Signals::MISSING, Signals::from_logits);
            }
        }
        std::hint::black_box(thought.commit(&self.run(drafts), &signals, next));
        Ok(())
    }

    /// Root and drafts.
    fn run(&self, drafts: &[u32; DRAFTED]) -> [u32; ROWS] {
        let root = self.tokens[self.tokens.len() - 1];
        std::array::from_fn(|i| if i == 0 { root } else { drafts[i - 1] })
    }
}

impl HeadCost {
    fn of(rounds: &[Round]) -> Self {
        let of = |part: fn(&Round) -> f64| median(&rounds.iter().map(part).collect::<Vec<_>>());
        Self {
            draft4_share: of(|round| round.draft / round.verify),
            signals_share: Some(of(|round| {
                round.signals / (round.draft + round.verify + round.signals)
            })),
            draft4_ms: 1e3 * of(|round| round.draft),
            verify5_ms: 1e3 * of(|round| round.verify),
            signals_ms: Some(1e3 * of(|round| round.signals)),
        }
    }
}

/// A thought that `tokens` are in, the last as the root of the next round. A token that would close it is replaced
/// by the one before.
fn thinking(engine: &mut Engine, policy: Policy, tokens: &mut [u32]) -> Result<Thought> {
    let mut request = Request::new(vec![0], 1);
    request.phase = Phase::Thinking;
    request.method = Method::SpecExit;
    request.policy = Some(policy);
    let mut thought = engine.thought(&request)?;
    for i in 0..tokens.len() {
        let mut with = thought.clone();
        with.commit(&[], &[], tokens[i]);
        if with.phase() != Phase::Thinking && i > 0 {
            tokens[i] = tokens[i - 1];
            with = thought;
            with.commit(&[], &[], tokens[i]);
        }
        thought = with;
    }
    Ok(thought)
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let start = Instant::now();
    let done = work()?;
    Ok((done, start.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_round_that_they_were_timed_in() {
        let round = |slow: f64| Round { draft: slow, verify: 8.0 * slow, signals: slow };
        let cost = HeadCost::of(&[round(1.0), round(2.0), round(50.0)]);
        assert_eq!((cost.draft4_share, cost.signals_share), (0.125, Some(0.1)));
        assert_eq!((cost.draft4_ms, cost.verify5_ms), (2e3, 16e3));
        assert_eq!(cost.signals_ms, Some(2e3));
    }
}
