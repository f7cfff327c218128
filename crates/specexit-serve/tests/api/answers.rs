//! What is answered, at once and in pieces.

use serde_json::{Value, json};

use crate::client::{Response, get, post};
use crate::served::{Served, served};

/// Thought, answer and raw text of all chunks, of one choice.
fn joined(events: &[Value], index: u64) -> (String, String, String) {
    let (mut reasoning, mut content, mut text) = (String::new(), String::new(), String::new());
    for choice in events.iter().flat_map(|event| event["choices"].as_array().unwrap()) {
        if choice["index"] == index {
            let piece = |name: &str| choice["delta"][name].as_str().unwrap_or_default().to_owned();
            assert_eq!(piece("reasoning"), piece("reasoning_content"));
            reasoning.push_str(&piece("reasoning"));
            content.push_str(&piece("content"));
            text.push_str(choice["text"].as_str().unwrap_or_default());
        }
    }
    (reasoning, content, text)
}

fn streamed(served: &Served, question: &str, more: &Value) -> Vec<Value> {
    let mut more = more.clone();
    more["stream"] = true.into();
    more["stream_options"] = json!({"include_usage": true});
    let response = served.chat(question, more);
    assert_eq!(response.header("content-type"), Some("text/event-stream"));
    response.events()
}

#[test]
fn pieces_make_up_the_whole_byte_for_byte() {
    let served = served();
    let mut parts = [0; 3];
    for i in 0..200_u64 {
        let question = format!("Question {i}: é 😀?");
        // Thoughts that end by themselves, by a budget in the middle of anything, or by signals; stop strings.
        let more = match i % 5 {
            0 => json!({}),
            1 => {
                json!({"thinking_token_budget": i % 13, "specexit": {"mode": "eagle3", "draft_tokens": 1 + i % 8}})
            }
            2 => {
                json!({"specexit": {"thresholds": {"confidence": 0.1, "progress": null, "remaining": null}}})
            }
            3 => json!({"stop": ["e", "\n", "\u{fffd}\u{fffd}"], "thinking_token_budget": 3}),
            _ => json!({"temperature": 1, "seed": i, "thinking_token_budget": i % 29}),
        };
        let whole = served.chat(&question, more.clone()).json();
        let events = streamed(&served, &question, &more);
        let message = &whole["choices"][0]["message"];
        let (reasoning, content, _) = joined(&events, 0);
        assert_eq!(message["reasoning_content"].as_str().unwrap_or_default(), reasoning, "{i}");
        assert_eq!(message["content"], content, "{i}");
        assert_eq!(
            events.last().unwrap()["usage"]["completion_tokens"],
            whole["usage"]["completion_tokens"]
        );
        let last = &events[events.len() - 2];
        assert_eq!(last["choices"][0]["finish_reason"], whole["choices"][0]["finish_reason"]);
        assert_eq!(last["specexit"]["exit"], whole["specexit"]["exit"]);
        parts[0] += usize::from(!reasoning.is_empty());
        parts[1] += usize::from(!content.is_empty());
        parts[2] += usize::from(!reasoning.is_empty() && !content.is_empty());
    }
    assert!(parts.iter().all(|n| *n > 30), "{parts:?} thoughts, answers, both");
}

#[test]
fn completions_give_the_text_as_it_is() {
    let served = served();
    for i in 0..20 {
        let prompt = format!("{i} plus {i}<think>");
        let more = json!({"thinking_token_budget": 5 + i});
        let whole = served.complete(&prompt, more.clone()).json();
        let mut stream = more;
        stream["stream"] = true.into();
        let events = served.complete(&prompt, stream).events();
        let (_, _, text) = joined(&events, 0);
        assert_eq!(whole["choices"][0]["text"], text);
        assert!(text.contains("</think>"), "{text}");
        assert_eq!(whole["object"], "text_completion");
        assert!(whole["specexit"]["thinking_tokens"].as_u64().unwrap() <= 5 + i);
    }
    let ids = served.complete("", json!({"prompt": [72, 105, 33]})).json();
    let text = served.complete("Hi!", json!({})).json();
    assert_eq!(ids["choices"][0]["text"], text["choices"][0]["text"]);
    assert_eq!(ids["usage"]["prompt_tokens"], 3);
}

#[test]
fn off_is_exactly_what_the_target_says() {
    let served = served();
    let content =
        |more: Value| served.chat("How far is it?", more).json()["choices"][0]["message"].clone();
    let plain = content(json!({"specexit": {"mode": "plain"}}));
    for other in [
        json!({"mode": "off"}),
        json!({"mode": "eagle3"}),
        json!({"mode": "eagle3", "draft_tokens": 7}),
    ] {
        assert_eq!(content(json!({"specexit": other})), plain);
    }
    let off = served.chat("How far is it?", json!({"specexit": {"mode": "off"}})).json();
    assert_eq!(off["specexit"]["mode"], "eagle3");
    assert!(off["specexit"]["tau"].as_f64().unwrap() >= 1.0);
}

