//! Properties over random streams: the outcome does not depend on how the rounds fell, and the
//! budget holds at every moment.

mod common;

use std::sync::Arc;

use common::{Output, TOKENS, WORDS, count_by_search, id, ids, play, special, spelled, vocabulary};
use proptest::prelude::*;
use specexit_exit::{
    BoundaryRules, ExitReason, Loops, Phase, Policy, Profile, RandomExit, Signals, SmoothUnit,
    Smoothing, Stall, Thought, ThoughtConfig, Thresholds, TokenId,
};

fn any_token() -> impl Strategy<Value = TokenId> {
    prop_oneof![
        6 => prop::sample::select(WORDS).prop_map(id),
        2 => prop::sample::select(&["\n", "\n\n", ".\n\n", "?\n\n", " Wait", "So"][..]).prop_map(id),
        1 => 0..TOKENS.len() as TokenId,
    ]
}

fn any_value(high: f32) -> impl Strategy<Value = f32> {
    prop_oneof![8 => 0.0..high, 1 => Just(f32::NAN), 1 => Just(0.0)]
}

fn any_signals() -> impl Strategy<Value = Signals> {
    (any_value(1.0), any_value(1.0), any_value(400.0))
        .prop_map(|(confidence, progress, remaining)| Signals { confidence, progress, remaining })
}

/// Words, newlines and single marker tokens, and now and then a marker in several tokens.
fn any_stream() -> impl Strategy<Value = Vec<(TokenId, Signals)>> {
    let spelled: &[&[&str]] = &[
        &["</", "think", ">"],
        &["</", "think", ">\n\n"],
        &["<", "think", ">"],
        &["<th", "ink", ">"],
        &["x</", "think", ">"],
        &["</", "think"],
        &["</", "", "think", ">"],
    ];
    let piece = prop_oneof![
        12 => any_token().prop_map(|token| vec![token]),
        1 => prop::sample::select(spelled).prop_map(ids),
    ];
    (prop::collection::vec(piece, 1..60), prop::collection::vec(any_signals(), 180))
        .prop_map(|(pieces, signals)| pieces.concat().into_iter().zip(signals).collect())
}

fn any_smoothing() -> impl Strategy<Value = Smoothing> {
    prop_oneof![
        Just(Smoothing::None),
        (0.05..1.0).prop_map(|alpha| Smoothing::Ewma { alpha }),
        (0.5..30.0).prop_map(|time_constant| Smoothing::EwmaTokens { time_constant }),
        (2_usize..6).prop_map(|window| Smoothing::Momentum { window }),
        (1_usize..6).prop_map(|window| Smoothing::Mean { window }),
        (1_usize..6).prop_map(|window| Smoothing::ParagraphMean { window }),
    ]
}

fn any_rules() -> impl Strategy<Value = BoundaryRules> {
    any::<[bool; 3]>().prop_map(|[strings, blank_line, connectors]| BoundaryRules {
        strings: if strings { BoundaryRules::newline_strings() } else { Vec::new() },
        blank_line,
        connectors: if connectors { BoundaryRules::connector_words() } else { Vec::new() },
    })
}

fn any_thresholds() -> impl Strategy<Value = Thresholds> {
    let limit = |high: f32| prop::option::of(0.0..high);
    (limit(1.0), limit(1.0), limit(400.0)).prop_map(|(confidence, progress, remaining)| {
        Thresholds { confidence, progress, remaining }
    })
}

