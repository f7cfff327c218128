//! Which model and which head, and loading them.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use specexit_engine::{Engine, EngineOptions, Policy};
use specexit_eval::calibrate::{CALIBRATION_FILE, Calibration};
use specexit_exit::{Profile, Thresholds};
use specexit_kernels::{CacheNumbers, DEFAULT_ARITHMETIC, Kernels, Precision};
use specexit_model::head_file::{HEAD_CONFIG, HEAD_WEIGHTS, HeadConfig};
use specexit_model::probe::has_probe;
use specexit_model::{DraftHead, Embedded, Model, ModelSource, Weights};

use crate::assets;
use crate::failure::usage;
use crate::low::{HeadArgs, ModelArgs};

/// The file in a head's folder that says when its signals end a thought.
const HEAD_POLICY: &str = "policy.json";

/// A target that can be loaded.
pub(crate) struct ModelChoice {
    pub(crate) source: ModelSource,
    pub(crate) threads: usize,
    pub(crate) precision: Precision,
    /// In which numbers keys and values are kept.
    pub(crate) cache: CacheNumbers,
}

impl ModelChoice {
    pub(crate) fn new(args: &ModelArgs) -> anyhow::Result<Self> {
        if args.threads == Some(0) {
            return usage("--threads is 0; at least one thread is needed");
        }
        let precision = if args.f32 { Precision::F32 } else { Precision::Bf16 };
        Ok(Self {
            source: source(&args.model)?,
            threads: args.threads.unwrap_or_else(all_threads),
            precision,
            cache: args.kv_cache.unwrap_or(precision.into()),
        })
    }

    /// The model in the program itself, with all threads.
    pub(crate) fn reference(threads: Option<usize>) -> Self {
        Self {
            source: ModelSource::Embedded(assets::REASONER),
            threads: threads.unwrap_or_else(all_threads),
            precision: Precision::Bf16,
            cache: CacheNumbers::Bf16,
        }
    }

    pub(crate) fn load(&self) -> anyhow::Result<Model> {
        let kernels = Kernels::new(self.threads, self.precision).with_cache(self.cache);
        Ok(Model::load_on(&self.source, kernels)?)
    }
}

/// The model that a user names; `reference` is the one in the program (a folder of that name is
/// `./reference`).
pub(crate) fn source(given: &str) -> anyhow::Result<ModelSource> {
    match given {
        assets::REFERENCE => Ok(ModelSource::Embedded(assets::REASONER)),
        path => Ok(ModelSource::parse(path)?),
    }
}

fn all_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Where a draft head is.
enum HeadSource {
    Folder(PathBuf),
    Embedded(Embedded),
}

/// A draft head that can be loaded.
pub(crate) struct HeadChoice {
    source: HeadSource,
    /// Whether it predicts signals; read off the file's header before anything large is loaded.
    pub(crate) has_probe: bool,
    /// When its signals end a thought, where the head says so.
    pub(crate) policy: Option<Policy>,
    allow_other_target: bool,
    /// Hash of the model that a promise in use was made for, and what that computed in.
    promised_for: OnceCell<(String, Option<String>)>,
    /// It came with the model instead of being named: where nothing drafts, it is left alone.
    implied: bool,
}

impl HeadChoice {
    /// The head that the flags name; without a flag the reference model has its own.
    pub(crate) fn new(args: &HeadArgs, model: &ModelChoice) -> anyhow::Result<Option<Self>> {
        let embedded = matches!(model.source, ModelSource::Embedded(_));
        match &args.head {
            Some(dir) if dir == Path::new(assets::REFERENCE) => {
                Self::embedded(args.allow_other_target).map(Some)
            }
            Some(dir) => Self::folder(dir, args.allow_other_target).map(Some),
            None if embedded => Ok(Some(Self { implied: true, ..Self::embedded(false)? })),
            None => Ok(None),
        }
    }

    /// Whether it is of use where `drafts` says that something drafts; a head that was named always
    /// counts, so that naming it in vain is told.
    pub(crate) fn counts(&self, drafts: bool) -> bool {
        drafts || !self.implied
    }

    /// The head in the program itself.
    pub(crate) fn reference() -> anyhow::Result<Self> {
        Self::embedded(false)
    }

    fn embedded(allow_other_target: bool) -> anyhow::Result<Self> {
        let files = assets::HEAD;
        let path = |file: &str| files.path().join(file);
        let config = HeadConfig::from_json(files.text(HEAD_CONFIG)?, &path(HEAD_CONFIG))?;
        let weights = Weights::from_embedded(&path(HEAD_WEIGHTS), files.file(HEAD_WEIGHTS)?)?;
        let policy = policy(files.text(HEAD_POLICY)?, &path(HEAD_POLICY))?;
        Ok(Self {
            has_probe: has_probe(&config, |name| weights.shape(name)),
            source: HeadSource::Embedded(files),
            policy: Some(policy),
            allow_other_target,
            promised_for: OnceCell::new(),
            implied: false,
        })
    }

