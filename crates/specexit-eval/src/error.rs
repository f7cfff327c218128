//! The errors of this crate: each one a sentence saying what was wrong, where, and what to do.

use std::path::PathBuf;

/// What the crate's functions return.
pub type Result<T> = std::result::Result<T, EvalError>;

/// Why a comparison or a measurement stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The operating system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: `read`, `write`, `run`.
        action: &'static str,
        /// The file.
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

    /// A records file was begun with other settings.
    #[error(
        "{} was begun with {field} = {found}, but now it is {expected}; \
         repeat the earlier setting to go on, or choose another file", path.display()
    )]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The first field that differs, as a dotted path.
        field: String,
        /// Its value in the file.
        found: String,
        /// Its value now.
        expected: String,
    },

    /// A method specification that means nothing.
    #[error("unknown method `{given}`: {problem}")]
    Method {
        /// The text as given.
        given: String,
        /// What is wrong with it, and what would be understood.
        problem: String,
    },

    /// The tests of a question could not be run.
    #[error("the answer to question {question} cannot be tested: {reason}")]
    Sandbox {
        /// The question.
        question: String,
        /// Why; it says nothing about the answer.
        reason: String,
    },

    /// Two methods of one comparison have the same name.
    #[error("the method `{0}` is named twice; every method of a comparison needs its own name")]
    SameMethod(String),

    /// There is nothing to compare.
    #[error("{0}")]
    Nothing(String),

    /// Another program was run and failed.
    #[error("{} {problem}", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// What it did, continuing the sentence after its name.
        problem: String,
    },

    /// A recording holds nothing about a place where a thought would end.
    #[error(
        "the recording of question {question} has no cut after {at} tokens; it was made for other \
         boundaries or another model: record it anew"
    )]
    NoCut {
        /// The question.
        question: String,
        /// Generated tokens before the exit.
        at: usize,
    },

    /// From reading or writing the files of recordings.
    #[error(transparent)]
    File(Box<specexit_train::TrainError>),

    /// From the engine.
    #[error(transparent)]
    Engine(#[from] specexit_engine::EngineError),

    /// From the model.
    #[error(transparent)]
    Model(#[from] specexit_model::ModelError),
}

impl From<specexit_train::TrainError> for EvalError {
    fn from(error: specexit_train::TrainError) -> Self {
        Self::File(Box::new(error))
    }
}

impl EvalError {
    /// An [`EvalError::Io`] for `map_err`.
    pub(crate) fn io(
        action: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
