//! What a server gives is what the engine gives.

use serde_json::Value;
use specexit_testkit::{self as testkit, Fault, Habits, SERVED, Script};

use super::{Fixture, parts};
use crate::endpoint::EndpointOptions;
use crate::{CollectOptions, CollectRules, ConfidenceKind, Silent, Trace, collect, label};

#[test]
fn greedy_traces_are_those_of_the_engine() {
    let fixture = Fixture::new();
    let here = fixture.collecting("here.jsonl");
    let there = fixture.collecting("there.jsonl");
    let server = fixture.server(Script::default());
    let summary = fixture.collect_from(&server, &there).unwrap();
    assert_eq!(summary, fixture.collect_here(&here));
    assert!(summary.waits > 0 && summary.closed > 0, "{summary:?}");
    let ((header, records), (mut other, expected)) = (parts(&there.out), parts(&here.out));
    assert!(records == expected);
    assert_eq!(header["endpoint"], serde_json::json!({"model": SERVED, "token_ids": "returned"}));
    assert!(other.get("endpoint").is_none());
    other["endpoint"] = header["endpoint"].clone();
    // What a server computes in, it does not say.
    assert_eq!(other.as_object_mut().unwrap().remove("arithmetic"), Some("f32".into()));
    assert_eq!(other, header);
    assert!(server.most_in_flight() > 1);
    assert!(server.bodies().iter().any(|body| body["stop"][0] == "</think>"));

    // Nothing is asked again, and an engine does not go on with a server's file.
    let asked = server.completions();
    fixture.collect_from(&server, &there).unwrap();
    assert!(server.bodies()[asked..].iter().all(|body| body["max_tokens"].as_u64().unwrap() <= 6));
    let mixed = collect(&there, &mut fixture.engine(), &fixture.model.text(), &mut Silent);
    let error = mixed.unwrap_err().to_string();
    assert!(error.contains("was made with endpoint = "), "{error}");
}

#[test]
fn samples_differ_and_are_the_same_again() {
    let fixture = Fixture::new();
    let server = fixture.server(Script::default());
    let collect = |out: &str| {
        let mut options = fixture.collecting(out);
        options.samples = 3;
        options.limit = Some(2);
        options.rules.temperature = 1.0;
        fixture.collect_from(&server, &options).unwrap();
        std::fs::read_to_string(options.out).unwrap()
    };
    let first = collect("first.jsonl");
    assert!(first == collect("second.jsonl"));
    let tokens: std::collections::HashSet<String> = first
        .lines()
        .skip(1)
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["token_ids"].to_string())
        .collect();
    assert_eq!(tokens.len(), 6);
}

#[test]
fn labels_are_those_of_the_engine() {
    let fixture = Fixture::new();
    let mut collecting = fixture.collecting("traces.jsonl");
    collecting.rules.temperature = 1.0;
    collecting.rules.max_new_tokens = 200;
    collecting.samples = 2;
    fixture.collect_here(&collecting);
    let server = fixture.server(Script::default());
    for (confidence, name) in [(ConfidenceKind::C1, "c1"), (ConfidenceKind::C3, "c3")] {
        let here = fixture.labelling("traces.jsonl", &format!("{name}-here"), confidence);
        let there = fixture.labelling("traces.jsonl", &format!("{name}-there"), confidence);
        let expected = label(&here, &mut fixture.engine(), &fixture.model.text(), &mut Silent);
        let expected = expected.unwrap();
        assert!(expected.labelled >= 3, "{expected:?}");
        assert_eq!(fixture.label_from(&server, &there).unwrap(), expected);
        let ((header, records), (_, same)) = (parts(&there.out), parts(&here.out));
        assert!(records == same, "{name}");
        assert_eq!(header["endpoint"]["model"], SERVED);
    }

    // Down half way, then up again.
    let there = fixture.labelling("traces.jsonl", "stopped", ConfidenceKind::C3);
    server.fail_after(14);
    let error = fixture.label_from(&server, &there).unwrap_err().to_string();
    assert!(error.starts_with("question ") && error.contains("could not be reached"), "{error}");
    server.recover();
    fixture.label_from(&server, &there).unwrap();
    assert!(std::fs::read(&there.out).unwrap() == std::fs::read(fixture.path("c3-there")).unwrap());
}

