//! What runs together, what waits, and what is left when nothing runs.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod common;

use std::sync::Arc;

use specexit_engine::{Engine, EngineError, EngineOptions, Event, Method, Request, RequestId};
use specexit_exit::{Markers, Profile};
use specexit_kernels::KeysValues;
use specexit_model::{DraftRows, DraftWorkspace, LogitRows};
use specexit_testkit as testkit;

use common::{Fixture, bits, policy, prompts, request, run_all, specexit};

fn engine(fixture: &Fixture, options: EngineOptions) -> Engine {
    let head = fixture.head(2, 288, true);
    let (target, tokenizer) =
        (Arc::clone(&fixture.model.target), Arc::clone(&fixture.model.tokenizer));
    Engine::new(target, tokenizer, Some(head), options).unwrap()
}

fn limited(fixture: &Fixture, kv_bytes: usize) -> Engine {
    engine(fixture, EngineOptions { kv_bytes: Some(kv_bytes), ..EngineOptions::default() })
}

fn assert_idle(engine: &Engine) {
    assert!(engine.is_idle());
    assert_eq!((engine.waiting(), engine.running(), engine.kv_reserved()), (0, 0, 0));
}

/// The next step, and which requests it ended.
fn step(engine: &mut Engine) -> Vec<RequestId> {
    let events = engine.step().unwrap().into_iter();
    let done = events.filter_map(|event| match event {
        Event::Done(output) => Some(output.id),
        _ => None,
    });
    done.collect()
}

#[test]
fn what_a_request_may_need_is_all_its_tokens_in_both_caches() {
    let fixture = Fixture::new();
    let engine = engine(&fixture, EngineOptions::default());
    let target = |positions| fixture.model.target.cache_bytes(positions);
    let head = engine.head().unwrap();
    let (mut cache, residual) = (head.new_cache(), [0.0; testkit::HIDDEN]);
    let rows =
        DraftRows { tokens: &[1], residual: &residual, cache: &mut cache, logits: LogitRows::None };
    head.forward(&mut [rows], &mut DraftWorkspace::default()).unwrap();
    assert_eq!(engine.kv_need(&request(&[1; 10], 30)), target(40));
    let drafting = Request { method: Method::Eagle3, ..request(&[1; 10], 30) };
    assert_eq!(engine.kv_need(&drafting), target(40) + cache.bytes_for(40));
    // No more than the context is ever held.
    let context = fixture.model.target.config.max_position_embeddings;
    assert_eq!(engine.kv_need(&request(&[1; 10], usize::MAX)), target(context));
}

#[test]
fn memory_is_never_passed_and_order_is_kept() {
    let fixture = Fixture::new();
    let mut free = engine(&fixture, EngineOptions::default());
    let of = |(i, prompt): (usize, &Vec<u32>)| match i % 3 {
        0 => Request { max_new_tokens: 20 + 9 * i, ..request(prompt, 1) },
        1 => Request { method: Method::Eagle3, max_new_tokens: 15, ..request(prompt, 1) },
        _ => specexit(prompt, policy(Profile::Default), 3),
    };
    let prompts = prompts(16);
    let requests: Vec<Request> = prompts.iter().enumerate().map(of).collect();
    let largest = requests.iter().map(|r| free.kv_need(r)).max().unwrap();
    let expected = run_all(&mut free, requests.clone());
    assert_idle(&free);
    for limit in [largest, 2 * largest, 100 * largest] {
        let mut engine = limited(&fixture, limit);
        for request in requests.clone() {
            engine.submit(request).unwrap();
        }
        let (mut most, mut admitted, mut ended) = (0, 0, 0);
        while !engine.is_idle() {
            let before = engine.waiting();
            ended += step(&mut engine).len();
            admitted += before - engine.waiting();
            // Requests are counted from the front of the queue on.
            assert_eq!(admitted, engine.running() + ended);
            assert!(engine.kv_reserved() <= limit);
            most = most.max(engine.running());
        }
        assert_idle(&engine);
        assert_eq!(most == engine.max_batch(), limit == 100 * largest);
        for (ours, expected) in run_all(&mut engine, requests.clone()).iter().zip(&expected) {
            assert_eq!((&ours.token_ids, bits(ours)), (&expected.token_ids, bits(expected)));
        }
    }
}

