//! Signals that are read off the draft layer's rows: the same promises as for any other probe, and the
//! signals are those of the whole sequence, however rounds fell.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod common;

use std::sync::Arc;

use specexit_engine::{ExitReason, Method, Output, Request, Sampling, Signals};
use specexit_exit::Profile;
use specexit_model::{DraftHead, DraftRows, DraftWorkspace, LogitRows, Positions, Workspace};
use specexit_testkit as testkit;

use common::{Fixture, bits, policy, prompts, request, run_all, specexit};

fn numbers(signals: &Signals) -> [u32; 3] {
    [signals.confidence, signals.progress, signals.remaining].map(f32::to_bits)
}

/// The tokens that the target says most, ascending: a random head that knows no others is often right.
fn frequent(outputs: &[Output]) -> Vec<u32> {
    let mut counts = std::collections::BTreeMap::<u32, usize>::new();
    for token in outputs.iter().flat_map(|o| &o.token_ids) {
        *counts.entry(*token).or_default() += 1;
    }
    let mut tokens: Vec<u32> = counts.keys().copied().collect();
    tokens.sort_by_key(|token| std::cmp::Reverse(counts[token]));
    tokens.truncate(3);
    tokens.sort_unstable();
    tokens
}

/// The signals of all generated tokens, from one forward of the target and one of the draft layer.
fn direct(fixture: &Fixture, head: &DraftHead, prompt: &[u32], output: &Output) -> Vec<Signals> {
    let tokens = [prompt, &output.token_ids].concat();
    let states = fixture.model.target.states(&tokens, &mut Workspace::default()).unwrap();
    let pairs = tokens.len() - 1;
    let mut residual = Vec::new();
    head.fuse(&states.taps[..pairs * 3 * testkit::HIDDEN], &mut residual);
    let (mut cache, mut workspace) = (head.new_cache(), DraftWorkspace::default());
    let rows = DraftRows {
        tokens: &tokens[1..],
        residual: &residual,
        cache: &mut cache,
        logits: LogitRows::None,
    };
    head.forward(&mut [rows], &mut workspace).unwrap();
    let of = |position: usize| head.draft_signal_logits(workspace.hidden(position - 1)).unwrap();
    (prompt.len()..tokens.len()).map(|p| Signals::from_logits(of(p))).collect()
}

/// Checks what was recorded against the direct computation; which tokens have signals.
fn recorded(fixture: &Fixture, head: &DraftHead, prompt: &[u32], output: &Output) -> Vec<bool> {
    let expected = direct(fixture, head, prompt, output);
    assert_eq!(output.signals.len(), expected.len());
    let tokens = output.signals.iter().zip(&expected).enumerate();
    let found = tokens.map(|(i, (found, expected))| {
        if !found.is_missing() {
            assert_eq!(numbers(found), numbers(expected), "token {i} of {}", output.signals.len());
        }
        !found.is_missing()
    });
    found.collect()
}

#[test]
fn recorded_signals_are_those_of_the_whole_sequence_whatever_was_drafted() {
    let fixture = Fixture::new();
    let prompts = prompts(20);
    let mut plain = fixture.engine(None, 1);
    let plain: Vec<Output> = prompts.iter().map(|p| plain.run(request(p, 120)).unwrap()).collect();
    for positions in [Positions::Dense, Positions::Boundaries] {
        let head = fixture.head_with_draft_probe(2, &frequent(&plain), positions);
        let mut spoken: Option<Vec<Vec<bool>>> = None;
        for (method, k, batch) in [
            (Method::Plain, 1, 4),
            (Method::Eagle3, 1, 1),
            (Method::Eagle3, 4, 8),
            (Method::Eagle3, 8, 3),
        ] {
            let of = |p: &Vec<u32>| Request {
                method,
                draft_tokens: k,
                record_signals: true,
                ..request(p, 120)
            };
            let mut engine = fixture.engine(Some(Arc::clone(&head)), batch);
            let outputs = run_all(&mut engine, prompts.iter().map(of).collect());
            let (mut now, mut accepted) = (Vec::new(), 0);
            for ((output, plain), prompt) in outputs.iter().zip(&plain).zip(&prompts) {
                assert_eq!((&output.token_ids, bits(output)), (&plain.token_ids, bits(plain)));
                assert_eq!(output.drafted > 0, method == Method::Eagle3);
                accepted += output.accepted;
                now.push(recorded(&fixture, &head, prompt, output));
            }
            // Runs of the root alone would read nothing ahead.
            assert!(k < 4 || accepted > 100, "k {k}: {accepted} accepted");
            let count: usize = now.iter().flatten().filter(|spoke| **spoke).count();
            match positions {
                // The last token is never read back.
                Positions::Dense => assert_eq!(count, 20 * 119),
                Positions::Boundaries => assert!((50..20 * 100).contains(&count), "{count}"),
            }
            assert_eq!(spoken.get_or_insert_with(|| now.clone()), &now, "{method} k {k}");
        }
    }
}

