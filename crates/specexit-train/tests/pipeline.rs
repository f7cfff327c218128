//! Questions to a trained head on a tiny random model, with interruptions everywhere.

#![allow(clippy::unwrap_used, clippy::result_large_err, reason = "a test may fail by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use specexit_engine::{Engine, EngineOptions, Finish, Method, Phase, Request};
use specexit_exit::{ExitReason, Profile};
use specexit_kernels::Precision;
use specexit_model::{
    DraftHead, LogitRows, Model, ModelSource, ModelText, Target, TargetRows, Workspace,
};
use specexit_testkit as testkit;
use specexit_train::{
    CollectOptions, CollectRules, CollectSummary, ConfidenceKind, Dropped, LabelFile, LabelOptions,
    LabelRules, ProbeKind, Progress, Silent, Trace, TraceFile, TrainOptions, WaitCount, collect,
    label, train,
};

struct Fixture {
    folder: tempfile::TempDir,
    model: Model,
    text: ModelText,
}

/// Stops after so many records.
struct StopAfter(usize);

impl Progress for StopAfter {
    fn advance(&mut self, _: u64, _: &str) {
        self.0 = self.0.saturating_sub(1);
    }

    fn cancelled(&self) -> bool {
        self.0 == 0
    }
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("model");
        testkit::write_model(&dir, 1).unwrap();
        // A random model hardly ever ends anything: let many tokens end the text.
        let config = std::fs::read_to_string(dir.join("config.json")).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
        let many: Vec<u32> = [testkit::EOS].into_iter().chain(180..192).collect();
        config["eos_token_id"] = serde_json::json!(many);
        std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
        let questions: Vec<String> = (0..7)
            .map(|i| {
                format!(
                    "{{\"question\": \"What is {i} + {i}?\", \"answer\": \"#### {}\"}}\n",
                    2 * i
                )
            })
            .collect();
        std::fs::write(folder.path().join("questions.jsonl"), questions.concat()).unwrap();
        let model = Model::load(&ModelSource::Folder(dir), 1, Precision::F32).unwrap();
        let text = model.text();
        Self { folder, model, text }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn engine(&self, head: Option<Arc<DraftHead>>) -> Engine {
        let (target, tokenizer) =
            (Arc::clone(&self.model.target), Arc::clone(&self.model.tokenizer));
        Engine::new(target, tokenizer, head, EngineOptions::default()).unwrap()
    }

    fn collect_options(&self, out: &str) -> CollectOptions {
        CollectOptions {
            questions: self.path("questions.jsonl"),
            out: self.path(out),
            samples: 2,
            batch: 4,
            rules: CollectRules {
                temperature: 1.0,
                max_new_tokens: 300,
                waits: 3,
                wait_count: WaitCount::Drawn,
                record_logprobs: true,
                seed: 5,
                ..CollectRules::default()
            },
            ..CollectOptions::default()
        }
    }

    fn collect(&self, options: &CollectOptions) -> CollectSummary {
        collect(options, &mut self.engine(None), &self.text, &mut Silent).unwrap()
    }

    fn label_options(&self, traces: &str, out: &str) -> LabelOptions {
        LabelOptions {
            traces: self.path(traces),
            out: self.path(out),
            batch: 3,
            rules: LabelRules { max_answer_tokens: 40, ..LabelRules::default() },
            ..LabelOptions::default()
        }
    }
}

fn traces(path: &Path) -> Vec<Trace> {
    TraceFile::open(path).unwrap().map(Result::unwrap).collect()
}

