//! The errors of this crate: each one a sentence saying what was wrong, where, and what to do.

use std::path::{Path, PathBuf};

/// What the crate's functions return.
pub type Result<T> = std::result::Result<T, TrainError>;

/// Why collecting, labelling or training stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The operating system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: `read`, `write`, `create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },

    /// A line of a JSONL file cannot be used.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it, and what to do.
        problem: String,
    },

    /// A file is not what its name or header promises.
    #[error("{} is not usable: {problem}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },

    /// A file was made with other options, another model or another version.
    #[error("{} was made with {field} = {found}, but now it is {expected}; {advice}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The first field that differs, as a dotted path.
        field: String,
        /// Its value in the file.
        found: String,
        /// Its value now.
        expected: String,
        /// What to do.
        advice: String,
    },

    /// Another process is writing the same file.
    #[error("{} is being written by another process; wait for it or choose another path", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },

    /// An option has a value that cannot be used.
    #[error("{option} {problem}")]
    Option {
        /// The option, as it is spelled in the options struct.
        option: &'static str,
        /// What is wrong with it, continuing the sentence.
        problem: String,
    },

    /// There is nothing to work on.
    #[error("{0}")]
    NoData(String),

    /// Training produced a number that is not finite.
    #[error(
        "step {step}: {what} is not finite; {kept} is kept; \
         start again in another folder with a lower learning rate or a smaller clip_norm"
    )]
    Diverged {
        /// The step.
        step: u64,
        /// Which number.
        what: String,
        /// What remains usable.
        kept: String,
    },

    /// One question could not be worked on.
    #[error("question {id}: {source}")]
    Question {
        /// The question's id.
        id: String,
        /// Why.
        source: Box<TrainError>,
    },

    /// A server that continues prompts did not do so.
    #[error("{url} {problem}")]
    Endpoint {
        /// The operation that was called.
        url: String,
        /// What it did, continuing the sentence, and what to do.
        problem: String,
    },

    /// The page of a run could not be made.
    #[error("the report page cannot be made: {0}")]
    Page(String),

    /// From the engine.
    #[error(transparent)]
    Engine(#[from] specexit_engine::EngineError),

    /// From the model.
    #[error(transparent)]
    Model(#[from] specexit_model::ModelError),

    /// From tensor arithmetic.
    #[error("tensor arithmetic failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl TrainError {
    /// An [`TrainError::Io`] for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// A [`TrainError::BadFile`].
    pub(crate) fn bad_file(path: &Path, problem: impl Into<String>) -> Self {
        Self::BadFile { path: path.to_owned(), problem: problem.into() }
    }

    /// A [`TrainError::Option`].
    pub(crate) fn option(option: &'static str, problem: impl Into<String>) -> Self {
        Self::Option { option, problem: problem.into() }
    }
}
