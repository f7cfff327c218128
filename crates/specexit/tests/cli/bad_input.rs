//! Every bad input is one clear sentence on stderr and an exit code that is not 0.

use crate::fixture::{CONTEXT, Fixture};
use crate::run::failure;

/// The sentence of a failing `generate`, with the fixture's folder left out.
fn generate(f: &Fixture, flags: &[&str]) -> String {
    let model = f.model();
    let (code, sentence) = failure(&[&["generate", "--model", &model], flags].concat());
    assert_eq!(code, 1, "{sentence}");
    sentence.replace(&f.text(""), "")
}

/// A GGUF model of another crate's golden files.
fn gguf() -> Vec<u8> {
    let path =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../specexit-model/tests/golden/gguf/qwen3.gguf");
    std::fs::read(path).unwrap()
}

#[test]
fn truncated_gguf() {
    let f = Fixture::new();
    let whole = gguf();
    for len in [0, 3, 20, 200, whole.len() / 2, whole.len() - 1] {
        std::fs::write(f.path("cut.gguf"), &whole[..len]).unwrap();
        let (code, sentence) = failure(&["generate", "--model", &f.text("cut.gguf"), "Hi"]);
        assert_eq!(code, 1);
        assert!(
            sentence.starts_with(&format!("{} is not usable", f.text("cut.gguf"))),
            "{sentence}"
        );
    }
}

#[test]
fn truncated_safetensors() {
    let f = Fixture::new();
    let len = std::fs::metadata(f.path("model/model.safetensors")).unwrap().len() as usize;
    for keep in [len - 1, len / 2, 100, 5, 0] {
        f.change("model.safetensors", |mut bytes| {
            bytes.truncate(keep);
            bytes
        });
        let sentence = generate(&f, &["Hi"]);
        assert!(sentence.starts_with("model/model.safetensors is not usable: "), "{sentence}");
    }
}

#[test]
fn wrong_tensor_shape() {
    let f = Fixture::new();
    f.change_tensor("model.layers.2.mlp.down_proj.weight", |(shape, _)| shape.reverse());
    assert_eq!(
        generate(&f, &["Hi"]),
        "model: tensor `model.layers.2.mlp.down_proj.weight` has shape [64, 128], but the config \
         asks for [128, 64]; config and weights do not belong together"
    );
}

#[test]
fn nan_in_weights() {
    let f = Fixture::new();
    f.change_tensor("model.layers.1.self_attn.k_proj.weight", |(_, data)| {
        data[3 * 128 + 5] = f32::NAN;
    });
    let sentence = generate(&f, &["Hi"]);
    assert_eq!(
        sentence,
        "model: tensor `model.layers.1.self_attn.k_proj.weight` holds NaN at index [3, 5]; the file \
         is damaged or was written by a failed conversion, fetch it again"
    );
}

#[test]
fn missing_files() {
    let f = Fixture::new();
    std::fs::remove_file(f.path("model/tokenizer.json")).unwrap();
    assert!(generate(&f, &["Hi"]).starts_with("model has no tokenizer.json; save the tokenizer"));
    std::fs::remove_file(f.path("model/config.json")).unwrap();
    assert!(generate(&f, &["Hi"]).starts_with("model has no config.json; "));
    let (code, sentence) = failure(&["generate", "--model", "/nowhere/model", "Hi"]);
    assert_eq!(code, 1);
    assert!(sentence.starts_with("cannot load the model `/nowhere/model`: "), "{sentence}");
}

