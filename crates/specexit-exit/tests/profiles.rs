//! The published behaviours, number by number.

mod common;

use common::{SURE, UNSURE, assert_close, config, id, ids, signals, spelled, thought};
use specexit_exit::{
    Exit, ExitReason, Phase, Policy, Profile, Signals, SmoothUnit, Smoothing, Thought,
    ThoughtConfig, Thresholds, Verdict,
};

fn angelslim() -> Thought {
    thought(config(Some(Profile::Angelslim.policy())), Phase::Thinking)
}

fn paper() -> Thought {
    thought(config(Some(Profile::Paper.policy())), Phase::Thinking)
}

fn default_profile() -> Thought {
    thought(config(Some(Profile::Default.policy())), Phase::Thinking)
}

fn goes_on(keep: usize) -> Verdict {
    Verdict { keep, force: None }
}

/// A round whose signals are all the same.
fn round(t: &mut Thought, run: &[&str], s: Signals, next: &str) -> Verdict {
    t.commit(&ids(run), &vec![s; run.len()], id(next))
}

#[test]
fn angelslim_constants() {
    let policy = Profile::Angelslim.policy();
    assert_eq!(policy.unit, SmoothUnit::RoundMean);
    assert_eq!(policy.smoothing, Smoothing::Ewma { alpha: 0.1 });
    assert_eq!(policy.thresholds.to_string(), "0.8,0.3,200");
    assert!(policy.lag && policy.zero_is_missing && !policy.scan_all);
    assert_eq!(policy.boundaries.strings.len(), 6);
    assert!(policy.boundaries.connectors.is_empty() && !policy.boundaries.blank_line);
    assert_eq!(policy.min_thinking_tokens, 0);
}

#[test]
fn angelslim_three_rounds_of_means_then_exit() {
    let mut t = angelslim();
    assert_eq!(t.commit(&[], &[], id("a")), goes_on(0));
    // Means over the run: (0.9 + 0.7) / 2 = 0.8, (0.4 + 0.6) / 2 = 0.5, (100 + 300) / 2 = 200.
    let first = [signals(0.9, 0.4, 100.0), signals(0.7, 0.6, 300.0)];
    assert_eq!(t.commit(&ids(&["a", "b"]), &first, id("c")), goes_on(2));
    assert_close(t.smoothed(), signals(0.8, 0.5, 200.0));
    // Means 1.0, 0.7, 100; e = 0.1·x + 0.9·e: 0.1 + 0.72 = 0.82, 0.07 + 0.45 = 0.52,
    // 10 + 180 = 190.
    let second = [signals(1.0, 0.6, 50.0), signals(1.0, 0.7, 100.0), signals(1.0, 0.8, 150.0)];
    assert_eq!(t.commit(&ids(&["c", "d", "e"]), &second, id("x")), goes_on(3));
    assert_close(t.smoothed(), signals(0.82, 0.52, 190.0));
    // The boundary is the second token of the run: j = 1, a := 1, so 2 rows are kept.
    let verdict = round(&mut t, &["x", ".\n\n", "y"], UNSURE, "z");
    let exit = verdict.force.expect("0.82 > 0.8, 0.52 > 0.3 and 190 < 200");
    assert_eq!(verdict.keep, 2);
    assert_eq!((exit.reason, exit.token_index), (ExitReason::Signals, 7));
    assert_close(exit.signals, signals(0.82, 0.52, 190.0));
    // The released code's key-value length: old + a + 1.
    let (old, a) = (5, 1);
    assert_eq!(old + verdict.keep, old + a + 1);
    // The end-of-thinking marker is the next root.
    assert_eq!(t.forced(), ids(&["</think>"]));
    assert_eq!(round(&mut t, &["</think>"], SURE, "A"), goes_on(1));
    assert_eq!(round(&mut t, &["A", ".\n\n", "B"], SURE, "a"), goes_on(3));
    assert_eq!(t.exit(), Some(&exit));
}

