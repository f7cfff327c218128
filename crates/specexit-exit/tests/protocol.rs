//! Markers, counting, budgets and forced tokens, case by case.

mod common;

use common::{SURE, UNSURE, bytes, config, id, ids, special, spelled, thought};
use specexit_exit::{ExitReason, Phase, Profile, Signals, Thought, ThoughtConfig, Verdict};

fn goes_on(keep: usize) -> Verdict {
    Verdict { keep, force: None }
}

/// A round without signals.
fn plain(t: &mut Thought, run: &[&str], next: &str) -> Verdict {
    t.commit(&ids(run), &[], id(next))
}

fn ended(t: &Thought) -> Option<(ExitReason, usize)> {
    t.exit().map(|exit| (exit.reason, exit.token_index))
}

/// A request with a budget, closing sentence and markers, right after prefill of `next`.
fn budgeted(budget: usize, closing: &[&str], spelled_marker: bool) -> Thought {
    let markers = if spelled_marker { spelled() } else { special() };
    let settings =
        ThoughtConfig { budget: Some(budget), closing: ids(closing), markers, ..config(None) };
    thought(settings, Phase::Thinking)
}

#[test]
fn worked_example_of_the_module_documentation() {
    let closing = ids(&[" Enough"]);
    let settings = ThoughtConfig { closing, ..config(Some(Profile::Default.policy())) };
    let mut t = thought(settings, Phase::Thinking);
    assert_eq!(plain(&mut t, &[], "a"), goes_on(0));
    assert_eq!(t.commit(&ids(&["a", "b"]), &[SURE; 2], id("c")), goes_on(2));
    let verdict = t.commit(&ids(&["c", ".\n\n", "So"]), &[SURE; 3], id("d"));
    assert_eq!((verdict.keep, verdict.force.map(|e| e.token_index)), (2, Some(4)));
    assert_eq!(t.forced(), ids(&[" Enough", "</think>"]));
    assert_eq!((t.phase(), t.thinking_tokens(), t.generated_tokens()), (Phase::Answer, 5, 6));
    assert_eq!(t.commit(&ids(&[" Enough", "</think>"]), &[SURE; 2], id("A")), goes_on(2));
    assert_eq!(t.commit(&ids(&["A", ".\n\n"]), &[SURE; 2], id("B")), goes_on(2));
    assert_eq!((t.thinking_tokens(), t.generated_tokens()), (5, 9));
    assert_eq!(ended(&t), Some((ExitReason::Signals, 4)));
}

#[test]
fn forced_tokens_may_be_fed_in_pieces_or_outside_rounds() {
    let cut = || {
        let mut t = budgeted(4, &[" Enough", "."], false);
        plain(&mut t, &[], "a");
        let verdict = plain(&mut t, &["a", "b", "c"], "d");
        assert_eq!((verdict.keep, ended(&t)), (2, Some((ExitReason::Budget, 2))));
        assert_eq!(t.thinking_tokens(), 4);
        t
    };
    // All at once, with answer tokens drafted behind them.
    let mut whole = cut();
    plain(&mut whole, &[" Enough", ".", "</think>", "A"], "B");
    // In pieces: the next forced token stands in for the recover token.
    let mut pieces = cut();
    plain(&mut pieces, &[" Enough"], ".");
    assert_eq!(pieces.forced(), ids(&["</think>"]));
    plain(&mut pieces, &["."], "</think>");
    plain(&mut pieces, &["</think>"], "A");
    plain(&mut pieces, &["A"], "B");
    assert_eq!(whole, pieces);
    // Outside rounds.
    let mut outside = cut();
    assert_eq!(outside.take_forced(), ids(&[" Enough", ".", "</think>"]));
    plain(&mut outside, &[], "A");
    plain(&mut outside, &["A"], "B");
    assert_eq!(whole, outside);
    assert_eq!(whole.generated_tokens(), 7);
}

#[test]
fn forced_tokens_trigger_nothing_even_with_boundaries_in_the_sentence() {
    let policy = Some(Profile::Default.policy());
    let settings = ThoughtConfig { closing: ids(&["a", ".\n\n", "b", "\n\n"]), ..config(policy) };
    let mut t = thought(settings, Phase::Thinking);
    plain(&mut t, &[], "\n\n");
    let verdict = t.commit(&ids(&["\n\n"]), &[SURE], id("x"));
    assert_eq!(verdict.keep, 1);
    let forced = t.forced().to_vec();
    assert_eq!(t.commit(&forced, &[SURE; 5], id("\n\n")), goes_on(5));
    assert_eq!(t.commit(&ids(&["\n\n", "A"]), &[SURE; 2], id("B")), goes_on(2));
    assert_eq!(ended(&t), Some((ExitReason::Signals, 1)));
}

