//! What a request's events tell while it runs, against its output in the end.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod common;

use std::collections::BTreeMap;

use specexit_engine::{Engine, Event, Method, Output, Request, RequestId, Signals};
use specexit_exit::Profile;
use specexit_model::Positions;

use common::{Fixture, policy, prompts, request, specexit};

/// All that the events of one request told.
#[derive(Default)]
struct Told {
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    top_logprobs: Vec<Vec<(u32, f32)>>,
    signals: BTreeMap<usize, Signals>,
    output: Option<Output>,
}

fn listen(engine: &mut Engine, requests: Vec<Request>) -> Vec<Told> {
    let ids: Vec<RequestId> = requests.into_iter().map(|r| engine.submit(r).unwrap()).collect();
    let mut told = BTreeMap::<RequestId, Told>::new();
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            match event {
                Event::Tokens { id, tokens, logprobs, top_logprobs } => {
                    assert!(!tokens.is_empty());
                    let told = told.entry(id).or_default();
                    told.tokens.extend(tokens);
                    told.logprobs.extend(logprobs);
                    told.top_logprobs.extend(top_logprobs);
                }
                Event::Signals { id, first, signals } => {
                    let told = told.entry(id).or_default();
                    for (index, signals) in (first..).zip(signals) {
                        assert!(index < told.tokens.len(), "signals of a token yet unknown");
                        assert!(told.signals.insert(index, signals).is_none(), "told twice");
                    }
                }
                Event::Done(output) => {
                    let id = output.id;
                    told.entry(id).or_default().output = Some(*output);
                }
            }
        }
    }
    ids.iter().map(|id| told.remove(id).unwrap()).collect()
}

fn bits(logprobs: &[f32]) -> Vec<u32> {
    logprobs.iter().map(|p| p.to_bits()).collect()
}

#[test]
fn events_tell_what_the_output_tells() {
    let fixture = Fixture::new();
    let heads = [
        fixture.head(2, 288, true),
        fixture.head_with_draft_probe(2, &[3, 5, 7, 80, 200], Positions::Boundaries),
    ];
    let (mut spoken, mut forced, mut accepted) = (0, 0, 0);
    for head in heads {
        let mut engine = fixture.engine(Some(head), 5);
        let of = |(i, prompt): (usize, &Vec<u32>)| {
            let asked = Request {
                thinking_budget: Some(40 + i),
                closing_text: Some("\nOk\n".to_owned()),
                top_logprobs: i % 4,
                record_signals: i % 3 > 0,
                ..specexit(prompt, policy(Profile::Default), 1 + i % 5)
            };
            match i % 5 {
                0 => Request { method: Method::Plain, policy: None, ..asked },
                1 => Request { method: Method::Eagle3, policy: None, ..asked },
                _ => asked,
            }
        };
        let prompts = prompts(20);
        let requests: Vec<Request> = prompts.iter().enumerate().map(of).collect();
        for (told, asked) in listen(&mut engine, requests.clone()).iter().zip(&requests) {
            let output = told.output.as_ref().unwrap();
            assert_eq!(told.tokens, output.token_ids);
            assert_eq!(bits(&told.logprobs), bits(&output.logprobs));
            assert_eq!(output.logprobs.len(), output.token_ids.len());
            // A forced token may have NaN, which equals nothing: these have no list.
            assert_eq!(told.top_logprobs, output.top_logprobs);
            let lists = if asked.top_logprobs > 0 { output.token_ids.len() } else { 0 };
            assert_eq!(output.top_logprobs.len(), lists);
            for (i, top) in output.top_logprobs.iter().enumerate() {
                if output.logprobs[i].is_nan() {
                    assert!(top.is_empty());
                    forced += 1;
                    continue;
                }
                assert_eq!(top.len(), asked.top_logprobs);
                // Greedy decoding takes the likeliest.
                assert_eq!(top[0].0, output.token_ids[i]);
                assert_eq!(top[0].1.to_bits(), output.logprobs[i].to_bits());
                assert!(top.is_sorted_by(|a, b| a.1 >= b.1));
            }
            let of = |index: &usize| told.signals.get(index).copied().unwrap_or_default();
            let signals: Vec<Signals> = (0..output.signals.len()).map(|i| of(&i)).collect();
            assert_eq!(signals, output.signals);
            assert!(asked.record_signals || told.signals.is_empty());
            spoken += signals.iter().filter(|s| !s.is_missing()).count();
            assert_eq!(output.offered_at.iter().sum::<usize>(), output.drafted);
            assert_eq!(output.accepted_at.iter().sum::<usize>(), output.accepted);
            assert_eq!(output.offered_at.len(), output.accepted_at.len());
            assert!(output.offered_at.len() <= asked.draft_tokens);
            // A chain is accepted from its beginning on.
            assert!(output.accepted_at.is_sorted_by(|a, b| a >= b));
            assert!(output.offered_at.is_sorted_by(|a, b| a >= b));
            accepted += output.accepted;
        }
    }
    assert!(spoken > 300 && forced > 20 && accepted > 5, "{spoken} {forced} {accepted}");
}

#[test]
fn too_many_likeliest_tokens_are_refused() {
    let mut engine = Fixture::new().engine(None, 1);
    let error = |request: Request, engine: &mut Engine| engine.submit(request).unwrap_err();
    let many = Request { top_logprobs: 21, ..request(&[1], 5) };
    assert_eq!(error(many, &mut engine).to_string(), "top_logprobs is 21; at most 20 are kept");
    let alone = Request { record_logprobs: false, top_logprobs: 3, ..request(&[1], 5) };
    assert!(error(alone, &mut engine).to_string().contains("needs record_logprobs"));
    assert!(engine.run(Request { top_logprobs: 20, ..request(&[1], 5) }).is_ok());
}
