//! What speculation may and may not change: nothing under greedy decoding, no distribution under sampling,
//! and never where a thought ends.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod common;

use std::sync::Arc;

use specexit_engine::{ExitReason, Finish, Method, Output, Request, Sampling, Scored};
use specexit_exit::Profile;
use specexit_kernels::CacheNumbers;
use specexit_testkit as testkit;

use common::{Fixture, bits, policy, prompts, request, run_all, specexit};

#[test]
fn greedy_speculation_is_plain_decoding_to_the_last_bit() {
    speculation_is_plain(&Fixture::new());
}

#[test]
fn so_it_is_over_keys_and_values_in_8_bits() {
    let in_8_bits = Fixture::with_cache(CacheNumbers::Int8);
    speculation_is_plain(&in_8_bits);
    let [ours, in_bf16] = [in_8_bits, Fixture::new()].map(|fixture| {
        let output = fixture.engine(None, 1).run(request(&prompts(1)[0], 200)).unwrap();
        (bits(&output), fixture.model.target.cache_bytes(64))
    });
    assert!(ours.0 != in_bf16.0, "the numbers make no difference");
    assert!(ours.1 < in_bf16.1);
}

fn speculation_is_plain(fixture: &Fixture) {
    let prompts = prompts(50);
    let mut plain = fixture.engine(None, 1);
    let expected: Vec<Output> =
        prompts.iter().map(|p| plain.run(request(p, 200)).unwrap()).collect();
    assert!(expected.iter().all(|o| o.token_ids.len() == 200 && o.finish == Finish::Length));
    let distinct = expected[0].token_ids.iter().collect::<std::collections::HashSet<_>>().len();
    assert!(distinct > 5, "a target that repeats one token tests nothing");

    for (k, batch, draft_vocab) in [(1, 1, 288), (4, 8, 190), (8, 3, 288)] {
        let mut engine = fixture.engine(Some(fixture.head(2, draft_vocab, true)), batch);
        let requests = prompts
            .iter()
            .map(|p| Request { method: Method::Eagle3, draft_tokens: k, ..request(p, 200) })
            .collect();
        for (ours, plain) in run_all(&mut engine, requests).iter().zip(&expected) {
            assert_eq!(ours.token_ids, plain.token_ids, "k {k} batch {batch}");
            assert_eq!(bits(ours), bits(plain), "k {k} batch {batch}");
            assert!(ours.drafted > 0 && ours.rounds <= 199);
            assert_eq!(
                ours.rounds + ours.accepted,
                199,
                "every new token is accepted or recovered"
            );
        }
    }
    let batched =
        run_all(&mut fixture.engine(None, 8), prompts.iter().map(|p| request(p, 200)).collect());
    for (ours, plain) in batched.iter().zip(&expected) {
        assert_eq!((&ours.token_ids, bits(ours)), (&plain.token_ids, bits(plain)));
    }
}

#[test]
fn specexit_is_plain_up_to_its_exit_and_exits_at_the_same_token_whatever_was_drafted() {
    let fixture = Fixture::new();
    let prompts = prompts(30);
    let mut plain = fixture.engine(None, 1);
    let plain: Vec<Output> = prompts.iter().map(|p| plain.run(request(p, 150)).unwrap()).collect();
    let exits = |k: usize, batch: usize| -> Vec<Output> {
        let mut engine = fixture.engine(Some(fixture.head(2, 288, true)), batch);
        let of = |p: &Vec<u32>| specexit(p, policy(Profile::Default), k);
        run_all(&mut engine, prompts.iter().map(of).collect())
    };
    let expected = exits(1, 1);
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
    for (k, batch) in [(2, 1), (5, 4), (8, 8)] {
        for (a, b) in exits(k, batch).iter().zip(&expected) {
            assert_eq!((&a.token_ids, a.exit), (&b.token_ids, b.exit), "k {k} batch {batch}");
        }
    }
}

#[test]
fn the_budget_is_exact_under_every_method() {
    let fixture = Fixture::new();
    let mut engine = fixture.engine(Some(fixture.head(3, 288, true)), 4);
    for method in [Method::Plain, Method::Eagle3, Method::SpecExit] {
        for (budget, closing) in
            [(0, None), (1, None), (7, Some("\nEnough.\n")), (33, Some("\nOk\n"))]
        {
            let mut never = Profile::Default.policy();
            never.thresholds.confidence = Some(1.0);
            let base = Request {
                method,
                policy: (method == Method::SpecExit).then_some(never),
                thinking_budget: Some(budget),
                closing_text: closing.map(str::to_owned),
                draft_tokens: 6,
                ..request(&[], 60)
            };
            let of = |p: &Vec<u32>| Request { prompt: p.clone(), ..base.clone() };
            for output in run_all(&mut engine, prompts(12).iter().map(of).collect()) {
                let exit = output.exit.unwrap();
                assert!(output.thinking_tokens <= budget, "{method} {budget}: {output:?}");
                if exit.reason == ExitReason::Budget {
                    assert_eq!(output.thinking_tokens, budget, "{method} {budget}");
                    assert!(output.token_ids.contains(&testkit::END_THINK));
                }
            }
        }
    }
}

