//! Budget forcing: how an output grows segment by segment.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use specexit_engine::{ExitReason, Finish};
use specexit_exit::{Markers, Phase, TokenId};
use specexit_model::{ModelText, Tokenizer};
use std::sync::Arc;

use super::prompt::Prompt;
use super::record::{Dropped, Span, Wait};
use super::{CollectRules, WaitCount};
use crate::completer::{Ask, Completion};
use crate::error::{Result, TrainError};
use crate::provenance::derived_seed;

/// An output under construction.
#[derive(Clone, Debug)]
pub(crate) struct Growing {
    pub(crate) prompt: Prompt,
    /// Everything after the prompt so far.
    pub(crate) token_ids: Vec<TokenId>,
    /// One per token, `None` for forced ones; empty unless asked for.
    pub(crate) logprobs: Vec<Option<f32>>,
    pub(crate) waits: Vec<Wait>,
    pub(crate) waits_wanted: usize,
    pub(crate) forced_close: bool,
    /// Where the next token belongs.
    phase: Phase,
    /// Seed of the sample.
    seed: u64,
    /// Asks made so far.
    segments: usize,
}

/// What comes after a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another segment.
    Segment,
    /// The output is complete.
    Finished(Finish),
}

/// The rules of continuing.
pub(crate) struct Forcing {
    rules: CollectRules,
    tokenizer: Arc<Tokenizer>,
    /// Most tokens, the prompt included.
    context: usize,
    stop_ids: Vec<TokenId>,
    close_ids: Vec<TokenId>,
    token_bytes: Vec<Vec<u8>>,
}

impl Growing {
    pub(crate) fn new(prompt: Prompt, seed: u64, rules: &CollectRules) -> Self {
        let waits_wanted = match rules.wait_count {
            WaitCount::Fixed => rules.waits,
            WaitCount::Drawn => draw(rules.waits, derived_seed(seed, &["waits"])),
        };
        Self {
            phase: prompt.phase,
            prompt,
            token_ids: Vec::new(),
            logprobs: Vec::new(),
            waits: Vec::new(),
            waits_wanted,
            forced_close: false,
            seed,
            segments: 0,
        }
    }

    fn waits_left(&self) -> usize {
        self.waits_wanted - self.waits.len()
    }
}

/// A number from 0 to `most`, w with a weight of 1 / (w + 1).
fn draw(most: usize, seed: u64) -> usize {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let uniform = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let total: f64 = (0..=most).map(|w| 1.0 / (w + 1) as f64).sum();
    let mut left = uniform * total;
    for w in 0..most {
        left -= 1.0 / (w + 1) as f64;
        if left < 0.0 {
            return w;
        }
    }
    most
}

impl Forcing {
    pub(crate) fn new(
        rules: &CollectRules,
        model: &ModelText,
        markers: &Markers,
        context: usize,
    ) -> Result<Self> {
        let close_ids = model.tokenizer.encode(&rules.close_text, false)?;
        let marker = String::from_utf8_lossy(&markers.close);
        if (rules.force_close || rules.max_thinking_tokens.is_some())
            && !rules.close_text.contains(&*marker)
        {
            return Err(TrainError::option(
                "close_text",
                format!("= {:?}; it must contain the end marker {marker}", rules.close_text),
            ));
        }
        if rules.waits > 0 && rules.wait_text.trim().is_empty() {
            return Err(TrainError::option("wait_text", "is empty; say what thoughts go on with"));
        }
        if rules.max_thinking_tokens == Some(0) {
            return Err(TrainError::option(
                "max_thinking_tokens",
                "= 0; leave thinking off instead",
            ));
        }
        Ok(Self {
            rules: rules.clone(),
            tokenizer: Arc::clone(&model.tokenizer),
            context,
            stop_ids: model.config.eos_token_ids.clone(),
            close_ids,
            token_bytes: model.tokenizer.token_bytes(model.config.vocab_size),
        })
    }

    /// Most tokens after the prompt as long as the output stays in its present phase.
    fn limit(&self, growing: &Growing) -> usize {
        let thought = match growing.phase {
            Phase::Answer => None,
            Phase::Before | Phase::Thinking => self.rules.max_thinking_tokens,
        };
        thought.unwrap_or(usize::MAX).min(self.rules.max_new_tokens)
    }

    /// What the next segment asks for.
    pub(crate) fn ask(&self, growing: &Growing) -> Ask {
        let rules = &self.rules;
        let prompt = [&growing.prompt.ids[..], &growing.token_ids].concat();
        let room = self.limit(growing).saturating_sub(growing.token_ids.len()).max(1);
        Ask {
            prompt,
            prefix: None,
            phase: growing.phase,
            // While waits are left, a close must not run on into the answer.
            stop_at_close: growing.phase != Phase::Answer && growing.waits_left() > 0,
            sampling: rules.sampling(derived_seed(growing.seed, &[&growing.segments.to_string()])),
            max_new_tokens: room,
            record_logprobs: rules.record_logprobs,
        }
    }

