//! A model as commands use it: target, tokenizer and chat template from one source.

use std::sync::Arc;

use specexit_kernels::{Kernels, Precision};

use crate::chat_template::ChatTemplate;
use crate::config::ModelConfig;
use crate::error::Result;
use crate::source::{ModelFiles, ModelSource};
use crate::target::Target;
use crate::tokenizer::Tokenizer;

/// A loaded target and what turns text into its tokens.
pub struct Model {
    /// The decoder.
    pub target: Arc<Target>,
    /// Text to token ids and back.
    pub tokenizer: Arc<Tokenizer>,
    /// How conversations become prompts, when the model says.
    pub chat_template: Option<ChatTemplate>,
    /// What the user called it.
    pub name: String,
    /// Identity of the weights.
    pub hash: String,
}

impl Model {
    /// Loads a folder, a `.gguf` file or a hub id onto `threads` threads.
    ///
    /// # Errors
    /// Whatever is missing, broken or unsupported, in one sentence.
    pub fn load(source: &ModelSource, threads: usize, precision: Precision) -> Result<Model> {
        Model::load_on(source, Kernels::new(threads, precision))
    }

    /// The same onto given kernels.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_on(source: &ModelSource, kernels: Kernels) -> Result<Model> {
        let files = ModelFiles::load(source)?;
        let target = Target::load(files.config, &files.weights, Arc::new(kernels))?;
        Ok(Model {
            target: Arc::new(target),
            tokenizer: Arc::new(files.tokenizer),
            chat_template: files.chat_template,
            name: files.name,
            hash: files.hash,
        })
    }

    /// The model without its decoder.
    #[must_use]
    pub fn text(&self) -> ModelText {
        ModelText {
            config: self.target.config.clone(),
            tokenizer: Arc::clone(&self.tokenizer),
            chat_template: self.chat_template.clone(),
            name: self.name.clone(),
            hash: self.hash.clone(),
        }
    }
}

/// What turns conversations into a model's tokens and back, and says which model that is: all that is
/// needed of a model that decodes elsewhere.
#[derive(Clone, Debug)]
pub struct ModelText {
    /// Its shape, context and end-of-sequence tokens.
    pub config: ModelConfig,
    /// Text to token ids and back.
    pub tokenizer: Arc<Tokenizer>,
    /// How conversations become prompts, when the model says.
    pub chat_template: Option<ChatTemplate>,
    /// What the user called it.
    pub name: String,
    /// Identity of the weights.
    pub hash: String,
}

impl ModelText {
    /// Opens a folder, a `.gguf` file or a hub id; the weights are identified, not read into memory.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load(source: &ModelSource) -> Result<ModelText> {
        let files = ModelFiles::load(source)?;
        Ok(ModelText {
            config: files.config,
            tokenizer: Arc::new(files.tokenizer),
            chat_template: files.chat_template,
            name: files.name,
            hash: files.hash,
        })
    }
}
