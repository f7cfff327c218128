//! A model as commands use it: target, tokenizer and chat template from one source.

use std::sync::Arc;

use specexit_kernels::{Kernels, Precision};

use crate::chat_template::ChatTemplate;
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
        let files = ModelFiles::load(source)?;
        let kernels = Arc::new(Kernels::new(threads, precision));
        let target = Target::load(files.config, &files.weights, kernels)?;
        Ok(Model {
            target: Arc::new(target),
            tokenizer: Arc::new(files.tokenizer),
            chat_template: files.chat_template,
            name: files.name,
            hash: files.hash,
        })
    }
}
