//! Timing the shapes of one target, repetition by repetition.

use std::collections::BTreeMap;
use std::time::Instant;

use specexit_engine::EngineOptions;
use specexit_model::{KvCache, LogitRows, PREFILL_CHUNK, Target, TargetRows, Workspace};

use super::{Floor, Shape, Speed, tokens};
use crate::error::{EvalError, Result};
use crate::statistics::median;

/// What to measure.
#[derive(Clone, Debug)]
pub struct SpeedOptions {
    /// Tokens in each cache before anything but a prefill is timed.
    pub context: usize,
    /// Tokens decoded one by one per repetition.
    pub tokens: usize,
    /// Row counts of a verification whose cost is compared with one row's.
    pub rows: Vec<usize>,
    /// Lengths of prompts; those that the model's context does not hold are left out.
    pub prefill: Vec<usize>,
    /// Sequences that decode together.
    pub batch: usize,
    /// Repetitions; medians are reported.
    pub repetitions: usize,
}

impl Default for SpeedOptions {
    fn default() -> Self {
        Self {
            context: 128,
            tokens: 64,
            rows: vec![2, 4, 8, 16],
            prefill: vec![128, 512],
            batch: 8,
            repetitions: 5,
        }
    }
}

impl SpeedOptions {
    /// Refuses what would measure nothing, or what no forward of `limit` positions holds.
    fn check(&self, limit: usize) -> Result<()> {
        let bad = |problem: String| Err(EvalError::Nothing(problem));
        if self.tokens == 0 || self.repetitions == 0 || self.batch == 0 {
            return bad("tokens, repetitions and sequences must be at least 1".into());
        }
        if self.rows.contains(&0) || self.prefill.contains(&0) {
            return bad("rows and prompts must be at least 1".into());
        }
        let most = self.rows.iter().copied().max().unwrap_or(1).max(self.tokens);
        if self.context + most > limit {
            return bad(format!(
                "a context of {} and {most} more tokens do not fit the model's {limit}",
                self.context
            ));
        }
        let whole = EngineOptions::default().max_rows;
        match self.prefill.iter().find(|&&prompt| prompt > whole) {
            Some(prompt) => bad(format!(
                "a prompt of {prompt} tokens is not read in one forward; at most {whole} are"
            )),
            None => Ok(()),
        }
    }
}

/// Measures repetition by repetition, so that a caller can run something else in between.
pub struct SpeedMeter<'a> {
    target: &'a Target,
    options: SpeedOptions,
    /// One for each sequence that decodes with others; the first also decodes alone.
    caches: Vec<KvCache>,
    prompt_cache: KvCache,
    workspace: Workspace,
    /// Seconds of one forward of each shape, one number a repetition.
    seconds: BTreeMap<Shape, Vec<f64>>,
}

impl<'a> SpeedMeter<'a> {
    /// Fills the contexts.
    ///
    /// # Errors
    /// Options that measure nothing or do not fit the model's context.
    pub fn new(target: &'a Target, options: SpeedOptions) -> Result<Self> {
        options.check(target.config.max_position_embeddings)?;
        let mut meter = Self {
            target,
            caches: Vec::new(),
            prompt_cache: target.new_cache(),
            workspace: Workspace::default(),
            seconds: BTreeMap::new(),
            options,
        };
        let mut cache = target.new_cache();
        for chunk in tokens(target, meter.options.context).chunks(PREFILL_CHUNK) {
            let rows = TargetRows { tokens: chunk, cache: &mut cache, logits: LogitRows::None };
            target.forward(&mut [rows], &mut meter.workspace)?;
        }
        meter.caches = (0..meter.options.batch).map(|_| cache.fork(cache.len())).collect();
        for (cache, positions) in meter.caches.iter_mut().zip(positions(&meter.options)) {
            cache.reserve(positions);
        }
        meter.prompt_cache.reserve(meter.prompts().max().unwrap_or(0));
        Ok(meter)
    }

    /// Runs every shape once without keeping its time, so that nothing is timed cold.
    ///
    /// # Errors
    /// As [`Target::forward`].
    pub fn warm_up(&mut self) -> Result<()> {
        let kept = std::mem::take(&mut self.seconds);
        self.repeat()?;
        self.seconds = kept;
        Ok(())
    }

    /// One repetition: prompts, single steps, then a few forwards of every other shape.
    ///
    /// # Errors
    /// As [`Target::forward`].
    pub fn repeat(&mut self) -> Result<()> {
        for prompt in self.prompts().collect::<Vec<_>>() {
            let seconds = self.prefill(prompt)?;
            self.saw(Shape::Prefill(prompt), seconds);
        }
        let seconds = self.decode()?;
        self.saw(Shape::Decode, seconds);
        let verify = self.options.rows.iter().chain([&1]).map(|&rows| Shape::Verify(rows));
        let shapes: Vec<Shape> = verify.chain([Shape::Batch(self.options.batch)]).collect();
        let mut times: BTreeMap<Shape, Vec<f64>> = BTreeMap::new();
        // Rounds of all shapes in turn, so that a busy moment of the machine hits all alike.
        for _ in 0..FORWARDS {
            for &shape in &shapes {
                let seconds = match shape {
                    Shape::Batch(_) => self.batch()?,
                    _ => self.verify(shape.rows())?,
                };
                times.entry(shape).or_default().push(seconds);
            }
        }
        for (shape, times) in times {
            self.saw(shape, median(&times));
        }
        Ok(())
    }

