//! Requests that start from what others have left change nothing but the work.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod common;

use std::sync::Arc;

use specexit_engine::{Engine, EngineOptions, Event, Method, Output, Request, Signals};
use specexit_exit::Profile;
use specexit_model::{DraftHead, Positions};

use common::{Fixture, bits, policy, request, run_all, specexit};

fn keeping(fixture: &Fixture, head: Option<&Arc<DraftHead>>, prefix_bytes: usize) -> Engine {
    let options = EngineOptions { prefix_bytes, max_batch: 3, ..EngineOptions::default() };
    let (target, tokenizer) =
        (Arc::clone(&fixture.model.target), Arc::clone(&fixture.model.tokenizer));
    Engine::new(target, tokenizer, head.map(Arc::clone), options).unwrap()
}

fn numbers(signals: &Signals) -> [u32; 3] {
    [signals.confidence, signals.progress, signals.remaining].map(f32::to_bits)
}

#[track_caller]
fn assert_same(ours: &Output, expected: &Output) {
    assert_eq!((&ours.token_ids, bits(ours)), (&expected.token_ids, bits(expected)));
    assert_eq!((ours.exit, ours.rounds), (expected.exit, expected.rounds));
    assert_eq!(
        (&ours.offered_at, &ours.accepted_at),
        (&expected.offered_at, &expected.accepted_at)
    );
    let of = |output: &Output| output.signals.iter().map(numbers).collect::<Vec<_>>();
    assert_eq!(of(ours), of(expected));
}

fn of_method(method: Method, prompt: &[u32]) -> Request {
    let asked = match method {
        Method::SpecExit => specexit(prompt, policy(Profile::Default), 3),
        method => Request { method, draft_tokens: 4, ..request(prompt, 1) },
    };
    Request { max_new_tokens: 60, record_signals: true, ..asked }
}

fn text(first: u32, len: u32) -> Vec<u32> {
    (0..len).map(|i| (first * 31 + i * i * 7 + i) % 256).collect()
}

const METHODS: [Method; 3] = [Method::Plain, Method::Eagle3, Method::SpecExit];

/// Heads whose signals come from the target's states and from the draft layer's rows.
fn heads(fixture: &Fixture) -> [Arc<DraftHead>; 2] {
    [
        fixture.head(2, 288, true),
        fixture.head_with_draft_probe(2, &[3, 5, 7, 80, 200], Positions::Dense),
    ]
}

#[test]
fn every_turn_of_a_chat_starts_from_the_one_before_and_says_the_same() {
    let fixture = Fixture::new();
    for head in heads(&fixture) {
        for method in METHODS {
            let drafts = method.drafts() || head.probe_reads_draft();
            let mut keeping = keeping(&fixture, Some(&head), usize::MAX);
            // More than one chunk, so that parts of it are read apart.
            let mut prompt = text(1, 300);
            let mut least = 0;
            for turn in 0..4 {
                let asked = of_method(method, &prompt);
                let expected =
                    fixture.engine(Some(Arc::clone(&head)), 1).run(asked.clone()).unwrap();
                let output = keeping.run(asked).unwrap();
                assert_same(&output, &expected);
                assert_eq!(expected.prefix_tokens, 0);
                assert!(output.prefix_tokens >= least, "{method}: {}", output.prefix_tokens);
                assert!(output.prefix_tokens < prompt.len());
                // The last token, and with a head the last round, have not been read.
                let unread = if drafts { 6 } else { 1 };
                prompt.extend(&output.token_ids);
                least = prompt.len() - unread;
                prompt.extend(text(turn, 20));
            }
        }
    }
}

#[test]
fn prompts_that_begin_alike_share_their_beginning_while_the_first_still_runs() {
    let fixture = Fixture::new();
    let head = fixture.head(2, 288, true);
    for (method, shared) in [(Method::Plain, 50), (Method::Eagle3, 49), (Method::SpecExit, 49)] {
        let mut engine = keeping(&fixture, Some(&head), usize::MAX);
        let of = |i: u32| of_method(method, &[text(9, 50), vec![i + 1; 5]].concat());
        engine.submit(of(0)).unwrap();
        engine.step().unwrap();
        engine.step().unwrap();
        let outputs = run_all(&mut engine, (1..6).map(of).collect());
        for (i, output) in (1..6).zip(&outputs) {
            let expected = fixture.engine(Some(Arc::clone(&head)), 1).run(of(i)).unwrap();
            assert_same(output, &expected);
            assert_eq!(output.prefix_tokens, shared, "{method}");
        }
    }
}