#[test]
fn traces_tell_what_happened() {
    let fixture = Fixture::new();
    let options = fixture.collect_options("traces.jsonl");
    let summary = fixture.collect(&options);
    let traces = traces(&options.out);
    assert!(summary.finished);
    assert_eq!((summary.traces, traces.len()), (14, 14));
    let tokenizer = &fixture.model.tokenizer;
    let mut dropped = Vec::new();
    for trace in &traces {
        assert!(trace.token_ids.len() <= 300 + 20);
        assert!(trace.waits.len() <= trace.waits_wanted && trace.waits_wanted <= 3);
        assert!(trace.prompt.ends_with("<think>\n"));
        let think = trace.think.unwrap();
        assert_eq!(think.start, 0);
        for wait in &trace.waits {
            let text = tokenizer.decode(wait.forced.of(&trace.token_ids), false).unwrap();
            assert!(text.ends_with("Wait, let me check."), "{text:?}");
            assert!(wait.forced.start == 0 || text.contains("\n\nWait"), "{text:?}");
            assert!(wait.forced.end <= think.end);
            dropped.push(wait.dropped);
        }
        let logprobs = trace.logprobs.as_ref().unwrap();
        assert_eq!(logprobs.len(), trace.token_ids.len());
        let forced: usize = trace.waits.iter().map(|w| w.forced.len()).sum();
        assert!(logprobs.iter().filter(|p| p.is_none()).count() >= forced);
        if let Some(close) = trace.close {
            assert_eq!(close.start, think.end);
            assert!(
                tokenizer.decode(close.of(&trace.token_ids), false).unwrap().contains("</think>")
            );
            let whole = tokenizer.decode(&trace.token_ids, true).unwrap();
            assert!(whole.contains(&trace.thinking) && whole.ends_with(&trace.answer));
        }
        if trace.finish == Finish::Stop {
            assert_eq!(trace.waits.len(), trace.waits_wanted, "all waits are used before the end");
        }
    }
    assert!(dropped.contains(&Dropped::Stop), "{dropped:?}");
    assert!(traces.iter().any(|t| t.forced_close) && traces.iter().any(|t| t.waits.len() > 1));
    assert!(traces.iter().any(|t| t.waits_wanted == 0));
}

#[test]
fn a_trace_file_depends_on_neither_batch_nor_interruptions() {
    let fixture = Fixture::new();
    let whole = fixture.collect_options("whole.jsonl");
    fixture.collect(&whole);
    let expected = std::fs::read(&whole.out).unwrap();

    let single = CollectOptions { batch: 1, ..fixture.collect_options("single.jsonl") };
    fixture.collect(&single);
    assert!(std::fs::read(&single.out).unwrap() == expected, "batch of one");

    let stopped = fixture.collect_options("stopped.jsonl");
    for stop in [1, 3, 4] {
        let mut engine = fixture.engine(None);
        let summary = collect(&stopped, &mut engine, &fixture.text, &mut StopAfter(stop)).unwrap();
        assert!(!summary.finished);
        // The torn line of a kill.
        let bytes = std::fs::read(&stopped.out).unwrap();
        std::fs::write(&stopped.out, &bytes[..bytes.len() - 20]).unwrap();
    }
    fixture.collect(&stopped);
    assert!(std::fs::read(&stopped.out).unwrap() == expected, "interrupted");

    // Fewer questions first, then all: the file grows.
    let grown = fixture.collect_options("grown.jsonl");
    fixture.collect(&CollectOptions { limit: Some(3), samples: 1, ..grown.clone() });
    fixture.collect(&grown);
    assert!(std::fs::read(&grown.out).unwrap() == expected, "grown");

    let mut other = grown;
    other.rules.temperature = 0.7;
    let error = collect(&other, &mut fixture.engine(None), &fixture.text, &mut Silent);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("options.temperature = 1.0, but now it is 0.7"), "{error}");
}

