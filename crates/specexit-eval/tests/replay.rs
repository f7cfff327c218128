//! Replay against real runs on a tiny random model.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::Path;
use std::sync::Arc;

use specexit_answer::AnswerKind;
use specexit_engine::{Engine, EngineOptions, Finish, Method, Output, Request, Sampling};
use specexit_eval::replay::{
    Outcome, RecordOptions, Recording, Table, read_signals, record, replay, replay_probing,
};
use specexit_eval::{CompareOptions, Judge, MethodSpec, Named, Rule, Subject, Task, compare};
use specexit_exit::{
    BoundaryRules, ExitReason, Hopeless, Loops, Phase, Policy, Profile, RandomExit, Smoothing,
    Stall, Thresholds,
};
use specexit_kernels::Precision;
use specexit_model::{DraftHead, Model, ModelSource};
use specexit_testkit as testkit;
use specexit_train::{Progress, Silent};

struct Fixture {
    dir: tempfile::TempDir,
    model: Model,
    engine: Engine,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        testkit::write_model(dir.path(), 1).unwrap();
        let source = ModelSource::Folder(dir.path().to_owned());
        let model = Model::load(&source, 2, Precision::Bf16).unwrap();
        testkit::write_head(&dir.path().join("head"), 2, 80, true).unwrap();
        let head = Arc::new(DraftHead::load(&dir.path().join("head"), &model.target).unwrap());
        let options = EngineOptions { max_batch: 5, ..EngineOptions::default() };
        let (target, tokenizer) = (Arc::clone(&model.target), Arc::clone(&model.tokenizer));
        let engine = Engine::new(target, tokenizer, Some(head), options).unwrap();
        Self { dir, model, engine }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn record(&mut self, out: &Path, options: &RecordOptions) -> Vec<Recording> {
        record(&mut self.engine, &self.model, &tasks(), options, out, &mut Silent).unwrap()
    }

    fn table(&mut self, recordings: Vec<Recording>, options: &RecordOptions) -> Table {
        let (out, base) = (self.file("signals.jsonl"), &options.request);
        let (engine, head) = (&mut self.engine, named());
        let signals = read_signals(engine, &head, &recordings, base, &out, &mut Silent).unwrap();
        // Read again from the file, to the same bits.
        let again = read_signals(engine, &head, &recordings, base, &out, &mut Silent).unwrap();
        let bits = |all: &[Vec<specexit_engine::Signals>]| -> Vec<u32> {
            all.iter().flatten().map(|s| s.progress.to_bits()).collect()
        };
        assert_eq!(bits(&signals), bits(&again));
        Table::new(engine, base, recordings, signals).unwrap()
    }
}

fn named() -> Named {
    Named { name: "head".to_owned(), hash: "1".to_owned() }
}

fn tasks() -> Vec<Task> {
    let prompt = |i: u32| (0..3 + i % 7).map(|j| (i * 37 + j * j * 11 + 1) % 256).collect();
    let task = |i| Task {
        id: format!("q{i}"),
        prompt: prompt(i),
        phase: Phase::Thinking,
        // Numbers do occur in what the model writes.
        repeat: 0,
        judge: Judge::Answer { gold: (i % 10).to_string(), kind: AnswerKind::Auto },
        group: None,
    };
    (0..20).map(task).collect()
}

/// Boundaries are frequent, signals of a random probe pass often but not always.
fn policy() -> Policy {
    let letters = (0u8..128).filter(|b| b % 5 == 0).map(|b| char::from(b).to_string()).collect();
    Policy {
        thresholds: Thresholds { confidence: Some(0.6), progress: Some(0.4), remaining: None },
        boundaries: BoundaryRules {
            strings: letters,
            blank_line: true,
            connectors: vec!["W".to_owned()],
        },
        ..Profile::Default.policy()
    }
}

fn options() -> RecordOptions {
    let base = Request {
        closing_text: Some("Ok.".to_owned()),
        policy: Some(policy()),
        stop_ids: vec![3, 9],
        ..Request::new(Vec::new(), 70)
    };
    RecordOptions { request: base, batch: 6 }
}

fn policies() -> Vec<Policy> {
    let with = |confidence, progress, remaining| Policy {
        thresholds: Thresholds { confidence, progress, remaining },
        ..policy()
    };
    vec![
        policy(),
        with(None, Some(0.5), None),
        with(None, None, Some(1.0)),
        with(Some(0.62), Some(0.45), Some(2.0)),
        with(Some(2.0), None, None),
        Policy { min_thinking_tokens: 25, lag: true, ..policy() },
        Policy { hopeless: Some(Hopeless { after: 20, progress: 0.6 }), ..policy() },
        Policy {
            hopeless: Some(Hopeless { after: 30, progress: 0.45 }),
            ..with(Some(2.0), None, None)
        },
        Policy { smoothing: Smoothing::None, ..with(None, Some(0.7), None) },
        Policy { smoothing: Smoothing::ParagraphMean { window: 4 }, ..with(None, Some(0.6), None) },
        Policy { smoothing: Smoothing::Momentum { window: 3 }, ..with(Some(0.7), None, None) },
    ]
}