#[test]
fn the_first_in_line_is_not_overtaken() {
    let fixture = Fixture::new();
    let small = request(&[1, 2], 8);
    let large = request(&[1, 2], 38);
    let need = |r: &Request| engine(&fixture, EngineOptions::default()).kv_need(r);
    let mut engine = limited(&fixture, need(&large) + need(&small) - 1);
    engine.submit(small.clone()).unwrap();
    let second = engine.submit(large).unwrap();
    let third = engine.submit(small).unwrap();
    step(&mut engine);
    // The third would fit beside the first, but the second came before it.
    assert_eq!((engine.running(), engine.waiting()), (1, 2));
    let mut order = Vec::new();
    while !engine.is_idle() {
        order.extend(step(&mut engine));
    }
    assert_eq!(order[1..], [second, third]);
}

#[test]
fn what_could_never_fit_is_refused_at_once() {
    let fixture = Fixture::new();
    // Memory is taken for whole panels.
    let fits = request(&[1, 2, 3], 2 * KeysValues::PANEL - 3);
    let limit = engine(&fixture, EngineOptions::default()).kv_need(&fits);
    let mut engine = limited(&fixture, limit);
    let error = engine.submit(request(&[1, 2, 3], 2 * KeysValues::PANEL - 2)).unwrap_err();
    let panel = fixture.model.target.cache_bytes(1);
    assert!(
        matches!(error, EngineError::TooLarge { need, limit: l } if l == limit && need == limit + panel)
    );
    assert!(error.to_string().contains(&limit.to_string()), "{error}");
    let drafting = Request { method: Method::Eagle3, ..fits.clone() };
    assert!(matches!(engine.submit(drafting), Err(EngineError::TooLarge { .. })));
    assert_idle(&engine);
    assert_eq!(engine.run(fits).unwrap().token_ids.len(), 2 * KeysValues::PANEL - 3);
}

#[test]
fn cancelled_requests_leave_nothing_behind() {
    let fixture = Fixture::new();
    let one = specexit(&[1, 2, 3], policy(Profile::Default), 3);
    let mut engine = limited(&fixture, 0);
    let limit = 2 * engine.kv_need(&one);
    engine = limited(&fixture, limit);
    let ids: Vec<RequestId> = (0..5).map(|_| engine.submit(one.clone()).unwrap()).collect();
    step(&mut engine);
    assert_eq!((engine.running(), engine.waiting(), engine.kv_reserved()), (2, 3, limit));
    engine.cancel(ids[4]).unwrap();
    engine.cancel(ids[0]).unwrap();
    assert_eq!((engine.running(), engine.waiting(), engine.kv_reserved()), (1, 2, limit / 2));
    step(&mut engine);
    assert_eq!((engine.running(), engine.waiting()), (2, 1));
    for id in &ids[1..4] {
        engine.cancel(*id).unwrap();
    }
    assert_idle(&engine);
    assert!(engine.cancel(ids[1]).is_err());
    assert!(engine.run(one).is_ok());
}

/// A marker that the model has no such token for makes the step fail that feeds it.
#[test]
fn a_failed_step_loses_what_ran_and_nothing_else() {
    let fixture = Fixture::new();
    let markers = Markers::think(vec![testkit::THINK], vec![9999]);
    let options = EngineOptions { max_batch: 2, markers: Some(markers), ..Default::default() };
    let mut engine = engine(&fixture, options);
    let closes = Request { thinking_budget: Some(5), ..request(&[1, 2, 3], 40) };
    for method in [Method::Plain, Method::Eagle3] {
        let first = engine.submit(Request { method, ..closes.clone() }).unwrap();
        engine.submit(Request { method, ..request(&[4, 5], 60) }).unwrap();
        let waiting = engine.submit(Request { method, ..request(&[6, 7, 8], 30) }).unwrap();
        let failed = (0..60).find_map(|_| engine.step().err()).unwrap();
        assert!(failed.to_string().contains("9999"), "{failed}");
        assert_eq!((engine.running(), engine.waiting(), engine.kv_reserved()), (0, 1, 0));
        assert!(engine.holds(waiting) && !engine.holds(first));
        let mut ended = Vec::new();
        while !engine.is_idle() {
            ended.extend(step(&mut engine));
        }
        assert_eq!(ended, [waiting]);
        assert_idle(&engine);
        let output = engine.run(Request { method, ..request(&[1, 2, 3], 30) }).unwrap();
        let alone = fixture.engine(None, 1).run(request(&[1, 2, 3], 30)).unwrap();
        assert_eq!(output.token_ids, alone.token_ids);
    }
}
