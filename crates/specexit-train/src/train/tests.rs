//! Whole runs on a toy target.

mod alone;
mod heads;

use std::path::Path;

use specexit_model::Positions;
use specexit_model::head_file::HeadFile;

use super::run::{TargetFacts, train_on};
use super::*;
use crate::data::source::TargetSource;
use crate::data::testing::{ToySource, toy_examples};
use crate::error::{Result, TrainError};
use crate::jsonl::Appender;
use crate::label::{Cut, LabelFile, LabelHeader, LabelRecord, LabelRules, ProgressNorm};
use crate::net::probe::ProbeKind;
use crate::ops::Products;
use crate::progress::{Progress, Silent};
use crate::provenance::{ModelId, PROGRAM};

const WIDTH: usize = 16;
const VOCAB: usize = 30;

fn facts() -> TargetFacts {
    TargetFacts {
        id: ModelId { name: "toy".into(), hash: "toy".into(), tokenizer_hash: "tok".into() },
        intermediate_size: 24,
        heads: 4,
        kv_heads: 2,
        head_dim: 4,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        max_positions: 64,
        stop_ids: vec![29],
        // Every fifth token ends a paragraph.
        token_bytes: (0..VOCAB)
            .map(|t| if t % 5 == 0 { b".\n\n".to_vec() } else { vec![b'a'] })
            .collect(),
    }
}

/// A label file that says what `toy_examples` says.
fn write_labels(path: &Path, hash: &str) {
    let header = LabelHeader {
        format: "specexit-labels".to_owned(),
        version: 2,
        program: PROGRAM.to_owned(),
        model: ModelId { hash: hash.to_owned(), ..facts().id },
        endpoint: None,
        arithmetic: None,
        traces_header: String::new(),
        options: LabelRules::default(),
    };
    let mut file =
        Appender::open(path, "specexit-labels", 2, &header, |_: LabelRecord| Ok(())).unwrap();
    for (i, example) in toy_examples(24).into_iter().enumerate() {
        let kept = example.labels.len();
        let thought_end = example.prompt + kept;
        let record = LabelRecord {
            id: example.question.clone(),
            sample: i % 2,
            trace_hash: String::new(),
            dropped: None,
            answer: None,
            gold: None,
            correct: None,
            full: kept,
            kept,
            sufficient: true,
            cuts: vec![Cut {
                at: kept,
                answer: None,
                equal: true,
                confidence: Some(0.6),
                answer_tokens: 1,
            }],
            prompt_ids: example.tokens[..example.prompt].to_vec(),
            thought_ids: example.tokens[example.prompt..thought_end].to_vec(),
            close_ids: example.tokens[thought_end..thought_end + 1].to_vec(),
            answer_ids: example.tokens[thought_end + 1..].to_vec(),
            rest_ids: example.tokens[thought_end..].to_vec(),
        };
        file.append(&record).unwrap();
    }
}

fn options(folder: &Path) -> TrainOptions {
    TrainOptions {
        labels: folder.join("labels.jsonl"),
        out: folder.join("run"),
        batch_tokens: 60,
        epochs: 3,
        probe_epochs: 2,
        lr: 3e-3,
        ttt_steps: 3,
        report_chain: 3,
        held_out: 0.2,
        products: Products::F32,
        label_beyond: false,
        positions: Positions::Dense,
        ..TrainOptions::default()
    }
}

/// A learning rate such that the best draft layer is not the last one.
fn unsteady(options: TrainOptions) -> TrainOptions {
    TrainOptions { lr: 1.0, final_lr: 1.0, epochs: 6, ..options }
}

fn run(options: &TrainOptions, progress: &mut dyn Progress) -> Result<TrainSummary> {
    train_on(options, &facts(), &ToySource::new(WIDTH, VOCAB), progress)
}

/// Cancels once `left` steps have been done.
struct StopAfter {
    left: usize,
    training: bool,
}

impl Progress for StopAfter {
    fn start(&mut self, stage: &str, _: &str, _: u64, _: u64) {
        self.training = stage == "train";
    }

