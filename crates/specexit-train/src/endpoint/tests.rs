//! Collecting and labelling from a server that a tiny model answers, beside the same work done here.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use specexit_engine::{Engine, EngineOptions};
use specexit_kernels::Precision;
use specexit_model::{Model, ModelSource};
use specexit_testkit::{self as testkit, Fault, Habits, MockServer, SERVED, Script};

use super::{Clock, Endpoint, EndpointOptions};
use crate::{
    CollectOptions, CollectRules, CollectSummary, ConfidenceKind, LabelOptions, LabelRules,
    LabelSummary, Result, Silent, collect, label,
};

struct Fixture {
    folder: tempfile::TempDir,
    model: Model,
}

impl Fixture {
    /// A random model hardly ever ends anything: these tokens end a text.
    fn ending_on(eos: &[u32]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("model");
        testkit::write_model(&dir, 1).unwrap();
        let config = std::fs::read_to_string(dir.join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&config).unwrap();
        config["eos_token_id"] = serde_json::json!(eos);
        std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
        let question =
            |i| format!("{{\"question\": \"What is {i} + {i}?\", \"answer\": \"{i}\"}}\n");
        let questions: String = (0..6).map(question).collect();
        std::fs::write(folder.path().join("questions.jsonl"), questions).unwrap();
        let model = load(&dir);
        Self { folder, model }
    }

