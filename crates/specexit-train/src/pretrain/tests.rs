//! Whole runs on a toy corpus.

use std::path::Path;

use super::testing::options;
use super::*;
use crate::error::{Result, TrainError};
use crate::progress::{Progress, Silent};

/// Texts that count up by a stride in 1..=3, which shows only after two tokens.
struct Counting;

impl Counting {
    fn text(index: u64) -> Sample {
        let (start, stride) = (index * 7 % 20, 1 + index % 3);
        let length = 8 + index % 9;
        let tokens = (0..length).map(|i| ((start + i * stride) % 20) as u32).collect();
        Sample { tokens, loss_from: 2 }
    }
}

impl Corpus for Counting {
    fn sample(&self, index: u64, progress: f64) -> Sample {
        // The curriculum: the first half of the run has a longer text here and there.
        let sample = Self::text(index * 11 + 1);
        if progress < 0.5 && index.is_multiple_of(5) { Self::text(8) } else { sample }
    }

    fn held_out(&self) -> Vec<Sample> {
        (0..10).map(|i| Self::text(i * 11)).collect()
    }

    fn hash(&self) -> String {
        "counting".to_owned()
    }
}

/// Cancels after a number of steps.
struct StopAfter(u64);

impl Progress for StopAfter {
    fn advance(&mut self, _: u64, _: &str) {
        self.0 = self.0.saturating_sub(1);
    }

    fn cancelled(&self) -> bool {
        self.0 == 0
    }
}

#[test]
fn a_tiny_model_learns_to_count() {
    let folder = tempfile::tempdir().unwrap();
    let summary = pretrain(&options(folder.path()), &Counting, &mut Silent).unwrap();
    assert!(summary.finished && summary.steps == 120);
    // Tokens alone are uniform: ln 20 = 3.0.
    assert!(summary.held_out_loss.unwrap() < 0.3, "{summary:?}");
    let again = pretrain(&options(folder.path()), &Counting, &mut Silent).unwrap();
    assert_eq!(again, summary);
    assert_eq!(std::fs::read(summary.model.join("note.txt")).unwrap(), b"hello");
}

#[test]
fn an_interrupted_run_ends_with_the_same_bits() {
    let whole = tempfile::tempdir().unwrap();
    let parts = tempfile::tempdir().unwrap();
    let steps = |out| PretrainOptions { steps: 30, eval_steps: 7, ..options(out) };
    pretrain(&steps(whole.path()), &Counting, &mut Silent).unwrap();
    for stop in [5, 9] {
        let summary = pretrain(&steps(parts.path()), &Counting, &mut StopAfter(stop)).unwrap();
        assert!(!summary.finished);
    }
    // A kill between a step and the next checkpoint leaves lines that come again, one of them torn.
    let metrics = parts.path().join("metrics.jsonl");
    let mut text = std::fs::read_to_string(&metrics).unwrap();
    text.push_str("{\"step\":15,\"tokens\":1,\"targets\":1,\"loss\":1.0,\"lr\":1.0}\n{\"ste");
    std::fs::write(&metrics, text).unwrap();
    assert!(pretrain(&steps(parts.path()), &Counting, &mut Silent).unwrap().finished);
    for file in ["last.safetensors", "metrics.jsonl", "run.json", "model/model.safetensors"] {
        let read = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
        assert_eq!(read(whole.path()), read(parts.path()), "{file}");
    }
}

#[test]
fn another_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let short = PretrainOptions { steps: 1, ..options(folder.path()) };
    pretrain(&short, &Counting, &mut Silent).unwrap();
    let error = |o: PretrainOptions| pretrain(&o, &Counting, &mut Silent).unwrap_err().to_string();
    let lr = error(PretrainOptions { lr: 0.5, ..short.clone() });
    assert!(lr.contains("options.lr = 0.01, but now it is 0.5"), "{lr}");
    let files = vec![("note.txt".to_owned(), b"bye".to_vec())];
    let file = error(PretrainOptions { files, ..short.clone() });
    assert!(file.contains("files.note.txt = "), "{file}");
    let free = PretrainOptions { eval_steps: 3, checkpoint_seconds: 1.0, ..short };
    pretrain(&free, &Counting, &mut Silent).unwrap();
}

#[test]
fn diverging_keeps_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let wild = PretrainOptions { lr: 1e30, steps: 20, ..options(folder.path()) };
    pretrain(&wild, &Counting, &mut StopAfter(1)).unwrap();
    let error = pretrain(&wild, &Counting, &mut Silent).unwrap_err();
    assert!(matches!(error, TrainError::Diverged { .. }), "{error}");
    assert!(error.to_string().contains("last.safetensors is kept"), "{error}");
}

#[test]
fn unusable_texts_and_options_are_named() {
    struct Bad(Sample);
    impl Corpus for Bad {
        fn sample(&self, _: u64, _: f64) -> Sample {
            self.0.clone()
        }
        fn held_out(&self) -> Vec<Sample> {
            Vec::new()
        }
        fn hash(&self) -> String {
            String::new()
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let run = |tokens: Vec<u32>, loss_from| -> Result<PretrainSummary> {
        pretrain(&options(folder.path()), &Bad(Sample { tokens, loss_from }), &mut Silent)
    };
    let error = |tokens, from| run(tokens, from).unwrap_err().to_string();
    assert!(error(vec![1], 0).contains("makes text 0, which has 1 tokens"));
    assert!(error(vec![1, 20], 0).contains("has token 20, outside the vocabulary of 20"));
    assert!(error(vec![1, 2], 2).contains("carries loss from token 2 on, but has only 2"));
    let invalid = |change: &dyn Fn(&mut PretrainOptions)| {
        let mut o = options(folder.path());
        change(&mut o);
        o.validate().unwrap_err().to_string()
    };
    assert!(invalid(&|o| o.steps = 0).starts_with("steps = 0"));
    assert!(invalid(&|o| o.shape.head_dim = 3).starts_with("shape.head_dim must be even"));
    assert!(invalid(&|o| o.eos_token_id = vec![99]).starts_with("eos_token_id = 99"));
    assert!(invalid(&|o| o.files[0].0 = "../x".to_owned()).starts_with("files has"));
}
