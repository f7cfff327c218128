//! Chains whose length follows costs and acceptance say what chains of a fixed length say.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod common;

use specexit_engine::{DepthCosts, Method, Output, Request, Sampling};
use specexit_exit::Profile;

use common::{Fixture, bits, policy, prompts, request, run_all, specexit};

const MOST: usize = 6;

fn drafting(prompt: &[u32], adaptive: bool) -> Request {
    Request { method: Method::Eagle3, draft_tokens: MOST, adaptive, ..request(prompt, 100) }
}

fn costs(target: &[(usize, f64)], draft: f64) -> DepthCosts {
    DepthCosts::new(target.to_vec(), vec![(1, draft), (8, 2.0 * draft)]).unwrap()
}

fn free() -> DepthCosts {
    costs(&[(1, 1.0), (64, 1.0001)], 1e-6)
}

/// Every row costs as much as the first.
fn dear() -> DepthCosts {
    costs(&[(1, 1.0), (64, 64.0)], 0.01)
}

#[test]
fn greedy_outputs_do_not_depend_on_how_much_is_drafted() {
    let fixture = Fixture::new();
    let prompts = prompts(20);
    let mut plain = fixture.engine(None, 8);
    let plain = run_all(&mut plain, prompts.iter().map(|p| request(p, 100)).collect());
    let exits = |adaptive| {
        let asked =
            move |p: &Vec<u32>| Request { adaptive, ..specexit(p, policy(Profile::Default), MOST) };
        prompts.iter().map(asked).collect::<Vec<_>>()
    };
    let head = fixture.head(2, 288, true);
    let fixed = run_all(&mut fixture.engine(Some(head.clone()), 8), exits(false));
    let between = costs(&[(1, 1.0), (4, 1.2), (16, 3.0)], 0.1);
    for costs in [free(), between, dear()] {
        let mut engine = fixture.engine(Some(head.clone()), 5);
        engine.set_depth_costs(costs);
        let outputs = run_all(&mut engine, prompts.iter().map(|p| drafting(p, true)).collect());
        for (ours, plain) in outputs.iter().zip(&plain) {
            assert_eq!((&ours.token_ids, bits(ours)), (&plain.token_ids, bits(plain)));
        }
        for (ours, fixed) in run_all(&mut engine, exits(true)).iter().zip(&fixed) {
            assert_eq!((&ours.token_ids, ours.exit), (&fixed.token_ids, fixed.exit));
        }
    }
}

#[test]
fn costs_decide_between_no_drafts_and_as_many_as_may_be() {
    let fixture = Fixture::new();
    let head = fixture.head(2, 288, true);
    let prompts = prompts(8);
    let run = |costs: Option<DepthCosts>, adaptive| -> Vec<Output> {
        let mut engine = fixture.engine(Some(head.clone()), 4);
        if let Some(costs) = costs {
            engine.set_depth_costs(costs);
        }
        run_all(&mut engine, prompts.iter().map(|p| drafting(p, adaptive)).collect())
    };
    let fixed = run(None, false);
    assert!(fixed.iter().all(|output| output.offered_at.len() == MOST));
    for none in run(Some(dear()), true) {
        assert_eq!((none.drafted, none.rounds), (0, 99));
    }
    let offered = |outputs: &[Output]| -> Vec<Vec<usize>> {
        outputs.iter().map(|output| output.offered_at.clone()).collect()
    };
    // Costs say nothing to requests of a fixed length, and unknown costs nothing to any.
    assert_eq!(offered(&run(Some(dear()), false)), offered(&fixed));
    assert_eq!(offered(&run(None, true)), offered(&fixed));
    // A head that is hardly ever right may be asked for less even where rows are free.
    let all = run(Some(free()), true);
    assert!(all.iter().all(|output| output.offered_at.len() == MOST));
    let drafted = |outputs: &[Output]| outputs.iter().map(|o| o.drafted).sum::<usize>();
    assert!(drafted(&all) > drafted(&fixed) / 4, "{} {}", drafted(&all), drafted(&fixed));
}

#[test]
fn sampled_requests_may_choose_too() {
    let fixture = Fixture::new();
    let mut engine = fixture.engine(Some(fixture.head(2, 190, true)), 4);
    engine.set_depth_costs(costs(&[(1, 1.0), (4, 1.2), (16, 3.0)], 0.05));
    let sampling = Sampling { temperature: 1.0, seed: 3, ..Sampling::greedy() };
    let asked = Request { sampling, ..drafting(&[1, 2, 3], true) };
    assert_eq!(engine.run(asked).unwrap().token_ids.len(), 100);
}

#[test]
fn costs_are_measured() {
    let fixture = Fixture::new();
    let mut without = fixture.engine(None, 4);
    without.measure_depth_costs().unwrap();
    assert!(without.depth_costs().is_none());
    let mut engine = fixture.engine(Some(fixture.head(2, 288, true)), 6);
    engine.measure_depth_costs().unwrap();
    let costs = engine.depth_costs().unwrap();
    assert!(costs.target_s(1) > 0.0 && costs.target_s(64) > costs.target_s(1));
    assert!(costs.draft_s(1) > 0.0 && costs.draft_s(6) >= costs.draft_s(1));
    let output = engine.run(drafting(&[7, 8, 9], true)).unwrap();
    let plain = fixture.engine(None, 1).run(request(&[7, 8, 9], 100)).unwrap();
    assert_eq!((&output.token_ids, bits(&output)), (&plain.token_ids, bits(&plain)));
}
