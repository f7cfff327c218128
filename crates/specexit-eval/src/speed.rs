//! How fast a target decodes, and what verifying several rows costs beside decoding one.
//!
//! Speculation pays only if a forward over a handful of rows costs little more than over one; the
//! ratio is the number that bounds every speed-up, so it is measured directly.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;
use specexit_model::{KvCache, LogitRows, PREFILL_CHUNK, Target, TargetRows, Workspace};

use crate::error::{EvalError, Result};
use crate::statistics::median;

/// What to measure.
#[derive(Clone, Debug)]
pub struct SpeedOptions {
    /// Tokens in the cache before anything is timed.
    pub context: usize,
    /// Tokens decoded one by one per repetition.
    pub tokens: usize,
    /// Row counts whose cost is compared with one row's.
    pub rows: Vec<usize>,
    /// Repetitions; medians are reported.
    pub repetitions: usize,
}

impl Default for SpeedOptions {
    fn default() -> Self {
        Self { context: 128, tokens: 64, rows: vec![2, 4, 8], repetitions: 5 }
    }
}

/// The medians.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Speed {
    /// Tokens per second of plain decoding, one sequence.
    pub decode_tok_s: f64,
    /// Seconds of one forward over so many rows, logits of every row included.
    pub forward_s: BTreeMap<usize, f64>,
    /// Cost of so many rows in units of one row's, each repetition compared with itself.
    pub verify_cost: BTreeMap<usize, f64>,
    /// Billions of weight bytes that decoding reads per second.
    pub weight_gb_s: f64,
}

/// Measures repetition by repetition, so that a caller can run something else in between.
pub struct SpeedMeter<'a> {
    target: &'a Target,
    options: SpeedOptions,
    cache: KvCache,
    workspace: Workspace,
    decode_s: Vec<f64>,
    forward_s: BTreeMap<usize, Vec<f64>>,
}

impl<'a> SpeedMeter<'a> {
    /// Fills the context, and runs every shape once so that nothing is timed cold.
    ///
    /// # Errors
    /// Options that measure nothing or do not fit the model's context.
    pub fn new(target: &'a Target, options: SpeedOptions) -> Result<Self> {
        let most = options.rows.iter().copied().max().unwrap_or(1).max(options.tokens);
        let limit = target.config.max_position_embeddings;
        if options.context + most > limit {
            return Err(EvalError::Nothing(format!(
                "a context of {} and {most} more tokens do not fit the model's {limit}",
                options.context
            )));
        }
        if options.tokens == 0 || options.repetitions == 0 || options.rows.contains(&0) {
            return Err(EvalError::Nothing(
                "tokens, repetitions and rows must be at least 1".into(),
            ));
        }
        let mut meter = Self {
            target,
            cache: target.new_cache(),
            workspace: Workspace::default(),
            decode_s: Vec::new(),
            forward_s: options.rows.iter().chain([&1]).map(|&rows| (rows, Vec::new())).collect(),
            options,
        };
        for chunk in tokens(target, meter.options.context).chunks(PREFILL_CHUNK) {
            meter.forward(chunk, LogitRows::None)?;
        }
        meter.repeat()?;
        meter.decode_s.clear();
        meter.forward_s.values_mut().for_each(Vec::clear);
        Ok(meter)
    }

    /// One repetition: `tokens` single steps, then a few forwards of every row count.
    ///
    /// # Errors
    /// As [`Target::forward`].
    pub fn repeat(&mut self) -> Result<()> {
        let ids = tokens(self.target, self.options.tokens);
        let start = Instant::now();
        for id in &ids {
            self.forward(std::slice::from_ref(id), LogitRows::All)?;
        }
        self.decode_s.push(start.elapsed().as_secs_f64());
        self.cache.truncate(self.options.context);
        let counts: Vec<usize> = self.forward_s.keys().copied().collect();
        let mut times: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        // Rounds of all counts in turn, so that a busy moment of the machine hits all alike.
        for _ in 0..FORWARDS {
            for &rows in &counts {
                let ids = tokens(self.target, rows);
                let start = Instant::now();
                self.forward(&ids, LogitRows::All)?;
                times.entry(rows).or_default().push(start.elapsed().as_secs_f64());
                self.cache.truncate(self.options.context);
            }
        }
        for (rows, times) in times {
            self.forward_s.entry(rows).or_default().push(median(&times));
        }
        Ok(())
    }

    /// The medians over all repetitions so far.
    #[must_use]
    pub fn result(&self) -> Speed {
        let per_token = median(&self.decode_s) / self.options.tokens as f64;
        let one = &self.forward_s[&1];
        let cost = |times: &Vec<f64>| {
            median(&times.iter().zip(one).map(|(many, one)| many / one).collect::<Vec<_>>())
        };
        let compared = self.forward_s.iter().filter(|(rows, _)| **rows != 1);
        Speed {
            decode_tok_s: 1.0 / per_token,
            forward_s: self.forward_s.iter().map(|(&rows, times)| (rows, median(times))).collect(),
            verify_cost: compared.map(|(&rows, times)| (rows, cost(times))).collect(),
            weight_gb_s: self.target.weight_bytes() as f64 / per_token / 1e9,
        }
    }

    fn forward(&mut self, tokens: &[u32], logits: LogitRows) -> Result<()> {
        let rows = TargetRows { tokens, cache: &mut self.cache, logits };
        Ok(self.target.forward(&mut [rows], &mut self.workspace)?)
    }
}

/// Forwards of every row count in one repetition.
const FORWARDS: usize = 8;

/// So many different token ids: what is computed does not depend on which they are.
fn tokens(target: &Target, count: usize) -> Vec<u32> {
    let vocab = target.config.vocab_size as u32;
    (0..count as u32).map(|i| i.wrapping_mul(7_919) % vocab).collect()
}