#[test]
fn head_of_another_model() {
    let f = Fixture::new();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../specexit-model/tests/golden/eagle3");
    let sentence = generate(&f, &["--head", golden, "Hi"]);
    assert!(sentence.contains("belongs to another model: "), "{sentence}");
    // The same sizes, but trained on other weights.
    let head = f.head(true);
    let path = f.path("specexit-head").join("config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["specexit"] =
        serde_json::json!({"target_name": "Other", "target_hash": "0123456789abcdef"});
    std::fs::write(&path, config.to_string()).unwrap();
    let sentence = generate(&f, &["--head", &head, "Hi"]);
    let expected = "the draft head in specexit-head belongs to another model: it was trained on \
                    Other (0123456789ab), and this is model (";
    assert!(sentence.starts_with(expected), "{sentence}");
    crate::run::stdout(&[
        "generate",
        "--model",
        &f.model(),
        "--head",
        &head,
        "--allow-other-target",
        "Hi",
    ]);
}

#[test]
fn prompts_that_cannot_be_served() {
    let f = Fixture::new();
    let (code, sentence) = failure(&["generate", "--model", &f.model(), " \n"]);
    assert_eq!((code, sentence.as_str()), (2, "the prompt is empty; give at least one word"));
    // Three tokens around the question; one must stay free for the answer.
    let sentence = generate(&f, &[&"x".repeat(CONTEXT - 3)]);
    let expected = format!(
        "the prompt has {CONTEXT} tokens, but the model's context holds {CONTEXT}; shorten it to \
         at most {} tokens",
        CONTEXT - 1
    );
    assert_eq!(sentence, expected);
    std::fs::write(f.path("latin1.txt"), b"caf\xe9").unwrap();
    let sentence = generate(&f, &["--prompt-file", &f.text("latin1.txt")]);
    assert!(sentence.starts_with("cannot read latin1.txt: "), "{sentence}");
}

#[test]
fn broken_jsonl_lines_are_named() {
    let f = Fixture::new();
    f.questions(3);
    let mut text = std::fs::read_to_string(f.path("questions.jsonl")).unwrap();
    text.push_str("\n{\"question\": \"cut of");
    std::fs::write(f.path("questions.jsonl"), text).unwrap();
    let (model, questions, out) = (f.model(), f.text("questions.jsonl"), f.text("out.jsonl"));
    for args in [
        &["collect", "--model", &model, "--questions", &questions, "--out", &out][..],
        &["compare", "--model", &model, "--questions", &questions, "--methods", "plain"],
        &["inspect", &questions],
    ] {
        let (code, sentence) = failure(args);
        assert_eq!(code, 1);
        let expected = format!("{questions}:4: not a JSON object (");
        assert!(sentence.starts_with(&expected), "{sentence}");
    }
}

#[test]
fn files_of_another_model_are_refused() {
    let f = Fixture::new();
    let (model, other, questions) = (f.model(), f.other_model(), f.questions(2));
    let (traces, out) = (f.text("traces.jsonl"), f.text("out"));
    let collect = ["collect", "--questions", &questions, "--out", &traces, "--model"];
    crate::run::stdout(&[&collect[..], &[&model]].concat());
    let label = ["label", "--traces", &traces, "--out", &out, "--model", &other];
    for args in [&label[..], &[&collect[..], &[&other]].concat()] {
        let (code, sentence) = failure(args);
        assert_eq!(code, 1);
        let expected = format!("{traces} was made with model.");
        assert!(sentence.starts_with(&expected), "{sentence}");
    }
}

#[test]
fn broken_traces_and_labels_are_named() {
    let f = Fixture::new();
    let (model, questions) = (f.model(), f.questions(2));
    let (traces, labels, out) = (f.text("traces.jsonl"), f.text("labels.jsonl"), f.text("out"));
    crate::run::stdout(&[
        "collect",
        "--model",
        &model,
        "--questions",
        &questions,
        "--out",
        &traces,
    ]);
    crate::run::stdout(&["label", "--model", &model, "--traces", &traces, "--out", &labels]);
    for file in [&traces, &labels] {
        let text = std::fs::read_to_string(file).unwrap();
        std::fs::write(file, text.replacen("\"id\":", "\"if\":", 2)).unwrap();
        assert!(failure(&["inspect", file]).1.starts_with(&format!("{file}:2: broken record")));
    }
    let (code, sentence) =
        failure(&["label", "--model", &model, "--traces", &traces, "--out", &out]);
    assert_eq!((code, sentence.starts_with(&format!("{traces}:2: broken record"))), (1, true));
    let (code, sentence) =
        failure(&["train", "--model", &model, "--labels", &labels, "--out", &out]);
    assert_eq!((code, sentence.starts_with(&format!("{labels}:2: broken record"))), (1, true));
    let (code, sentence) =
        failure(&["train", "--model", &model, "--labels", &traces, "--out", &out]);
    assert_eq!(code, 1);
    assert!(sentence.contains("it holds specexit-traces, not specexit-labels"), "{sentence}");
}