    fn new() -> Self {
        let many: Vec<u32> = [testkit::EOS].into_iter().chain(180..192).collect();
        Self::ending_on(&many)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn engine(&self) -> Engine {
        engine(&self.model)
    }

    fn server(&self, script: Script) -> MockServer {
        let model = load(&self.path("model"));
        let engine = engine(&model);
        MockServer::start(model, engine, script).unwrap()
    }

    fn options(&self, server: &MockServer) -> EndpointOptions {
        EndpointOptions {
            url: server.url(),
            model: Some(SERVED.to_owned()),
            concurrency: 3,
            retries: 3,
            timeout: Duration::from_secs(60),
            ..EndpointOptions::default()
        }
    }

    fn collecting(&self, out: &str) -> CollectOptions {
        CollectOptions {
            questions: self.path("questions.jsonl"),
            out: self.path(out),
            batch: 3,
            rules: CollectRules {
                max_new_tokens: 90,
                max_thinking_tokens: Some(60),
                waits: 2,
                record_logprobs: true,
                ..CollectRules::default()
            },
            ..CollectOptions::default()
        }
    }

    fn labelling(&self, traces: &str, out: &str, confidence: ConfidenceKind) -> LabelOptions {
        let rules = LabelRules { max_answer_tokens: 24, confidence, ..LabelRules::default() };
        let (traces, out) = (self.path(traces), self.path(out));
        LabelOptions { traces, out, batch: 3, rules, ..LabelOptions::default() }
    }

    fn collect_here(&self, options: &CollectOptions) -> CollectSummary {
        collect(options, &mut self.engine(), &self.model.text(), &mut Silent).unwrap()
    }

    fn collect_from(
        &self,
        server: &MockServer,
        options: &CollectOptions,
    ) -> Result<CollectSummary> {
        self.collect_as(self.options(server), options).0
    }

    /// With pauses noted instead of waited for.
    fn collect_as(
        &self,
        endpoint: EndpointOptions,
        options: &CollectOptions,
    ) -> (Result<CollectSummary>, Vec<Duration>) {
        let pauses = Arc::new(Mutex::default());
        let clock = Clock::Noted(Arc::clone(&pauses));
        let mut endpoint = Endpoint::with_clock(endpoint, self.model.text(), clock).unwrap();
        let summary = collect(options, &mut endpoint, &self.model.text(), &mut Silent);
        let pauses = pauses.lock().unwrap().clone();
        (summary, pauses)
    }

    fn label_from(&self, server: &MockServer, options: &LabelOptions) -> Result<LabelSummary> {
        let clock = Clock::Noted(Arc::default());
        let endpoint = self.options(server);
        let mut endpoint = Endpoint::with_clock(endpoint, self.model.text(), clock).unwrap();
        label(options, &mut endpoint, &self.model.text(), &mut Silent)
    }

    /// The sentence of a collection that must be refused before any work.
    fn refusal(
        &self,
        script: Script,
        change: impl FnOnce(&mut EndpointOptions, &mut CollectRules),
    ) -> String {
        let server = self.server(script);
        let (mut endpoint, mut options) = (self.options(&server), self.collecting("refused.jsonl"));
        change(&mut endpoint, &mut options.rules);
        let (result, pauses) = self.collect_as(endpoint, &options);
        assert!(pauses.is_empty() && !options.out.exists());
        result.unwrap_err().to_string().replace(&server.url(), "URL")
    }
}

fn load(dir: &Path) -> Model {
    Model::load(&ModelSource::Folder(dir.to_owned()), 1, Precision::F32).unwrap()
}

fn engine(model: &Model) -> Engine {
    let (target, tokenizer) = (Arc::clone(&model.target), Arc::clone(&model.tokenizer));
    Engine::new(target, tokenizer, None, EngineOptions::default()).unwrap()
}

/// Header, and all records as they are written.
fn parts(path: &Path) -> (Value, String) {
    let text = std::fs::read_to_string(path).unwrap();
    let (header, records) = text.split_once('\n').unwrap();
    (serde_json::from_str(header).unwrap(), records.to_owned())
}

fn status(status: u16, headers: &str, body: &str) -> Option<Fault> {
    Some(Fault::Status(status, headers.to_owned(), body.to_owned()))
}

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

#[test]
fn passing_faults_change_nothing() {
    let fixture = Fixture::new();
    let whole = fixture.collecting("whole.jsonl");
    let server = fixture.server(Script::default());
    fixture.collect_from(&server, &whole).unwrap();
    let expected = std::fs::read(&whole.out).unwrap();
    let busy = || status(429, "Retry-After: 7\r\n", "{\"error\": {\"message\": \"busy\"}}");
    let cases: [(&str, Vec<Option<Fault>>); 7] = [
        ("busy", vec![busy(), busy(), None, busy(), busy(), busy()]),
        (
            "errors",
            vec![status(500, "", "oops"), None, None, status(503, "", ""), status(502, "", "")],
        ),
        ("hang-up", vec![Some(Fault::HangUp), None, Some(Fault::HangUp)]),
        ("garbage", vec![None, None, Some(Fault::Body("<html>".to_owned()))]),
        ("truncated", vec![Some(Fault::Truncated), None, None, Some(Fault::Truncated)]),
        ("no choices", vec![None, None, None, Some(Fault::Body("{\"choices\": []}".to_owned()))]),
        (
            "empty",
            vec![
                None,
                None,
                None,
                Some(Fault::Body(
                    "{\"choices\": [{\"finish_reason\": \"stop\", \"token_ids\": []}]}".to_owned(),
                )),
            ],
        ),
    ];
    for (name, faults) in cases {
        let count = faults.iter().flatten().count();
        let asked = faults.iter().flatten().any(|f| matches!(f, Fault::Status(429, ..)));
        let server = fixture.server(Script { faults: faults.into(), ..Script::default() });
        let options = fixture.collecting(&format!("{name}.jsonl"));
        let (result, pauses) = fixture.collect_as(fixture.options(&server), &options);
        result.unwrap();
        assert!(std::fs::read(&options.out).unwrap() == expected, "{name}");
        assert_eq!(pauses.len(), count, "{name}");
        let least = Duration::from_millis(if asked { 7000 } else { 500 });
        assert!(pauses.iter().all(|pause| *pause >= least), "{name}: {pauses:?}");
    }
}

#[test]
fn a_server_that_goes_down_costs_only_what_was_in_flight() {
    let fixture = Fixture::new();
    let whole = fixture.collecting("whole.jsonl");
    let server = fixture.server(Script::default());
    fixture.collect_from(&server, &whole).unwrap();
    let needed = server.completions();
    let expected = std::fs::read(&whole.out).unwrap();
    let stopped = fixture.collecting("stopped.jsonl");
    let mut kept = 0;
    for share in [3, 2, 2] {
        server.fail_after(needed / share);
        let (result, pauses) = fixture.collect_as(fixture.options(&server), &stopped);
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with("question ") && error.contains(&server.url()), "{error}");
        assert!(
            error.contains("could not be reached") && error.contains("the last of 4 tries"),
            "{error}"
        );
        assert!(error.ends_with("repeat the command to go on"), "{error}");
        assert!(pauses.len() >= 3);
        let records = parts(&stopped.out).1.lines().count();
        assert!(records >= kept, "finished traces are kept");
        kept = records;
        server.recover();
    }
    assert!(kept > 0, "nothing was kept");
    fixture.collect_from(&server, &stopped).unwrap();
    assert!(std::fs::read(&stopped.out).unwrap() == expected);
}