/// Any policy that smooths per token and looks at every boundary.
fn token_policy() -> impl Strategy<Value = Policy> {
    let random = (0.0_f32..1.0, any::<u64>()).prop_map(|(rate, seed)| RandomExit { rate, seed });
    let random = prop_oneof![4 => Just(None), 1 => random.prop_map(Some)];
    let stall = (1_usize..12, 0.01_f32..0.5).prop_map(|(tokens, gain)| Stall { tokens, gain });
    let others = (random, prop::option::of(stall));
    (any_smoothing(), any_rules(), any_thresholds(), any::<[bool; 2]>(), 0_usize..12, others)
        .prop_map(|(smoothing, boundaries, thresholds, [lag, zero_is_missing], min, others)| {
            let (random, stall) = others;
            Policy {
                stall,
                smoothing,
                boundaries,
                thresholds,
                lag,
                zero_is_missing,
                min_thinking_tokens: min,
                random,
                ..Profile::Default.policy()
            }
        })
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let unit = prop::sample::select(
        &[SmoothUnit::Token, SmoothUnit::RoundMean, SmoothUnit::RoundLast][..],
    );
    (token_policy(), unit, any::<bool>()).prop_map(|(policy, unit, scan_all)| Policy {
        unit,
        scan_all,
        ..policy
    })
}

fn any_config(policy: impl Strategy<Value = Policy>) -> impl Strategy<Value = ThoughtConfig> {
    let closing = prop::collection::vec(prop::sample::select(WORDS).prop_map(id), 0..4);
    let loops = (1_usize..5, 2_usize..4).prop_map(|(cycle, repeats)| Loops { cycle, repeats });
    let limits = (prop::option::of(0_usize..40), prop::option::of(loops));
    (prop::option::of(policy), limits, closing, any::<bool>()).prop_map(
        |(policy, (budget, loops), closing, special_marker)| ThoughtConfig {
            policy,
            budget,
            loops,
            closing,
            markers: if special_marker { special() } else { spelled() },
        },
    )
}

fn any_phase() -> impl Strategy<Value = Phase> {
    prop_oneof![3 => Just(Phase::Thinking), 1 => Just(Phase::Before)]
}

fn any_runs() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1_usize..9, 1..12)
}

fn new_thought(config: &ThoughtConfig, phase: Phase) -> Thought {
    let rules = config.policy.as_ref().map(|p| p.boundaries.clone()).unwrap_or_default();
    Thought::new(Arc::new(config.clone()), vocabulary(&rules), phase)
}

