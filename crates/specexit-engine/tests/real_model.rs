//! The same promises on a real model, which has to be named.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::PathBuf;
use std::sync::Arc;

use specexit_engine::{Engine, EngineOptions, ExitReason, Method, Output, Request};
use specexit_exit::{Phase, Profile};
use specexit_kernels::Precision;
use specexit_model::{DraftHead, Model, ModelSource};

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("set {name}"))
}

/// Fifty different questions, so that nothing needs a file.
fn prompts(model: &Model) -> Vec<Vec<u32>> {
    (0..50)
        .map(|i| {
            let (a, b, c) = (3 + i * 7 % 41, 2 + i * 5 % 13, 11 + i * 3 % 29);
            let text = format!(
                "Question: A shop sells {a} boxes of {b} pens a day and gives {c} pens away. \
                 How many pens are left of 2000 after {b} days?\n\n<think>\n"
            );
            model.tokenizer.encode(&text, true).unwrap()
        })
        .collect()
}

#[test]
#[ignore = "needs a model and a head: SPECEXIT_MODEL=model.gguf SPECEXIT_HEAD=head cargo test --release -p specexit-engine --test real_model -- --ignored --nocapture"]
fn greedy_speculation_is_plain_decoding_on_a_real_model() {
    let source = ModelSource::parse(&variable("SPECEXIT_MODEL")).unwrap();
    let model = Model::load(&source, 2, Precision::Bf16).unwrap();
    let head = DraftHead::load(&PathBuf::from(variable("SPECEXIT_HEAD")), &model.target).unwrap();
    let signals = head.has_probe();
    let (target, tokenizer) = (Arc::clone(&model.target), Arc::clone(&model.tokenizer));
    let mut engine =
        Engine::new(target, tokenizer, Some(Arc::new(head)), EngineOptions::default()).unwrap();
    let mut run = |method: Method, draft_tokens: usize| {
        let mut outputs: Vec<Option<Output>> = vec![None; 50];
        let requests = prompts(&model)
            .into_iter()
            .map(|prompt| Request {
                method,
                draft_tokens,
                phase: Phase::Thinking,
                policy: (method == Method::SpecExit).then(|| Profile::Default.policy()),
                stop_ids: vec![u32::MAX],
                record_logprobs: true,
                ..Request::new(prompt, 200)
            })
            .collect();
        engine.run_all(requests, |i, output| outputs[i] = Some(output)).unwrap();
        outputs.into_iter().map(Option::unwrap).collect::<Vec<_>>()
    };
    let plain = run(Method::Plain, 1);
    let eagle = run(Method::Eagle3, 4);
    let bits = |o: &Output| o.logprobs.iter().map(|p| p.to_bits()).collect::<Vec<_>>();
    for (plain, eagle) in plain.iter().zip(&eagle) {
        assert_eq!((&plain.token_ids, bits(plain)), (&eagle.token_ids, bits(eagle)));
    }
    let tau = eagle.iter().map(Output::tau).sum::<f64>() / 50.0;
    println!("50 prompts of 200 tokens: eagle3 equals plain to the last bit; mean tau {tau:.2}");
    if signals {
        let exits = run(Method::SpecExit, 4);
        let mut by_signals = 0;
        for (plain, specexit) in plain.iter().zip(&exits) {
            let exit = specexit.exit.unwrap();
            let kept = exit.token_index.min(specexit.token_ids.len());
            assert_eq!(plain.token_ids[..kept], specexit.token_ids[..kept]);
            by_signals += usize::from(exit.reason == ExitReason::Signals);
        }
        println!("specexit equals plain up to its exit; {by_signals} of 50 exited by signals");
    }
}
