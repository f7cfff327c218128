//! Which model and which head, and loading them.

use std::path::PathBuf;
use std::sync::Arc;

use specexit_engine::{Engine, EngineOptions};
use specexit_kernels::Precision;
use specexit_model::head_file::{HEAD_WEIGHTS, HeadConfig, PROBE_ROWS};
use specexit_model::{DraftHead, Model, ModelSource, Weights};

use crate::failure::usage;
use crate::low::{HeadArgs, ModelArgs};

/// A target that can be loaded.
pub(crate) struct ModelChoice {
    pub(crate) source: ModelSource,
    pub(crate) threads: usize,
    pub(crate) precision: Precision,
}

impl ModelChoice {
    pub(crate) fn new(args: &ModelArgs) -> anyhow::Result<Self> {
        if args.threads == Some(0) {
            return usage("--threads is 0; at least one thread is needed");
        }
        Ok(Self {
            source: ModelSource::parse(&args.model)?,
            threads: args.threads.unwrap_or_else(all_threads),
            precision: if args.f32 { Precision::F32 } else { Precision::Bf16 },
        })
    }

    pub(crate) fn load(&self) -> anyhow::Result<Model> {
        Ok(Model::load(&self.source, self.threads, self.precision)?)
    }
}

fn all_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A draft head that can be loaded.
pub(crate) struct HeadChoice {
    pub(crate) dir: PathBuf,
    /// Whether it predicts signals; read off the file's header before anything large is loaded.
    pub(crate) has_probe: bool,
    allow_other_target: bool,
}

impl HeadChoice {
    pub(crate) fn new(args: &HeadArgs) -> anyhow::Result<Option<Self>> {
        let Some(dir) = &args.head else { return Ok(None) };
        let config = HeadConfig::open(dir)?;
        let weights = dir.join(HEAD_WEIGHTS);
        let fc = match weights.exists() {
            true => Weights::open_safetensors_file(&weights)?.shape("fc.weight"),
            // Loading says what is missing, and what to do.
            false => None,
        };
        let probe_rows = config.hidden_size + PROBE_ROWS;
        Ok(Some(Self {
            dir: dir.clone(),
            has_probe: fc.is_some_and(|shape| shape.first() == Some(&probe_rows)),
            allow_other_target: args.allow_other_target,
        }))
    }

    pub(crate) fn load(&self, model: &Model) -> anyhow::Result<DraftHead> {
        let head = DraftHead::load(&self.dir, &model.target)?;
        let recorded = head.config.specexit.as_ref().filter(|c| !c.target_hash.is_empty());
        if let Some(origin) = recorded
            && origin.target_hash != model.hash
            && !self.allow_other_target
        {
            anyhow::bail!(
                "the draft head in {} belongs to another model: it was trained on {} ({}), and this \
                 is {} ({}); name that model, or use the head anyway with --allow-other-target",
                self.dir.display(),
                origin.target_name,
                short(&origin.target_hash),
                model.name,
                short(&model.hash)
            );
        }
        Ok(head)
    }

    #[cfg(test)]
    pub(crate) fn for_tests(has_probe: bool) -> Self {
        Self { dir: "head".into(), has_probe, allow_other_target: false }
    }

    /// What to call it.
    pub(crate) fn name(&self) -> String {
        let whole = self.dir.canonicalize().unwrap_or_else(|_| self.dir.clone());
        whole.file_name().unwrap_or(self.dir.as_os_str()).to_string_lossy().into_owned()
    }
}

/// The beginning of a hash: enough to tell two apart.
fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

/// An engine on `model`, with the head if one is chosen, for `max_batch` sequences at once.
pub(crate) fn engine(
    model: &Model,
    head: Option<&HeadChoice>,
    max_batch: usize,
) -> anyhow::Result<Engine> {
    let head = head.map(|head| head.load(model)).transpose()?.map(Arc::new);
    let (target, tokenizer) = (Arc::clone(&model.target), Arc::clone(&model.tokenizer));
    let options = EngineOptions { max_batch, ..EngineOptions::default() };
    Ok(Engine::new(target, tokenizer, head, options)?)
}
