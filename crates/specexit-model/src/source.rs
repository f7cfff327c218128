//! From what a user names (a folder, a GGUF file, a hub id) to everything a model needs.

#[cfg(feature = "hub")]
mod hub;

use std::path::{Path, PathBuf};

use crate::chat_template::ChatTemplate;
use crate::config::ModelConfig;
use crate::embedded::Embedded;
use crate::error::{ModelError, Result};
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// A folder in Hugging Face's layout: `config.json`, `tokenizer.json`, safetensors.
    Folder(PathBuf),
    /// A GGUF file, which holds everything.
    Gguf(PathBuf),
    /// A model of the Hugging Face hub, `organisation/name`.
    Hub(String),
    /// A model in the program itself.
    Embedded(Embedded),
}

/// A source whose files are on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// A folder in Hugging Face's layout.
    Folder(PathBuf),
    /// A GGUF file.
    Gguf(PathBuf),
    /// A model in the program itself.
    Embedded(Embedded),
}

impl ModelSource {
    /// Reads what a user typed: an existing folder, a path that ends in `.gguf`, or `org/name`.
    ///
    /// # Errors
    /// When it is none of these; the sentence says what it looks like.
    pub fn parse(given: &str) -> Result<Self> {
        let path = Path::new(given);
        let is_gguf = path.extension().is_some_and(|kind| kind.eq_ignore_ascii_case("gguf"));
        if path.is_dir() {
            Ok(Self::Folder(path.to_owned()))
        } else if is_gguf && path.is_file() {
            Ok(Self::Gguf(path.to_owned()))
        } else if is_gguf {
            Err(unloadable(given, "there is no such file"))
        } else if path.is_file() {
            Err(unloadable(
                given,
                "it is a file, but not a .gguf; give the folder that holds config.json, \
                 or a .gguf file",
            ))
        } else if is_hub_id(given) {
            Ok(Self::Hub(given.to_owned()))
        } else {
            Err(unloadable(
                given,
                "no such folder exists, and it is neither a .gguf file nor a hub id of the form \
                 organisation/name",
            ))
        }
    }

    /// Brings the files to this machine: at once for local ones, for the hub by downloading what is
    /// not in its cache yet.
    ///
    /// # Errors
    /// When a download fails, or the program was built without the feature `hub`.
    pub fn resolve(&self) -> Result<Resolved> {
        match self {
            Self::Folder(folder) => Ok(Resolved::Folder(folder.clone())),
            Self::Gguf(file) => Ok(Resolved::Gguf(file.clone())),
            Self::Hub(id) => download(id).map(Resolved::Folder),
            Self::Embedded(files) => Ok(Resolved::Embedded(*files)),
        }
    }

    /// The name to show for the model: the folder's or file's own, or the hub id.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Hub(id) => id.clone(),
            Self::Embedded(files) => files.name.to_owned(),
            Self::Gguf(path) => last_part(path.file_stem(), path),
            Self::Folder(path) => {
                // `.` and `..` have no name of their own.
                let whole = path.canonicalize().unwrap_or_else(|_| path.clone());
                last_part(whole.file_name(), path)
            }
        }
    }
}

