//! What is refused before any work.

use specexit_testkit::{Habits, Script};

use super::Fixture;
use crate::ConfidenceKind;
use crate::endpoint::{Endpoint, EndpointOptions, base};

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
fn an_address_is_an_address() {
    let text = Fixture::new().model.text();
    for url in ["localhost:8000", "ftp://a", "http://", ""] {
        let options = EndpointOptions { url: url.to_owned(), ..EndpointOptions::default() };
        let error = Endpoint::new(options, text.clone()).err().unwrap().to_string();
        assert!(error.contains("begins with http:// or https://"), "{error}");
    }
    assert_eq!(base("http://a:1/").unwrap(), "http://a:1/v1");
    assert_eq!(base("https://a/x/v1").unwrap(), "https://a/x/v1");
}