#[test]
fn labels_depend_on_neither_batch_nor_interruptions() {
    let fixture = Fixture::new();
    fixture.collect(&fixture.collect_options("traces.jsonl"));
    let mut engine = fixture.engine(None);
    let mut run = |options: &LabelOptions, progress: &mut dyn Progress| {
        label(options, &mut engine, &fixture.text, progress)
    };
    let whole = fixture.label_options("traces.jsonl", "labels.jsonl");
    let summary = run(&whole, &mut Silent).unwrap();
    assert!(summary.finished && summary.labelled >= 4, "{summary:?}");
    assert_eq!(summary.labelled + summary.dropped.iter().map(|d| d.1).sum::<usize>(), 14);
    let expected = std::fs::read(&whole.out).unwrap();

    let single = LabelOptions { batch: 1, ..fixture.label_options("traces.jsonl", "single.jsonl") };
    run(&single, &mut Silent).unwrap();
    assert!(std::fs::read(&single.out).unwrap() == expected, "batch of one");

    let stopped = fixture.label_options("traces.jsonl", "stopped.jsonl");
    for stop in [2, 5] {
        assert!(!run(&stopped, &mut StopAfter(stop)).unwrap().finished);
        let bytes = std::fs::read(&stopped.out).unwrap();
        std::fs::write(&stopped.out, &bytes[..bytes.len() - 9]).unwrap();
    }
    run(&stopped, &mut Silent).unwrap();
    assert!(std::fs::read(&stopped.out).unwrap() == expected, "interrupted");

    let mut other = whole.clone();
    other.rules.stride = 2;
    let error = run(&other, &mut Silent).unwrap_err().to_string();
    assert!(error.contains("options.stride = 1, but now it is 2"), "{error}");

    let traces = traces(&whole.traces);
    for record in LabelFile::open(&whole.out).unwrap().map(Result::unwrap) {
        let trace = traces.iter().find(|t| (&t.id, t.sample) == (&record.id, record.sample));
        let trace = trace.unwrap();
        if record.dropped.is_some() {
            assert!(record.shortened().is_empty());
            continue;
        }
        assert_eq!(record.full, trace.thought_ids().len());
        assert_eq!(record.thought_ids, trace.thought_ids()[..record.kept]);
        let last = record.cuts.iter().find(|c| c.at == record.kept).unwrap();
        assert_eq!(last.equal, record.sufficient);
        assert!(record.cuts.iter().all(|c| c.confidence.is_none_or(|p| p > 0.0 && p <= 1.0)));
        assert!(record.cuts.iter().take_while(|c| c.at < record.kept).all(|c| !c.equal));
        if !record.sufficient {
            assert_eq!(record.kept, record.full);
            assert_eq!(record.shortened(), [&trace.prompt_ids[..], &trace.token_ids].concat());
        }
    }
}

#[test]
fn all_cuts_and_other_confidences() {
    let fixture = Fixture::new();
    let mut collecting = fixture.collect_options("traces.jsonl");
    collecting.limit = Some(4);
    fixture.collect(&collecting);
    let run = |options: &LabelOptions| {
        label(options, &mut fixture.engine(None), &fixture.text, &mut Silent)
    };
    let mut options = fixture.label_options("traces.jsonl", "c2.jsonl");
    options.rules.all_cuts = true;
    options.rules.confidence = ConfidenceKind::C2;
    run(&options).unwrap();
    for record in LabelFile::open(&options.out).unwrap().map(Result::unwrap) {
        if record.dropped.is_none() {
            assert_eq!(record.cuts.last().unwrap().at, record.full);
            assert!(record.cuts.iter().any(|c| c.confidence.is_some()));
        }
    }
    collecting.rules.record_logprobs = false;
    collecting.out = fixture.path("bare.jsonl");
    fixture.collect(&collecting);
    let mut bare = fixture.label_options("bare.jsonl", "bare-labels.jsonl");
    bare.rules.confidence = ConfidenceKind::C2;
    let error = run(&bare).unwrap_err().to_string();
    assert!(error.contains("record_logprobs"), "{error}");
}