    /// Takes a finished segment and says what comes next.
    pub(crate) fn advance(&self, growing: &mut Growing, output: &Completion) -> Result<Next> {
        growing.segments += 1;
        if self.overthinks(growing, output) {
            self.take(growing, output, output.token_ids.len());
            self.close(growing);
            return Ok(if self.is_full(growing) {
                Next::Finished(Finish::Length)
            } else {
                Next::Segment
            });
        }
        let reason = output.exit.map(|exit| exit.reason);
        let tokens = growing.token_ids.len() + output.token_ids.len();
        let room = self.context.saturating_sub(growing.prompt.ids.len());
        let thinks = reason == Some(ExitReason::Length);
        let more = tokens < room.min(self.rules.max_new_tokens);
        if output.finish == Finish::Length && more && !thinks {
            // The thought is over, so its limit no longer counts.
            self.take(growing, output, output.token_ids.len());
            growing.phase = Phase::Answer;
            return Ok(Next::Segment);
        }
        let mut kept = output.token_ids.len();
        let ended = match output.finish {
            Finish::Length => None,
            Finish::ThoughtClosed => {
                kept = output.exit.map_or(kept, |exit| exit.token_index);
                Some(Dropped::Close)
            }
            // The engine says `Stop` as the exit's reason only when the thought was still open.
            Finish::Stop if reason == Some(ExitReason::Stop) => {
                let last = output.token_ids.last();
                kept -= usize::from(last.is_some_and(|t| self.stop_ids.contains(t)));
                Some(Dropped::Stop)
            }
            Finish::Stop => None,
        };
        let forces = match ended {
            Some(Dropped::Close) => true,
            Some(Dropped::Stop) => growing.waits_left() > 0 || self.rules.force_close,
            None => false,
        };
        if !forces {
            kept = output.token_ids.len();
        }
        self.take(growing, output, kept);
        let Some(dropped) = ended.filter(|_| forces) else {
            return Ok(Next::Finished(output.finish));
        };
        if growing.waits_left() > 0 {
            self.wait(growing, dropped)?;
        } else {
            self.close(growing);
        }
        Ok(if self.is_full(growing) { Next::Finished(Finish::Length) } else { Next::Segment })
    }

    /// Whether nothing more fits, by the rules or into the context.
    fn is_full(&self, growing: &Growing) -> bool {
        let tokens = growing.token_ids.len();
        tokens >= self.rules.max_new_tokens || growing.prompt.ids.len() + tokens >= self.context
    }

    /// Whether the thought is still open where `max_thinking_tokens` ends it.
    fn overthinks(&self, growing: &Growing, output: &Completion) -> bool {
        let tokens = growing.token_ids.len() + output.token_ids.len();
        let thinking = output.exit.is_some_and(|exit| exit.reason == ExitReason::Length);
        self.rules.max_thinking_tokens.is_some_and(|most| tokens >= most) && thinking
    }

    fn take(&self, growing: &mut Growing, output: &Completion, kept: usize) {
        growing.token_ids.extend_from_slice(&output.token_ids[..kept]);
        if self.rules.record_logprobs {
            let found = output.logprobs.iter().take(kept);
            growing.logprobs.extend(found.map(|p| p.is_finite().then_some(*p)));
            growing.logprobs.resize(growing.token_ids.len(), None);
        }
    }

    fn force(&self, growing: &mut Growing, tokens: &[TokenId]) -> Span {
        let start = growing.token_ids.len();
        growing.token_ids.extend_from_slice(tokens);
        if self.rules.record_logprobs {
            growing.logprobs.resize(growing.token_ids.len(), None);
        }
        Span { start, end: growing.token_ids.len() }
    }

    /// Puts a paragraph break and the wait sentence behind the thought.
    ///
    /// The break is spelled together with the thought's last word, as the target itself would: most
    /// tokenizers have one token for a full stop with two newlines.
    fn wait(&self, growing: &mut Growing, dropped: Dropped) -> Result<()> {
        growing.phase = Phase::Thinking;
        // A thought of an earlier segment may not be taken apart below its last wait.
        let floor = growing.waits.last().map_or(0, |wait| wait.forced.end);
        while growing.token_ids.len() > floor && self.is_blank(growing.token_ids.last()) {
            growing.token_ids.pop();
        }
        let last = growing.token_ids.last().copied().filter(|_| growing.token_ids.len() > floor);
        let word = last.and_then(|t| std::str::from_utf8(self.bytes(t)).ok());
        // An empty thought begins with the wait; so does one whose last token is half a character.
        let text = match (word, growing.token_ids.is_empty()) {
            (Some(word), _) => {
                growing.token_ids.pop();
                format!("{}\n\n{}", word.trim_end(), self.rules.wait_text)
            }
            (None, true) => self.rules.wait_text.clone(),
            (None, false) => format!("\n\n{}", self.rules.wait_text),
        };
        growing.logprobs.truncate(growing.token_ids.len());
        let tokens = self.tokenizer.encode(&text, false)?;
        let forced = self.force(growing, &tokens);
        growing.waits.push(Wait { forced, dropped });
        Ok(())
    }

    fn close(&self, growing: &mut Growing) {
        self.force(growing, &self.close_ids);
        growing.forced_close = true;
        growing.phase = Phase::Answer;
    }

    fn bytes(&self, token: TokenId) -> &[u8] {
        self.token_bytes.get(token as usize).map_or(&[], Vec::as_slice)
    }

    fn is_blank(&self, token: Option<&TokenId>) -> bool {
        token.is_some_and(|&t| self.bytes(t).iter().all(u8::is_ascii_whitespace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_waits_are_heavy_tailed_and_reproducible() {
        let draws: Vec<usize> = (0..4000).map(|seed| draw(6, seed)).collect();
        assert_eq!(draws[5], draw(6, 5));
        let share = |w: usize| draws.iter().filter(|d| **d == w).count() as f64 / 4000.0;
        let total: f64 = (1..=7).map(|i| 1.0 / f64::from(i)).sum();
        for w in 0..=6 {
            let expected = 1.0 / (w + 1) as f64 / total;
            assert!((share(w) - expected).abs() < 0.03, "{w}: {} {expected}", share(w));
        }
        assert_eq!(draw(0, 3), 0);
    }
}