    /// The medians over all repetitions so far, beside the floor.
    #[must_use]
    pub fn result(&self, floor: &Floor) -> Speed {
        Speed::new(&self.seconds, self.target.weight_bytes() as f64, floor)
    }

    /// Tokens per second of each repetition.
    #[must_use]
    pub fn tok_s(&self, shape: Shape) -> Vec<f64> {
        let seconds = self.seconds.get(&shape).map_or(&[][..], Vec::as_slice);
        seconds.iter().map(|seconds| shape.rows() as f64 / seconds).collect()
    }

    /// Bytes of keys and values that its caches have room for.
    #[must_use]
    pub fn kv_bytes(&self) -> usize {
        let prompt = self.prompts().max().unwrap_or(0);
        let positions = positions(&self.options).sum::<usize>() + prompt;
        self.target.cache_bytes(positions)
    }

    /// Lengths of prompts that the model's context holds.
    fn prompts(&self) -> impl Iterator<Item = usize> {
        let limit = self.target.config.max_position_embeddings;
        self.options.prefill.iter().copied().filter(move |&prompt| prompt <= limit)
    }

    fn saw(&mut self, shape: Shape, seconds: f64) {
        self.seconds.entry(shape).or_default().push(seconds);
    }

    fn prefill(&mut self, prompt: usize) -> Result<f64> {
        let ids = tokens(self.target, prompt);
        let start = Instant::now();
        let (cache, logits) = (&mut self.prompt_cache, LogitRows::Last);
        self.target
            .forward(&mut [TargetRows { tokens: &ids, cache, logits }], &mut self.workspace)?;
        let seconds = start.elapsed().as_secs_f64();
        self.prompt_cache.truncate(0);
        Ok(seconds)
    }

    fn decode(&mut self) -> Result<f64> {
        let ids = tokens(self.target, self.options.tokens);
        let start = Instant::now();
        for id in &ids {
            self.forward(std::slice::from_ref(id))?;
        }
        let seconds = start.elapsed().as_secs_f64();
        self.caches[0].truncate(self.options.context);
        Ok(seconds / ids.len() as f64)
    }

    fn verify(&mut self, rows: usize) -> Result<f64> {
        let ids = tokens(self.target, rows);
        let start = Instant::now();
        self.forward(&ids)?;
        let seconds = start.elapsed().as_secs_f64();
        self.caches[0].truncate(self.options.context);
        Ok(seconds)
    }

    fn batch(&mut self) -> Result<f64> {
        let ids = tokens(self.target, self.caches.len());
        let start = Instant::now();
        let rows = self.caches.iter_mut().zip(&ids).map(|(cache, id)| TargetRows {
            tokens: std::slice::from_ref(id),
            cache,
            logits: LogitRows::All,
        });
        self.target.forward(&mut rows.collect::<Vec<_>>(), &mut self.workspace)?;
        let seconds = start.elapsed().as_secs_f64();
        self.caches.iter_mut().for_each(|cache| cache.truncate(self.options.context));
        Ok(seconds)
    }

    /// Rows of the first sequence, with all their logits.
    fn forward(&mut self, tokens: &[u32]) -> Result<()> {
        let (cache, logits) = (&mut self.caches[0], LogitRows::All);
        let rows = TargetRows { tokens, cache, logits };
        Ok(self.target.forward(&mut [rows], &mut self.workspace)?)
    }
}

/// Forwards of every shape but the long ones in one repetition.
const FORWARDS: usize = 8;

/// Positions that each sequence comes to hold.
fn positions(options: &SpeedOptions) -> impl Iterator<Item = usize> {
    let rows = options.rows.iter().copied().max().unwrap_or(1);
    let alone = options.context + options.tokens.max(rows);
    let together = options.context + 1;
    std::iter::once(alone).chain(std::iter::repeat_n(together, options.batch - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_measure_nothing_or_do_not_fit_are_refused() {
        let of = |change: fn(&mut SpeedOptions)| {
            let mut options = SpeedOptions::default();
            change(&mut options);
            options.check(512).map_err(|error| error.to_string())
        };
        assert_eq!(of(|_| {}), Ok(()));
        for change in [
            (|o| o.tokens = 0) as fn(&mut SpeedOptions),
            |o| o.batch = 0,
            |o| o.repetitions = 0,
            |o| o.rows = vec![2, 0],
            |o| o.prefill = vec![0],
        ] {
            assert!(of(change).is_err_and(|error| error.contains("at least 1")));
        }
        let long = of(|o| o.context = 449).unwrap_err();
        assert!(long.contains("a context of 449 and 64 more tokens"), "{long}");
        let long = of(|o| o.prefill = vec![513]).unwrap_err();
        assert!(long.contains("a prompt of 513 tokens"), "{long}");
    }

    #[test]
    fn each_sequence_holds_its_context_and_what_it_decodes() {
        let options = SpeedOptions { batch: 3, tokens: 8, ..SpeedOptions::default() };
        assert_eq!(positions(&options).collect::<Vec<_>>(), [144, 129, 129]);
    }
}
