//! The errors of this crate: each one a sentence saying what was wrong, where, and what to do.

use std::path::PathBuf;

/// What the crate's functions return.
pub type Result<T> = std::result::Result<T, ModelError>;

/// Why a model could not be loaded or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The operating system refused to open or read a file.
    #[error("cannot read {}: {source}; check the path and its permissions", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },

    /// A file is not what its name or header promises (truncated, corrupt, of another kind).
    #[error("{} is not usable: {problem}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },

    /// A field of a config or of GGUF metadata is absent or has a value that cannot be right.
    #[error("{}: `{field}` {problem}", path.display())]
    BadField {
        /// The file.
        path: PathBuf,
        /// The key in the file, in the file's own words.
        field: String,
        /// What is wrong with it, continuing the sentence after the field's name.
        problem: String,
    },

    /// The file is sound, but asks for something that specexit does not implement.
    #[error("{}: {what} is not supported; {supported}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The feature, by the name it has in the file.
        what: String,
        /// What is supported instead.
        supported: String,
    },

    /// A file that the model folder must hold is absent.
    #[error("{} has no {file}; {advice}", folder.display())]
    MissingFile {
        /// The folder.
        folder: PathBuf,
        /// The file's name.
        file: String,
        /// What to do.
        advice: String,
    },

    /// The checkpoint lacks a tensor that the config asks for.
    #[error(
        "{} has no tensor `{tensor}`; the file is incomplete or belongs to another architecture",
        path.display()
    )]
    MissingTensor {
        /// The weights file or folder.
        path: PathBuf,
        /// The canonical (Hugging Face) tensor name.
        tensor: String,
    },

    /// A tensor's shape is not the one that the config implies.
    #[error(
        "{}: tensor `{tensor}` has shape {found:?}, but the config asks for {expected:?}; \
         config and weights do not belong together",
        path.display()
    )]
    TensorShape {
        /// The weights file or folder.
        path: PathBuf,
        /// The canonical tensor name.
        tensor: String,
        /// The shape asked for.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },

    /// A tensor is stored in a number type that cannot be read as asked.
    #[error("{}: tensor `{tensor}` is stored as {found}, but {expected} is needed", path.display())]
    TensorType {
        /// The weights file or folder.
        path: PathBuf,
        /// The canonical tensor name.
        tensor: String,
        /// The number types that would do.
        expected: String,
        /// The number type in the file.
        found: String,
    },

    /// A weight is NaN or infinite.
    #[error(
        "{}: tensor `{tensor}` holds {value} at index {index:?}; the file is damaged or was written \
         by a failed conversion, fetch it again",
        path.display()
    )]
    NotFinite {
        /// The weights file or folder.
        path: PathBuf,
        /// The canonical tensor name.
        tensor: String,
        /// The element's position, one number per dimension.
        index: Vec<usize>,
        /// The value: `NaN`, `inf` or `-inf`.
        value: f32,
    },

    /// The tokenizer could not be built or refused a text or ids.
    #[error("tokenizer{}: {problem}", at(path))]
    Tokenizer {
        /// The file it came from, where one is to blame.
        path: Option<PathBuf>,
        /// What is wrong, and what to do.
        problem: String,
    },

    /// The chat template could not be parsed or rendered, or refused the messages.
    #[error("chat template{}: {problem}", at(path))]
    ChatTemplate {
        /// The file it came from, where known.
        path: Option<PathBuf>,
        /// What is wrong, and what to do.
        problem: String,
    },

    /// A model was asked for in a way that names nothing loadable.
    #[error("cannot load the model `{given}`: {problem}")]
    Source {
        /// What was asked for.
        given: String,
        /// Why it cannot be loaded, and what to do.
        problem: String,
    },

    /// A sequence grew past the context the model was made for.
    #[error(
        "{tokens} tokens do not fit in the model's context of {limit}; shorten the prompt or the limit on new tokens"
    )]
    ContextExceeded {
        /// Positions asked for.
        tokens: usize,
        /// Positions the model has.
        limit: usize,
    },

    /// A token id that the model's vocabulary does not hold.
    #[error(
        "token id {id} is outside the model's vocabulary of {vocab}; tokenizer and model do not belong together"
    )]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Tokens in the vocabulary.
        vocab: usize,
    },

    /// A draft head that was made for another target.
    #[error("the draft head in {} belongs to another model: {problem}", path.display())]
    WrongHead {
        /// The head's folder.
        path: PathBuf,
        /// What differs, and what to do.
        problem: String,
    },
}

/// Text from a file as an error message shows it: on one line, without control characters, cut where
/// it would drown the sentence.
pub(crate) fn shown(text: impl std::fmt::Display) -> String {
    const MOST: usize = 200;
    let text = text.to_string();
    let mut shown = String::new();
    for c in text.chars() {
        if shown.len() >= MOST {
            shown.push('…');
            break;
        }
        if c.is_control() || c == char::REPLACEMENT_CHARACTER {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// ` of PATH`, or nothing.
fn at(path: &Option<PathBuf>) -> String {
    path.as_ref().map(|path| format!(" of {}", path.display())).unwrap_or_default()
}
