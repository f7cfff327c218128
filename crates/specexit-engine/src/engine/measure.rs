//! What forwards cost on this machine, measured once.

use std::time::{Duration, Instant};

use specexit_model::{
    DraftHead, DraftRows, DraftWorkspace, KvCache, LogitRows, Target, TargetRows, Workspace,
};

use super::Engine;
use crate::depth::DepthCosts;
use crate::error::Result;

/// Rows of the target's forwards that are measured.
const ROWS: [usize; 13] = [1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64];
/// Positions that these attend to.
const BEFORE: usize = 16;
/// Repetitions at most, and the time after which there are no more of them.
const REPETITIONS: usize = 25;
const ENOUGH: Duration = Duration::from_millis(15);
/// Counts that are measured however long it takes, and the time after which no more are.
const LEAST_COUNTS: usize = 6;
const LONG: Duration = Duration::from_millis(600);

impl Engine {
    /// Measures what [`crate::Request::adaptive`] needs to know, in about a second or, for large models, the
    /// time of some 40 rows. Nothing is measured without a head.
    ///
    /// # Errors
    /// As [`specexit_model::Target::forward`].
    pub fn measure_depth_costs(&mut self) -> Result<()> {
        let Some(head) = &self.head else { return Ok(()) };
        let target = measure_target(&self.target, &mut self.workspace)?;
        let draft = measure_draft(head, self.options.max_batch.max(1))?;
        self.depth_costs = Some(DepthCosts::new(target, draft)?);
        Ok(())
    }

    /// Sets what [`Engine::measure_depth_costs`] would measure.
    pub fn set_depth_costs(&mut self, costs: DepthCosts) {
        self.depth_costs = Some(costs);
    }

    /// What was measured or set.
    pub fn depth_costs(&self) -> Option<&DepthCosts> {
        self.depth_costs.as_ref()
    }
}

fn measure_target(target: &Target, workspace: &mut Workspace) -> Result<Vec<(usize, f64)>> {
    let before = BEFORE.min(target.config.max_position_embeddings / 2);
    let room = target.config.max_position_embeddings - before;
    let mut cache = target.new_cache();
    let mut forward = |rows: usize, logits: LogitRows, kept: usize| -> Result<()> {
        let tokens = vec![0; rows];
        target
            .forward(&mut [TargetRows { tokens: &tokens, cache: &mut cache, logits }], workspace)?;
        cache.truncate(kept);
        Ok(())
    };
    forward(before.max(1), LogitRows::None, before)?;
    measure(ROWS.into_iter().filter(|rows| *rows <= room), |rows| {
        forward(rows, LogitRows::All, before)
    })
}

fn measure_draft(head: &DraftHead, max_batch: usize) -> Result<Vec<(usize, f64)>> {
    let mut workspace = DraftWorkspace::default();
    let residual = vec![0.0; head.config.hidden_size];
    let mut caches: Vec<KvCache> = (0..max_batch).map(|_| head.new_cache()).collect();
    let counts = ROWS.into_iter().filter(|count| *count < max_batch).chain([max_batch]);
    measure(counts, |count| {
        let rows = caches[..count].iter_mut().map(|cache| {
            let logits = LogitRows::Last;
            DraftRows { tokens: &[0], residual: &residual, cache, logits }
        });
        head.forward(&mut rows.collect::<Vec<_>>(), &mut workspace)?;
        caches.iter_mut().for_each(|cache| cache.truncate(0));
        Ok(())
    })
}

/// Seconds that `once` takes for each of `counts`, in their order: the shortest of several times, since other
/// work on the machine only ever adds to them, and none below the one before it, since more work never takes
/// less time but by chance. The last counts are left out where time runs short.
fn measure(
    mut counts: impl Iterator<Item = usize>,
    mut once: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<(usize, f64)>> {
    let begun = Instant::now();
    let mut measured = Vec::with_capacity(ROWS.len());
    let mut least = 1e-9f64;
    while (measured.len() < LEAST_COUNTS || begun.elapsed() < LONG)
        && let Some(count) = counts.next()
    {
        if measured.is_empty() {
            // What is done once only, such as reading weights from the disk, is not timed.
            once(count)?;
        }
        let (mut shortest, started) = (f64::INFINITY, Instant::now());
        for repetition in 0..REPETITIONS {
            if repetition > 0 && started.elapsed() >= ENOUGH {
                break;
            }
            let start = Instant::now();
            once(count)?;
            shortest = shortest.min(start.elapsed().as_secs_f64());
        }
        least = least.max(shortest);
        measured.push((count, least));
    }
    Ok(measured)
}
