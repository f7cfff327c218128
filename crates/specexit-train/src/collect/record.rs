//! What `collect` writes for each sample.

use std::path::Path;

use serde::{Deserialize, Serialize};
use specexit_engine::Finish;
use specexit_exit::TokenId;
use specexit_model::hash::Hasher;

use super::CollectRules;
use crate::completer::EndpointId;
use crate::error::Result;
use crate::jsonl::Reader;
use crate::provenance::ModelId;

/// Name of the format in the header.
pub(crate) const FORMAT: &str = "specexit-traces";
/// Version of the format.
pub(crate) const VERSION: u32 = 1;

/// First line of a trace file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceHeader {
    /// `specexit-traces`.
    pub format: String,
    /// Version of the format.
    pub version: u32,
    /// Version of the program that wrote it.
    pub program: String,
    /// The target.
    pub model: ModelId,
    /// The server that generated, where it was not this program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointId>,
    /// What the target computed in; absent for bf16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arithmetic: Option<String>,
    /// The options that decide what the records say, the seed among them.
    pub options: CollectRules,
}

/// Consecutive generated tokens: `start..end` as indices into `token_ids`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// First token.
    pub start: usize,
    /// One past the last.
    pub end: usize,
}

impl Span {
    /// The tokens of the span.
    pub fn of<'a>(&self, tokens: &'a [TokenId]) -> &'a [TokenId] {
        tokens.get(self.start..self.end).unwrap_or_default()
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What the target wrote where a wait was put instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dropped {
    /// The end-of-thinking marker.
    Close,
    /// An end-of-sequence token.
    Stop,
}

/// A place where the thought was made to go on (budget forcing).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// The forced tokens; the first may spell the thought's last token anew, now with its newlines.
    pub forced: Span,
    /// What the target had written.
    pub dropped: Dropped,
}

/// One recorded output of the target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// The question's id.
    pub id: String,
    /// Which sample of the question, from 0.
    pub sample: usize,
    /// The question.
    pub question: String,
    /// The known answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gold: Option<String>,
    /// The prompt as text.
    pub prompt: String,
    /// The prompt as tokens.
    pub prompt_ids: Vec<TokenId>,
    /// Everything after the prompt: generated and forced tokens.
    pub token_ids: Vec<TokenId>,
    /// The thought, markers excluded; absent when none was opened.
    pub think: Option<Span>,
    /// The end-of-thinking marker with the newlines that follow it; absent when the thought is open.
    pub close: Option<Span>,
    /// The thought as text.
    pub thinking: String,
    /// The answer as text.
    pub answer: String,
    /// Why it ended.
    pub finish: Finish,
    /// Waits wanted: drawn for this sample, or the fixed number.
    pub waits_wanted: usize,
    /// Waits put in.
    pub waits: Vec<Wait>,
    /// The end marker was forced because the target ended its output inside the thought.
    pub forced_close: bool,
    /// Natural logarithms of the target's probabilities (temperature 1), one per token of
    /// `token_ids`, absent for forced ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<Option<f32>>>,
}

impl Trace {
    /// The thinking tokens.
    pub fn thought_ids(&self) -> &[TokenId] {
        self.think.map_or(&[], |span| span.of(&self.token_ids))
    }

    /// The tokens of the answer.
    pub fn answer_ids(&self) -> &[TokenId] {
        self.close.map_or(&[], |close| self.token_ids.get(close.end..).unwrap_or_default())
    }

    /// Identity of what was generated.
    pub(crate) fn hash(&self) -> String {
        let mut hasher = Hasher::new();
        hasher.bytes(bytemuck::cast_slice(&self.prompt_ids));
        hasher.bytes(bytemuck::cast_slice(&self.token_ids));
        hasher.finish()[..16].to_owned()
    }
}

/// A trace file that is being read: its header, and an iterator over its records.
pub struct TraceFile {
    /// What made the file.
    pub header: TraceHeader,
    records: Reader<Trace>,
}

impl TraceFile {
    /// Opens a trace file.
    ///
    /// # Errors
    /// A file that is missing, of another kind or of another version.
    pub fn open(path: &Path) -> Result<Self> {
        let (header, records) = Reader::open(path, FORMAT, VERSION)?;
        Ok(Self { header, records })
    }
}

impl Iterator for TraceFile {
    type Item = Result<Trace>;

    fn next(&mut self) -> Option<Self::Item> {
        self.records.next()
    }
}
