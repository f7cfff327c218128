//! A draft head on disk: `config.json` and `model.safetensors` in native EAGLE-3 naming.
//!
//! A signal probe of three rows travels inside `fc.weight`: a plain head has `[H, 3 H_t]`, such a head
//! `[H + 3, 3 H_t]`, the last rows being confidence, progress and remaining length (the layout of
//! AngelSlim's released inference code). The two are told apart by shape alone. Any other probe lies beside
//! a plain `fc.weight` in tensors of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::bf16;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use crate::error::{ModelError, Result};
use crate::probe::{PROBE_ROWS, PROBE_TENSORS, Positions, Probe, has_probe};
use crate::weights::Weights;

/// Name of the weights file inside a head's folder.
pub const HEAD_WEIGHTS: &str = "model.safetensors";
/// Name of the config file inside a head's folder.
pub const HEAD_CONFIG: &str = "config.json";

/// `config.json` of a draft head: AngelSlim's and SafeAILab's keys, and ours under `specexit`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadConfig {
    /// Class name that servers look for.
    #[serde(default = "default_architectures")]
    pub architectures: Vec<String>,
    /// Always a Llama layer.
    #[serde(default = "default_model_type")]
    pub model_type: String,
    /// Width H of the head's layer.
    pub hidden_size: usize,
    /// Width of its MLP.
    pub intermediate_size: usize,
    /// Always one.
    #[serde(default = "one")]
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key/value heads; as many as query heads when absent.
    #[serde(default)]
    pub num_key_value_heads: Option<usize>,
    /// Width of a head; `hidden_size / num_attention_heads` when absent, which Qwen3 heads are not.
    #[serde(default)]
    pub head_dim: Option<usize>,
    /// Epsilon of all norms.
    #[serde(default = "default_eps")]
    pub rms_norm_eps: f32,
    /// RoPE base; 10,000 when absent, as servers take it.
    #[serde(default = "default_theta")]
    pub rope_theta: f64,
    /// Must be null: no released head scales its RoPE.
    #[serde(default)]
    pub rope_scaling: Option<serde_json::Value>,
    /// Longest sequence the head was trained for.
    #[serde(default = "default_positions")]
    pub max_position_embeddings: usize,
    /// Target vocabulary V.
    pub vocab_size: usize,
    /// Draft vocabulary V_d; V when absent.
    #[serde(default)]
    pub draft_vocab_size: Option<usize>,
    /// Hidden size H_t of the target; H when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_hidden_size: Option<usize>,
    /// Activation of the MLP.
    #[serde(default = "default_act")]
    pub hidden_act: String,
    /// Whether the draft `lm_head` is the embedding; kept false, since the head has its own.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Stored number type.
    #[serde(default = "default_dtype")]
    pub torch_dtype: String,
    /// What the signals mean and where the head comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub specexit: Option<SpecExitConfig>,
}

/// Newest version of [`SpecExitConfig`] that is read, and the one that is written.
pub const SPECEXIT_VERSION: u32 = 2;

/// What is recorded about signals and origin under `specexit` in a head's config.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpecExitConfig {
    /// Version of this object.
    pub version: u32,
    /// Signals in row order; empty for a head without a probe.
    pub signals: Vec<String>,
    /// `cut` or `full`: what progress is relative to.
    pub progress_norm: String,
    /// Which tokens' probabilities the confidence label averages: C1, C2 or C3.
    pub confidence_kind: String,
    /// At which thinking tokens the signals mean something.
    pub positions: Positions,
    /// Longest remaining length seen in training, in tokens.
    pub label_max_len: usize,
    /// Name of the target it was trained on.
    pub target_name: String,
    /// Identity of that target's weights.
    pub target_hash: String,
    /// Identity of its tokenizer.
    pub tokenizer_hash: String,
    /// Identity of the label file.
    pub labels_hash: String,
    /// Seed of the training run.
    pub seed: u64,
    /// Program version that wrote it.
    pub program: String,
}

fn default_architectures() -> Vec<String> {
    vec!["Eagle3LlamaForCausalLM".to_owned()]
}
fn default_model_type() -> String {
    "llama".to_owned()
}
fn one() -> usize {
    1
}
fn default_eps() -> f32 {
    1e-6
}
fn default_theta() -> f64 {
    10_000.0
}
fn default_positions() -> usize {
    2048
}
fn default_act() -> String {
    "silu".to_owned()
}
fn default_dtype() -> String {
    "bfloat16".to_owned()
}