fn told(recording: &Recording, outcome: &Outcome) -> Vec<u32> {
    match outcome.cut {
        Some(cut) => {
            let closed = &recording.closed[cut];
            [&recording.token_ids[..closed.at], &closed.token_ids].concat()
        }
        None => recording.token_ids.clone(),
    }
}

#[test]
fn replay_is_the_exit_logic_is_the_real_run() {
    let mut f = Fixture::new();
    let options = options();
    let recordings = f.record(&f.file("recordings.jsonl"), &options);
    assert_eq!(recordings.len(), 20);
    let cuts: usize = recordings.iter().map(|r| r.closed.len()).sum();
    assert!(cuts > 100, "{cuts} cuts");
    let table = f.table(recordings, &options);
    let policies = policies();
    let outcomes = table.outcomes(&policies).unwrap();
    let points = table.points(&policies).unwrap();
    let mut early = 0;
    for ((policy, outcomes), point) in policies.iter().zip(&outcomes).zip(&points) {
        let mut thinking = 0.0;
        for ((recording, signals), outcome) in table.recordings().zip(table.signals()).zip(outcomes)
        {
            let request = Request {
                prompt: recording.prompt_ids.clone(),
                phase: recording.phase,
                method: Method::SpecExit,
                policy: Some(policy.clone()),
                ..options.request.clone()
            };
            let thought = f.engine.thought(&request).unwrap();
            assert_eq!(&replay(recording, signals, thought).unwrap(), outcome);
            for k in [1, 4] {
                let real: Output =
                    f.engine.run(Request { draft_tokens: k, ..request.clone() }).unwrap();
                assert_eq!(real.token_ids, told(recording, outcome), "{policy:?}");
                assert_eq!(real.thinking_tokens, outcome.thinking_tokens);
            }
            early += usize::from(outcome.cut.is_some());
            thinking += outcome.thinking_tokens as f64 / 20.0;
        }
        assert!((point.costs.thinking_tokens - thinking).abs() < 1e-9);
        assert_eq!(point.costs.accuracy.of, 20);
    }
    assert!((40..170).contains(&early), "{early} of 220 thoughts ended early");
}

#[test]
fn chance_is_replayed_one_by_one_and_rounds_not_at_all() {
    let mut f = Fixture::new();
    let options = options();
    let recordings = f.record(&f.file("recordings.jsonl"), &options);
    let table = f.table(recordings, &options);
    let random = Policy { random: Some(RandomExit { rate: 0.1, seed: 0 }), ..policy() };
    assert!(
        table
            .outcomes(std::slice::from_ref(&random))
            .unwrap_err()
            .to_string()
            .contains("by chance")
    );
    for (recording, signals) in table.recordings().zip(table.signals()).take(8) {
        let request = Request {
            prompt: recording.prompt_ids.clone(),
            phase: recording.phase,
            method: Method::SpecExit,
            policy: Some(random.clone()),
            ..options.request.clone()
        };
        let thought = f.engine.thought(&request).unwrap();
        let outcome = replay(recording, signals, thought).unwrap();
        assert_eq!(f.engine.run(request).unwrap().token_ids, told(recording, &outcome));
    }
    let rounds = Policy { boundaries: policy().boundaries, ..Profile::Paper.policy() };
    let error = table.outcomes(&[rounds]).unwrap_err().to_string();
    assert!(error.starts_with("profile paper decides round by round"), "{error}");
    let stalls = Policy { stall: Some(Stall { tokens: 9, gain: 0.1 }), ..policy() };
    let error = table.outcomes(&[stalls]).unwrap_err().to_string();
    assert!(error.contains("leave `stall` out"), "{error}");
    let loops = Some(Loops { cycle: 8, repeats: 3 });
    let asked = Request { loops, ..options.request.clone() };
    let thought = f.engine.thought(&asked).unwrap();
    let (recording, signals) = table.recordings().zip(table.signals()).next().unwrap();
    let error = replay(recording, signals, thought).unwrap_err().to_string();
    assert!(error.contains("leave `loops` out"), "{error}");
}

