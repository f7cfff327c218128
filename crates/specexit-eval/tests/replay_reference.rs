//! Replay against real runs on the reference reasoner.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::Path;
use std::sync::Arc;

use specexit_answer::AnswerKind;
use specexit_engine::{Engine, EngineOptions, Method, Request, phase_of_prompt};
use specexit_eval::replay::{RecordOptions, Table, read_signals, record, replay};
use specexit_eval::{Judge, Named, Task};
use specexit_exit::{Policy, Profile, Smoothing, Thresholds};
use specexit_kernels::Precision;
use specexit_model::{DraftHead, Message, Model, ModelSource, RenderOptions};
use specexit_problems::{Difficulty, Family, Problems, Split};
use specexit_train::Silent;

const PROBLEMS: usize = 120;

fn policies(own: &Policy) -> Vec<Policy> {
    let with = |confidence, progress, remaining| Policy {
        thresholds: Thresholds { confidence, progress, remaining },
        ..own.clone()
    };
    vec![
        own.clone(),
        with(None, Some(0.9), None),
        with(None, Some(0.9999), None),
        with(None, None, Some(0.3)),
        with(Some(0.99), None, None),
        Policy { smoothing: Smoothing::Mean { window: 2 }, ..with(None, Some(0.95), Some(5.0)) },
        Policy { min_thinking_tokens: 120, lag: true, ..with(Some(0.9), Some(0.9), None) },
    ]
}

#[test]
#[ignore = "two minutes: cargo test --release -p specexit-eval --test replay_reference -- --ignored"]
fn replay_is_the_real_run_token_for_token() {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
    let source = ModelSource::Folder(assets.join("reasoner"));
    let model = Model::load(&source, 2, Precision::Bf16).unwrap();
    let head = Arc::new(DraftHead::load(&assets.join("head"), &model.target).unwrap());
    let options = EngineOptions { max_batch: 16, ..EngineOptions::default() };
    let (target, tokenizer) = (Arc::clone(&model.target), Arc::clone(&model.tokenizer));
    let mut engine = Engine::new(target, tokenizer, Some(head), options).unwrap();
    let levels = Difficulty::MIN..=Difficulty::MAX;
    let tasks: Vec<Task> = Problems::new(&Family::ALL, levels, Split::Test, 11)
        .take(PROBLEMS)
        .map(|problem| {
            let template = model.chat_template.as_ref().unwrap();
            let asked = [Message::new("user", problem.question.clone())];
            let generate =
                RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
            let text = template.render(&asked, &generate).unwrap();
            Task {
                id: problem.id(),
                prompt: model.tokenizer.encode(&text, false).unwrap(),
                phase: phase_of_prompt(&text, engine.markers()),
                repeat: 0,
                judge: Judge::Answer { gold: problem.answer, kind: AnswerKind::Auto },
                group: None,
            }
        })
        .collect();

    let own = std::fs::read_to_string(assets.join("head/policy.json")).unwrap();
    let own: Policy = serde_json::from_str(&own).unwrap();
    assert_eq!(own.boundaries, Profile::Default.policy().boundaries);
    let base = Request { policy: Some(own.clone()), ..Request::new(Vec::new(), 900) };
    let options = RecordOptions { request: base, batch: 16 };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("recordings.jsonl");
    let recordings = record(&mut engine, &model, &tasks, &options, &out, &mut Silent).unwrap();
    let named = Named { name: "head".to_owned(), hash: "1".to_owned() };
    let (out, base) = (folder.path().join("signals.jsonl"), &options.request);
    let signals = read_signals(&mut engine, &named, &recordings, base, &out, &mut Silent).unwrap();
    let table = Table::new(&mut engine, base, recordings, signals).unwrap();

    let policies = policies(&own);
    let outcomes = table.outcomes(&policies).unwrap();
    let mut early = 0;
    for (policy, outcomes) in policies.iter().zip(&outcomes) {
        for (((recording, signals), outcome), k) in
            table.recordings().zip(table.signals()).zip(outcomes).zip([1, 3, 6].iter().cycle())
        {
            let request = Request {
                prompt: recording.prompt_ids.clone(),
                phase: recording.phase,
                method: Method::SpecExit,
                draft_tokens: *k,
                policy: Some(policy.clone()),
                ..base.clone()
            };
            let thought = engine.thought(&request).unwrap();
            assert_eq!(&replay(recording, signals, thought).unwrap(), outcome);
            let real = engine.run(request).unwrap();
            let told = match outcome.cut {
                Some(cut) => {
                    let closed = &recording.closed[cut];
                    [&recording.token_ids[..closed.at], &closed.token_ids].concat()
                }
                None => recording.token_ids.clone(),
            };
            assert_eq!(real.token_ids, told, "{} {policy:?}", recording.question);
            assert_eq!(real.thinking_tokens, outcome.thinking_tokens);
            early += usize::from(outcome.cut.is_some());
        }
    }
    let all = PROBLEMS * policies.len();
    assert!(early > all / 2 && early < all, "{early} of {all} thoughts ended early");
    println!("{all} runs, {early} ended early: every token as replayed");
}