fn last_part(name: Option<&std::ffi::OsStr>, path: &Path) -> String {
    name.map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Whether the text is `organisation/name` in the characters that the hub allows.
fn is_hub_id(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.len() <= 96
            && !part.starts_with(['.', '-'])
            && !part.contains("..")
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    text.split_once('/').is_some_and(|(organisation, name)| part(organisation) && part(name))
}

#[cfg(feature = "hub")]
fn download(id: &str) -> Result<PathBuf> {
    hub::download(id)
}

#[cfg(not(feature = "hub"))]
fn download(id: &str) -> Result<PathBuf> {
    Err(unloadable(
        id,
        "no such folder exists here, and this program was built without hub downloads; build it \
         with `--features hub`, or download the model and give its folder",
    ))
}

fn unloadable(given: &str, problem: &str) -> ModelError {
    ModelError::Source { given: given.to_owned(), problem: problem.to_owned() }
}

/// Everything that a checkpoint holds, opened and checked.
#[derive(Debug)]
pub struct ModelFiles {
    /// The model's shape.
    pub config: ModelConfig,
    /// Its tensors.
    pub weights: Weights,
    /// Text to token ids and back.
    pub tokenizer: Tokenizer,
    /// How conversations become prompts, where the checkpoint says.
    pub chat_template: Option<ChatTemplate>,
    /// What to call the model.
    pub name: String,
    /// The identity of the weights, see [`Weights::hash`].
    pub hash: String,
}

impl ModelFiles {
    /// Resolves the source and opens its files.
    ///
    /// # Errors
    /// Whatever is missing, damaged or unsupported, in one sentence.
    pub fn load(source: &ModelSource) -> Result<Self> {
        let name = source.name();
        match source.resolve()? {
            Resolved::Folder(folder) => Self::load_folder(&folder, name),
            Resolved::Gguf(file) => Self::load_gguf(&file, name),
            Resolved::Embedded(files) => Self::load_embedded(&files, name),
        }
    }

    fn load_folder(folder: &Path, name: String) -> Result<Self> {
        let config = ModelConfig::from_folder(folder)?;
        let tokenizer = Tokenizer::from_file(&folder.join("tokenizer.json"))?;
        let chat_template = ChatTemplate::from_tokenizer_config(folder)?;
        let weights = Weights::open_safetensors(folder)?;
        Self::put_together(config, weights, tokenizer, chat_template, name)
    }

    /// The files that a folder would hold.
    fn load_embedded(files: &Embedded, name: String) -> Result<Self> {
        let path = |file: &str| files.path().join(file);
        let config = "config.json";
        let mut config = ModelConfig::from_json(files.text(config)?, &path(config))?;
        let generation = "generation_config.json";
        config.merge_generation_config(files.text(generation)?, &path(generation))?;
        let tokenizer = "tokenizer.json";
        let tokenizer = Tokenizer::from_json(files.file(tokenizer)?, &path(tokenizer))?;
        let template = "chat_template.jinja";
        let text = files.text(template)?.to_owned();
        let template = ChatTemplate::from_source(&path(template), text, serde_json::Map::new())?;
        let weights = "model.safetensors";
        let weights = Weights::from_embedded(&path(weights), files.file(weights)?)?;
        Self::put_together(config, weights, tokenizer, Some(template), name)
    }

    fn load_gguf(file: &Path, name: String) -> Result<Self> {
        let (weights, metadata) = Weights::open_gguf(file)?;
        let config = ModelConfig::from_gguf(&metadata, &weights)?;
        let tokenizer = Tokenizer::from_gguf(&metadata)?;
        let chat_template = ChatTemplate::from_gguf(&metadata)?;
        Self::put_together(config, weights, tokenizer, chat_template, name)
    }

    fn put_together(
        config: ModelConfig,
        weights: Weights,
        tokenizer: Tokenizer,
        chat_template: Option<ChatTemplate>,
        name: String,
    ) -> Result<Self> {
        // The embedding may have padding rows, the tokenizer must not have more ids than it has rows.
        if tokenizer.vocab_size() > config.vocab_size {
            return Err(ModelError::Tokenizer {
                path: Some(weights.path().to_owned()),
                problem: format!(
                    "it has ids up to {}, but the model's embedding has {} rows; it belongs to \
                     another model",
                    tokenizer.vocab_size() - 1,
                    config.vocab_size
                ),
            });
        }
        let hash = weights.hash();
        Ok(Self { config, weights, tokenizer, chat_template, name, hash })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn tells_hub_ids_from_paths() {
        assert_eq!(
            ModelSource::parse("Qwen/Qwen3-4B").unwrap(),
            ModelSource::Hub("Qwen/Qwen3-4B".into())
        );
        for text in
            ["", "a", "a/b/c", "../b", "./models/x", "a/..", "a b/c", "ä/b", "models/x.gguf"]
        {
            assert!(ModelSource::parse(text).is_err(), "{text}");
        }
        assert!(matches!(ModelSource::parse("src"), Ok(ModelSource::Folder(_))));
        let error = ModelSource::parse("Cargo.toml").unwrap_err().to_string();
        assert!(error.contains("not a .gguf"), "{error}");
    }

    #[cfg(not(feature = "hub"))]
    #[test]
    fn without_the_feature_a_hub_id_says_what_to_build() {
        let error = ModelSource::Hub("a/b".into()).resolve().unwrap_err().to_string();
        assert!(error.contains("--features hub"), "{error}");
    }
}
