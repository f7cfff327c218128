//! What `label` writes for each trace.

use std::path::Path;

use serde::{Deserialize, Serialize};
use specexit_exit::TokenId;

use super::LabelRules;
use crate::completer::EndpointId;
use crate::error::Result;
use crate::jsonl::Reader;
use crate::net::probe::SignalLabel;
use crate::provenance::ModelId;

/// Name of the format in the header.
pub(crate) const FORMAT: &str = "specexit-labels";
/// Version of the format.
pub(crate) const VERSION: u32 = 2;

/// First line of a label file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LabelHeader {
    /// `specexit-labels`.
    pub format: String,
    /// Version of the format.
    pub version: u32,
    /// Version of the program that wrote it.
    pub program: String,
    /// The target that answered the trials.
    pub model: ModelId,
    /// The server that answered, where it was not this program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointId>,
    /// What the target computed in; absent for bf16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arithmetic: Option<String>,
    /// Hash of the trace file's header; records name the traces themselves.
    pub traces_header: String,
    /// The options that decide what the records say.
    pub options: LabelRules,
}

/// Why a trace gave no labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// The trace hit its length limit.
    Length,
    /// Its thought was never closed.
    NoClose,
    /// Its thought has no tokens.
    NoThought,
    /// No answer was found in it to compare with.
    NoAnswer,
    /// Its answer is not the known one, and only correct traces were asked for.
    NotCorrect,
}

/// What progress is relative to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProgressNorm {
    /// The earliest sufficient cut n: progress is 1 there.
    #[default]
    Cut,
    /// The whole thought N: progress is n/N at the cut.
    Full,
}

/// Which tokens' probabilities the confidence label averages (arXiv 2509.24248, where it leaves them open).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConfidenceKind {
    /// The trial answer generated at the enclosing paragraph end.
    #[default]
    C1,
    /// The thinking tokens of the paragraph itself.
    C2,
    /// The trace's own answer, its end of sequence left out, read after the enclosing paragraph end
    /// and the end-of-thinking marker.
    C3,
}

/// One place where ending the thought was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cut {
    /// Thinking tokens before the forced end.
    pub at: usize,
    /// The answer given after it.
    pub answer: Option<String>,
    /// Whether it equals the trace's own answer.
    pub equal: bool,
    /// The confidence label of the paragraph that ends here; absent where no token had a
    /// probability.
    pub confidence: Option<f32>,
    /// Tokens of the trial answer, the end of sequence included.
    pub answer_tokens: usize,
}

/// Labels of one trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelRecord {
    /// The question's id.
    pub id: String,
    /// Which sample of the question.
    pub sample: usize,
    /// Hash of the trace's tokens.
    pub trace_hash: String,
    /// Set when the trace gave no labels; the fields below are then empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<DropReason>,
    /// The trace's own answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The known answer, as the question file has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gold: Option<String>,
    /// Whether the trace's own answer is the known one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correct: Option<bool>,
    /// Thinking tokens N of the whole thought.
    #[serde(default)]
    pub full: usize,
    /// The earliest sufficient cut n, in thinking tokens; N when no cut sufficed.
    #[serde(default)]
    pub kept: usize,
    /// Whether n is a cut that gave the trace's own answer.
    #[serde(default)]
    pub sufficient: bool,
    /// The cuts tried, in order.
    #[serde(default)]
    pub cuts: Vec<Cut>,
    /// Tokens of the prompt.
    #[serde(default)]
    pub prompt_ids: Vec<TokenId>,
    /// The kept thinking tokens, n of them.
    #[serde(default)]
    pub thought_ids: Vec<TokenId>,
    /// Tokens of the end-of-thinking marker.
    #[serde(default)]
    pub close_ids: Vec<TokenId>,
    /// Tokens of the answer given after the cut.
    #[serde(default)]
    pub answer_ids: Vec<TokenId>,
    /// What the trace itself goes on with after the kept thinking tokens, to its end.
    #[serde(default)]
    pub rest_ids: Vec<TokenId>,
}

impl LabelRecord {
    /// The output as it was: prompt, kept thought, and everything after it.
    pub fn whole(&self) -> Vec<TokenId> {
        [&self.prompt_ids[..], &self.thought_ids, &self.rest_ids].concat()
    }