#[test]
fn a_plain_head_is_refused_for_specexit_and_never_exits_under_eagle3() {
    let fixture = Fixture::new();
    let mut engine = fixture.engine(Some(fixture.head(2, 190, false)), 1);
    let error = engine.submit(specexit(&[1, 2, 3], policy(Profile::Default), 4)).unwrap_err();
    assert!(error.to_string().contains("signal probe"), "{error}");
    let request = Request { method: Method::Eagle3, ..request(&[1, 2, 3], 80) };
    let output = engine.run(request).unwrap();
    assert!(output.exit.unwrap().reason != ExitReason::Signals);
}

#[test]
fn a_shared_prefix_changes_nothing_but_the_work() {
    let fixture = Fixture::new();
    let mut engine = fixture.engine(None, 4);
    let prompt: Vec<u32> = (0..90).map(|i| (i * 7) % 256).collect();
    let alone = engine.run(request(&prompt, 40)).unwrap();
    let prefix = engine.prefix(&prompt[..60]).unwrap();
    let shared =
        engine.run(Request { prefix: Some(Arc::clone(&prefix)), ..request(&prompt, 40) }).unwrap();
    assert_eq!((&alone.token_ids, bits(&alone)), (&shared.token_ids, bits(&shared)));
    let mut other = prompt.clone();
    other[30] = 255;
    let alone = engine.run(request(&other, 40)).unwrap();
    let shared = engine.run(Request { prefix: Some(prefix), ..request(&other, 40) }).unwrap();
    assert_eq!(alone.token_ids, shared.token_ids);
}

#[test]
fn stop_at_close_ends_with_the_marker_and_stop_ids_end_the_request() {
    let fixture = Fixture::new();
    let mut engine = fixture.engine(Some(fixture.head(2, 288, true)), 2);
    for method in [Method::Plain, Method::Eagle3] {
        let closing = Request {
            method,
            stop_at_close: true,
            thinking_budget: Some(9),
            ..request(&[5, 6, 7], 100)
        };
        let output = engine.run(closing).unwrap();
        assert_eq!(output.finish, Finish::ThoughtClosed);
        assert_eq!(output.token_ids.last(), Some(&testkit::END_THINK));

        let free = engine.run(Request { method, ..request(&[9, 1, 4], 60) }).unwrap();
        let stop = free.token_ids[25];
        let first = free.token_ids.iter().position(|&t| t == stop).unwrap();
        let stopped = engine
            .run(Request { method, stop_ids: vec![stop], ..request(&[9, 1, 4], 60) })
            .unwrap();
        assert_eq!(stopped.finish, Finish::Stop);
        assert_eq!(stopped.token_ids, free.token_ids[..=first]);
    }
}