#[test]
fn stop_strings_end_answers_but_not_thoughts() {
    let served = served();
    let text = |more: Value| {
        served.complete("abc<think>", more).json()["choices"][0]["text"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let whole = text(json!({"thinking_token_budget": 8}));
    let (thought, answer) = whole.split_once("</think>").unwrap();
    let inside: String =
        thought.chars().filter(|c| !answer.contains(*c) && *c != '\u{fffd}').take(1).collect();
    assert!(!inside.is_empty(), "{whole:?}");
    assert_eq!(text(json!({"thinking_token_budget": 8, "stop": inside})), whole);
    let stop: String = answer.chars().skip(3).filter(|c| *c != '\u{fffd}').take(1).collect();
    let stopped =
        served.complete("abc<think>", json!({"thinking_token_budget": 8, "stop": [stop]})).json();
    let at = thought.len() + "</think>".len() + answer.find(&stop).unwrap();
    assert_eq!(stopped["choices"][0]["text"], whole[..at]);
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    let tokens = |v: &Value| v["usage"]["completion_tokens"].as_u64().unwrap();
    assert!(tokens(&stopped) < 40);
    served.wait("specexit_running_sequences", 0.0);
    served.wait("specexit_kv_bytes", 0.0);
}

#[test]
fn several_choices_differ_by_their_seeds_alone() {
    let served = served();
    let ask = |more: Value| served.chat("Tell me.", more).json();
    let both = ask(json!({"n": 3, "temperature": 1, "seed": 5}));
    for (i, choice) in both["choices"].as_array().unwrap().iter().enumerate() {
        assert_eq!(choice["index"], i);
        let alone = ask(json!({"temperature": 1, "seed": 5 + i}));
        assert_eq!(choice["message"], alone["choices"][0]["message"]);
    }
    let events = streamed(&served, "Tell me.", &json!({"n": 3, "temperature": 1, "seed": 5}));
    for i in 0..3_u64 {
        let message = &both["choices"][i as usize]["message"];
        let (reasoning, content, _) = joined(&events, i);
        assert_eq!(
            (
                message["content"].as_str().unwrap(),
                message["reasoning"].as_str().unwrap_or_default()
            ),
            (&*content, &*reasoning)
        );
    }
    assert_eq!(
        events.last().unwrap()["usage"]["completion_tokens"],
        both["usage"]["completion_tokens"]
    );
}

#[test]
fn log_probabilities_and_traces_are_about_every_token() {
    let served = served();
    let more = json!({"logprobs": true, "top_logprobs": 3, "thinking_token_budget": 9, "specexit": {"trace": true}});
    let whole = served.chat("Why so?", more.clone()).json();
    let choice = &whole["choices"][0];
    let count = |name: &str| choice["logprobs"][name].as_array().unwrap().len() as u64;
    let tokens = whole["usage"]["completion_tokens"].as_u64().unwrap();
    assert_eq!(count("content") + count("reasoning_content"), tokens);
    for entry in choice["logprobs"]["content"].as_array().unwrap() {
        let top = entry["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        // Greedy takes the likeliest.
        assert_eq!(entry["logprob"], top[0]["logprob"]);
        assert!(top[0]["logprob"].as_f64().unwrap() >= top[2]["logprob"].as_f64().unwrap());
    }
    let trace = whole["specexit"]["tokens"].as_array().unwrap();
    assert_eq!(trace.len() as u64, tokens);
    assert!(trace.iter().enumerate().all(|(i, token)| token["index"] == i));
    assert!(!whole["specexit"]["signals"].as_array().unwrap().is_empty());

    let events = streamed(&served, "Why so?", &more);
    let of = |name: &str| -> Vec<Value> {
        let lists = events.iter().filter_map(|event| event["specexit"][name].as_array());
        lists.flatten().cloned().collect()
    };
    assert_eq!(of("tokens"), *trace);
    assert_eq!(of("signals"), *whole["specexit"]["signals"].as_array().unwrap());
    let logprobs = |name: &str| -> Vec<Value> {
        let lists = events.iter().filter_map(|e| e["choices"][0]["logprobs"][name].as_array());
        lists.flatten().cloned().collect()
    };
    assert_eq!(logprobs("content"), *choice["logprobs"]["content"].as_array().unwrap());

    let completion = served.complete("Hi", json!({"logprobs": 2})).json();
    let logprobs = &completion["choices"][0]["logprobs"];
    for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(logprobs[name].as_array().unwrap().len(), 40, "{name}");
    }
}

#[test]
fn budgets_hold_to_the_token() {
    let served = served();
    for budget in [0_u64, 1, 5, 17] {
        let more = json!({"thinking_token_budget": budget, "specexit": {"mode": "eagle3"}});
        let whole = served.complete("Well<think>", more).json();
        assert!(
            whole["usage"]["completion_tokens_details"]["reasoning_tokens"].as_u64().unwrap()
                <= budget
        );
    }
    let low = served
        .complete("Well<think>", json!({"reasoning_effort": "low", "specexit": {"mode": "off"}}))
        .json();
    assert!(low["usage"]["reasoning_tokens"].as_u64().unwrap() <= 10, "{low}");
}

#[test]
fn a_model_is_found_by_its_name_alone() {
    let served = served();
    let models = get(served.address, "/v1/models").json();
    assert_eq!(models["data"][0]["id"], "model");
    assert_eq!(models["data"][0]["specexit"]["modes"], json!(["plain", "eagle3", "specexit"]));
    assert_eq!(get(served.address, "/v1/models/model").json()["id"], "model");
    assert_eq!(get(served.address, "/v1/models/other/one").status, 404);
    let other = served.chat("Hi", json!({"model": "gpt"}));
    assert_eq!(
        (other.status, other.json()["error"]["code"].as_str()),
        (404, Some("model_not_found"))
    );
    assert_eq!(served.chat("Hi", json!({"model": "model"})).status, 200);
    assert_eq!(get(served.address, "/health").json()["status"], "ok");
    let page = get(served.address, "/");
    assert!(
        page.header("content-type").unwrap().starts_with("text/html")
            && page.text().contains("<html")
    );
}

#[test]
fn what_cannot_be_is_said_with_its_field() {
    let served = served();
    let refused = |response: Response| {
        assert_eq!(response.status, 400, "{}", response.text());
        response.param()
    };
    for (more, param) in [
        (json!({"top_p": 3}), "top_p"),
        (json!({"foo": 1}), "foo"),
        (json!({"max_tokens": 100_000}), "max_tokens"),
        (json!({"specexit": {"mode": "plain", "risk": 0.01}}), "specexit.risk"),
        (json!({"specexit": {"risk": 0.01}}), "specexit.risk"),
        (json!({"specexit": {"mode": "plain", "draft_tokens": 3}}), "specexit.draft_tokens"),
        (json!({"specexit": {"mode": "off", "closing_text": "So"}}), "specexit.closing_text"),
        (
            json!({"specexit": {"mode": "off", "thresholds": {"progress": 0.5}}}),
            "specexit.thresholds.progress",
        ),
        (json!({"specexit": {"draft_tokens": 99}}), "specexit.draft_tokens"),
        (json!({"specexit": {"loops": {"cycle": 0, "repeats": 3}}}), "specexit"),
        (json!({"chat_template_kwargs": {"speed": 3}}), "chat_template_kwargs.speed"),
    ] {
        assert_eq!(refused(served.chat("Hi", more.clone())), param, "{more}");
    }
    assert_eq!(refused(served.chat(&"long ".repeat(3000), json!({}))), "messages");
    assert_eq!(refused(served.complete("", json!({"prompt": [999_999]}))), "prompt");
    let broken = crate::client::Exchange::new(
        served.address,
        "POST",
        "/v1/chat/completions",
        "",
        b"{\"messages\": [",
    );
    assert!(
        broken.whole().json()["error"]["message"]
            .as_str()
            .unwrap()
            .starts_with("the body is not JSON")
    );
    assert_eq!(post(served.address, "/v1/chat/completion", &json!({})).status, 404);
    assert_eq!(get(served.address, "/v1/completions").status, 405);
    served.wait("specexit_running_sequences", 0.0);
}

#[test]
fn thoughts_that_loop_end_where_that_is_asked_for() {
    let served = served();
    let mut looped = 0;
    for i in 0..20 {
        let ask = |loops: Value| {
            let more = json!({"max_tokens": 400, "specexit": {"mode": "off", "loops": loops}});
            served.complete(&format!("{i}<think>"), more).json()
        };
        let (rule, none) = (ask(json!({"cycle": 32, "repeats": 3})), ask("off".into()));
        assert_ne!(none["specexit"]["exit"]["reason"], "loop");
        if rule["specexit"]["exit"]["reason"] == "loop" {
            looped += 1;
            let (text, whole) = (&rule["choices"][0]["text"], &none["choices"][0]["text"]);
            let thought = text.as_str().unwrap().split("</think>").next().unwrap();
            // Until then it is what it would have been.
            let known = thought.trim_end_matches('\u{fffd}');
            assert!(whole.as_str().unwrap().starts_with(known), "{known:?} in {whole}");
        }
    }
    assert!(looped > 3, "{looped} of 20 loop");
    assert_eq!(served.metric("specexit_exits_total{reason=\"loop\"}"), f64::from(looped));
}
