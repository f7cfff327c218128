//! Thoughts that are ended because they loop or stall, case by case.

mod common;

use common::{SURE, config, id, ids, signals, spelled, thought};
use specexit_exit::{
    BoundaryRules, ExitReason, Loops, Phase, Policy, Profile, Signals, SmoothUnit, Smoothing,
    Stall, Thought, ThoughtConfig, Thresholds,
};

fn looping(cycle: usize, repeats: usize) -> ThoughtConfig {
    ThoughtConfig { loops: Some(Loops { cycle, repeats }), ..config(None) }
}

fn ended(t: &Thought) -> Option<(ExitReason, usize)> {
    t.exit().map(|exit| (exit.reason, exit.token_index))
}

/// Commits `texts` one by one until something is forced.
fn one_by_one(t: &mut Thought, texts: &[&str]) {
    t.commit(&[], &[], id(texts[0]));
    for pair in texts.windows(2) {
        if t.commit(&ids(&pair[..1]), &[], id(pair[1])).force.is_some() {
            return;
        }
    }
}

#[test]
fn a_loop_ends_after_the_token_that_completes_it_wherever_rounds_fall() {
    let closing = ids(&[" Enough"]);
    let settings = ThoughtConfig { closing, ..looping(3, 3) };
    let texts = ["z", "a", "b", "a", "b", "a", "b", "a", "b"];
    let mut single = thought(settings.clone(), Phase::Thinking);
    one_by_one(&mut single, &texts);
    assert_eq!(ended(&single), Some((ExitReason::Loop, 7)));
    assert_eq!(single.forced(), ids(&[" Enough", "</think>"]));
    assert_eq!((single.thinking_tokens(), single.phase()), (8, Phase::Answer));

    let mut whole = thought(settings.clone(), Phase::Thinking);
    whole.commit(&[], &[], id("z"));
    let verdict = whole.commit(&ids(&texts[..8]), &[], id("b"));
    assert_eq!((verdict.keep, &whole), (7, &single));

    // The token that completes it is the recover token: it is kept, and the cut comes a round later.
    let mut next = thought(settings, Phase::Thinking);
    next.commit(&[], &[], id("z"));
    assert_eq!(next.commit(&ids(&texts[..6]), &[], id("b")).force, None);
    let verdict = next.commit(&ids(&["b", "a"]), &[], id("b"));
    assert_eq!((verdict.keep, &next), (1, &single));
}

#[test]
fn what_is_no_loop_goes_on() {
    for (cycle, repeats, texts) in [
        (2, 3, &["a", "b", "c", "a", "b", "c", "a", "b", "c"][..]),
        (3, 4, &["a", "b", "c", "a", "b", "c", "a", "b", "c"]),
        (3, 3, &["a", "a", "b", "a", "a", "b", "a", "b"]),
    ] {
        let mut t = thought(looping(cycle, repeats), Phase::Thinking);
        one_by_one(&mut t, texts);
        assert_eq!(ended(&t), None);
    }
    let mut t = thought(looping(3, 3), Phase::Thinking);
    one_by_one(&mut t, &["a", "b", "c", "a", "b", "c", "a", "b", "c", "a"]);
    assert_eq!(ended(&t), Some((ExitReason::Loop, 9)));
}

#[test]
fn only_thinking_tokens_loop() {
    let mut before = thought(looping(1, 2), Phase::Before);
    one_by_one(&mut before, &["a", "a", "a", "<think>", "a", "b", "b", "b"]);
    assert_eq!(ended(&before), Some((ExitReason::Loop, 7)));
    let mut after = thought(looping(1, 2), Phase::Thinking);
    one_by_one(&mut after, &["a", "</think>", "a", "a", "a"]);
    assert_eq!(ended(&after), Some((ExitReason::Natural, 1)));
}

#[test]
fn the_targets_own_end_comes_before_a_loop_and_a_loop_before_the_budget() {
    let mut natural = thought(looping(1, 3), Phase::Thinking);
    one_by_one(&mut natural, &["a", "a", "a", "</think>"]);
    assert_eq!(ended(&natural), Some((ExitReason::Natural, 3)));

    // It begins its marker, and then does not go on with it: the loop is over.
    let markers = spelled();
    let settings = ThoughtConfig { markers, ..looping(1, 3) };
    let mut begun = thought(settings, Phase::Thinking);
    one_by_one(&mut begun, &["a", "a", "a", "</", "b", "b", "b", "c"]);
    assert_eq!(ended(&begun), Some((ExitReason::Loop, 7)));

    let settings = ThoughtConfig { budget: Some(3), ..looping(1, 3) };
    let mut both = thought(settings, Phase::Thinking);
    one_by_one(&mut both, &["a", "a", "a", "a"]);
    assert_eq!(ended(&both), Some((ExitReason::Loop, 3)));
}

