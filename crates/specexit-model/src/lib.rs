//! The models of specexit: configs, weights, tokenizer and chat template, and the decoders built from them.

pub mod chat_template;
pub mod config;
pub mod embedded;
pub mod error;
pub mod hash;
pub mod source;
pub mod tokenizer;
pub mod weights;

mod decoder_layer;
mod draft;
pub mod head_file;
mod kv_cache;
mod model;
pub mod probe;
mod raw_head;
mod step_probe;
mod target;

pub use chat_template::{ChatTemplate, Message, RenderOptions};
pub use config::{Architecture, ModelConfig, RopeScaling};
pub use draft::{DraftHead, DraftRows, DraftWorkspace};
pub use embedded::Embedded;
pub use error::{ModelError, Result};
pub use kv_cache::KvCache;
pub use model::{Model, ModelText};
pub use probe::{Positions, Probe};
pub use raw_head::RawHead;
pub use source::{ModelFiles, ModelSource};
pub use step_probe::StepProbe;
pub use target::{LogitRows, PREFILL_CHUNK, States, Target, TargetRows, Workspace};
pub use tokenizer::Tokenizer;
pub use weights::Weights;