#[test]
fn angelslim_decides_one_round_late() {
    let mut t = angelslim();
    t.commit(&[], &[], id("a"));
    round(&mut t, &["a"], UNSURE, "b");
    // Strong signals in the very round of the boundary do not help ...
    assert_eq!(round(&mut t, &["b", ".\n\n"], SURE, "c"), goes_on(2));
    let mut t = angelslim();
    t.commit(&[], &[], id("a"));
    round(&mut t, &["a"], SURE, "b");
    // ... and weak ones do not harm.
    assert_eq!(round(&mut t, &["b", ".\n\n"], UNSURE, "c").keep, 2);
    assert_eq!(t.exit().map(|e| e.reason), Some(ExitReason::Signals));
}

#[test]
fn angelslim_first_round_has_no_value_and_cannot_exit() {
    let mut t = angelslim();
    t.commit(&[], &[], id(".\n\n"));
    assert_eq!(round(&mut t, &[".\n\n", "a"], SURE, "b"), goes_on(2));
}

#[test]
fn angelslim_boundary_at_index_zero_triggers() {
    let mut t = angelslim();
    t.commit(&[], &[], id("a"));
    round(&mut t, &["a"], SURE, ".\n\n");
    let verdict = round(&mut t, &[".\n\n", "b", "c"], SURE, "d");
    assert_eq!(verdict.keep, 1);
    assert_eq!(verdict.force.map(|e| e.token_index), Some(2));
}

#[test]
fn angelslim_zero_or_missing_blocks() {
    for blocked in [
        signals(0.95, 0.9, 0.0),
        signals(0.95, 0.9, f32::NAN),
        signals(f32::NAN, 0.9, 10.0),
        signals(0.95, f32::NAN, 10.0),
        Signals::MISSING,
    ] {
        let mut t = angelslim();
        t.commit(&[], &[], id("a"));
        round(&mut t, &["a"], blocked, "b");
        assert_eq!(round(&mut t, &["b", ".\n\n"], SURE, "c"), goes_on(2), "{blocked:?}");
    }
    // Elsewhere a remaining length of 0 is a good reason to exit.
    let mut t = default_profile();
    t.commit(&[], &[], id(".\n\n"));
    let verdict = round(&mut t, &[".\n\n"], signals(0.95, 0.9, 0.0), "c");
    assert!(verdict.force.is_some());
}

#[test]
fn angelslim_thresholds_are_strict() {
    let exits = |s: Signals| {
        let mut t = angelslim();
        t.commit(&[], &[], id("a"));
        round(&mut t, &["a"], s, "b");
        round(&mut t, &["b", ".\n\n"], SURE, "c").force.is_some()
    };
    assert!(exits(signals(0.81, 0.31, 199.0)));
    assert!(!exits(signals(0.8, 0.31, 199.0)));
    assert!(!exits(signals(0.81, 0.3, 199.0)));
    assert!(!exits(signals(0.81, 0.31, 200.0)));
}

#[test]
fn angelslim_knows_six_single_tokens_only() {
    for (boundary, known) in
        [("\n\n", true), (" \n\n", true), ("\n\n\n", true), ("?\n\n", false), ("\n", false)]
    {
        let mut t = angelslim();
        t.commit(&[], &[], id("a"));
        round(&mut t, &["a"], SURE, "b");
        let verdict = round(&mut t, &["b", boundary, "c"], SURE, "d");
        assert_eq!(verdict.force.is_some(), known, "{boundary:?}");
    }
}

#[test]
fn angelslim_run_with_the_marker_is_not_looked_at() {
    let mut t = angelslim();
    t.commit(&[], &[], id("a"));
    round(&mut t, &["a"], SURE, "b");
    let before = t.smoothed();
    let verdict = round(&mut t, &["b", ".\n\n", "c", "</think>", "\n\n"], UNSURE, "A");
    assert_eq!(verdict, goes_on(5));
    assert_eq!(t.smoothed(), before);
    let exit = Exit { reason: ExitReason::Natural, token_index: 4, signals: before };
    assert_eq!(t.exit(), Some(&exit));
    assert_eq!(t.thinking_tokens(), 4);
    // The boundary at the end of a run with the marker as recover token: nothing to force.
    let mut t = angelslim();
    t.commit(&[], &[], id("a"));
    round(&mut t, &["a"], SURE, "b");
    assert_eq!(round(&mut t, &["b", ".\n\n"], SURE, "</think>"), goes_on(2));
    assert_eq!(t.exit().map(|e| (e.reason, e.token_index)), Some((ExitReason::Natural, 3)));
}