    /// All thinking tokens, N of them.
    pub(crate) fn whole_thought(&self) -> Vec<TokenId> {
        let after = self.full.saturating_sub(self.kept).min(self.rest_ids.len());
        [&self.thought_ids[..], &self.rest_ids[..after]].concat()
    }

    /// The output as it could have been: prompt, kept thought, end marker, answer.
    pub fn shortened(&self) -> Vec<TokenId> {
        [&self.prompt_ids[..], &self.thought_ids, &self.close_ids, &self.answer_ids].concat()
    }

    /// Labels of the kept thinking tokens (arXiv 2509.24248). With i the 1-based index of a token:
    /// remaining = n - i, progress = i/n or i/N, confidence that of the enclosing paragraph.
    ///
    /// With `beyond` the thinking tokens after n have labels too: nothing remains to be thought there,
    /// so remaining = 0, and progress stays 1 or goes on to N/N. The article drops these tokens; then
    /// nothing says what the signals are where an exit was missed.
    pub(crate) fn signal_labels(&self, norm: ProgressNorm, beyond: bool) -> Vec<SignalLabel> {
        let whole = match norm {
            ProgressNorm::Cut => self.kept,
            ProgressNorm::Full => self.full,
        };
        let mut cuts = self.cuts.iter().peekable();
        let last = if beyond { self.full } else { self.kept };
        (1..=last)
            .map(|i| {
                while cuts.next_if(|cut| cut.at < i).is_some() {}
                SignalLabel {
                    confidence: cuts.peek().and_then(|c| c.confidence).unwrap_or(f32::NAN),
                    progress: (i as f32 / whole as f32).min(1.0),
                    remaining: self.kept.saturating_sub(i) as f32,
                }
            })
            .collect()
    }
}

/// A label file that is being read: its header, and an iterator over its records.
pub struct LabelFile {
    /// What made the file.
    pub header: LabelHeader,
    records: Reader<LabelRecord>,
}

impl LabelFile {
    /// Opens a label file.
    ///
    /// # Errors
    /// A file that is missing, of another kind or of another version.
    pub fn open(path: &Path) -> Result<Self> {
        let (header, records) = Reader::open(path, FORMAT, VERSION)?;
        Ok(Self { header, records })
    }
}

impl Iterator for LabelFile {
    type Item = Result<LabelRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        self.records.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_the_method_note() {
        let cut =
            |at, confidence| Cut { at, answer: None, equal: at == 4, confidence, answer_tokens: 3 };
        let record = LabelRecord {
            id: "q".to_owned(),
            sample: 0,
            trace_hash: String::new(),
            dropped: None,
            answer: Some("5".to_owned()),
            gold: None,
            correct: None,
            full: 8,
            kept: 4,
            sufficient: true,
            cuts: vec![cut(1, None), cut(3, Some(0.25)), cut(4, Some(0.75))],
            prompt_ids: vec![1],
            thought_ids: vec![2, 3, 4, 5],
            close_ids: vec![6],
            answer_ids: vec![7],
            rest_ids: vec![8, 9, 8, 9, 6, 7],
        };
        let labels = record.signal_labels(ProgressNorm::Cut, false);
        let of = |f: fn(&SignalLabel) -> f32| labels.iter().map(f).collect::<Vec<f32>>();
        assert_eq!(of(|l| l.remaining), [3.0, 2.0, 1.0, 0.0]);
        assert_eq!(of(|l| l.progress), [0.25, 0.5, 0.75, 1.0]);
        assert!(labels[0].confidence.is_nan());
        assert_eq!(of(|l| l.confidence)[1..], [0.25, 0.25, 0.75]);
        let full = record.signal_labels(ProgressNorm::Full, false);
        assert_eq!((full.len(), full[3].progress), (4, 0.5));
        let beyond = record.signal_labels(ProgressNorm::Cut, true);
        assert_eq!(beyond[1..4], labels[1..4]);
        assert_eq!((beyond.len(), beyond[7].progress, beyond[7].remaining), (8, 1.0, 0.0));
        assert!(beyond[7].confidence.is_nan());
        assert_eq!(record.signal_labels(ProgressNorm::Full, true)[5].progress, 0.75);
        assert_eq!(record.shortened(), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(record.whole(), [1, 2, 3, 4, 5, 8, 9, 8, 9, 6, 7]);
    }
}