/// C3 beside a computation that shares nothing with it but the target: token after token, without a
/// prefix, every answer token's probability taken from a plain forward over all tokens before it.
#[test]
fn c3_is_the_own_answers_probability_after_each_cut() {
    let fixture = Fixture::new();
    let mut collecting = fixture.collect_options("traces.jsonl");
    collecting.limit = Some(4);
    fixture.collect(&collecting);
    let mut options = fixture.label_options("traces.jsonl", "c3.jsonl");
    options.rules.confidence = ConfidenceKind::C3;
    options.rules.all_cuts = true;
    options.rules.max_cuts = Some(3);
    label(&options, &mut fixture.engine(None), &fixture.text, &mut Silent).unwrap();
    let traces = traces(&collecting.out);
    let mut compared = 0;
    for record in LabelFile::open(&options.out).unwrap().map(Result::unwrap) {
        if record.dropped.is_some() {
            continue;
        }
        let trace = traces.iter().find(|t| (&t.id, t.sample) == (&record.id, record.sample));
        let trace = trace.unwrap();
        let stops = &fixture.model.target.config.eos_token_ids;
        let mut answer = trace.answer_ids().to_vec();
        if answer.last().is_some_and(|t| stops.contains(t)) {
            answer.pop();
        }
        for cut in &record.cuts {
            let close = trace.close.unwrap().of(&trace.token_ids);
            let mut text = [&trace.prompt_ids[..], &trace.thought_ids()[..cut.at], close].concat();
            let mut sum = 0.0;
            for &token in &answer {
                sum += f64::from(log_probability(&fixture.model.target, &text, token));
                text.push(token);
            }
            let expected = (sum / answer.len() as f64).exp();
            let found = f64::from(cut.confidence.unwrap());
            assert!((found - expected).abs() < 1e-5 * expected, "{found} {expected}");
            compared += 1;
        }
        let distinct: std::collections::HashSet<u32> =
            record.cuts.iter().map(|c| c.confidence.unwrap().to_bits()).collect();
        assert!(record.cuts.len() == 1 || distinct.len() > 1, "it must depend on the cut");
    }
    assert!(compared >= 6, "{compared}");
}

/// Of `token` after `text`, from logits of one forward.
fn log_probability(target: &Target, text: &[u32], token: u32) -> f32 {
    let mut cache = target.new_cache();
    let mut workspace = Workspace::default();
    let rows = TargetRows { tokens: text, cache: &mut cache, logits: LogitRows::Last };
    target.forward(&mut [rows], &mut workspace).unwrap();
    let logits = workspace.logits(0);
    let sum: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
    (f64::from(logits[token as usize]) - sum.ln()) as f32
}

#[test]
fn a_head_is_trained_and_drafts() {
    let fixture = Fixture::new();
    fixture.collect(&fixture.collect_options("traces.jsonl"));
    let labelling = fixture.label_options("traces.jsonl", "labels.jsonl");
    label(&labelling, &mut fixture.engine(None), &fixture.text, &mut Silent).unwrap();
    let options = TrainOptions {
        labels: labelling.out,
        out: fixture.path("run"),
        epochs: 4,
        probe_epochs: 2,
        batch_tokens: 400,
        held_out: 0.3,
        lr: 2e-3,
        ..TrainOptions::default()
    };
    let summary = train(&options, &fixture.model, &mut Silent).unwrap();
    assert!(summary.finished);
    let report = summary.report.unwrap();
    assert_eq!(report.held_out.as_ref().unwrap().signals.len(), 3);
    assert!(report.held_out.unwrap().draft.tau_per_chain[0] >= 1.0);

    let head = DraftHead::load(&summary.head, &fixture.model.target).unwrap();
    assert!(head.has_probe());
    assert_eq!(head.d2t().unwrap().len(), report.data.draft_vocabulary);
    let config = head.config.specexit.clone().unwrap();
    assert_eq!(config.target_hash, fixture.model.hash);
    assert_eq!(config.signals, ["confidence", "progress", "remaining"]);

    let prompt = traces(&labelling.traces)[0].prompt_ids.clone();
    let request = Request { phase: Phase::Thinking, ..Request::new(prompt, 60) };
    let plain = fixture.engine(None).run(request.clone()).unwrap();
    let drafting = Request { method: Method::Eagle3, record_signals: true, ..request };
    let drafted = fixture.engine(Some(Arc::new(head))).run(drafting).unwrap();
    assert_eq!(plain.token_ids, drafted.token_ids);
    assert!(drafted.signals.iter().any(|s| !s.is_missing()));
}