/// llama-server and SGLang, to the end-of-sequence token that they take out.
#[test]
fn ids_found_otherwise_are_as_good() {
    // A token that greedy decoding comes to ends the text from now on.
    let endless = Fixture::ending_on(&[185]);
    let options = endless.collecting("endless.jsonl");
    endless.collect_here(&options);
    let trace: Trace = serde_json::from_str(parts(&options.out).1.lines().next().unwrap()).unwrap();
    let eos = trace.token_ids[12];
    for (habits, eos) in [(Habits::LlamaServer, vec![eos]), (Habits::Sglang, vec![185, eos])] {
        let fixture = Fixture::ending_on(&eos);
        let server = fixture.server(Script { habits, ..Script::default() });
        let (here, there) = (fixture.collecting("here.jsonl"), fixture.collecting("there.jsonl"));
        let bare = |options: CollectOptions| {
            let rules = CollectRules { record_logprobs: false, ..options.rules.clone() };
            CollectOptions { rules, ..options }
        };
        let (here, there) = (bare(here), bare(there));
        fixture.collect_here(&here);
        fixture.collect_from(&server, &there).unwrap();
        assert!(parts(&there.out).1 == parts(&here.out).1);
        let llama = |body: &Value| body["stop"].is_null() && body["logprobs"] == 1;
        assert_eq!(server.bodies().iter().all(llama), habits == Habits::LlamaServer);
        let records = parts(&there.out).1;
        assert!(records.contains("\"dropped\":\"stop\""), "no output ended by itself");
    }
}

#[test]
fn texts_are_tokenised_anew_only_where_asked_and_lossless() {
    let fixture = Fixture::ending_on(&[testkit::EOS]);
    let server = fixture.server(Script { habits: Habits::TextOnly, ..Script::default() });
    let mut options = fixture.collecting("traces.jsonl");
    options.rules.record_logprobs = false;
    options.rules.max_thinking_tokens = None;
    options.rules.waits = 0;
    let endpoint = EndpointOptions { retokenize: true, ..fixture.options(&server) };
    // A random model writes half characters, which no text holds.
    let error = fixture.collect_as(endpoint.clone(), &options).0.unwrap_err().to_string();
    assert!(error.contains("sent a text that does not come back from"), "{error}");

    let served = |text: &str| {
        let reply = serde_json::json!({
            "choices": [{"text": text, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1},
        });
        Some(Fault::Body(reply.to_string()))
    };
    options.out = fixture.path("texts.jsonl");
    let text = served("So.\n\nIt is 4.\n</think>\n\nCafé 4.");
    server.fail([None, None].into_iter().chain((0..6).map(|_| text.clone())));
    fixture.collect_as(endpoint, &options).0.unwrap();
    let (header, records) = parts(&options.out);
    assert_eq!(header["endpoint"]["token_ids"], "retokenized");
    let first: Trace = serde_json::from_str(records.lines().next().unwrap()).unwrap();
    assert_eq!((&*first.thinking, &*first.answer), ("So.\n\nIt is 4.\n", "Café 4."));
    assert_eq!(first.token_ids.last(), Some(&testkit::EOS));
    assert!(first.token_ids.contains(&257), "{:?}", first.token_ids);
}

#[test]
fn the_key_is_sent_and_the_only_model_found() {
    let fixture = Fixture::new();
    let server = fixture.server(Script::default());
    let endpoint = EndpointOptions {
        model: None,
        api_key: Some("secret".to_owned()),
        ..fixture.options(&server)
    };
    let mut options = fixture.collecting("traces.jsonl");
    options.limit = Some(1);
    fixture.collect_as(endpoint, &options).0.unwrap();
    assert!(server.keys().iter().all(|key| key.as_deref() == Some("Bearer secret")));
    let header = parts(&options.out).0;
    assert_eq!(header["endpoint"]["model"], SERVED);
    assert!(!header.to_string().contains("secret"));
}