#[test]
fn natural_end_in_every_spelling() {
    let spellings: [(&[&str], usize); 7] = [
        (&["a", "b", "</think>", "A"], 2),
        (&["a", "b", "</", "think", ">"], 2),
        (&["a", "b", "</", "think", ">\n\n"], 2),
        (&["a", "b", "<", "</", "think", ">"], 3),
        // `x</` starts inside the span and counts; so does `y</think>`.
        (&["a", "b", "x</", "think", ">"], 3),
        (&["a", "b", "y</think>", "A"], 3),
        (&["a", "b", "</", "", "think", ">"], 3),
    ];
    for (tokens, thinking) in spellings {
        let mut t = thought(config(None), Phase::Thinking);
        plain(&mut t, tokens, "A");
        assert_eq!((t.phase(), t.thinking_tokens()), (Phase::Answer, thinking), "{tokens:?}");
        let mut single = thought(config(None), Phase::Thinking);
        for (i, token) in tokens.iter().chain(&["A"]).enumerate() {
            let root = i.checked_sub(1).map(|before| tokens[before]);
            plain(&mut single, root.as_slice(), token);
        }
        assert_eq!(t, single);
    }
}

#[test]
fn natural_index_is_where_the_marker_begins() {
    let index = |tokens: &[&str]| {
        let mut t = thought(config(None), Phase::Thinking);
        plain(&mut t, tokens, "A");
        ended(&t)
    };
    let natural = |at| Some((ExitReason::Natural, at));
    assert_eq!(index(&["a", "</think>"]), natural(1));
    assert_eq!(index(&["a", "</", "think", ">"]), natural(1));
    assert_eq!(index(&["a", "x</", "think", ">"]), natural(2));
    assert_eq!(index(&["a", "y</think>"]), natural(2));
    assert_eq!(index(&["</think>"]), natural(0));
}

#[test]
fn a_marker_begun_but_not_ended_is_thinking_text() {
    let mut t = thought(config(None), Phase::Thinking);
    plain(&mut t, &["a", "</", "think"], "b");
    assert_eq!((t.phase(), t.thinking_tokens()), (Phase::Thinking, 4));
}

#[test]
fn the_opening_marker_is_recognised_in_every_spelling() {
    for open in [&["<think>"][..], &["<", "think", ">"], &["<th", "ink", ">\n\n"], &["<think>\n"]] {
        let mut t = thought(config(None), Phase::Before);
        let tokens = [&["A", "B"], open, &["a", "b"]].concat();
        plain(&mut t, &tokens, "c");
        assert_eq!((t.phase(), t.thinking_tokens()), (Phase::Thinking, 3), "{open:?}");
        plain(&mut t, &["c"], "</think>");
        assert_eq!(ended(&t), Some((ExitReason::Natural, tokens.len() + 1)));
    }
}

#[test]
fn newlines_that_end_the_opening_marker_are_no_boundary() {
    let policy = Profile::Default.policy();
    let mut t = thought(config(Some(policy)), Phase::Before);
    plain(&mut t, &[], "<");
    // `>\n\n` belongs to the marker, not to the thought.
    let run = ids(&["<", "think", ">\n\n", "a", "?\n\n", "b"]);
    let verdict = t.commit(&run, &[SURE; 6], id("c"));
    assert_eq!((verdict.keep, t.thinking_tokens()), (5, 2));
}

#[test]
fn no_exit_outside_a_span() {
    let policy = Some(Profile::Default.policy());
    for phase in [Phase::Before, Phase::Answer] {
        let settings = ThoughtConfig { budget: Some(0), ..config(policy.clone()) };
        let mut t = thought(settings, phase);
        plain(&mut t, &[], "a");
        assert_eq!(t.commit(&ids(&["a", ".\n\n"]), &[SURE; 2], id("\n\n")), goes_on(2));
        assert_eq!(t.commit(&ids(&["\n\n"]), &[SURE], id("b")), goes_on(1));
        assert_eq!((t.phase(), t.thinking_tokens()), (phase, 0));
        assert_eq!(t.force(ExitReason::Budget), None);
        t.finish(ExitReason::Stop);
        let at = if phase == Phase::Answer { 0 } else { 4 };
        assert_eq!(ended(&t), Some((ExitReason::NoThinking, at)));
    }
}

#[test]
fn a_second_span_is_not_opened() {
    let mut t = thought(config(Some(Profile::Default.policy())), Phase::Thinking);
    let run = ids(&["a", "</think>", "A", "<think>", "b", ".\n\n", "</think>"]);
    assert_eq!(t.commit(&run, &[SURE; 7], id("c")), goes_on(7));
    assert_eq!((t.thinking_tokens(), ended(&t)), (1, Some((ExitReason::Natural, 1))));
}