impl HeadConfig {
    /// Reads and checks `dir/config.json`.
    ///
    /// # Errors
    /// A missing or broken file, or a head that specexit cannot run.
    pub fn open(dir: &Path) -> Result<HeadConfig> {
        let path = dir.join(HEAD_CONFIG);
        if !path.exists() {
            return Err(ModelError::MissingFile {
                folder: dir.to_owned(),
                file: HEAD_CONFIG.to_owned(),
                advice: "a draft head is a folder with config.json and model.safetensors"
                    .to_owned(),
            });
        }
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ModelError::Io { path: path.clone(), source })?;
        Self::from_json(&text, &path)
    }

    /// Reads and checks the contents of a head's `config.json`; `path` is what messages name.
    ///
    /// # Errors
    /// Broken contents, or a head that specexit cannot run.
    pub fn from_json(text: &str, path: &Path) -> Result<HeadConfig> {
        let config: HeadConfig = serde_json::from_str(text).map_err(|e| ModelError::BadFile {
            path: path.to_owned(),
            problem: format!("not the config of an EAGLE-3 head: {e}"),
        })?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<()> {
        let unsupported = |what: String, supported: &str| {
            Err(ModelError::Unsupported {
                path: path.to_owned(),
                what,
                supported: supported.to_owned(),
            })
        };
        if self.num_hidden_layers != 1 {
            let what = format!("a draft head of {} layers", self.num_hidden_layers);
            return unsupported(what, "an EAGLE-3 head has one");
        }
        if self.rope_scaling.as_ref().is_some_and(|v| !v.is_null()) {
            return unsupported("rope_scaling in a draft head".to_owned(), "leave it null");
        }
        if self.hidden_act != "silu" {
            return unsupported(format!("hidden_act {}", self.hidden_act), "silu is");
        }
        let version = self.specexit.as_ref().map_or(0, |origin| origin.version);
        if version > SPECEXIT_VERSION {
            let what = format!("version {version} of the signals' description");
            return unsupported(what, "this program is older than the head: update it");
        }
        let field = |field: &str, problem: &str| ModelError::BadField {
            path: path.to_owned(),
            field: field.to_owned(),
            problem: problem.to_owned(),
        };
        let limit = 1 << 24;
        for (name, value) in [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.kv_heads()),
            ("head_dim", self.head_dim()),
            ("vocab_size", self.vocab_size),
            ("draft_vocab_size", self.draft_vocab()),
            ("target_hidden_size", self.target_hidden()),
        ] {
            if value == 0 || value > limit {
                return Err(field(name, &format!("is {value}, which cannot be right")));
            }
        }
        if !self.num_attention_heads.is_multiple_of(self.kv_heads()) {
            return Err(field("num_key_value_heads", "does not divide num_attention_heads"));
        }
        if !self.head_dim().is_multiple_of(2) {
            return Err(field("head_dim", "is odd, but RoPE rotates pairs"));
        }
        if self.draft_vocab() > self.vocab_size {
            return Err(field("draft_vocab_size", "is larger than vocab_size"));
        }
        Ok(())
    }

    /// Refuses a target of other sizes; `dir` is the head's folder, which the message names.
    pub(crate) fn check_target(
        &self,
        dir: &Path,
        hidden_size: usize,
        vocab_size: usize,
    ) -> Result<()> {
        let wrong = |problem: String| Err(ModelError::WrongHead { path: dir.to_owned(), problem });
        if self.target_hidden() != hidden_size {
            return wrong(format!(
                "it reads states of width {}, the target's have {hidden_size}",
                self.target_hidden()
            ));
        }
        if self.vocab_size != vocab_size {
            return wrong(format!(
                "its vocabulary has {} tokens, the target's {vocab_size}",
                self.vocab_size
            ));
        }
        Ok(())
    }

    /// Key/value heads.
    pub fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// Draft vocabulary V_d.
    pub fn draft_vocab(&self) -> usize {
        self.draft_vocab_size.unwrap_or(self.vocab_size)
    }

    /// Hidden size H_t of the target.
    pub fn target_hidden(&self) -> usize {
        self.target_hidden_size.unwrap_or(self.hidden_size)
    }

    /// Shape of every tensor that a head must hold, `fc.weight` without probe rows.
    pub fn shapes(&self) -> [(&'static str, Vec<usize>); 13] {
        tensor_shapes(
            self.hidden_size,
            3 * self.target_hidden(),
            self.num_attention_heads * self.head_dim(),
            self.kv_heads() * self.head_dim(),
            self.intermediate_size,
            self.draft_vocab(),
        )
    }
}