#[test]
fn specexit_is_plain_up_to_its_exit_and_exits_at_the_same_token_whatever_was_drafted() {
    let fixture = Fixture::new();
    let prompts = prompts(30);
    let mut plain = fixture.engine(None, 1);
    let plain: Vec<Output> = prompts.iter().map(|p| plain.run(request(p, 150)).unwrap()).collect();
    for positions in [Positions::Dense, Positions::Boundaries] {
        let head = fixture.head_with_draft_probe(2, &frequent(&plain), positions);
        let exits = |k: usize, batch: usize, record_signals: bool| -> Vec<Output> {
            let mut engine = fixture.engine(Some(Arc::clone(&head)), batch);
            let of = |p: &Vec<u32>| Request {
                record_signals,
                ..specexit(p, policy(Profile::Default), k)
            };
            run_all(&mut engine, prompts.iter().map(of).collect())
        };
        let expected = exits(1, 1, false);
        let by_signals = |o: &Output| o.exit.is_some_and(|e| e.reason == ExitReason::Signals);
        let count = expected.iter().filter(|o| by_signals(o)).count();
        assert!(count > 5 && count < 30, "{count} of 30 exits: the fixture should do both");
        for (output, plain) in expected.iter().zip(&plain) {
            let exit = output.exit.unwrap();
            let kept = exit.token_index.min(output.token_ids.len());
            assert_eq!(output.token_ids[..kept], plain.token_ids[..kept]);
            if by_signals(output) {
                assert_eq!(output.token_ids[kept], testkit::END_THINK);
                assert_eq!(output.thinking_tokens, kept);
            }
        }
        let (mut accepted, mut spoken) = (0, 0);
        for (k, batch, record) in [(2, 1, true), (5, 4, false), (8, 8, true)] {
            for ((a, b), prompt) in exits(k, batch, record).iter().zip(&expected).zip(&prompts) {
                assert_eq!((&a.token_ids, a.exit), (&b.token_ids, b.exit), "k {k} batch {batch}");
                accepted += a.accepted;
                if record {
                    let of = recorded(&fixture, &head, prompt, a);
                    spoken += of.iter().filter(|spoke| **spoke).count();
                }
            }
        }
        assert!(accepted > 200 && spoken > 100, "{accepted} accepted, {spoken} with signals");
    }
}

/// Cuts and forced tokens leave a draft cache that drafts what an undisturbed one would: tokens, drafts
/// and acceptances of an eagle3 run whose budget cuts runs short do not depend on who reads signals.
#[test]
fn reading_ahead_changes_no_draft() {
    let fixture = Fixture::new();
    let prompts = prompts(12);
    let requests = prompts.iter().map(|p| request(p, 100)).collect();
    let plain = run_all(&mut fixture.engine(None, 4), requests);
    let head = fixture.head_with_draft_probe(2, &frequent(&plain), Positions::Dense);
    let mut engine = fixture.engine(Some(head), 3);
    for sampling in
        [Sampling::greedy(), Sampling { temperature: 0.8, seed: 5, ..Sampling::greedy() }]
    {
        for stop_at_close in [false, true] {
            let of = |p: &Vec<u32>, record_signals| Request {
                method: Method::Eagle3,
                draft_tokens: 5,
                thinking_budget: Some(40),
                closing_text: Some("\nOk\n".to_owned()),
                sampling,
                stop_at_close,
                record_signals,
                ..request(p, 100)
            };
            let mut all =
                |record| run_all(&mut engine, prompts.iter().map(|p| of(p, record)).collect());
            let mut accepted = 0;
            for (without, with) in all(false).iter().zip(&all(true)) {
                let facts = |o: &Output| (o.token_ids.clone(), o.rounds, o.drafted, o.accepted);
                assert_eq!(facts(without), facts(with));
                accepted += with.accepted;
            }
            // A random head is seldom right, but some runs are longer than their root.
            assert!(accepted > 2, "{accepted} accepted at {sampling:?} {stop_at_close}");
        }
    }
}

/// Reading a finished output anew gives the bits that its request recorded, with either kind of probe,
/// over more tokens than one chunk has.
#[test]
fn signals_read_afterwards_are_those_that_were_recorded() {
    let fixture = Fixture::new();
    let long = [&prompts(20)[7][..], &[3; 180]].concat();
    let mut spoken = 0;
    for positions in [Positions::Dense, Positions::Boundaries] {
        let after = fixture.head_with_draft_probe(2, &[3, 5, 7], positions);
        for head in [after, fixture.head(4, 80, true)] {
            let mut engine = fixture.engine(Some(head), 1);
            for prompt in [&prompts(20)[7], &long] {
                let asked = Request {
                    method: Method::Eagle3,
                    record_signals: true,
                    ..request(prompt, 150)
                };
                let output = engine.run(asked.clone()).unwrap();
                let (last, run) = output.token_ids.split_last().unwrap();
                let mut boundaries = engine.thought(&asked).unwrap().boundaries(run, *last);
                boundaries.push(false);
                let tokens = [&prompt[..], &output.token_ids].concat();
                let read = engine.signals(&tokens, prompt.len(), &boundaries).unwrap();
                assert_eq!(
                    read.iter().map(numbers).collect::<Vec<_>>(),
                    output.signals.iter().map(numbers).collect::<Vec<_>>()
                );
                spoken += read.iter().filter(|s| !s.is_missing()).count();
            }
            let error = engine.signals(&[1, 2], 0, &[false; 2]).unwrap_err().to_string();
            assert!(error.contains("something must precede them"), "{error}");
        }
    }
    assert!(spoken > 4 * 149 + 20, "{spoken} with signals");
}
