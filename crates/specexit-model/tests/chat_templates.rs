//! Prompts against those that transformers renders: own templates (committed) and those of real
//! models (fetched; only hashes of their renderings are committed).

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use specexit_model::chat_template::{ChatTemplate, Message, RenderOptions};
use specexit_model::hash::sha256_hex;
use specexit_model::weights::Weights;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// The moment at which the goldens were rendered.
fn now(goldens: &Value) -> SystemTime {
    assert_eq!(goldens["now"], "2026-01-02T03:04:05");
    UNIX_EPOCH + Duration::from_secs(1_767_323_045)
}

/// Renders one case of a golden file.
fn render(template: &ChatTemplate, goldens: &Value, case: &Value) -> Result<String, String> {
    let conversation = &goldens["conversations"][case["conversation"].as_str().unwrap()];
    let mut extra = object(&case["options"]);
    let options = RenderOptions {
        add_generation_prompt: extra.remove("add_generation_prompt") == Some(Value::Bool(true)),
        enable_thinking: None,
        tools: conversation.get("tools").cloned(),
        now: Some(now(goldens)),
        extra,
    };
    let messages = conversation["messages"].as_array().unwrap().clone();
    template.render_json(messages, &options).map_err(|error| error.to_string())
}

#[test]
fn own_templates_render_as_in_transformers() {
    let goldens = read_json(&golden("templates/golden.json"));
    let cases = goldens["cases"].as_array().unwrap();
    assert!(cases.len() >= 30);
    for case in cases {
        let name = case["template"].as_str().unwrap();
        let source = std::fs::read_to_string(golden("templates").join(name)).unwrap();
        let template = ChatTemplate::from_source(Path::new(name), source, Map::new()).unwrap();
        let rendered = render(&template, &goldens, case);
        let label = format!("{name} {} {}", case["conversation"], case["options"]);
        match case["error"].as_str() {
            Some(message) => assert!(rendered.unwrap_err().contains(message), "{label}"),
            None => {
                // Known difference, in no template we know: minijinja prints a float of extreme size
                // inside a list or dict in Rust's notation.
                let expected = case["rendered"].as_str().unwrap();
                let expected =
                    expected.replace("[2.5e-07]", "[2.5e-7]").replace("[1e+16]", "[1e16]");
                assert_eq!(rendered.unwrap(), expected, "{label}");
            }
        }
    }
}