/// The last round may end before the last token's signals are in, so compare states only when
/// both plays ended in a forced exit, and always compare tokens, exit and counts.
fn outcome(output: &Output) -> (Vec<TokenId>, Option<specexit_exit::Exit>, usize, usize) {
    let thought = &output.thought;
    (output.tokens.clone(), output.exit, thought.thinking_tokens(), thought.generated_tokens())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_exit_does_not_depend_on_the_rounds(
        config in any_config(token_policy()),
        phase in any_phase(),
        stream in any_stream(),
        one in any_runs(),
        two in any_runs(),
    ) {
        let start = new_thought(&config, phase);
        let plain = play(&start, &stream, &[1], |_, _| {});
        let first = play(&start, &stream, &one, |_, _| {});
        let second = play(&start, &stream, &two, |_, _| {});
        prop_assert_eq!(outcome(&plain), outcome(&first));
        prop_assert_eq!(outcome(&first), outcome(&second));
        if !plain.forced.is_empty() {
            prop_assert_eq!(&plain.thought, &first.thought);
        }
    }

    #[test]
    fn the_budget_is_never_passed(
        config in any_config(any_policy()),
        phase in any_phase(),
        stream in any_stream(),
        runs in any_runs(),
    ) {
        let start = new_thought(&config, phase);
        let output = play(&start, &stream, &runs, |thought, tokens| {
            let counted = count_by_search(tokens, phase);
            assert_eq!(thought.generated_tokens(), tokens.len());
            let own_limit = thought.config().own_limit();
            if thought.phase() == Phase::Thinking {
                // What is over the limit has begun the marker and will end as one.
                assert_eq!(thought.thinking_tokens(), counted.min(own_limit));
            } else {
                assert_eq!(thought.thinking_tokens(), counted);
            }
            assert!(thought.thinking_tokens() <= config.budget.unwrap_or(usize::MAX));
        });
        if let Some(exit) = output.exit
            && exit.reason == ExitReason::Budget
        {
            prop_assert!(config.budget.is_some());
        }
        if !output.forced.is_empty() {
            prop_assert!(output.tokens.ends_with(&output.forced));
            prop_assert!(config.markers.close_ids.ends_with(&output.forced)
                || output.forced.ends_with(&config.markers.close_ids));
            prop_assert!(common::bytes(&output.tokens).ends_with(b"</think>"));
        }
    }

    #[test]
    fn nothing_happens_outside_a_span(
        config in any_config(any_policy()),
        stream in any_stream(),
        runs in any_runs(),
    ) {
        let closed = play(&new_thought(&config, Phase::Answer), &stream, &runs, |_, _| {});
        prop_assert_eq!(closed.exit.map(|e| e.reason), Some(ExitReason::NoThinking));
        prop_assert_eq!(closed.thought.thinking_tokens(), 0);
        let text = common::bytes(&stream.iter().map(|s| s.0).collect::<Vec<_>>());
        if !text.windows(7).any(|w| w == b"<think>") {
            let before = play(&new_thought(&config, Phase::Before), &stream, &runs, |_, _| {});
            prop_assert_eq!(before.exit, None);
        }
    }

    #[test]
    fn missing_signals_never_exit(
        config in any_config(any_policy()),
        mut stream in any_stream(),
        runs in any_runs(),
    ) {
        for (_, signals) in &mut stream {
            *signals = Signals::MISSING;
        }
        let output = play(&new_thought(&config, Phase::Thinking), &stream, &runs, |_, _| {});
        prop_assert_ne!(output.exit.map(|e| e.reason), Some(ExitReason::Signals));
    }

    #[test]
    fn after_an_exit_never_again(
        config in any_config(any_policy()),
        stream in any_stream(),
        rest in any_stream(),
        runs in any_runs(),
    ) {
        let mut thought = play(&new_thought(&config, Phase::Thinking), &stream, &runs, |_, _| {}).thought;
        if thought.forced().is_empty() {
            return Ok(());
        }
        let (exit, thinking) = (thought.exit().copied(), thought.thinking_tokens());
        let forced = thought.forced().to_vec();
        let (tokens, signals): (Vec<_>, Vec<_>) = rest.into_iter().unzip();
        let run = [&forced[..], &tokens[..]].concat();
        let lead = vec![signals[0]; forced.len()];
        let verdict = thought.commit(&run, &[lead, signals].concat(), id("\n\n"));
        prop_assert_eq!((verdict.keep, verdict.force), (run.len(), None));
        prop_assert_eq!((thought.exit().copied(), thought.thinking_tokens()), (exit, thinking));
        prop_assert!(thought.forced().is_empty());
    }

    #[test]
    fn commit_is_deterministic(
        config in any_config(any_policy()),
        stream in any_stream(),
        runs in any_runs(),
    ) {
        let start = new_thought(&config, Phase::Thinking);
        let mut states = Vec::new();
        let first = play(&start, &stream, &runs, |thought, _| states.push(thought.clone()));
        let mut states = states.into_iter();
        let second = play(&start, &stream, &runs, |thought, _| {
            assert_eq!(Some(thought), states.next().as_ref());
        });
        prop_assert_eq!(first, second);
    }

    /// A forced exit by signals really sits at a boundary whose signals pass, found independently.
    #[test]
    fn signal_exits_sit_at_boundaries(
        config in any_config(token_policy()),
        stream in any_stream(),
        runs in any_runs(),
    ) {
        let output = play(&new_thought(&config, Phase::Thinking), &stream, &runs, |_, _| {});
        let Some(policy) = &config.policy else { return Ok(()) };
        if let Some(exit) = output.exit
            && exit.reason == ExitReason::Signals
        {
            let tokens: Vec<_> = stream.iter().map(|s| s.0).collect();
            let boundaries = vocabulary(&policy.boundaries).table().boundaries(&tokens);
            prop_assert!(boundaries.contains(&(exit.token_index - 1)));
            prop_assert!(policy.thresholds.pass(&exit.signals, policy.zero_is_missing));
            prop_assert!(exit.token_index >= policy.min_thinking_tokens);
        }
    }
}
