//! The errors of the engine.

use specexit_exit::SettingError;
use specexit_model::ModelError;

/// What the engine's functions return.
pub type Result<T> = std::result::Result<T, EngineError>;

/// Why a request cannot be served or a step failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The model refused its input.
    #[error(transparent)]
    Model(#[from] ModelError),

    /// An exit setting is out of its range.
    #[error(transparent)]
    Setting(#[from] SettingError),

    /// A prompt without tokens.
    #[error("the prompt is empty; give at least one token")]
    EmptyPrompt,

    /// The prompt leaves no room for a single new token.
    #[error(
        "the prompt has {prompt} tokens, but the model's context holds {limit}; shorten it to at most {} tokens",
        limit - 1
    )]
    PromptTooLong {
        /// Tokens in the prompt.
        prompt: usize,
        /// The model's context.
        limit: usize,
    },

    /// A request that no free memory would suffice for.
    #[error(
        "the request may need {need} bytes of keys and values, and the engine may hold {limit}; shorten the prompt or ask for fewer new tokens"
    )]
    TooLarge {
        /// Bytes that it may come to need.
        need: usize,
        /// Bytes that all requests together may need.
        limit: usize,
    },

    /// A method that drafts, without a head.
    #[error("method {method} needs a draft head, and none is loaded; name one with --head")]
    NoHead {
        /// The method asked for.
        method: crate::Method,
    },

    /// A method that exits by signals, with a head that predicts none.
    #[error(
        "method specexit needs a head with a signal probe, and this one is plain EAGLE-3 (its fc.weight has no extra rows); use method eagle3, or train the signals"
    )]
    NoProbe,

    /// A number in the request that cannot be right.
    #[error("{what}")]
    BadRequest {
        /// The sentence for the user.
        what: String,
    },

    /// A request id that is not running.
    #[error("no request {id} is running")]
    UnknownRequest {
        /// The id.
        id: crate::RequestId,
    },
}
