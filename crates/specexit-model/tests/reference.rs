//! The embedded reference reasoner against transformers.
//!
//! `scripts/reference_golden.py` writes the expected values.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::Path;

use serde_json::Value;
use specexit_kernels::Precision;
use specexit_model::{
    LogitRows, Message, Model, ModelSource, RenderOptions, TargetRows, Workspace,
};

fn reasoner(precision: Precision) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/reasoner");
    Model::load(&ModelSource::Folder(folder), 2, precision).unwrap()
}

fn golden() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/reference.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Logits after `tokens`.
fn logits(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let mut cache = model.target.new_cache();
    let mut workspace = Workspace::default();
    let rows = TargetRows { tokens, cache: &mut cache, logits: LogitRows::All };
    model.target.forward(&mut [rows], &mut workspace).unwrap();
    workspace.logits(tokens.len() - 1).to_vec()
}

#[test]
fn prompts_are_those_of_transformers() {
    let model = reasoner(Precision::F32);
    let template = model.chat_template.as_ref().unwrap();
    for item in golden() {
        let render = |enable_thinking| {
            let message = Message::new("user", item["question"].as_str().unwrap());
            let options = RenderOptions {
                add_generation_prompt: true,
                enable_thinking,
                ..RenderOptions::default()
            };
            template.render(&[message], &options).unwrap()
        };
        let prompt = render(None);
        assert_eq!(prompt, item["prompt"].as_str().unwrap());
        assert_eq!(render(Some(false)), item["prompt_without_thinking"].as_str().unwrap());
        assert_eq!(model.tokenizer.encode(&prompt, false).unwrap(), ids(&item["ids"]));
        let decoded = model.tokenizer.decode(&ids(&item["greedy"]), true).unwrap();
        assert_eq!(decoded, item["decoded"].as_str().unwrap());
    }
}

#[test]
fn logits_and_greedy_texts_are_those_of_transformers() {
    let model = reasoner(Precision::F32);
    for item in golden() {
        let mut tokens = ids(&item["ids"]);
        let ours = logits(&model, &tokens);
        let theirs: Vec<f32> =
            item["logits"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
        assert_eq!(ours.len(), theirs.len());
        let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-3, "largest difference {worst}");
        for expected in ids(&item["greedy"]) {
            let row = logits(&model, &tokens);
            let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
            assert_eq!(best as u32, expected, "after {} tokens", tokens.len());
            tokens.push(expected);
        }
    }
}