#[test]
fn a_head_without_signal_probe_never_exits() {
    let mut t = thought(config(Some(Profile::Default.policy())), Phase::Thinking);
    plain(&mut t, &[], ".\n\n");
    for _ in 0..50 {
        let verdict = t.commit(&ids(&[".\n\n", "a", ".\n\n"]), &[Signals::MISSING; 3], id(".\n\n"));
        assert_eq!(verdict, goes_on(3));
    }
    assert_eq!(t.smoothed(), Signals::MISSING);
}

#[test]
fn min_thinking_tokens_delays_the_exit() {
    let mut policy = Profile::Default.policy();
    policy.min_thinking_tokens = 4;
    let mut t = thought(config(Some(policy)), Phase::Thinking);
    plain(&mut t, &[], "a");
    let run = ids(&["a", ".\n\n", "b", "\n\n", "c"]);
    assert_eq!(t.commit(&run, &[SURE; 5], id("d")).keep, 4);
}

#[test]
fn budget_cuts_the_run_the_recover_token_and_the_prefill() {
    let mut t = budgeted(3, &[], false);
    plain(&mut t, &[], "a");
    assert_eq!(plain(&mut t, &["a", "b", "c", "d"], "e").keep, 3);
    assert_eq!((t.thinking_tokens(), ended(&t)), (3, Some((ExitReason::Budget, 3))));
    assert_eq!(t.forced(), ids(&["</think>"]));

    let mut t = budgeted(3, &[], false);
    plain(&mut t, &[], "a");
    let verdict = plain(&mut t, &["a", "b", "c"], "d");
    assert_eq!((verdict.keep, verdict.force.is_some()), (3, true));

    let mut t = budgeted(0, &[], false);
    let verdict = plain(&mut t, &[], "a");
    assert_eq!((verdict.keep, ended(&t)), (0, Some((ExitReason::Budget, 0))));
    assert_eq!((t.thinking_tokens(), t.generated_tokens()), (0, 1));
}

#[test]
fn budget_zero_after_a_generated_opening_marker() {
    let settings = ThoughtConfig { budget: Some(0), ..config(None) };
    let mut t = thought(settings, Phase::Before);
    plain(&mut t, &[], "<think>");
    let verdict = plain(&mut t, &["<think>", "a"], "b");
    assert_eq!((verdict.keep, t.thinking_tokens()), (1, 0));
    assert_eq!(ended(&t), Some((ExitReason::Budget, 1)));
}

#[test]
fn budget_reserves_the_closing_sentence_or_drops_it() {
    let mut t = budgeted(5, &[" Enough", "."], false);
    plain(&mut t, &[], "a");
    assert_eq!(plain(&mut t, &["a", "b", "c", "d"], "e").keep, 3);
    assert_eq!(t.forced(), ids(&[" Enough", ".", "</think>"]));
    assert_eq!(t.thinking_tokens(), 5);
    // Exactly the sentence fits.
    let mut t = budgeted(2, &[" Enough", "."], false);
    plain(&mut t, &[], "a");
    assert_eq!((t.thinking_tokens(), t.forced().len()), (2, 3));
    // It does not fit: the target gets the room.
    let mut t = budgeted(1, &[" Enough", "."], false);
    plain(&mut t, &[], "a");
    assert_eq!(plain(&mut t, &["a"], "b").keep, 1);
    assert_eq!((t.thinking_tokens(), t.forced()), (1, &ids(&["</think>"])[..]));
}

#[test]
fn an_exit_by_signals_fits_its_sentence_into_the_budget() {
    let policy = Some(Profile::Default.policy());
    let settings =
        ThoughtConfig { budget: Some(4), closing: ids(&[" Enough", "."]), ..config(policy) };
    let mut t = thought(settings, Phase::Thinking);
    plain(&mut t, &[], "a");
    let verdict = t.commit(&ids(&["a", ".\n\n", "b"]), &[SURE; 3], id("c"));
    // The budget would cut at the same place: signals come first.
    assert_eq!(verdict.force.map(|e| e.reason), Some(ExitReason::Signals));
    assert_eq!((verdict.keep, t.thinking_tokens()), (2, 4));
}

#[test]
fn closing_by_itself_exactly_at_the_budget_is_natural() {
    for tokens in [
        &["a", "b", "c", "</think>", "A"][..],
        &["a", "b", "c", "</", "think", ">", "A"],
        &["a", "b", "c", "</", "think", ">\n\n", "A"],
    ] {
        for step in 1..=tokens.len() {
            let mut t = budgeted(3, &[], tokens.len() > 5);
            plain(&mut t, &[], tokens[0]);
            let mut done = 0;
            while done + 1 < tokens.len() {
                let run = step.min(tokens.len() - 1 - done);
                let verdict = plain(&mut t, &tokens[done..done + run], tokens[done + run]);
                assert_eq!(verdict, goes_on(run));
                done += run;
            }
            assert_eq!((ended(&t), t.thinking_tokens()), (Some((ExitReason::Natural, 3)), 3));
        }
    }
}