    fn folder(dir: &Path, allow_other_target: bool) -> anyhow::Result<Self> {
        let config = HeadConfig::open(dir)?;
        let weights = dir.join(HEAD_WEIGHTS);
        let has_probe = match weights.exists() {
            true => {
                let weights = Weights::open_safetensors_file(&weights)?;
                has_probe(&config, |name| weights.shape(name))
            }
            // Loading says what is missing, and what to do.
            false => false,
        };
        let path = dir.join(HEAD_POLICY);
        let policy = match std::fs::read_to_string(&path) {
            Ok(text) => Some(policy(&text, &path)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => anyhow::bail!("cannot read {}: {error}", path.display()),
        };
        let source = HeadSource::Folder(dir.to_owned());
        let promised_for = OnceCell::new();
        Ok(Self { source, has_probe, policy, allow_other_target, promised_for, implied: false })
    }

    /// What was promised about it, if anything was.
    pub(crate) fn calibration(&self) -> Option<anyhow::Result<Calibration>> {
        let path = self.path().join(CALIBRATION_FILE);
        let text = match &self.source {
            HeadSource::Folder(_) => match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
                Err(error) => {
                    let problem = anyhow::anyhow!("cannot read {}: {error}", path.display());
                    return Some(Err(problem));
                }
            },
            HeadSource::Embedded(files) => files.text(CALIBRATION_FILE).ok()?.to_owned(),
        };
        Some(Calibration::parse(&text, &path).map_err(Into::into))
    }

    /// The policy that was calibrated for `risk`.
    pub(crate) fn promised(&self, risk: f64) -> anyhow::Result<Policy> {
        let Some(calibration) = self.calibration().transpose()? else {
            anyhow::bail!(
                "--risk needs a calibration, and {} is not there; run `specexit calibrate`",
                self.path().join(CALIBRATION_FILE).display()
            );
        };
        let promise = calibration.promise(risk, &self.hash()?)?;
        let made_for = (calibration.model.hash.clone(), calibration.arithmetic.clone());
        let _ = self.promised_for.set(made_for);
        let never = || Policy { thresholds: Thresholds::OFF, ..Profile::Default.policy() };
        Ok(promise.policy.clone().unwrap_or_else(never))
    }

    pub(crate) fn load(&self, model: &Model) -> anyhow::Result<DraftHead> {
        let head = match &self.source {
            HeadSource::Folder(dir) => DraftHead::load(dir, &model.target)?,
            HeadSource::Embedded(files) => DraftHead::load_embedded(files, &model.target)?,
        };
        let recorded = head.config.specexit.as_ref().filter(|c| !c.target_hash.is_empty());
        if let Some(origin) = recorded
            && origin.target_hash != model.hash
            && !self.allow_other_target
        {
            anyhow::bail!(
                "the draft head in {} belongs to another model: it was trained on {} ({}), and this \
                 is {} ({}); name that model, or use the head anyway with --allow-other-target",
                self.path().display(),
                origin.target_name,
                short(&origin.target_hash),
                model.name,
                short(&model.hash)
            );
        }
        let Some((calibrated, arithmetic)) = self.promised_for.get() else { return Ok(head) };
        if *calibrated != model.hash {
            anyhow::bail!(
                "--risk: the calibration of the head in {} is about another model ({}), and this is {} \
                 ({}); calibrate the head on this one",
                self.path().display(),
                short(calibrated),
                model.name,
                short(&model.hash)
            );
        }
        let ours = model.target.kernels().arithmetic();
        if *arithmetic != ours {
            let name = |arithmetic: &Option<String>| {
                arithmetic.clone().unwrap_or(DEFAULT_ARITHMETIC.to_owned())
            };
            anyhow::bail!(
                "--risk: the head in {} was calibrated in {}, and this is {}; calibrate it with the same \
                 --f32 and --kv-cache",
                self.path().display(),
                name(arithmetic),
                name(&ours)
            );
        }
        Ok(head)
    }

    /// Identity of its weights.
    pub(crate) fn hash(&self) -> anyhow::Result<String> {
        let path = self.path().join(HEAD_WEIGHTS);
        Ok(match &self.source {
            HeadSource::Folder(_) => Weights::open_safetensors_file(&path)?.hash(),
            HeadSource::Embedded(files) => {
                Weights::from_embedded(&path, files.file(HEAD_WEIGHTS)?)?.hash()
            }
        })
    }

    #[cfg(test)]
    pub(crate) fn for_tests(has_probe: bool) -> Self {
        let source = HeadSource::Folder("head".into());
        let promised_for = OnceCell::new();
        let (policy, allow_other_target) = (None, false);
        Self { source, has_probe, policy, allow_other_target, promised_for, implied: false }
    }

    /// The folder that messages name.
    pub(crate) fn path(&self) -> PathBuf {
        match &self.source {
            HeadSource::Folder(dir) => dir.clone(),
            HeadSource::Embedded(files) => files.path(),
        }
    }

    /// Its folder; a head inside the program has none.
    pub(crate) fn saved_in(&self) -> Option<&Path> {
        match &self.source {
            HeadSource::Folder(dir) => Some(dir),
            HeadSource::Embedded(_) => None,
        }
    }

    /// What to call it.
    pub(crate) fn name(&self) -> String {
        match &self.source {
            HeadSource::Folder(dir) => {
                let whole = dir.canonicalize().unwrap_or_else(|_| dir.clone());
                whole.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned()
            }
            HeadSource::Embedded(files) => files.name.to_owned(),
        }
    }
}

fn policy(text: &str, path: &Path) -> anyhow::Result<Policy> {
    let policy: Policy = serde_json::from_str(text)
        .map_err(|e| anyhow::anyhow!("{} is not an exit policy: {e}", path.display()))?;
    policy.validate().map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
    Ok(policy)
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
    engine_with(model, head, EngineOptions { max_batch, ..EngineOptions::default() })
}

/// The same under other limits.
pub(crate) fn engine_with(
    model: &Model,
    head: Option<&HeadChoice>,
    options: EngineOptions,
) -> anyhow::Result<Engine> {
    let head = head.map(|head| head.load(model)).transpose()?.map(Arc::new);
    let (target, tokenizer) = (Arc::clone(&model.target), Arc::clone(&model.tokenizer));
    Ok(Engine::new(target, tokenizer, head, options)?)
}
