//! Thoughts that only repeat themselves are ended at the same token under every method.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod common;

use specexit_engine::{ExitReason, Finish, Loops, Method, Output, Request};
use specexit_exit::{Profile, Thresholds};
use specexit_testkit as testkit;

use common::{Fixture, prompts, request, run_all};

/// Tokens up to the first loop, by its definition.
fn first_loop(tokens: &[u32], Loops { cycle, repeats }: Loops) -> Option<usize> {
    (1..=tokens.len()).find(|&end| {
        (1..=cycle).any(|period| {
            end.checked_sub(period * repeats).is_some_and(|from| {
                let mut runs = tokens[from..end].chunks(period);
                let first = runs.next();
                runs.all(|run| Some(run) == first)
            })
        })
    })
}

#[test]
fn a_loop_ends_where_its_definition_says_under_every_method() {
    let fixture = Fixture::new();
    let prompts = prompts(20);
    let mut engine = fixture.engine(Some(fixture.head(2, 288, true)), 6);
    let whole = run_all(&mut engine, prompts.iter().map(|p| request(p, 150)).collect());
    let loops = Loops { cycle: 12, repeats: 3 };
    let never =
        || specexit_exit::Policy { thresholds: Thresholds::OFF, ..Profile::Default.policy() };
    for (method, draft_tokens, stop_at_close) in [
        (Method::Plain, 1, false),
        (Method::Plain, 1, true),
        (Method::Eagle3, 1, false),
        (Method::Eagle3, 5, true),
        (Method::SpecExit, 8, false),
    ] {
        let of = |p: &Vec<u32>| Request {
            method,
            draft_tokens,
            stop_at_close,
            policy: (method == Method::SpecExit).then(never),
            loops: Some(loops),
            closing_text: Some("\nOk\n".to_owned()),
            ..request(p, 150)
        };
        let outputs = run_all(&mut engine, prompts.iter().map(of).collect());
        let mut found = 0;
        for (output, whole) in outputs.iter().zip(&whole) {
            let by_itself = whole.token_ids.iter().position(|&t| t == testkit::END_THINK);
            let thought = &whole.token_ids[..by_itself.unwrap_or(149)];
            let exit = output.exit.unwrap();
            match first_loop(thought, loops) {
                Some(at) if at < 149 => {
                    found += 1;
                    assert_eq!((exit.reason, exit.token_index), (ExitReason::Loop, at));
                    assert_eq!(output.token_ids[..at], whole.token_ids[..at]);
                    check_end(output, at, stop_at_close);
                }
                _ => assert_ne!(exit.reason, ExitReason::Loop),
            }
        }
        assert!(found > 3, "{method}: {found} of 20 loop");
    }
}

/// The marker follows what is kept, and the answer or nothing follows that.
fn check_end(output: &Output, at: usize, stop_at_close: bool) {
    let close = output.token_ids[at..].iter().position(|&t| t == testkit::END_THINK);
    if stop_at_close && output.finish == Finish::ThoughtClosed {
        assert_eq!(output.token_ids.last(), Some(&testkit::END_THINK));
    }
    assert!(close.is_some() || output.token_ids.len() == 150);
    assert!(output.thinking_tokens > at || output.token_ids.len() == 150);
}

#[test]
fn loops_without_sense_are_refused_at_once() {
    let mut engine = Fixture::new().engine(None, 1);
    let asked = Request { loops: Some(Loops { cycle: 8, repeats: 1 }), ..request(&[1], 5) };
    assert!(engine.submit(asked).unwrap_err().to_string().contains("at least 2 equal runs"));
    assert!(engine.is_idle());
}