/// Prompts that share beginnings of all lengths, under all methods, beside each other, with room for some
/// of the caches only.
#[test]
fn whatever_was_kept_the_outputs_are_those_of_an_engine_that_keeps_nothing() {
    let fixture = Fixture::new();
    let head = fixture.head_with_draft_probe(2, &[3, 5, 7, 80, 200], Positions::Boundaries);
    let of_panel = fixture.model.target.cache_bytes(1) + head.cache_bytes(1);
    let of = |i: u32| {
        let shared = (i * 13) % 60;
        let own = text(i + 3, 1 + (i * 7) % 30);
        let prompt = [text(i % 2, shared), own].concat();
        let asked = of_method(METHODS[i as usize % 3], &prompt);
        Request {
            max_new_tokens: 1 + (i as usize * 5) % 40,
            record_signals: !i.is_multiple_of(4),
            ..asked
        }
    };
    let requests: Vec<Request> = (0..60).map(of).collect();
    let expected = run_all(&mut fixture.engine(Some(Arc::clone(&head)), 8), requests.clone());
    for room in [usize::MAX, 20 * of_panel, 3 * of_panel, 0] {
        let mut engine = keeping(&fixture, Some(&head), room);
        let mut outputs: Vec<Option<Output>> = vec![None; requests.len()];
        for request in requests.clone() {
            engine.submit(request).unwrap();
        }
        while !engine.is_idle() {
            for event in engine.step().unwrap() {
                if let Event::Done(output) = event {
                    let index = output.id as usize;
                    outputs[index] = Some(*output);
                }
            }
            assert!(engine.prefix_bytes_held() <= room);
        }
        let mut saved = 0;
        for (output, expected) in outputs.iter().flatten().zip(&expected) {
            assert_same(output, expected);
            assert!(output.prefix_tokens == 0 || output.prefix_tokens >= 16);
            saved += output.prefix_tokens;
        }
        assert_eq!((saved > 0, engine.prefix_bytes_held() > 0), (room > 0, room > 0), "{room}");
        assert!(room < usize::MAX || saved > 300, "{saved}");
    }
}

#[test]
fn a_prefix_read_on_purpose_serves_drafting_requests_too() {
    let fixture = Fixture::new();
    let prompt = text(4, 320);
    for head in heads(&fixture) {
        let mut engine = keeping(&fixture, Some(&head), 0);
        let prefix = engine.prefix(&prompt[..300]).unwrap();
        assert!(prefix.bytes() > fixture.model.target.cache_bytes(300));
        for method in METHODS {
            let asked = of_method(method, &prompt);
            let alone = engine.run(asked.clone()).unwrap();
            let shared =
                engine.run(Request { prefix: Some(Arc::clone(&prefix)), ..asked }).unwrap();
            assert_same(&shared, &alone);
            let drafts = method.drafts() || head.probe_reads_draft();
            assert_eq!((alone.prefix_tokens, shared.prefix_tokens), (0, 300 - usize::from(drafts)));
        }
    }
    // One that no head has read along does not serve them.
    let prefix = keeping(&fixture, None, 0).prefix(&prompt[..300]).unwrap();
    let [head, _] = heads(&fixture);
    let asked = of_method(Method::Eagle3, &prompt);
    let mut engine = keeping(&fixture, Some(&head), 0);
    let alone = engine.run(asked.clone()).unwrap();
    let output = engine.run(Request { prefix: Some(prefix), ..asked }).unwrap();
    assert_eq!(output.prefix_tokens, 0);
    assert_same(&output, &alone);
}

#[test]
fn a_branch_of_a_running_request_serves_drafting_requests() {
    let fixture = Fixture::new();
    for head in heads(&fixture) {
        let mut engine = keeping(&fixture, Some(&head), 0);
        let prompt = text(2, 40);
        let main = engine.submit(of_method(Method::Eagle3, &prompt)).unwrap();
        for _ in 0..8 {
            engine.step().unwrap();
        }
        let branch = engine.branch(main).unwrap();
        engine.cancel(main).unwrap();
        let longer = [branch.tokens(), &text(3, 9)].concat();
        let asked = of_method(Method::SpecExit, &longer);
        let alone = engine.run(asked.clone()).unwrap();
        let output = engine.run(Request { prefix: Some(branch), ..asked }).unwrap();
        assert_same(&output, &alone);
        assert!(output.prefix_tokens >= 40);
    }
}
