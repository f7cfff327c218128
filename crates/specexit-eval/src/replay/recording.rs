//! What is kept of a question.

use serde::{Deserialize, Serialize};
use specexit_engine::{Engine, Finish, Phase, Request, TokenId};
use specexit_exit::Ahead;

use crate::error::Result;
use crate::probing::Trial;

/// The value of `format` in the header of a recordings file.
pub const RECORDINGS_FORMAT: &str = "specexit-recordings";
/// The version of that format.
pub(crate) const RECORDINGS_VERSION: u32 = 2;

/// The target's whole output to a question, and what it writes when its thought is closed early.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// The question's id.
    pub question: String,
    /// What kind of question it is, where its file says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The whole prompt.
    pub prompt_ids: Vec<TokenId>,
    /// Where in a thought it ends.
    pub phase: Phase,
    /// Everything generated.
    pub token_ids: Vec<TokenId>,
    /// Why generation ended.
    pub finish: Finish,
    /// Tokens inside the thinking span.
    pub thinking_tokens: usize,
    /// The answer found, if there is one.
    pub answer: Option<String>,
    /// Whether it is the right one.
    pub correct: bool,
    /// The thought closed at each of its boundaries, in order.
    pub closed: Vec<Closed>,
}

/// The outcome of closing the thought at a boundary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Closed {
    /// Generated tokens that stay.
    pub at: usize,
    /// Forced tokens and all that the target writes after them.
    pub token_ids: Vec<TokenId>,
    /// Those of them that the target wrote itself.
    pub written: usize,
    /// Tokens inside the thinking span, a closing sentence included.
    pub thinking_tokens: usize,
    /// Why generation ended.
    pub finish: Finish,
    /// The answer found, if there is one.
    pub answer: Option<String>,
    /// Whether it is the right one.
    pub correct: bool,
    /// Geometric mean of the probabilities of what the target wrote, a final stop token left out.
    pub confidence: Option<f32>,
    /// Entropy, in nats, of what could have followed the forced tokens.
    pub entropy: Option<f32>,
}

impl Closed {
    /// What a rule that probes sees of it.
    #[must_use]
    pub fn trial(&self) -> Trial<'_> {
        let Self { answer, confidence, entropy, .. } = self;
        Trial { answer: answer.as_deref(), confidence: *confidence, entropy: *entropy }
    }
}

impl Recording {
    /// The whole output after the prompt.
    #[must_use]
    pub fn whole(&self) -> Vec<TokenId> {
        [&self.prompt_ids[..], &self.token_ids].concat()
    }

    /// The request that asks for it again: `base` is the one that all were recorded by.
    pub(crate) fn request(&self, base: &Request) -> Request {
        Request { prompt: self.prompt_ids.clone(), phase: self.phase, ..base.clone() }
    }

    /// What each generated token is; the last, which nothing follows, is nothing.
    ///
    /// # Errors
    /// Settings that no thought can have.
    pub(crate) fn ahead(&self, engine: &mut Engine, base: &Request) -> Result<Vec<Ahead>> {
        let Some((&last, run)) = self.token_ids.split_last() else { return Ok(Vec::new()) };
        let mut ahead = engine.thought(&self.request(base))?.ahead(run, last);
        let thinking_tokens = ahead.last().map_or(0, |ahead| ahead.thinking_tokens);
        ahead.push(Ahead { thinking: false, boundary: false, closing: false, thinking_tokens });
        Ok(ahead)
    }
}