#[test]
fn a_begun_marker_at_the_budget_is_completed() {
    // Three tokens allowed; the fourth begins the marker and is let through, the next does not go on.
    let mut t = budgeted(3, &[], true);
    plain(&mut t, &[], "a");
    let verdict = plain(&mut t, &["a", "b", "c", "</"], "d");
    assert_eq!((verdict.keep, ended(&t)), (4, Some((ExitReason::Budget, 4))));
    assert_eq!(t.forced(), ids(&["think", ">"]));
    assert_eq!(t.thinking_tokens(), 3);
    // Begun within the budget: completed as well, and the sentence would come too late.
    let mut t = budgeted(4, &["x"], true);
    plain(&mut t, &[], "a");
    let verdict = plain(&mut t, &["a", "b", "</", "think"], "d");
    assert_eq!((verdict.keep, t.forced()), (4, &ids(&[">"])[..]));
    assert_eq!(t.thinking_tokens(), 2);
    // Beginning it anew would turn the first beginning into thinking text over the budget.
    let mut t = budgeted(3, &[], true);
    plain(&mut t, &[], "a");
    let verdict = plain(&mut t, &["a", "b", "c", "</", "</"], "think");
    assert_eq!((verdict.keep, t.thinking_tokens()), (4, 3));
    // With a special token `</` begins nothing: the thought ends before it.
    let mut t = budgeted(3, &[], false);
    plain(&mut t, &[], "a");
    assert_eq!(plain(&mut t, &["a", "b", "c", "</"], "think").keep, 3);
}

#[test]
fn text_and_marker_in_one_token_over_the_budget_is_cut() {
    let mut t = budgeted(2, &[], false);
    plain(&mut t, &[], "a");
    let verdict = plain(&mut t, &["a", "b", "y</think>"], "A");
    assert_eq!((verdict.keep, t.thinking_tokens()), (2, 2));
    assert_eq!(ended(&t), Some((ExitReason::Budget, 2)));
}

#[test]
fn force_from_outside_keeps_the_root() {
    let mut t = budgeted(9, &[" Enough"], false);
    plain(&mut t, &[], "a");
    plain(&mut t, &["a"], "b");
    let exit = t.force(ExitReason::Stop).expect("inside the span");
    assert_eq!((exit.token_index, t.thinking_tokens()), (2, 3));
    assert_eq!(plain(&mut t, &["b", " Enough", "</think>", "A"], "B"), goes_on(4));
    assert_eq!((t.generated_tokens(), t.forced().len()), (6, 0));
    assert_eq!(t.force(ExitReason::Stop), None);
}

#[test]
fn finish_records_why_an_open_thought_ended() {
    let mut t = thought(config(None), Phase::Thinking);
    plain(&mut t, &["a", "b"], "c");
    t.finish(ExitReason::Length);
    assert_eq!(ended(&t), Some((ExitReason::Length, 3)));
    t.finish(ExitReason::Stop);
    assert_eq!(ended(&t), Some((ExitReason::Length, 3)), "the first reason stays");
    let mut t = thought(config(None), Phase::Thinking);
    plain(&mut t, &["a", "</think>"], "c");
    t.finish(ExitReason::Length);
    assert_eq!(ended(&t), Some((ExitReason::Natural, 1)));
}

#[test]
fn a_round_can_be_undone_by_keeping_a_clone() {
    let mut t = thought(config(Some(Profile::Default.policy())), Phase::Thinking);
    plain(&mut t, &[], "a");
    let mut before = t.clone();
    t.commit(&ids(&["a", "</", ".\n\n"]), &[UNSURE; 3], id("b"));
    assert_ne!(t, before);
    before.commit(&ids(&["a", "</", ".\n\n"]), &[UNSURE; 3], id("b"));
    assert_eq!(t, before);
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    assert!(config(Some(Profile::Default.policy())).validate().is_ok());
    let mut settings = config(None);
    settings.markers.close_ids.clear();
    let message = settings.validate().expect_err("no close tokens").to_string();
    assert!(message.contains("</think>"), "{message}");
    let mut policy = Profile::Default.policy();
    policy.thresholds.remaining = Some(f32::NAN);
    let message = config(Some(policy)).validate().expect_err("NaN").to_string();
    assert_eq!(message, "the remaining threshold is not a number");
    assert_eq!(bytes(&special().close_ids), special().close);
}
