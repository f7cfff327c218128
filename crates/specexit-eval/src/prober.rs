//! A thought with trials beside it, on the engine.

use std::collections::VecDeque;
use std::time::Instant;

use specexit_engine::{
    Engine, Event, Exit, ExitReason, Method, Output, Phase, Request, RequestId, Signals, TokenId,
};
use specexit_exit::{BoundaryRules, Policy, Profile, Thought};
use specexit_model::Tokenizer;

use crate::error::Result;
use crate::grading::Judge;
use crate::probing::{Probing, Rule, Trial};
use crate::replay::answer_confidence;

/// An answer that was probed for.
pub(crate) struct Probed {
    /// As if one request had written it; its rounds are all forwards of the target.
    pub(crate) output: Output,
    /// Tokens of trials that did not become the answer.
    pub(crate) probe_tokens: usize,
}

/// Serves `request`, whose thought `rule` may end.
///
/// The thought goes on while a trial is written, in the same steps: that favours these methods over stopping
/// for each trial, as their authors do. Trials are looked at in order, one at a time, so that under greedy
/// decoding the outcome is that of the replay.
///
/// # Errors
/// As [`Engine::submit`] and [`Engine::step`].
pub(crate) fn run_probing(
    engine: &mut Engine,
    tokenizer: &Tokenizer,
    request: Request,
    rule: Rule,
    boundaries: &BoundaryRules,
    judge: &Judge,
) -> Result<Probed> {
    let mut prober = Prober::begin(engine, request, rule, boundaries)?;
    loop {
        prober.try_next(engine)?;
        if prober.trial.is_none()
            && let Some(output) = prober.whole.take()
        {
            return Ok(prober.probed(output));
        }
        prober.rounds += 1;
        for event in engine.step()? {
            match event {
                Event::Tokens { id, tokens, .. } if id == prober.main => prober.think(tokens),
                Event::Tokens { .. } | Event::Signals { .. } => {}
                Event::Done(output) if output.id == prober.main => prober.whole = Some(*output),
                Event::Done(output) => {
                    let Some(trial) = prober.trial.take_if(|trial| trial.id == output.id) else {
                        continue;
                    };
                    let text = tokenizer.decode(&output.token_ids, true)?;
                    let answer = judge.answer(&text);
                    let seen = Trial {
                        answer: answer.as_deref(),
                        confidence: answer_confidence(&output),
                        entropy: output.first_entropy,
                    };
                    if prober.probing.ends(&seen) {
                        return prober.exit(engine, &trial, *output);
                    }
                    prober.probe_tokens += output.token_ids.len();
                }
            }
        }
    }
}

/// A thought and its trials.
struct Prober {
    request: Request,
    rule: Rule,
    probing: Probing,
    /// The thought up to the last token that it has written.
    thought: Thought,
    /// What closes it.
    forced: Vec<TokenId>,
    /// Most tokens of an output.
    most: usize,
    main: RequestId,
    /// What it has written.
    tokens: Vec<TokenId>,
    /// Boundaries that wait for their trial.
    cuts: VecDeque<Cut>,
    /// The trial in flight.
    trial: Option<Running>,
    /// The main request, once it has ended.
    whole: Option<Output>,
    started: Instant,
    rounds: usize,
    probe_tokens: usize,
}

/// A boundary.
struct Cut {
    /// Generated tokens that stay.
    at: usize,
    thinking_tokens: usize,
}

struct Running {
    id: RequestId,
    cut: Cut,
    /// When it was asked for, in seconds since the beginning.
    asked: f64,
}

