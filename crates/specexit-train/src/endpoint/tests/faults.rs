//! Servers that fail, for a while or for good.

use std::time::Duration;

use specexit_testkit::{Fault, Script};

use super::{Fixture, parts, status};
use crate::endpoint::EndpointOptions;

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

    for (choice, problem) in [
        (
            serde_json::json!({"finish_reason": "stop", "token_ids": [65]}),
            "does not say whether the end of the thought or of the text ended its output",
        ),
        (
            serde_json::json!({"finish_reason": "stop", "stop_reason": 65, "token_ids": [66]}),
            "ended its output with the token 65, which is no end-of-sequence token of the model",
        ),
        (
            serde_json::json!({"finish_reason": "length", "token_ids": [65]}),
            "ended its output after 1 of 60 tokens",
        ),
    ] {
        let mut choice = choice;
        choice["logprobs"] = serde_json::json!({"token_logprobs": [-0.5]});
        let body = serde_json::json!({ "choices": [choice] }).to_string();
        server.fail([None, None, Some(Fault::Body(body))]);
        let error = fixture.collect_from(&server, &options).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }

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
