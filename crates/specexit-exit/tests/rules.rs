//! Each rule against the plainest formula for it, and every spelling there and back.

mod common;

use common::{TOKENS, assert_close, id, ids, signals, vocabulary};
use proptest::prelude::*;
use specexit_exit::{
    BoundaryRules, BoundaryTable, Exit, ExitReason, Phase, Policy, Profile, Signals, SmoothUnit,
    Smoother, Smoothing, Thresholds,
};

fn smooth(smoothing: Smoothing, values: &[f32]) -> f32 {
    let mut smoother = Smoother::new(smoothing);
    for &value in values {
        smoother.push(value, 1);
    }
    smoother.value()
}

#[test]
fn momentum_by_hand() {
    let values = [1.0, 2.0, 4.0, 8.0];
    let smoothing = Smoothing::Momentum { window: 3 };
    assert!(smooth(smoothing, &values[..2]).is_nan(), "one difference is not two");
    // 4 + ((2 − 1) + (4 − 2)) / 2 = 5.5, then 8 + ((4 − 2) + (8 − 4)) / 2 = 11.
    assert_eq!(smooth(smoothing, &values[..3]), 5.5);
    assert_eq!(smooth(smoothing, &values), 11.0);
}

#[test]
fn paragraph_mean_keeps_the_latest_value() {
    let mut smoother = Smoother::new(Smoothing::ParagraphMean { window: 10 });
    for value in [1.0, 2.0, 6.0] {
        smoother.push(value, 1);
    }
    assert_eq!(smoother.value(), 3.0);
    smoother.boundary_checked();
    assert_eq!(smoother.value(), 6.0);
    smoother.push(2.0, 1);
    assert_eq!(smoother.value(), 4.0);
}

#[test]
fn token_time_counts_tokens_not_steps() {
    let smoothing = Smoothing::EwmaTokens { time_constant: 7.0 };
    let mut steps = Smoother::new(smoothing);
    let mut jump = Smoother::new(smoothing);
    for smoother in [&mut steps, &mut jump] {
        smoother.push(0.0, 1);
    }
    for _ in 0..5 {
        steps.push(1.0, 1);
    }
    jump.push(1.0, 5);
    let wanted = 1.0 - (-5.0_f32 / 7.0).exp();
    assert!((steps.value() - wanted).abs() < 1e-6);
    assert!((jump.value() - wanted).abs() < 1e-6);
}

