//! The same promises on a real model, which has to be named.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
#![allow(clippy::print_stdout, reason = "minutes without a word are long")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use specexit_engine::{Engine, EngineOptions, ExitReason, Method, Output, Request};
use specexit_exit::{Phase, Profile};
use specexit_kernels::Precision;
use specexit_model::{DraftHead, Model, ModelSource};

/// Questions.
const PROMPTS: usize = 50;

/// New tokens of each, 300 unless SPECEXIT_TOKENS says otherwise.
fn tokens() -> usize {
    std::env::var("SPECEXIT_TOKENS").map_or(300, |n| n.parse().unwrap())
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("set {name}"))
}

/// Different questions, so that nothing needs a file.
fn prompts(model: &Model) -> Vec<Vec<u32>> {
    (0..PROMPTS)
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

struct Loaded {
    model: Model,
    head: Arc<DraftHead>,
}

impl Loaded {
    fn named() -> Self {
        let source = ModelSource::parse(&variable("SPECEXIT_MODEL")).unwrap();
        let model = Model::load(&source, 2, Precision::Bf16).unwrap();
        let head = DraftHead::load(&PathBuf::from(variable("SPECEXIT_HEAD")), &model.target);
        Self { model, head: Arc::new(head.unwrap()) }
    }

    /// The outputs of each prompt in each of the ways, way by way, `batch` of them at a time.
    fn run(&self, batch: usize, ways: &[(Method, usize)]) -> Vec<Vec<Output>> {
        let (target, tokenizer) =
            (Arc::clone(&self.model.target), Arc::clone(&self.model.tokenizer));
        let options = EngineOptions { max_batch: batch, ..EngineOptions::default() };
        let mut engine =
            Engine::new(target, tokenizer, Some(Arc::clone(&self.head)), options).unwrap();
        let mut outputs: Vec<Option<Output>> = vec![None; PROMPTS * ways.len()];
        let prompts = prompts(&self.model);
        let requests = prompts.into_iter().flat_map(|prompt| {
            ways.iter().map(move |&(method, draft_tokens)| Request {
                method,
                draft_tokens,
                phase: Phase::Thinking,
                policy: (method == Method::SpecExit).then(|| Profile::Default.policy()),
                stop_ids: vec![u32::MAX],
                record_logprobs: true,
                ..Request::new(prompt.clone(), tokens())
            })
        });
        let (requests, began) = (requests.collect(), Instant::now());
        let mut done = 0;
        let all = outputs.len();
        engine
            .run_all(requests, |i, output| {
                outputs[i] = Some(output);
                done += 1;
                if done % PROMPTS == 0 {
                    println!("{done} of {all} outputs after {:.0?}", began.elapsed());
                }
            })
            .unwrap();
        let mut by_way = vec![Vec::new(); ways.len()];
        for (i, output) in outputs.into_iter().enumerate() {
            by_way[i % ways.len()].push(output.unwrap());
        }
        by_way
    }
}

fn assert_equal(plain: &[Output], other: &[Output], way: &str) {
    let bits = |o: &Output| o.logprobs.iter().map(|p| p.to_bits()).collect::<Vec<_>>();
    for (i, (plain, other)) in plain.iter().zip(other).enumerate() {
        assert_eq!(plain.token_ids, other.token_ids, "{way}, prompt {i}");
        assert_eq!(bits(plain), bits(other), "{way}, prompt {i}");
    }
    let tau = other.iter().map(Output::tau).sum::<f64>() / PROMPTS as f64;
    println!(
        "{PROMPTS} prompts of {} tokens: {way} equals plain alone to the last bit, mean tau {tau:.2}",
        tokens()
    );
}

#[test]
#[ignore = "needs a model and a head, and minutes: SPECEXIT_MODEL=model.gguf SPECEXIT_HEAD=head cargo test --release -p specexit-engine --test real_model -- --ignored --nocapture"]
fn neither_speculation_nor_company_changes_a_bit() {
    let loaded = Loaded::named();
    let alone = loaded.run(1, &[(Method::Plain, 1)]).remove(0);
    let together = loaded.run(8, &[(Method::Plain, 1)]).remove(0);
    assert_equal(&alone, &together, "plain, 8 at a time,");
    // The drafts of one prompt at every depth are verified beside one another.
    let ways: Vec<_> = (1..=8).map(|k| (Method::Eagle3, k)).collect();
    for ((_, k), outputs) in ways.iter().zip(loaded.run(8, &ways)) {
        assert_equal(&alone, &outputs, &format!("eagle3 with k = {k}, 8 at a time,"));
    }
}

#[test]
#[ignore = "needs a model and a head, and minutes: SPECEXIT_MODEL=model.gguf SPECEXIT_HEAD=head cargo test --release -p specexit-engine --test real_model -- --ignored --nocapture"]
fn an_exit_cuts_the_plain_thought() {
    let loaded = Loaded::named();
    assert!(loaded.head.has_probe(), "this head has no signals");
    let outputs = loaded.run(8, &[(Method::Plain, 1), (Method::SpecExit, 4)]);
    let mut by_signals = 0;
    for (plain, specexit) in outputs[0].iter().zip(&outputs[1]) {
        let exit = specexit.exit.unwrap();
        let kept = exit.token_index.min(specexit.token_ids.len());
        assert_eq!(plain.token_ids[..kept], specexit.token_ids[..kept]);
        by_signals += usize::from(exit.reason == ExitReason::Signals);
    }
    println!("specexit equals plain up to its exit; {by_signals} of {PROMPTS} exited by signals");
}