#[test]
fn first_boundary_only_or_every_one() {
    // Eight thinking tokens are required; only the run's second boundary has them.
    for (scan_all, keep) in [(false, None), (true, Some(8))] {
        let policy =
            Policy { scan_all, min_thinking_tokens: 8, lag: false, ..Profile::Angelslim.policy() };
        let mut t = thought(config(Some(policy)), Phase::Thinking);
        t.commit(&[], &[], id("a"));
        let run = ["a", "b", ".\n\n", "c", "d", "e", "f", ".\n\n", "x"];
        let verdict = round(&mut t, &run, SURE, "y");
        assert_eq!(verdict.force.map(|_| verdict.keep), keep);
    }
}

#[test]
fn paper_last_token_no_lag_connector() {
    let mut t = paper();
    t.commit(&[], &[], id("a"));
    // The last accepted token of the run counts: 0.9, 0.5, 150 start the averages.
    let first = [UNSURE, signals(0.9, 0.5, 150.0)];
    assert_eq!(t.commit(&ids(&["a", "b"]), &first, id("c")), goes_on(2));
    assert_close(t.smoothed(), signals(0.9, 0.5, 150.0));
    // 0.05 + 0.81 = 0.86, 0.05 + 0.45 = 0.5, 40 + 135 = 175: this round's signals are in.
    let second = [UNSURE, signals(0.5, 0.5, 400.0)];
    let verdict = t.commit(&ids(&["c", "d"]), &second, id(" Wait"));
    assert_eq!(verdict.keep, 2, "the connector is dropped, the token before it stays");
    let exit = verdict.force.expect("an exit before the connector");
    assert_eq!((exit.reason, exit.token_index), (ExitReason::Signals, 4));
    assert_close(exit.signals, signals(0.86, 0.5, 175.0));
}

#[test]
fn paper_connector_inside_the_run_and_only_capitalised_words() {
    let mut t = paper();
    t.commit(&[], &[], id("a"));
    let verdict = round(&mut t, &["a", "b", "But", "c"], SURE, "d");
    assert_eq!(verdict.keep, 2);
    assert_eq!(verdict.force.map(|e| e.token_index), Some(2));
    let words = Profile::Paper.policy().boundaries.connectors;
    assert_eq!(
        words,
        ["But", "So", "Therefore", "Thus", "Hence", "However", "Wait", "Alternatively"]
    );
}

#[test]
fn paper_connector_as_first_thinking_token_is_no_boundary() {
    let mut t = thought(config(Some(Profile::Paper.policy())), Phase::Before);
    t.commit(&[], &[], id("<think>"));
    // A cut here would leave an empty thought: nothing has been thought yet.
    assert_eq!(round(&mut t, &["<think>", "So", "a"], SURE, "b"), goes_on(3));
}

#[test]
fn default_exits_at_any_paragraph_end() {
    for boundary in [&["?\n\n"][..], &["\n", "\n"], &[".\n", "\n"], &["\n\n\n"]] {
        let mut t = default_profile();
        t.commit(&[], &[], id("a"));
        let run = [&["a", "b"], boundary, &["c"]].concat();
        let verdict = round(&mut t, &run, SURE, "d");
        assert_eq!(verdict.keep, 2 + boundary.len(), "{boundary:?}");
        assert!(verdict.force.is_some());
    }
}

#[test]
fn default_decides_with_the_boundary_tokens_own_signals() {
    // One token of time constant 1: weight 1 − e^-1 = 0.632; 0.632·0.95 + 0.368·0.5 = 0.784 is not
    // above 0.8, but one more token brings 0.632·0.95 + 0.368·0.784 = 0.889.
    let policy = Policy {
        smoothing: Smoothing::EwmaTokens { time_constant: 1.0 },
        ..Profile::Default.policy()
    };
    let start = signals(0.5, 0.9, 10.0);
    let mut t = thought(config(Some(policy)), Phase::Thinking);
    t.commit(&[], &[], id("a"));
    let run = ids(&["a", "\n\n", "b", "\n\n", "c"]);
    let mid = signals(0.95, 0.9, 10.0);
    let late = signals(0.0, 0.0, 1e6);
    let verdict = t.commit(&run, &[start, mid, mid, mid, late], id("d"));
    assert_eq!(verdict.keep, 4);
    let e: f32 = (-1.0_f32).exp();
    let one = (1.0 - e) * 0.95 + e * 0.5;
    let two = (1.0 - e) * 0.95 + e * one;
    let three = (1.0 - e) * 0.95 + e * two;
    assert_close(verdict.force.expect("exit").signals, signals(three, 0.9, 10.0));
}