/// A plain head gets a probe: it drafts what it drafted, as far as it did, and can exit now.
#[test]
fn a_probe_alone_changes_no_drafting() {
    let fixture = Fixture::new();
    fixture.collect(&fixture.collect_options("traces.jsonl"));
    let labelling = fixture.label_options("traces.jsonl", "labels.jsonl");
    label(&labelling, &mut fixture.engine(None), &fixture.text, &mut Silent).unwrap();
    let base = fixture.path("plain-head");
    testkit::write_head(&base, 3, 100, false).unwrap();
    let options = TrainOptions {
        labels: labelling.out,
        signals_only: Some(base.clone()),
        probe_epochs: 3,
        held_out: 0.3,
        ..TrainOptions::default()
    };
    let load = |dir: &Path| Arc::new(DraftHead::load(dir, &fixture.model.target).unwrap());
    let plain = load(&base);
    assert!(!plain.has_probe());
    let mut exits = 0;
    for probe in [ProbeKind::Fc, ProbeKind::Mlp] {
        let out = fixture.path(&format!("{probe:?}"));
        let summary =
            train(&TrainOptions { probe, out, ..options.clone() }, &fixture.model, &mut Silent)
                .unwrap();
        let head = load(&summary.head);
        assert!(head.has_probe());
        for trace in traces(&labelling.traces).iter().take(4) {
            let prompt = trace.prompt_ids.clone();
            let request = Request { phase: Phase::Thinking, ..Request::new(prompt, 60) };
            let request = Request { method: Method::Eagle3, draft_tokens: 4, ..request };
            let run = |head: &Arc<DraftHead>, request: &Request| {
                fixture.engine(Some(Arc::clone(head))).run(request.clone()).unwrap()
            };
            let (before, after) = (run(&plain, &request), run(&head, &request));
            assert_eq!(before.token_ids, after.token_ids);
            assert_eq!(
                (before.rounds, before.drafted, before.accepted),
                (after.rounds, after.drafted, after.accepted)
            );
            assert!(before.drafted > 0);
            let mut policy = Profile::Default.policy();
            policy.thresholds.confidence = None;
            policy.thresholds.progress = None;
            policy.thresholds.remaining = Some(f32::MAX);
            let exiting = Request {
                method: Method::SpecExit,
                policy: Some(policy),
                record_signals: true,
                ..request
            };
            let exited = run(&head, &exiting);
            assert!(exited.signals.iter().any(|s| !s.is_missing()));
            exits += usize::from(exited.exit.is_some_and(|e| e.reason == ExitReason::Signals));
        }
    }
    assert!(exits > 0);
}

#[test]
fn files_of_another_model_are_refused() {
    let fixture = Fixture::new();
    let mut options = fixture.collect_options("traces.jsonl");
    options.limit = Some(1);
    fixture.collect(&options);
    let dir = fixture.path("another");
    testkit::write_model(&dir, 2).unwrap();
    let another = Model::load(&ModelSource::Folder(dir), 1, Precision::F32).unwrap();
    let labelling = fixture.label_options("traces.jsonl", "labels.jsonl");
    let error = label(&labelling, &mut fixture.engine(None), &another.text(), &mut Silent);
    assert!(error.unwrap_err().to_string().contains("model.hash"));
    let labels = TrainOptions { labels: labelling.traces, ..TrainOptions::default() };
    let error = train(&labels, &fixture.model, &mut Silent).unwrap_err().to_string();
    assert!(error.contains("holds specexit-traces, not specexit-labels"), "{error}");
}