/// Names and shapes of the tensors of a head of width `h` that reads `taps` numbers, with `q` columns of
/// queries, `kv` of keys and of values, an MLP of width `i` and `vocab` tokens: in the order of the pass.
pub fn tensor_shapes(
    h: usize,
    taps: usize,
    q: usize,
    kv: usize,
    i: usize,
    vocab: usize,
) -> [(&'static str, Vec<usize>); 13] {
    [
        ("fc.weight", vec![h, taps]),
        ("midlayer.input_layernorm.weight", vec![h]),
        ("midlayer.hidden_norm.weight", vec![h]),
        ("midlayer.self_attn.q_proj.weight", vec![q, 2 * h]),
        ("midlayer.self_attn.k_proj.weight", vec![kv, 2 * h]),
        ("midlayer.self_attn.v_proj.weight", vec![kv, 2 * h]),
        ("midlayer.self_attn.o_proj.weight", vec![h, q]),
        ("midlayer.post_attention_layernorm.weight", vec![h]),
        ("midlayer.mlp.gate_proj.weight", vec![i, h]),
        ("midlayer.mlp.up_proj.weight", vec![i, h]),
        ("midlayer.mlp.down_proj.weight", vec![h, i]),
        ("norm.weight", vec![h]),
        ("lm_head.weight", vec![vocab, h]),
    ]
}

/// A tensor in f32, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadTensor {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// `shape.product()` numbers.
    pub data: Vec<f32>,
}

/// A whole draft head in f32, as training reads and writes it.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadFile {
    /// Sizes and provenance.
    pub config: HeadConfig,
    /// Tensors by native name; `fc.weight` has `[H + 3, 3 H_t]` when there is a probe.
    pub tensors: BTreeMap<String, HeadTensor>,
    /// Target id of each draft id, ascending; `None` for the full vocabulary.
    pub d2t: Option<Vec<u32>>,
}

impl HeadFile {
    /// Reads a head's folder.
    ///
    /// # Errors
    /// A missing or broken file, a wrong shape, or weights that are not finite.
    pub fn open(dir: &Path) -> Result<HeadFile> {
        let config = HeadConfig::open(dir)?;
        let weights = open_weights(dir)?;
        let mut tensors = BTreeMap::new();
        for (name, expected) in config.shapes() {
            tensors.insert(name.to_owned(), read_tensor(&weights, name, expected, dir)?);
        }
        let (h, width) = (config.hidden_size, 3 * config.target_hidden());
        if let Some(probe) = Probe::load_beside(&weights, h, width, dir)? {
            for (name, shape, data) in probe.tensors() {
                tensors.insert(name.to_owned(), HeadTensor { shape, data: data.to_vec() });
            }
        }
        let d2t = read_d2t(&weights, &config, dir)?;
        Ok(HeadFile { config, tensors, d2t })
    }

    /// Whether there is a signal probe.
    pub fn has_probe(&self) -> bool {
        has_probe(&self.config, |name| self.tensors.get(name).map(|tensor| tensor.shape.clone()))
    }