    fn advance(&mut self, _: u64, _: &str) {
        self.left -= usize::from(self.training && self.left > 0);
    }

    fn cancelled(&self) -> bool {
        self.training && self.left == 0
    }
}

/// Files of a run that must not depend on interruptions.
fn results(folder: &Path) -> Vec<Vec<u8>> {
    ["metrics.jsonl", "report.json", "head/model.safetensors", "head/config.json"]
        .map(|name| std::fs::read(folder.join("run").join(name)).unwrap())
        .to_vec()
}

#[test]
fn an_interrupted_run_ends_like_an_unbroken_one_to_the_last_bit() {
    let mlp = |options| TrainOptions {
        products: Products::F32,
        probe: ProbeKind::Mlp,
        probe_width: Some(8),
        positions: Positions::Boundaries,
        ..options
    };
    let fc = |options| TrainOptions { products: Products::Bf16, ..options };
    let draft = |options| TrainOptions { probe: ProbeKind::Draft, ..unsteady(options) };
    let of: [&dyn Fn(TrainOptions) -> TrainOptions; 3] = [&mlp, &fc, &draft];
    for of in of {
        let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for folder in [&whole, &broken] {
            write_labels(&folder.path().join("labels.jsonl"), "toy");
        }
        let summary = run(&of(options(whole.path())), &mut Silent).unwrap();
        assert!(summary.finished && summary.total_steps >= 12, "{summary:?}");

        let options = of(options(broken.path()));
        let mut runs = 0;
        loop {
            let mut stop = StopAfter { left: 5, training: false };
            let summary = run(&options, &mut stop).unwrap();
            runs += 1;
            // What a kill after the checkpoint leaves: later lines, a torn line.
            use std::io::Write;
            let metrics = options.out.join("metrics.jsonl");
            if summary.finished {
                break;
            }
            let mut file = std::fs::OpenOptions::new().append(true).open(metrics).unwrap();
            writeln!(file, "{{\"step\":{},\"epoch\":9}}", summary.steps + 1).unwrap();
            write!(file, "{{\"step\":").unwrap();
        }
        assert!(runs > 3);
        assert!(results(whole.path()) == results(broken.path()), "{:?}", options.probe);
        let steps = read_step_metrics(&options.out.join("metrics.jsonl")).unwrap();
        assert_eq!(steps.len() as u64, summary.total_steps);
    }
}

#[test]
fn the_toy_is_learned() {
    let folder = tempfile::tempdir().unwrap();
    write_labels(&folder.path().join("labels.jsonl"), "toy");
    let options = TrainOptions {
        epochs: 60,
        lr: 1e-2,
        probe_epochs: 20,
        probe_lr: 2e-2,
        ..options(folder.path())
    };
    let summary = run(&options, &mut Silent).unwrap();
    let quality = summary.report.unwrap().held_out.unwrap();
    assert!(quality.draft.agreement_per_depth[0] > 0.9, "{:?}", quality.draft);
    assert!(quality.draft.tau_per_chain[2] > 2.5, "{:?}", quality.draft);
    // How long a toy thought will be is not in its states: far from perfect is the best there is.
    for signal in &quality.signals[1..] {
        assert!(signal.mse < 0.7 * signal.mse_of_mean, "{signal:?}");
    }
    // Confidence is the same everywhere; a tie with the mean is all there is to reach.
    assert!(quality.signals[0].mae < 0.05, "{:?}", quality.signals[0]);
}