impl Prober {
    fn begin(
        engine: &mut Engine,
        request: Request,
        rule: Rule,
        boundaries: &BoundaryRules,
    ) -> Result<Self> {
        let started = Instant::now();
        // Its policy never decides: the thought only says where its boundaries are.
        let policy = Policy { boundaries: boundaries.clone(), ..Profile::Default.policy() };
        let asked = Request { policy: Some(policy), thinking_budget: None, ..request.clone() };
        let thought = engine.thought(&asked)?;
        let config = thought.config();
        let forced = [&config.closing[..], &config.markers.close_ids].concat();
        let context = engine.target().config.max_position_embeddings;
        let most = request.max_new_tokens.min(context.saturating_sub(request.prompt.len()));
        let main = engine.submit(request.clone())?;
        Ok(Self {
            request,
            rule,
            probing: Probing::new(rule),
            thought,
            forced,
            most,
            main,
            tokens: Vec::new(),
            cuts: VecDeque::new(),
            trial: None,
            whole: None,
            started,
            rounds: 0,
            probe_tokens: 0,
        })
    }

    /// Takes what the thought has written, and finds its boundaries.
    fn think(&mut self, tokens: Vec<TokenId>) {
        let closing = self.thought.config().closing.len();
        for next in tokens {
            let last = self.tokens.last().map_or(&[][..], std::slice::from_ref);
            let found = self.thought.ahead(last, next);
            let cut = found.first().filter(|ahead| ahead.boundary && !ahead.closing);
            self.cuts.extend(cut.map(|ahead| Cut {
                at: self.tokens.len(),
                thinking_tokens: ahead.thinking_tokens + closing,
            }));
            self.thought.commit(last, &[], next);
            self.tokens.push(next);
        }
    }

    /// Begins the trial of the next boundary, if none is in flight.
    fn try_next(&mut self, engine: &mut Engine) -> Result<()> {
        while self.trial.is_none()
            && let Some(cut) = self.cuts.pop_front()
        {
            let room = self.most.saturating_sub(cut.at + self.forced.len());
            if room == 0 {
                continue;
            }
            let mut request = self.closed(cut.at, room);
            if self.rule.one_token() {
                request.max_new_tokens = 1;
            }
            if self.whole.is_none() {
                request.prefix = Some(engine.branch(self.main)?);
            }
            let asked = self.started.elapsed().as_secs_f64();
            self.trial = Some(Running { id: engine.submit(request)?, cut, asked });
        }
        Ok(())
    }

    /// The request that goes on after the thought is closed.
    fn closed(&self, at: usize, room: usize) -> Request {
        Request {
            prompt: [&self.request.prompt[..], &self.tokens[..at], &self.forced].concat(),
            phase: Phase::Answer,
            method: Method::Plain,
            policy: None,
            thinking_budget: None,
            max_new_tokens: room,
            record_logprobs: true,
            ..self.request.clone()
        }
    }

    /// The thought ends at the boundary of `trial`, which wrote `tried`.
    fn exit(mut self, engine: &mut Engine, trial: &Running, tried: Output) -> Result<Probed> {
        let at = trial.cut.at;
        // It may have ended in this very step.
        let _ = engine.cancel(self.main);
        let (mut answer, mut asked) = (tried, trial.asked);
        if self.rule.one_token() {
            self.probe_tokens += 1;
            asked = self.started.elapsed().as_secs_f64();
            let room = self.most.saturating_sub(at + self.forced.len());
            answer = engine.run(self.closed(at, room))?;
            self.rounds += answer.rounds + 1;
        }
        let signals = Signals::MISSING;
        Ok(self.probed(Output {
            token_ids: [&self.tokens[..at], &self.forced, &answer.token_ids].concat(),
            thinking_tokens: trial.cut.thinking_tokens,
            exit: Some(Exit { reason: ExitReason::Probe, token_index: at, signals }),
            first_answer_s: answer.first_answer_s.map(|first| asked + first),
            logprobs: Vec::new(),
            top_logprobs: Vec::new(),
            signals: Vec::new(),
            drafted: 0,
            accepted: 0,
            offered_at: Vec::new(),
            accepted_at: Vec::new(),
            ..answer
        }))
    }

    /// What came of it all.
    fn probed(&self, output: Output) -> Probed {
        let wall_s = self.started.elapsed().as_secs_f64();
        let output = Output { wall_s, rounds: self.rounds, ..output };
        Probed { output, probe_tokens: self.probe_tokens }
    }
}