#[test]
fn lasting_failures_are_told_at_once() {
    let fixture = Fixture::new();
    let server = fixture.server(Script::default());
    let options = fixture.collecting("traces.jsonl");
    // The probes pass, the first question does not.
    let message = "{\"error\": {\"message\": \"too long for me\"}}";
    server.fail([None, None, status(400, "", message)]);
    let (result, pauses) = fixture.collect_as(fixture.options(&server), &options);
    let error = result.unwrap_err().to_string();
    assert!(
        error.contains("/v1/completions answered with status 400 (too long for me)"),
        "{error}"
    );
    assert!(error.starts_with("question ") && pauses.is_empty(), "{error}");

    server.fail([None, None, None, Some(Fault::OutOfVocabulary)]);
    let error = fixture.collect_from(&server, &options).unwrap_err().to_string();
    assert!(error.contains("sent the token id 288, which is not among the 288"), "{error}");

    // What was in flight beside them is there, and nothing else.
    fixture.collect_from(&server, &options).unwrap();
    let here = fixture.collecting("here.jsonl");
    fixture.collect_here(&here);
    assert!(parts(&options.out).1 == parts(&here.out).1);

    // Nobody listens.
    let nobody = EndpointOptions { retries: 2, ..fixture.options(&server) };
    drop(server);
    let (result, pauses) = fixture.collect_as(nobody, &fixture.collecting("none.jsonl"));
    let error = result.unwrap_err().to_string();
    assert!(
        error.contains("/v1/models could not be reached (") && error.contains("3 tries"),
        "{error}"
    );
    assert_eq!(pauses.len(), 2);
    assert!(pauses[1] > pauses[0] || pauses[1] >= Duration::from_secs(1));
}

#[test]
fn a_hanging_server_is_given_up() {
    let fixture = Fixture::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = EndpointOptions {
        url: format!("http://{}", listener.local_addr().unwrap()),
        retries: 1,
        timeout: Duration::from_millis(30),
        ..EndpointOptions::default()
    };
    let (result, pauses) = fixture.collect_as(endpoint, &fixture.collecting("traces.jsonl"));
    let error = result.unwrap_err().to_string();
    assert!(error.contains("did not answer in time (the last of 2 tries)"), "{error}");
    assert_eq!(pauses.len(), 1);
}

#[test]
fn another_model_or_tokenizer_is_refused() {
    let fixture = Fixture::new();
    let error =
        fixture.refusal(Script::default(), |endpoint, _| endpoint.model = Some("big".into()));
    assert_eq!(error, "URL/v1/models does not have the model big; it has [tiny]");
    let error = fixture.refusal(Script { other_tokenizer: true, ..Script::default() }, |_, _| {});
    let expected = "URL/v1/completions has another tokenizer than model: a probe of ";
    assert!(error.starts_with(expected) && error.ends_with("serve the model that --model names"));
    let error = fixture.refusal(Script::default(), |endpoint, _| endpoint.url += "/v2");
    assert_eq!(error, "URL/v2/models answered with status 404 (Not Found)");
}

