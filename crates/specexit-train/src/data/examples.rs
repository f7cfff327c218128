//! Label records as training sequences, and which of them are held out.

use std::collections::BTreeSet;
use std::path::Path;

use specexit_exit::{BoundaryTable, TokenId};

use crate::error::{Result, TrainError};
use crate::label::{LabelRecord, ProgressNorm};
use crate::net::probe::SignalLabel;
use crate::provenance::derived_seed;
use crate::train::Sequences;

/// One training sequence.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Example {
    /// The question's id; questions are held out as a whole.
    pub(crate) question: String,
    /// Prompt and output, cut to the longest allowed.
    pub(crate) tokens: Vec<TokenId>,
    /// Length of the prompt.
    pub(crate) prompt: usize,
    /// What thinking tokens should signal, in order.
    pub(crate) labels: Vec<Labelled>,
}

/// A thinking token with a label.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Labelled {
    /// Position of the token in the sequence.
    pub(crate) position: usize,
    /// What it should signal.
    pub(crate) label: SignalLabel,
}

/// How records become training sequences.
pub(crate) struct ExampleRules<'a> {
    /// What progress is relative to.
    pub(crate) norm: ProgressNorm,
    /// Which text is learned from.
    pub(crate) sequences: Sequences,
    /// Whether thinking tokens past the earliest sufficient cut have labels.
    pub(crate) label_beyond: bool,
    /// Label only tokens with such a boundary after them; every thinking token when absent.
    pub(crate) boundaries: Option<&'a BoundaryTable>,
    /// Longest sequence, in tokens.
    pub(crate) max_length: usize,
}

impl Example {
    /// `None` for a record without labels, or too short to draft anything.
    pub(crate) fn of(record: &LabelRecord, rules: &ExampleRules<'_>) -> Option<Self> {
        let mut tokens = match rules.sequences {
            Sequences::Whole => record.whole(),
            Sequences::Shortened => record.shortened(),
        };
        tokens.truncate(rules.max_length);
        let prompt = record.prompt_ids.len();
        if record.dropped.is_some() || prompt == 0 || tokens.len() < prompt + 2 {
            return None;
        }
        // The last token's state is not stored: nothing after it is drafted.
        let limit = tokens.len() - 2;
        let signals = record.signal_labels(rules.norm, rules.label_beyond);
        let labelled: Vec<usize> = match rules.boundaries {
            None => (0..signals.len()).collect(),
            Some(table) => table.boundaries(&record.whole_thought()),
        };
        let labels = labelled
            .into_iter()
            .filter(|&i| i < signals.len() && prompt + i < limit)
            .map(|i| Labelled { position: prompt + i, label: signals[i] })
            .collect();
        Some(Self { question: record.id.clone(), tokens, prompt, labels })
    }

    /// Positions whose states are stored: all but the last two, from which nothing is drafted.
    pub(crate) fn context(&self) -> usize {
        self.tokens.len() - 2
    }

    /// First position that drafts: the prompt's last.
    pub(crate) fn first(&self) -> usize {
        self.prompt - 1
    }

    /// Positions that draft at step 0: position t predicts token t+2.
    pub(crate) fn queries(&self) -> usize {
        self.context() - self.first()
    }
}

/// Reads all records that give a training sequence, in file order.
pub(crate) fn read_examples(
    path: &Path,
    records: impl Iterator<Item = Result<LabelRecord>>,
    rules: &ExampleRules<'_>,
) -> Result<Vec<Example>> {
    let mut examples = Vec::new();
    for record in records {
        examples.extend(Example::of(&record?, rules));
    }
    if examples.is_empty() {
        return Err(TrainError::NoData(format!(
            "{} holds no labelled thought of at most {} tokens",
            path.display(),
            rules.max_length
        )));
    }
    Ok(examples)
}

/// Indices of training and of held-out examples. Whole questions are held out: the share `fraction`
/// of them, at least one if it is above zero, chosen by `seed`.
pub(crate) fn split(
    examples: &[Example],
    fraction: f64,
    seed: u64,
) -> Result<(Vec<usize>, Vec<usize>)> {
    let questions: BTreeSet<&str> = examples.iter().map(|e| e.question.as_str()).collect();
    let mut keyed: Vec<(u64, &str)> =
        questions.into_iter().map(|q| (derived_seed(seed, &["held out", q]), q)).collect();
    keyed.sort_unstable();
    let held = (keyed.len() as f64 * fraction).ceil() as usize;
    if held >= keyed.len() {
        return Err(TrainError::option(
            "held_out",
            format!(
                "= {fraction} leaves none of the {} labelled questions to train on; lower it or \
                 label more questions",
                keyed.len()
            ),
        ));
    }
    let held: BTreeSet<&str> = keyed[..held].iter().map(|(_, q)| *q).collect();
    Ok((0..examples.len()).partition(|&i| !held.contains(examples[i].question.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(question: &str) -> Example {
        Example {
            question: question.to_owned(),
            tokens: vec![1, 2, 3, 4],
            prompt: 2,
            labels: Vec::new(),
        }
    }

    #[test]
    fn questions_are_held_out_as_a_whole() {
        let examples: Vec<Example> = (0..40).map(|i| example(&format!("q{}", i % 10))).collect();
        let (train, held) = split(&examples, 0.25, 7).unwrap();
        assert_eq!((train.len(), held.len()), (28, 12));
        let names = |of: &[usize]| {
            of.iter().map(|&i| examples[i].question.clone()).collect::<BTreeSet<String>>()
        };
        assert!(names(&train).is_disjoint(&names(&held)));
        assert_eq!(split(&examples, 0.25, 7).unwrap(), (train, held.clone()));
        assert_ne!(split(&examples, 0.25, 8).unwrap().1, held);
        assert!(split(&examples, 0.0, 7).unwrap().1.is_empty());
        let error = split(&examples[..1], 0.1, 7).unwrap_err().to_string();
        assert!(error.contains("held_out = 0.1 leaves none of the 1"), "{error}");
    }
}