/// The final head does not know how much of the states was stored.
#[test]
fn the_room_for_states_changes_no_result() {
    // In GB: all, a part, nothing.
    let caps = [1.0, 15e-6, 0.0];
    let whole = tempfile::tempdir().unwrap();
    write_labels(&whole.path().join("labels.jsonl"), "toy");
    run(&options(whole.path()), &mut Silent).unwrap();
    let size = |folder: &Path| {
        std::fs::metadata(folder.join("run/states.bin")).map_or(0, |file| file.len())
    };
    assert!(size(whole.path()) > 25_000, "{}", size(whole.path()));
    for cap in &caps[1..] {
        let folder = tempfile::tempdir().unwrap();
        write_labels(&folder.path().join("labels.jsonl"), "toy");
        let options = TrainOptions { cache_gb: *cap, ..options(folder.path()) };
        run(&options, &mut Silent).unwrap();
        let size = size(folder.path()) as f64;
        assert!(size <= cap * 1e9 && (size > 0.5 * cap * 1e9 || *cap == 0.0), "{size}");
        assert!(results(whole.path()) == results(folder.path()), "{cap}");
    }
    // A run may go on under another cap each time.
    let folder = tempfile::tempdir().unwrap();
    write_labels(&folder.path().join("labels.jsonl"), "toy");
    for cap_gb in caps.iter().cycle() {
        let options = TrainOptions { cache_gb: *cap_gb, ..options(folder.path()) };
        if run(&options, &mut StopAfter { left: 3, training: false }).unwrap().finished {
            break;
        }
    }
    assert!(results(whole.path()) == results(folder.path()));
}

#[test]
fn loss_weights_by_the_signals_own_norms() {
    let folder = tempfile::tempdir().unwrap();
    write_labels(&folder.path().join("labels.jsonl"), "toy");
    let head = |loss_weights, out: &str| {
        let out = folder.path().join(out);
        let options = TrainOptions { loss_weights, out: out.clone(), ..options(folder.path()) };
        run(&options, &mut Silent).unwrap();
        let steps = read_step_metrics(&out.join("metrics.jsonl")).unwrap();
        (std::fs::read(out.join("head/model.safetensors")).unwrap(), steps)
    };
    let (dynamic, _) = head(LossWeights::Dynamic, "dynamic");
    let (w1, kept) = head(LossWeights::W1, "w1");
    let (w2, moving) = head(LossWeights::W2, "w2");
    assert!(dynamic == w1 && w1 != w2);
    let last = |steps: &[StepMetrics]| {
        steps[steps.len() - 2..].iter().map(|s| s.lambda).collect::<Vec<_>>()
    };
    assert_eq!(last(&kept)[0], last(&kept)[1]);
    assert_ne!(last(&moving)[0], last(&moving)[1]);
}

#[test]
fn patience_ends_passes_that_do_not_help_wherever_the_run_is_interrupted() {
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options = |folder: &Path| {
        write_labels(&folder.join("labels.jsonl"), "toy");
        // So fast that the held-out loss soon gets worse.
        TrainOptions {
            epochs: 40,
            lr: 0.3,
            probe_epochs: 40,
            probe_lr: 0.5,
            patience: Some(2),
            ..options(folder)
        }
    };
    let summary = run(&options(whole.path()), &mut Silent).unwrap();
    let report = summary.report.unwrap();
    assert!(summary.finished && summary.steps < summary.total_steps / 2, "{}", summary.steps);
    assert_eq!(report.run.steps, summary.steps);
    let metrics = read_step_metrics(&whole.path().join("run/metrics.jsonl")).unwrap();
    assert_eq!(metrics.len() as u64, summary.steps);
    let joint = metrics.iter().filter(|step| step.token_loss.is_some()).count();
    assert!(joint > 0 && joint < metrics.len(), "both kinds of pass were begun");

    let options = options(broken.path());
    while !run(&options, &mut StopAfter { left: 7, training: false }).unwrap().finished {}
    assert!(results(whole.path()) == results(broken.path()));

    let error = |options: TrainOptions| options.validate().unwrap_err().to_string();
    let none = TrainOptions { held_out: 0.0, ..options.clone() };
    assert!(error(none).starts_with("patience needs held-out questions"));
    assert!(error(TrainOptions { patience: Some(0), ..options }).starts_with("patience = 0"));
}

#[test]
fn a_finished_run_is_reported_again() {
    let folder = tempfile::tempdir().unwrap();
    write_labels(&folder.path().join("labels.jsonl"), "toy");
    let options = options(folder.path());
    let first = run(&options, &mut Silent).unwrap();
    let before = results(folder.path());
    let again = run(&options, &mut Silent).unwrap();
    assert_eq!(first.report, again.report);
    assert!(before == results(folder.path()));
}