    /// Writes the folder in bf16, a probe beside `fc.weight` in f32; each file appears whole or not at all.
    ///
    /// # Errors
    /// The operating system's refusal to write.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| ModelError::Io { path: path.clone(), source }
        };
        std::fs::create_dir_all(dir).map_err(io(dir))?;
        let mut bytes: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
        for (name, tensor) in &self.tensors {
            let numbers = tensor.data.iter();
            // An MLP reads raw states, in which a few dimensions are huge, and thresholds compare what
            // any probe says: it is kept exactly.
            let (dtype, data) = if PROBE_TENSORS.contains(&name.as_str()) {
                (Dtype::F32, numbers.flat_map(|v| v.to_le_bytes()).collect())
            } else {
                (Dtype::BF16, numbers.flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect())
            };
            bytes.push((name.clone(), dtype, tensor.shape.clone(), data));
        }
        if let Some(d2t) = &self.d2t {
            let offsets = d2t.iter().enumerate();
            let offsets = offsets.flat_map(|(d, &t)| (t as i64 - d as i64).to_le_bytes()).collect();
            bytes.push(("d2t".to_owned(), Dtype::I64, vec![d2t.len()], offsets));
            let mut t2d = vec![0u8; self.config.vocab_size];
            for &t in d2t {
                t2d[t as usize] = 1;
            }
            bytes.push(("t2d".to_owned(), Dtype::BOOL, vec![t2d.len()], t2d));
        }
        let path = dir.join(HEAD_WEIGHTS);
        let views = bytes.iter().map(|(name, dtype, shape, data)| {
            TensorView::new(*dtype, shape.clone(), data).map(|view| (name.as_str(), view))
        });
        let views: std::result::Result<Vec<_>, _> = views.collect();
        let metadata = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let blob = views.and_then(|views| safetensors::serialize(views, Some(metadata)));
        let blob = blob.map_err(|e| ModelError::BadFile {
            path: path.clone(),
            problem: format!("its tensors cannot be written: {e}"),
        })?;
        write_atomically(&path, &blob).map_err(io(&path))?;
        let config = serde_json::to_vec_pretty(&self.config).map_err(|e| ModelError::BadFile {
            path: dir.join(HEAD_CONFIG),
            problem: e.to_string(),
        })?;
        let path = dir.join(HEAD_CONFIG);
        write_atomically(&path, &config).map_err(io(&path))
    }
}

/// Opens the weights of a head, with advice where they are missing or pickled.
pub(crate) fn open_weights(dir: &Path) -> Result<Weights> {
    let path = dir.join(HEAD_WEIGHTS);
    if path.exists() {
        return Weights::open_safetensors_file(&path);
    }
    let advice = if dir.join("pytorch_model.bin").exists() {
        "pytorch_model.bin is a pickle, which is never executed here: convert it to safetensors first"
    } else {
        "a draft head is a folder with config.json and model.safetensors"
    };
    Err(ModelError::MissingFile {
        folder: dir.to_owned(),
        file: HEAD_WEIGHTS.to_owned(),
        advice: advice.to_owned(),
    })
}

/// A tensor of the shape that the config asks for, or, of `fc.weight`, with probe rows below it.
pub(crate) fn read_tensor(
    weights: &Weights,
    name: &str,
    expected: Vec<usize>,
    dir: &Path,
) -> Result<HeadTensor> {
    let (shape, data) = weights.f32(name)?;
    let mut widened = expected.clone();
    widened[0] += PROBE_ROWS;
    if shape != expected && !(name == "fc.weight" && shape == widened) {
        return Err(ModelError::TensorShape {
            path: dir.join(HEAD_WEIGHTS),
            tensor: name.to_owned(),
            expected,
            found: shape,
        });
    }
    Ok(HeadTensor { shape, data })
}

/// Target ids of the draft vocabulary, checked against each other and against `t2d`.
pub(crate) fn read_d2t(
    weights: &Weights,
    config: &HeadConfig,
    dir: &Path,
) -> Result<Option<Vec<u32>>> {
    let (draft, vocab) = (config.draft_vocab(), config.vocab_size);
    let bad = |problem: String| ModelError::BadFile { path: dir.join(HEAD_WEIGHTS), problem };
    if !weights.contains("d2t") {
        if draft == vocab {
            return Ok(None);
        }
        return Err(bad(format!(
            "the draft vocabulary has {draft} of {vocab} tokens, but there is no d2t to say which"
        )));
    }
    let offsets = weights.integers("d2t", draft)?;
    let mut ids = Vec::with_capacity(draft);
    for (d, offset) in offsets.iter().enumerate() {
        let id = (d as i64).checked_add(*offset).and_then(|id| u32::try_from(id).ok());
        match id {
            Some(id) if (id as usize) < vocab => ids.push(id),
            _ => return Err(bad(format!("d2t maps draft id {d} outside the target's vocabulary"))),
        }
    }
    if weights.contains("t2d") {
        let t2d = weights.booleans("t2d", vocab)?;
        if ids.iter().any(|&id| !t2d[id as usize]) {
            return Err(bad("d2t and t2d contradict each other".to_owned()));
        }
    }
    Ok(Some(ids))
}

/// Writes a file beside its final place, then renames it over.
///
/// # Errors
/// The operating system's; the old file is then untouched.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let mut partial = PathBuf::from(path).into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let mut file = std::fs::File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&partial, path)
}