#[test]
fn what_a_server_cannot_do_is_refused_by_name() {
    let fixture = Fixture::new();
    let text_only = || Script { habits: Habits::TextOnly, ..Script::default() };
    let error = fixture.refusal(text_only(), |_, _| {});
    assert!(error.contains("does not return the token ids of its output"), "{error}");
    let error = fixture.refusal(text_only(), |endpoint, _| endpoint.retokenize = true);
    assert!(error.starts_with("record_logprobs does not go together with retokenize"), "{error}");
    let error = fixture.refusal(text_only(), |endpoint, rules| {
        endpoint.retokenize = true;
        rules.record_logprobs = false;
    });
    assert!(error.starts_with("max_thinking_tokens does not go together with"), "{error}");
    let careless = || Script { ignores_filters: true, ..Script::default() };
    let error =
        fixture.refusal(careless(), |_, rules| (rules.temperature, rules.top_k) = (1.0, 20));
    assert_eq!(error, "top_k is ignored by the server (URL/v1/completions)");
    let error =
        fixture.refusal(careless(), |_, rules| (rules.temperature, rules.min_p) = (1.0, 0.1));
    assert_eq!(error, "min_p is ignored by the server (URL/v1/completions)");
    let tempered = || Script { tempered_logprobs: true, ..Script::default() };
    let error = fixture.refusal(tempered(), |_, rules| rules.temperature = 0.6);
    assert!(
        error.starts_with("record_logprobs needs log probabilities at temperature 1"),
        "{error}"
    );

    // All of them pass where the server does what it is asked.
    let server = fixture.server(Script::default());
    let mut options = fixture.collecting("filtered.jsonl");
    options.limit = Some(1);
    let rules = &mut options.rules;
    (rules.temperature, rules.top_k, rules.min_p, rules.top_p) = (0.6, 20, 0.1, 0.9);
    fixture.collect_from(&server, &options).unwrap();
    let body = server.bodies().pop().unwrap();
    assert_eq!((&body["top_k"], &body["top_p"]), (&20.into(), &0.9.into()));

    let llama = fixture.server(Script { habits: Habits::LlamaServer, ..Script::default() });
    let labelling = fixture.labelling("filtered.jsonl", "labels.jsonl", ConfidenceKind::C3);
    let error = fixture.label_from(&llama, &labelling).unwrap_err().to_string();
    assert!(error.starts_with("confidence = C3 needs the log probabilities of given"), "{error}");
    assert!(error.contains("Only no echo is supported"), "{error}");
}

#[test]
fn ids_beside_log_probabilities_are_as_good() {
    let fixture = Fixture::ending_on(&[185]);
    let server = fixture.server(Script { habits: Habits::LlamaServer, ..Script::default() });
    let (here, there) = (fixture.collecting("here.jsonl"), fixture.collecting("there.jsonl"));
    let bare = |options: CollectOptions| {
        let rules = CollectRules { record_logprobs: false, ..options.rules.clone() };
        CollectOptions { rules, ..options }
    };
    let (here, there) = (bare(here), bare(there));
    fixture.collect_here(&here);
    fixture.collect_from(&server, &there).unwrap();
    assert!(parts(&there.out).1 == parts(&here.out).1);
    assert!(server.bodies().iter().all(|body| body["stop"].is_null() && body["logprobs"] == 1));
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
    let first: crate::Trace = serde_json::from_str(records.lines().next().unwrap()).unwrap();
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

#[test]
fn an_address_is_an_address() {
    let text = Fixture::new().model.text();
    for url in ["localhost:8000", "ftp://a", "http://", ""] {
        let options = EndpointOptions { url: url.to_owned(), ..EndpointOptions::default() };
        let error = Endpoint::new(options, text.clone()).err().unwrap().to_string();
        assert!(error.contains("begins with http:// or https://"), "{error}");
    }
    assert_eq!(super::base("http://a:1/").unwrap(), "http://a:1/v1");
    assert_eq!(super::base("https://a/x/v1").unwrap(), "https://a/x/v1");
}