#[test]
fn what_differs_from_the_run_found_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let labels = folder.path().join("labels.jsonl");
    write_labels(&labels, "toy");
    let options = options(folder.path());
    run(&options, &mut StopAfter { left: 1, training: false }).unwrap();
    let error = |o: &TrainOptions| run(o, &mut Silent).unwrap_err().to_string();
    let lr = error(&TrainOptions { lr: 1e-2, ..options.clone() });
    assert!(lr.contains("options.lr = 0.003, but now it is 0.01"), "{lr}");
    let kept = TrainOptions { checkpoint_seconds: 1.0, cache_gb: 2.0, ..options.clone() };
    run(&kept, &mut StopAfter { left: 1, training: false }).unwrap();

    std::fs::remove_file(&labels).unwrap();
    write_labels(&labels, "another");
    let model = error(&options);
    assert!(model.contains("model.hash = another, but now it is toy"), "{model}");
}

/// A target whose states turn into NaN at some token.
struct Poisoned(ToySource);

impl TargetSource for Poisoned {
    fn hidden_size(&self) -> usize {
        self.0.hidden_size()
    }
    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }
    fn states(&self, tokens: &[u32]) -> Result<(Vec<f32>, Vec<f32>)> {
        let (taps, mut hidden) = self.0.states(tokens)?;
        hidden[5 * WIDTH] = f32::NAN;
        Ok((taps, hidden))
    }
    fn most_probable(&self, hidden: &[f32]) -> Vec<u32> {
        self.0.most_probable(hidden)
    }
    fn embedding(&self, token: u32, row: &mut [f32]) {
        self.0.embedding(token, row);
    }
    fn output_row(&self, token: u32, row: &mut [f32]) {
        self.0.output_row(token, row);
    }
}

/// Not a test of its own: the process that [`a_killed_run_goes_on`] kills.
#[test]
#[ignore = "run by a_killed_run_goes_on"]
fn child_that_is_killed() {
    let Some(folder) = std::env::var_os("SPECEXIT_TEST_FOLDER") else { return };
    let options = TrainOptions { checkpoint_steps: Some(2), ..options(Path::new(&folder)) };
    run(&options, &mut Silent).unwrap();
}

#[test]
fn a_killed_run_goes_on() {
    let (whole, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for folder in [&whole, &killed] {
        write_labels(&folder.path().join("labels.jsonl"), "toy");
    }
    run(&options(whole.path()), &mut Silent).unwrap();

    let steps = || {
        let text = std::fs::read_to_string(killed.path().join("run/metrics.jsonl"));
        text.map_or(0, |t| t.lines().count())
    };
    let (mut kills, mut finished) = (0, false);
    while !finished {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "train::tests::child_that_is_killed", "--ignored"])
            .env("SPECEXIT_TEST_FOLDER", killed.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // Killed as soon as it got a few lines further, wherever it is then.
        let goal = steps() + 4;
        finished = loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success());
                break true;
            }
            if steps() >= goal {
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
                break false;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        };
        assert!(kills < 50, "a killed run must get further each time");
    }
    assert!(kills > 0);
    assert!(results(whole.path()) == results(killed.path()));
}

#[test]
fn numbers_that_are_not_finite_stop_the_run() {
    let folder = tempfile::tempdir().unwrap();
    write_labels(&folder.path().join("labels.jsonl"), "toy");
    for products in [Products::F32, Products::Bf16] {
        let source = Poisoned(ToySource::new(WIDTH, VOCAB));
        let out = folder.path().join(format!("{products:?}"));
        let options = TrainOptions { products, out, ..options(folder.path()) };
        let error = train_on(&options, &facts(), &source, &mut Silent).unwrap_err();
        assert!(matches!(error, TrainError::Diverged { step: 1, .. }), "{error}");
        assert!(error.to_string().contains("lower learning rate"), "{error}");
    }
}