proptest! {
    #[test]
    fn smoothers_follow_their_formulas(
        values in prop::collection::vec(-1000.0_f32..1000.0, 1..40),
        alpha in 0.01_f64..1.0,
        time in 0.1_f64..50.0,
        window in 2_usize..12,
    ) {
        let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        let near = |found: f32, wanted: f64| (f64::from(found) - wanted).abs() <= 1e-3;
        // An average as a weighted sum: the i-th newest value weighs a·(1−a)^i, the oldest (1−a)^n.
        let weighted = |a: f64| {
            let n = wide.len() - 1;
            let newer: f64 =
                wide[1..].iter().rev().enumerate().map(|(i, v)| a * (1.0 - a).powi(i as i32) * v).sum();
            newer + (1.0 - a).powi(n as i32) * wide[0]
        };
        let by_factor = smooth(Smoothing::Ewma { alpha }, &values);
        prop_assert!(near(by_factor, weighted(alpha)));
        let token_weight = 1.0 - (-1.0 / time).exp();
        let by_time = smooth(Smoothing::EwmaTokens { time_constant: time }, &values);
        prop_assert!(near(by_time, weighted(token_weight)));
        let tail = &wide[wide.len().saturating_sub(window)..];
        let mean = tail.iter().sum::<f64>() / tail.len() as f64;
        let sliding = smooth(Smoothing::Mean { window }, &values);
        prop_assert!(near(sliding, mean));
        let momentum = smooth(Smoothing::Momentum { window }, &values);
        if tail.len() < window {
            prop_assert!(momentum.is_nan());
        } else {
            let steps: Vec<f64> = tail.windows(2).map(|w| w[1] - w[0]).collect();
            let step = steps.iter().sum::<f64>() / steps.len() as f64;
            prop_assert!(near(momentum, tail[tail.len() - 1] + step));
        }
        prop_assert_eq!(smooth(Smoothing::None, &values), values[values.len() - 1]);
    }

    #[test]
    fn missing_values_are_as_if_never_given(
        values in prop::collection::vec(
            prop_oneof![3 => 0.0_f32..1.0, 1 => Just(f32::NAN), 1 => Just(f32::INFINITY)], 0..40),
        window in 2_usize..6,
    ) {
        let there: Vec<f32> = values.iter().copied().filter(|v| v.is_finite()).collect();
        for smoothing in [
            Smoothing::None,
            Smoothing::Ewma { alpha: 0.3 },
            Smoothing::EwmaTokens { time_constant: 3.0 },
            Smoothing::Momentum { window },
            Smoothing::Mean { window },
        ] {
            let (with, without) = (smooth(smoothing, &values), smooth(smoothing, &there));
            prop_assert!(with == without || (with.is_nan() && without.is_nan()));
        }
    }

    #[test]
    fn thresholds_are_a_strict_conjunction(
        s in (0.0_f32..1.0, 0.0_f32..1.0, 0.0_f32..300.0),
        limits in (0.0_f32..1.0, 0.0_f32..1.0, 0.0_f32..300.0),
        set in any::<[bool; 3]>(),
    ) {
        let thresholds = Thresholds {
            confidence: set[0].then_some(limits.0),
            progress: set[1].then_some(limits.1),
            remaining: set[2].then_some(limits.2),
        };
        let wanted = set.contains(&true)
            && (!set[0] || s.0 > limits.0)
            && (!set[1] || s.1 > limits.1)
            && (!set[2] || s.2 < limits.2);
        prop_assert_eq!(thresholds.pass(&signals(s.0, s.1, s.2), false), wanted);
        prop_assert!(!thresholds.pass(&signals(limits.0, limits.1, limits.2), false));
        prop_assert_eq!(thresholds.to_string().parse::<Thresholds>(), Ok(thresholds));
    }

    #[test]
    fn blank_lines_are_found_as_in_the_joined_text(
        tokens in prop::collection::vec(0..TOKENS.len() as u32, 0..40),
    ) {
        let rules = BoundaryRules { blank_line: true, ..BoundaryRules::default() };
        let found = vocabulary(&rules).table().boundaries(&tokens);
        let wanted: Vec<usize> = (0..tokens.len())
            .filter(|&i| {
                common::bytes(&tokens[..=i]).ends_with(b"\n\n")
                    && !TOKENS[tokens[i] as usize].is_empty()
            })
            .collect();
        prop_assert_eq!(found, wanted);
    }

    #[test]
    fn activations_stay_in_range(logits in any::<[f32; 3]>()) {
        let s = Signals::from_logits(logits);
        prop_assert!(logits[0].is_nan() || (0.0..=1.0).contains(&s.confidence));
        prop_assert!(logits[1].is_nan() || (0.0..=1.0).contains(&s.progress));
        prop_assert!(logits[2].is_nan() || s.remaining >= 0.0);
    }
}

#[test]
fn activations_by_hand() {
    // sigmoid(0) = 0.5, sigmoid(ln 3) = 3/4, exp(ln 150) = 150.
    let s = Signals::from_logits([0.0, 3.0_f32.ln(), 150.0_f32.ln()]);
    assert_close(s, signals(0.5, 0.75, 150.0));
    assert!(Signals::from_logits([f32::NAN; 3]).is_missing());
    assert_eq!(Signals::MISSING, Signals::default());
    assert_ne!(Signals::MISSING, s);
}