#[test]
fn bad_requests_are_refused_in_a_sentence_and_leave_the_engine_usable() {
    let fixture = Fixture::new();
    let mut engine = fixture.engine(None, 1);
    let long = vec![1; 2048];
    for (request, part) in [
        (request(&[], 5), "empty"),
        (request(&long, 5), "2048"),
        (request(&[1], 0), "max_new_tokens"),
        (Request { method: Method::Eagle3, ..request(&[1], 5) }, "draft head"),
        (
            Request { sampling: Sampling { top_p: 2.0, ..Sampling::greedy() }, ..request(&[1], 5) },
            "top_p",
        ),
        (Request { policy: Some(Profile::Paper.policy()), ..request(&[1], 5) }, "specexit"),
    ] {
        let error = engine.submit(request).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    assert!(engine.is_idle());
    assert!(engine.run(request(&[1], 5)).is_ok());
    let error = engine.run(request(&[9999], 5)).unwrap_err().to_string();
    assert!(error.contains("vocabulary"), "{error}");
    assert!(engine.run(request(&[1], 5)).is_ok(), "a refused token must not poison the engine");
}

/// Sampled pairs of tokens against their exact joint probability under the target.
#[test]
fn sampled_speculation_keeps_the_joint_distribution() {
    let fixture = Fixture::new();
    let sampling = Sampling { temperature: 1.5, top_k: 5, ..Sampling::greedy() };
    let mut plain = fixture.engine(None, 8);
    let prompt = [3u32, 141, 59];
    let first = distribution(&fixture, &sampling, &prompt);
    let mut expected = std::collections::BTreeMap::new();
    for (&a, &p) in &first {
        for (b, q) in distribution(&fixture, &sampling, &[&prompt[..], &[a]].concat()) {
            for (c, r) in distribution(&fixture, &sampling, &[&prompt[..], &[a, b]].concat()) {
                expected.insert([a, b, c], p * q * r);
            }
        }
    }
    let mut eagle = fixture.engine(Some(fixture.head(2, 190, true)), 8);
    for (engine, method) in [(&mut plain, Method::Plain), (&mut eagle, Method::Eagle3)] {
        let draws = 20_000;
        let requests = (0..draws)
            .map(|seed| Request {
                method,
                draft_tokens: 2,
                record_logprobs: false,
                sampling: Sampling { seed, ..sampling },
                ..request(&prompt, 4)
            })
            .collect();
        let mut counts = std::collections::BTreeMap::<[u32; 3], f64>::new();
        for output in run_all(engine, requests) {
            let [a, b, c, ..] = output.token_ids[..] else { panic!("too few tokens") };
            *counts.entry([a, b, c]).or_default() += 1.0;
        }
        assert!(counts.keys().all(|key| expected.contains_key(key)), "an impossible run was drawn");
        // Cells with fewer than five expected draws are pooled, as the test demands.
        let (mut statistic, mut cells, mut rest) = (0.0, 0.0, (0.0, 0.0));
        for (key, p) in &expected {
            let (seen, wanted) = (counts.get(key).copied().unwrap_or(0.0), p * draws as f64);
            if wanted < 5.0 {
                rest = (rest.0 + seen, rest.1 + wanted);
            } else {
                statistic += (seen - wanted) * (seen - wanted) / wanted;
                cells += 1.0;
            }
        }
        if rest.1 > 0.0 {
            statistic += (rest.0 - rest.1) * (rest.0 - rest.1) / rest.1;
            cells += 1.0;
        }
        let degrees: f64 = cells - 1.0;
        let share = 2.0 / (9.0 * degrees);
        let quantile = degrees * (1.0 - share + 3.09 * share.sqrt()).powi(3);
        assert!(statistic < quantile, "{method}: {statistic} over {degrees} degrees, {quantile}");
    }
}

/// The filtered next-token distribution after `tokens`.
fn distribution(
    fixture: &Fixture,
    sampling: &Sampling,
    tokens: &[u32],
) -> std::collections::BTreeMap<u32, f64> {
    use specexit_model::{LogitRows, TargetRows, Workspace};
    let target = &fixture.model.target;
    let mut cache = target.new_cache();
    let mut workspace = Workspace::default();
    let rows = TargetRows { tokens, cache: &mut cache, logits: LogitRows::Last };
    target.forward(&mut [rows], &mut workspace).unwrap();
    let mut probs = Vec::new();
    sampling.distribution(workspace.logits(0), &mut probs);
    let possible = probs.iter().enumerate().filter(|(_, p)| **p > 0.0);
    possible.map(|(id, &p)| (id as u32, f64::from(p))).collect()
}

/// A text that the target wrote itself is as probable when it is read back, to the bit: alone or beside
/// others, from its beginning or behind a prefix.
#[test]
fn scores_of_what_was_generated_are_its_log_probabilities() {
    let fixture = Fixture::new();
    let mut engine = fixture.engine(None, 3);
    let prompts = prompts(7);
    let mut scored = Vec::new();
    let mut expected = Vec::new();
    for (i, prompt) in prompts.iter().enumerate() {
        let output = engine.run(request(prompt, 1 + 11 * i)).unwrap();
        let tokens = [&prompt[..], &output.token_ids].concat();
        scored.push(Scored { tokens, from: prompt.len(), prefix: None });
        expected.push(output.logprobs);
    }
    assert_eq!(engine.score(&scored).unwrap(), expected);
    assert_eq!(fixture.engine(None, 1).score(&scored).unwrap(), expected);
    for scored in &mut scored {
        // A prefix may reach into what is scored, or end elsewhere.
        let tokens = [&scored.tokens[..scored.tokens.len() - 1], &[1, 2]].concat();
        scored.prefix = Some(engine.prefix(&tokens).unwrap());
    }
    assert_eq!(engine.score(&scored).unwrap(), expected);
    assert!(engine.score(&[]).unwrap().is_empty());
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let mut engine = Fixture::new().engine(None, 2);
    let mut error = |tokens: &[u32], from| {
        let scored = Scored { tokens: tokens.to_vec(), from, prefix: None };
        engine.score(&[scored]).unwrap_err().to_string()
    };
    for from in [0, 2, 9] {
        let expected = format!("tokens from {from} on of 2 cannot be scored");
        assert!(error(&[1, 2], from).starts_with(&expected));
    }
    assert!(error(&[], 0).contains("cannot be scored"));
    assert!(error(&[1, 99_999], 1).contains("99999"));
}