#[test]
fn signals_come_before_a_loop_at_the_same_place() {
    let settings = ThoughtConfig { policy: Some(Profile::Default.policy()), ..looping(1, 2) };
    let mut t = thought(settings, Phase::Thinking);
    t.commit(&[], &[], id("\n\n"));
    t.commit(&ids(&["\n\n"]), &[Signals::MISSING], id("\n\n"));
    t.commit(&ids(&["\n\n"]), &[SURE], id("a"));
    assert_eq!(ended(&t), Some((ExitReason::Signals, 2)));
}

fn stalling(tokens: usize, gain: f32) -> Policy {
    Policy {
        thresholds: Thresholds::OFF,
        smoothing: Smoothing::None,
        stall: Some(Stall { tokens, gain }),
        boundaries: BoundaryRules { blank_line: true, ..BoundaryRules::default() },
        ..Profile::Default.policy()
    }
}

/// Commits words with the given progress, a boundary after every third, one by one.
fn progressing(policy: Policy, progress: &[f32]) -> Thought {
    let mut t = thought(config(Some(policy)), Phase::Thinking);
    let text = |i: usize| if i % 3 == 2 { id("\n\n") } else { id("a") };
    t.commit(&[], &[], text(0));
    for (i, &progress) in progress.iter().enumerate() {
        let said = signals(0.0, progress, 100.0);
        if t.commit(&[text(i)], &[said], text(i + 1)).force.is_some() {
            break;
        }
    }
    t
}

#[test]
fn a_thought_whose_progress_does_not_rise_is_ended_at_a_boundary() {
    let flat = progressing(stalling(4, 0.1), &[0.5; 30]);
    // The first value is at 1 token, 4 tokens later there is no boundary, after 6 there is.
    assert_eq!(ended(&flat), Some((ExitReason::Stalled, 6)));
    assert_eq!(flat.exit().map(|exit| exit.signals.progress), Some(0.5));

    let rising: Vec<f32> = (0..30).map(|i| i as f32 * 0.03).collect();
    assert_eq!(ended(&progressing(stalling(4, 0.1), &rising)), None);
    // The same rise is too slow for a shorter time or a larger gain.
    assert_eq!(ended(&progressing(stalling(2, 0.1), &rising)), Some((ExitReason::Stalled, 3)));
    assert_eq!(ended(&progressing(stalling(4, 0.2), &rising)), Some((ExitReason::Stalled, 6)));
    // Rising back to where it was is no rise.
    let mut falls = vec![0.6, 0.1, 0.1];
    falls.extend((0..20).map(|i| 0.2 + 0.02 * i as f32));
    assert_eq!(ended(&progressing(stalling(10, 0.05), &falls)), Some((ExitReason::Stalled, 12)));
}

#[test]
fn a_missing_progress_never_stalls() {
    assert_eq!(ended(&progressing(stalling(1, 0.1), &[f32::NAN; 30])), None);
    let mut late = vec![f32::NAN; 7];
    late.extend([0.5; 10]);
    assert_eq!(ended(&progressing(stalling(4, 0.1), &late)), Some((ExitReason::Stalled, 12)));
}

#[test]
fn per_round_policies_stall_too() {
    for unit in [SmoothUnit::RoundMean, SmoothUnit::RoundLast] {
        let policy = Policy { unit, ..stalling(4, 0.1) };
        let flat = progressing(policy, &[0.5; 30]);
        assert_eq!(ended(&flat), Some((ExitReason::Stalled, 6)));
    }
}

#[test]
fn settings_of_loops_and_stalls_are_checked_with_the_others() {
    assert!(looping(0, 3).validate().is_err());
    assert!(looping(8, 3).validate().is_ok());
    assert!(config(Some(stalling(0, 0.1))).validate().is_err());
    let policy = stalling(5, 0.1);
    let json = serde_json::to_string(&policy).expect("json");
    assert!(json.contains(r#""stall":{"tokens":5,"gain":0.1}"#), "{json}");
    assert_eq!(serde_json::from_str::<Policy>(&json).expect("policy"), policy);
    let without = serde_json::to_string(&Profile::Default.policy()).expect("json");
    assert!(!without.contains("stall"), "{without}");
}