#[test]
fn carriage_returns_do_not_hide_a_blank_line() {
    let rules = BoundaryRules { blank_line: true, ..BoundaryRules::default() };
    let texts: [&[u8]; 4] = [b"a\r\n", b"\r\n", b"a\r\n\r\n", b"\r"];
    let table = BoundaryTable::new(&rules, &texts.map(<[u8]>::to_vec));
    assert_eq!(table.boundaries(&[0, 1]), [1]);
    assert_eq!(table.boundaries(&[2]), [0]);
    assert_eq!(table.boundaries(&[0, 0]), Vec::<usize>::new());
    // A token number beyond the vocabulary is a token without text.
    assert_eq!(table.boundaries(&[2, 99, 3]), [0, 2]);
}

#[test]
fn connectors_with_and_without_leading_space() {
    let rules =
        BoundaryRules { connectors: BoundaryRules::connector_words(), ..BoundaryRules::default() };
    let table = vocabulary(&rules);
    let table = table.table();
    assert!(table.is_connector(id(" Wait")) && table.is_connector(id("But")));
    assert!(!table.is_connector(id("a")) && !table.is_connector(id("")));
    assert_eq!(table.boundaries(&ids(&["a", " Wait", "b", "So", "c"])), [0, 2]);
}

#[test]
fn spellings_there_and_back() {
    for reason in ExitReason::ALL {
        assert_eq!(reason.to_string().parse(), Ok(reason));
        let json = serde_json::to_string(&reason).expect("json");
        assert_eq!(json, format!("\"{reason}\""));
    }
    assert_eq!("no-thinking".parse(), Ok(ExitReason::NoThinking));
    for profile in Profile::ALL {
        assert_eq!(profile.to_string().parse(), Ok(profile));
        let policy = profile.policy();
        assert_eq!(policy.profile, profile.as_str());
        let json = serde_json::to_string(&policy).expect("json");
        assert_eq!(serde_json::from_str::<Policy>(&json).expect("policy"), policy);
        assert!(policy.validate().is_ok());
    }
    for unit in [SmoothUnit::Token, SmoothUnit::RoundMean, SmoothUnit::RoundLast] {
        assert_eq!(unit.to_string().parse(), Ok(unit));
        assert_eq!(serde_json::to_string(&unit).expect("json"), format!("\"{unit}\""));
    }
    for text in
        ["none", "ewma:0.1", "ewma-tokens:16", "momentum:10", "mean:10", "paragraph-mean:10"]
    {
        let smoothing: Smoothing = text.parse().expect(text);
        assert_eq!(smoothing.to_string(), text);
        assert_eq!(serde_json::to_string(&smoothing).expect("json"), format!("\"{text}\""));
    }
    assert_eq!(serde_json::to_string(&Phase::Before).expect("json"), "\"before\"");
    assert_eq!("0.9,-,-".parse::<Thresholds>().map(|t| t.progress), Ok(None));
}

#[test]
fn bad_spellings_say_what_is_expected() {
    for bad in ["ewma", "ewma:0", "ewma:2", "ewma:x", "momentum:1", "mean:0", "none:3", "median:3"]
    {
        let message = bad.parse::<Smoothing>().expect_err(bad).to_string();
        assert!(message.contains(bad) && message.contains("ewma:0.1"), "{message}");
    }
    for bad in ["", "0.8", "0.8,0.3", "0.8,0.3,200,1", "0.8,0.3,nan", "a,b,c"] {
        assert!(bad.parse::<Thresholds>().is_err(), "{bad:?}");
    }
    let message = "fast".parse::<Profile>().expect_err("unknown").to_string();
    assert_eq!(message, "unknown profile `fast` (expected angelslim, paper or default)");
    assert!("cycle".parse::<ExitReason>().is_err());
    assert!("round".parse::<SmoothUnit>().is_err());
}

#[test]
fn missing_signals_survive_json() {
    let exit = Exit {
        reason: ExitReason::Budget,
        token_index: 7,
        signals: signals(0.5, f32::NAN, f32::INFINITY),
    };
    let json = serde_json::to_string(&exit).expect("json");
    assert_eq!(
        json,
        r#"{"reason":"budget","token_index":7,"signals":{"confidence":0.5,"progress":null,"remaining":null}}"#
    );
    let back: Exit = serde_json::from_str(&json).expect("exit");
    assert_eq!(back.signals, signals(0.5, f32::NAN, f32::NAN));
}