/// Methods that probe do live what their replay says, whether the thought is drafted or not.
#[test]
fn probing_is_replayed_too() {
    let mut f = Fixture::new();
    let options = options();
    let recordings = f.record(&f.file("recordings.jsonl"), &options);
    let rules = [
        ("deer:0.05", Rule::Deer(0.05)),
        ("deer:0.09:eagle3", Rule::Deer(0.09)),
        ("dynasor:2", Rule::Dynasor(2)),
        ("dynasor:1:eagle3", Rule::Dynasor(1)),
        ("eat:0.01", Rule::Eat(0.01)),
        ("eat:0.1:eagle3", Rule::Eat(0.1)),
    ];
    let methods = rules.map(|(name, _)| MethodSpec::parse(name, &options.request).unwrap());
    let subject = Subject { model: &f.model, head: None };
    let (engine, settings) = (&mut f.engine, CompareOptions::default());
    let compared = compare(engine, &subject, &tasks(), &methods, &settings, &mut Silent).unwrap();
    let (mut early, mut probes) = (0, 0);
    for (name, rule) in rules {
        let of = compared.records.iter().filter(|record| record.method == name);
        for (recording, record) in recordings.iter().zip(of) {
            assert_eq!(recording.question, record.question);
            let outcome = replay_probing(recording, rule);
            assert_eq!(
                (record.total_tokens, record.thinking_tokens, record.probe_tokens, record.correct),
                (
                    outcome.total_tokens,
                    outcome.thinking_tokens,
                    outcome.probe_tokens,
                    outcome.correct
                ),
                "{name} {}",
                record.question
            );
            let by_probe = record.exit.is_some_and(|exit| exit.reason == ExitReason::Probe);
            assert_eq!(by_probe, outcome.cut.is_some(), "{name}");
            early += usize::from(by_probe);
            probes += record.probe_tokens;
        }
    }
    let (target, tokenizer) = (Arc::clone(&f.model.target), Arc::clone(&f.model.tokenizer));
    let narrow = EngineOptions { max_batch: 1, ..EngineOptions::default() };
    let mut narrow = Engine::new(target, tokenizer, None, narrow).unwrap();
    let error = compare(&mut narrow, &subject, &tasks(), &methods[..1], &settings, &mut Silent);
    assert!(error.unwrap_err().to_string().contains("two sequences at a time"));
    assert!((30..110).contains(&early) && probes > 1000, "{early} of 120 early, {probes} probed");
}

/// Stops after so many advances.
struct StopAfter(usize);

impl Progress for StopAfter {
    fn start(&mut self, _: &str, _: &str, _: u64, _: u64) {}
    fn advance(&mut self, _: u64, _: &str) {
        self.0 = self.0.saturating_sub(1);
    }
    fn note(&mut self, _: &str) {}
    fn finish(&mut self) {}
    fn cancelled(&self) -> bool {
        self.0 == 0
    }
}

#[test]
fn recording_goes_on_where_it_was_whatever_the_batch() {
    let mut f = Fixture::new();
    let (whole, broken) = (f.file("whole.jsonl"), f.file("broken.jsonl"));
    let expected = f.record(&whole, &options());
    let batch = |batch| RecordOptions { batch, ..options() };
    for stop in [1, 4, 9] {
        let (engine, model) = (&mut f.engine, &f.model);
        let some =
            record(engine, model, &tasks(), &batch(stop), &broken, &mut StopAfter(stop)).unwrap();
        assert!(some.len() < 20 && some[..] == expected[..some.len()]);
        // A kill in the middle of a line.
        let bytes = std::fs::read(&broken).unwrap();
        std::fs::write(&broken, &bytes[..bytes.len() - 7]).unwrap();
    }
    assert_eq!(f.record(&broken, &batch(3)), expected);
    assert_eq!(std::fs::read(&broken).unwrap(), std::fs::read(&whole).unwrap());
    let longer = Request { max_new_tokens: 71, ..options().request };
    let (engine, model) = (&mut f.engine, &f.model);
    let other = RecordOptions { request: longer, ..options() };
    let error =
        record(engine, model, &tasks(), &other, &whole, &mut Silent).unwrap_err().to_string();
    assert!(error.contains("max_new_tokens"), "{error}");
    let sampled = Sampling { temperature: 0.5, ..Sampling::greedy() };
    let other =
        RecordOptions { request: Request { sampling: sampled, ..options().request }, ..options() };
    let error =
        record(engine, model, &tasks(), &other, &whole, &mut Silent).unwrap_err().to_string();
    assert!(error.contains("under greedy decoding"), "{error}");
}

/// A limit that an exit overruns leaves a cut sentence, as in a real run.
#[test]
fn an_output_may_end_within_what_was_forced() {
    let mut f = Fixture::new();
    let mut options = options();
    options.request.max_new_tokens = 20;
    let recordings = f.record(&f.file("recordings.jsonl"), &options);
    let table = f.table(recordings, &options);
    let late = Policy { min_thinking_tokens: 16, smoothing: Smoothing::None, ..policy() };
    let late = Policy { thresholds: Thresholds { progress: Some(0.1), ..Thresholds::OFF }, ..late };
    let outcomes = table.outcomes(std::slice::from_ref(&late)).unwrap().remove(0);
    let mut cut = 0;
    for (recording, outcome) in table.recordings().zip(&outcomes) {
        let request = Request {
            prompt: recording.prompt_ids.clone(),
            phase: recording.phase,
            method: Method::SpecExit,
            policy: Some(late.clone()),
            ..options.request.clone()
        };
        let real = f.engine.run(request).unwrap();
        assert_eq!(real.token_ids, told(recording, outcome));
        assert!(real.finish == Finish::Length || real.token_ids.len() < 20);
        cut += usize::from(outcome.cut.is_some());
    }
    assert!(cut > 3, "{cut}");
}
