//! A tiny random model, and requests to it.

#![allow(dead_code, reason = "no test file needs all of it")]

use std::sync::Arc;

use specexit_engine::{Engine, EngineOptions, Method, Output, Phase, Policy, Request};
use specexit_exit::{BoundaryRules, Profile, Thresholds};
use specexit_kernels::{CacheNumbers, Kernels, Precision};
use specexit_model::head_file::{HeadFile, SpecExitConfig};
use specexit_model::{DraftHead, Model, ModelSource, Positions};
use specexit_testkit as testkit;

pub(crate) struct Fixture {
    pub(crate) model: Model,
    dir: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        Fixture::with_cache(CacheNumbers::Bf16)
    }

    /// Keys and values in these numbers.
    pub(crate) fn with_cache(numbers: CacheNumbers) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        testkit::write_model(dir.path(), 1).unwrap();
        let source = ModelSource::Folder(dir.path().to_owned());
        let kernels = Kernels::new(2, Precision::Bf16).with_cache(numbers);
        let model = Model::load_on(&source, kernels).unwrap();
        Fixture { model, dir }
    }

    pub(crate) fn head(&self, seed: u64, draft_vocab: usize, probe: bool) -> Arc<DraftHead> {
        let dir = self.dir.path().join(format!("head-{seed}-{draft_vocab}-{probe}"));
        testkit::write_head(&dir, seed, draft_vocab, probe).unwrap();
        Arc::new(DraftHead::load(&dir, &self.model.target).unwrap())
    }

    /// A head with a probe after its draft layer, that can name the tokens `known` only.
    pub(crate) fn head_with_draft_probe(
        &self,
        seed: u64,
        known: &[u32],
        positions: Positions,
    ) -> Arc<DraftHead> {
        let dir = self.dir.path().join(format!("head-{seed}-{positions:?}"));
        testkit::write_head_with_draft_probe(&dir, seed, testkit::VOCAB).unwrap();
        let mut head = HeadFile::open(&dir).unwrap();
        head.config.specexit = Some(SpecExitConfig { positions, ..SpecExitConfig::default() });
        head.config.draft_vocab_size = Some(known.len());
        head.d2t = Some(known.to_vec());
        if let Some(rows) = head.tensors.get_mut("lm_head.weight") {
            rows.shape[0] = known.len();
            rows.data.truncate(known.len() * testkit::HIDDEN);
        }
        head.save(&dir).unwrap();
        Arc::new(DraftHead::load(&dir, &self.model.target).unwrap())
    }

    pub(crate) fn engine(&self, head: Option<Arc<DraftHead>>, max_batch: usize) -> Engine {
        let options = EngineOptions { max_batch, ..EngineOptions::default() };
        let (target, tokenizer) =
            (Arc::clone(&self.model.target), Arc::clone(&self.model.tokenizer));
        Engine::new(target, tokenizer, head, options).unwrap()
    }
}

/// Prompts of different lengths and contents.
pub(crate) fn prompts(count: usize) -> Vec<Vec<u32>> {
    (0..count as u32)
        .map(|i| (0..3 + i % 17).map(|j| (i * 37 + j * j * 11 + 1) % 256).collect())
        .collect()
}

/// A request that goes on to its limit whatever tokens come.
pub(crate) fn request(prompt: &[u32], new_tokens: usize) -> Request {
    Request {
        stop_ids: vec![u32::MAX],
        phase: Phase::Thinking,
        record_logprobs: true,
        ..Request::new(prompt.to_vec(), new_tokens)
    }
}

pub(crate) fn run_all(engine: &mut Engine, requests: Vec<Request>) -> Vec<Output> {
    let mut outputs: Vec<Option<Output>> = vec![None; requests.len()];
    engine.run_all(requests, |i, output| outputs[i] = Some(output)).unwrap();
    outputs.into_iter().map(Option::unwrap).collect()
}

pub(crate) fn bits(output: &Output) -> Vec<u32> {
    output.logprobs.iter().map(|p| p.to_bits()).collect()
}

/// Boundaries are frequent, signals of a random probe pass often but not always.
pub(crate) fn policy(profile: Profile) -> Policy {
    let letters = (0u8..128).filter(|b| b % 5 == 0).map(|b| char::from(b).to_string()).collect();
    Policy {
        thresholds: Thresholds { confidence: Some(0.6), progress: Some(0.4), remaining: None },
        boundaries: BoundaryRules {
            strings: letters,
            blank_line: true,
            connectors: vec!["W".to_owned()],
        },
        min_thinking_tokens: 5,
        ..profile.policy()
    }
}

pub(crate) fn specexit(prompt: &[u32], policy: Policy, k: usize) -> Request {
    Request {
        method: Method::SpecExit,
        policy: Some(policy),
        draft_tokens: k,
        ..request(prompt, 150)
    }
}