#[test]
fn default_prefers_the_natural_end_right_after_the_boundary() {
    let mut t = default_profile();
    t.commit(&[], &[], id("a"));
    assert_eq!(round(&mut t, &["a", ".\n\n", "</think>", "A"], SURE, "B"), goes_on(4));
    assert_eq!(t.exit().map(|e| (e.reason, e.token_index)), Some((ExitReason::Natural, 2)));
    // Later in the run it is too late: the boundary saves the tokens between.
    let mut t = default_profile();
    t.commit(&[], &[], id("a"));
    assert_eq!(round(&mut t, &["a", ".\n\n", "b", "</think>"], SURE, "B").keep, 2);
}

#[test]
fn lag_under_the_token_unit_is_one_token() {
    let policy = Policy { lag: true, smoothing: Smoothing::None, ..Profile::Default.policy() };
    let play = |at: [Signals; 3]| {
        let mut t = thought(config(Some(policy.clone())), Phase::Thinking);
        t.commit(&[], &[], id("a"));
        t.commit(&ids(&["a", "b", ".\n\n"]), &at, id("c")).force.is_some()
    };
    assert!(play([UNSURE, SURE, UNSURE]));
    assert!(!play([SURE, UNSURE, SURE]));
}

#[test]
fn no_threshold_set_means_no_exit() {
    let policy = Policy { thresholds: Thresholds::OFF, ..Profile::Default.policy() };
    let mut t = thought(config(Some(policy)), Phase::Thinking);
    t.commit(&[], &[], id("a"));
    assert_eq!(round(&mut t, &["a", ".\n\n"], SURE, "b"), goes_on(2));
    let only = Thresholds { confidence: Some(0.5), ..Thresholds::OFF };
    assert!(only.pass(&signals(0.6, f32::NAN, f32::NAN), false));
    assert!(!only.pass(&signals(f32::NAN, 0.9, 1.0), false));
    assert!(!only.pass(&signals(0.0, 0.9, 1.0), true));
}

#[test]
fn a_missing_value_never_poisons_later_ones() {
    for profile in Profile::ALL {
        let mut t = thought(config(Some(profile.policy())), Phase::Thinking);
        t.commit(&[], &[], id("a"));
        round(&mut t, &["a", "b"], SURE, "c");
        round(&mut t, &["c"], Signals::MISSING, "d");
        t.commit(&ids(&["d"]), &[signals(f32::NAN, f32::INFINITY, f32::NAN)], id("e"));
        assert_close(t.smoothed(), SURE);
        assert!(round(&mut t, &["e", ".\n\n"], SURE, "x").force.is_some(), "{profile}");
    }
}

#[test]
fn boundary_before_a_spelled_marker() {
    let spelling = |profile: Profile| {
        let settings = ThoughtConfig { markers: spelled(), ..config(Some(profile.policy())) };
        let mut t = thought(settings, Phase::Thinking);
        t.commit(&[], &[], id(".\n\n"));
        t
    };
    for profile in [Profile::Paper, Profile::Default] {
        // The whole marker in the run, or only its first token as recover token.
        for (run, next) in [
            (&[".\n\n", "</", "think", ">"][..], "A"),
            (&[".\n\n", "</"], "think"),
            (&[".\n\n"], "</"),
        ] {
            let mut t = spelling(profile);
            assert_eq!(round(&mut t, run, SURE, next), goes_on(run.len()), "{profile} {run:?}");
        }
    }
    let mut t = spelling(Profile::Default);
    round(&mut t, &[".\n\n", "</", "think"], SURE, ">");
    assert_eq!(t.exit().map(|e| (e.reason, e.token_index)), Some((ExitReason::Natural, 1)));
    assert_eq!(t.thinking_tokens(), 1);
    // Where the marker is one special token, a bare `</` begins nothing.
    let mut t = default_profile();
    t.commit(&[], &[], id(".\n\n"));
    assert!(round(&mut t, &[".\n\n"], SURE, "</").force.is_some());
}