#[test]
#[ignore = "needs templates of real models: python3 scripts/fetch_templates.py && cargo test -p specexit-model --test chat_templates -- --ignored"]
fn real_templates_render_as_in_transformers() {
    let goldens = read_json(&golden("templates/real.json"));
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/dev-templates");
    let (mut cases, mut wrong) = (0, Vec::new());
    for model in goldens["models"].as_array().unwrap() {
        let name = model["name"].as_str().unwrap();
        let file = fetched.join(model["file"].as_str().unwrap());
        let source = std::fs::read_to_string(&file).unwrap();
        assert_eq!(sha256_hex(source.as_bytes()), model["sha256"].as_str().unwrap(), "{name}");
        let tokens = object(&model["special_tokens"]);
        let template = match ChatTemplate::from_source(&file, source, tokens) {
            Ok(template) => template,
            Err(error) => {
                wrong.push(error.to_string());
                continue;
            }
        };
        for case in model["cases"].as_array().unwrap() {
            cases += 1;
            let rendered = render(&template, &goldens, case);
            let same = match (case["error"].as_str(), &rendered) {
                (Some(message), Err(error)) => error.contains(message),
                (None, Ok(text)) => sha256_hex(text.as_bytes()) == case["sha256"].as_str().unwrap(),
                _ => false,
            };
            if !same {
                wrong.push(format!(
                    "{name} {} {}: {rendered:?}",
                    case["conversation"], case["options"]
                ));
            }
        }
    }
    eprintln!("{cases} renderings compared");
    assert!(cases > 0);
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

fn options() -> RenderOptions {
    RenderOptions { add_generation_prompt: true, ..RenderOptions::default() }
}

#[test]
fn a_folder_and_its_gguf_file_render_alike() {
    let folder = ChatTemplate::from_tokenizer_config(&golden("tokenizer")).unwrap().unwrap();
    let (_, metadata) = Weights::open_gguf(&golden("tokenizer/tokenizer.gguf")).unwrap();
    let gguf = ChatTemplate::from_gguf(&metadata).unwrap().unwrap();
    assert_eq!(folder.source(), gguf.source());
    let messages = [Message::new("system", "Count."), Message::new("user", "2 + 2?")];
    // The folder has no start token, so its template prints none; the GGUF file names one.
    let with_bos =
        RenderOptions { extra: object(&json!({ "bos_token": "<|endoftext|>" })), ..options() };
    assert_eq!(
        folder.render(&messages, &with_bos).unwrap(),
        gguf.render(&messages, &options()).unwrap()
    );
}

#[test]
fn templates_are_found_wherever_checkpoints_keep_them() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let load = || ChatTemplate::from_tokenizer_config(folder.path());
    let prompt = |options: &RenderOptions| load().unwrap().unwrap().render(&[], options).unwrap();
    assert!(load().unwrap().is_none());

    write("chat_template.json", r#"{"chat_template": "json"}"#);
    assert_eq!(prompt(&options()), "json");

    write(
        "tokenizer_config.json",
        r#"{"bos_token": {"content": "<b>"}, "eos_token": "<e>", "chat_template":
            [{"name": "tool_use", "template": "tools"},
             {"name": "default", "template": "{{ bos_token }}list{{ eos_token }}"}]}"#,
    );
    assert_eq!(prompt(&options()), "<b>list<e>");
    let with_tools = RenderOptions { tools: Some(json!([])), ..options() };
    assert_eq!(prompt(&with_tools), "tools");

    write("chat_template.jinja", "{{ bos_token }}file\n");
    assert_eq!(prompt(&options()), "<b>file");
}

#[test]
fn bad_templates_are_named_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer_config.json");
    for (config, part) in [
        (r#"{"chat_template": 3}"#, "neither a text nor a list"),
        (r#"{"chat_template": [{"name": "rag", "template": ""}]}"#, "named `default`"),
        (r#"{"chat_template": "{% if %}"}"#, "cannot be parsed"),
        (r#"{"chat_template": "{{ a"}"#, "cannot be parsed"),
        ("[]", "not a JSON object"),
        ("{", "not a JSON object"),
    ] {
        std::fs::write(&path, config).unwrap();
        let error = ChatTemplate::from_tokenizer_config(folder.path()).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("tokenizer_config.json"), "{error}");
    }
}

#[test]
fn failing_templates_say_why() {
    for (source, part) in [
        (
            "{{ raise_exception('roles must alternate') }}",
            "refuses the messages: roles must alternate",
        ),
        ("{{ messages[3].role.x }}", "undefined"),
        ("{{ nothing | tojson }}", "undefined"),
        ("{{ 'a'.nosuch() }}", "nosuch"),
        ("{{ messages | nosuch }}", "nosuch"),
        ("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", "fuel"),
    ] {
        let template =
            ChatTemplate::from_source(Path::new("x.jinja"), source.to_owned(), Map::new());
        let error = template.and_then(|template| template.render(&[], &options())).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(part) && error.contains("x.jinja"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn messages_keep_unknown_keys() {
    let message: Message =
        serde_json::from_value(json!({ "role": "tool", "content": "4", "name": "add" })).unwrap();
    assert_eq!(message.extra["name"], "add");
    let silent: Message =
        serde_json::from_value(json!({ "role": "assistant", "content": null })).unwrap();
    assert_eq!(silent, Message::new("assistant", ""));
    let source = "{% for m in messages %}{{ m.name }}={{ m.content }}{{ m.tool_calls is defined }}{% endfor %}";
    let template =
        ChatTemplate::from_source(Path::new("x"), source.to_owned(), Map::new()).unwrap();
    assert_eq!(template.render(&[message], &options()).unwrap(), "add=4False");
}
