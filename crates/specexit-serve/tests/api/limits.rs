//! What bounds the server, and what clients that leave do to it.

use std::time::{Duration, Instant};

use serde_json::json;
use specexit_engine::EngineOptions;
use specexit_serve::ServeOptions;

use crate::client::{Exchange, get};
use crate::served::{Served, served, served_with};

/// A streaming request that would go on for long, of which something has been read.
fn begun(served: &Served) -> Exchange {
    let body = Served::body(
        "Go on",
        json!({"stream": true, "max_tokens": null, "specexit": {"mode": "plain"}}),
    );
    let body = body.to_string();
    let mut exchange =
        Exchange::new(served.address, "POST", "/v1/chat/completions", "", body.as_bytes());
    assert_eq!(exchange.head().0, 200);
    assert!(exchange.chunk().is_some());
    exchange
}

/// Tries again what a fast machine may have finished before it could be seen.
fn seen(mut attempt: impl FnMut() -> bool) {
    assert!((0..50).any(|_| attempt()), "never seen");
}

#[test]
fn a_client_that_leaves_takes_its_request_along() {
    let served = served();
    seen(|| {
        let exchanges: Vec<Exchange> = (0..5).map(|_| begun(&served)).collect();
        let reserved = served.metric("specexit_kv_bytes");
        drop(exchanges);
        for gauge in ["specexit_running_sequences", "specexit_queue_length", "specexit_kv_bytes"] {
            served.wait(gauge, 0.0);
        }
        reserved > 0.0 && served.metric("specexit_cancelled_total") > 0.0
    });
    assert_eq!(served.chat("Hi", json!({})).status, 200);
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    let engine = EngineOptions { max_batch: 2, ..EngineOptions::default() };
    let served = served_with(engine, ServeOptions { queue: 1, ..ServeOptions::default() });
    assert_eq!(served.chat("All of us", json!({"n": 4})).param(), "n");
    seen(|| {
        let running = [begun(&served), begun(&served)];
        let body = Served::body("And I", json!({"max_tokens": 3})).to_string();
        let waiting =
            Exchange::new(served.address, "POST", "/v1/chat/completions", "", body.as_bytes());
        let other = served.chat("Me too", json!({"max_tokens": 3}));
        drop(running);
        // Which of the two comes first is the network's choice.
        let (refused, served) = match (waiting.whole(), other) {
            (waiting, other) if waiting.status == 200 => (other, waiting),
            (waiting, other) => (waiting, other),
        };
        assert_eq!(served.status, 200);
        if refused.status == 200 {
            return false;
        }
        assert_eq!(
            (refused.status, refused.json()["error"]["code"].as_str()),
            (429, Some("queue_full"))
        );
        assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
        true
    });
    assert_eq!(served.metric("specexit_rejected_total{reason=\"queue_full\"}"), 1.0);
    served.wait("specexit_queue_length", 0.0);
}

#[test]
fn keys_and_values_bound_what_runs() {
    let limit = 4 << 20;
    let engine = EngineOptions { kv_bytes: Some(limit), ..EngineOptions::default() };
    let served = served_with(engine, ServeOptions::default());
    assert_eq!(served.metric("specexit_kv_limit_bytes"), limit as f64);
    seen(|| {
        let exchanges: Vec<Exchange> = (0..2).map(|_| begun(&served)).collect();
        let used = served.metric("specexit_kv_bytes");
        assert!(used <= limit as f64);
        drop(exchanges);
        used > 0.0
    });
    assert_eq!(served.chat("Hi", json!({"max_tokens": 5})).status, 200);
    served.wait("specexit_kv_bytes", 0.0);

    let small = EngineOptions { kv_bytes: Some(64 << 10), ..EngineOptions::default() };
    let served = served_with(small, ServeOptions::default());
    let refused = served.chat("Hi", json!({"max_tokens": 400}));
    assert_eq!(
        (refused.status, refused.param().as_str()),
        (400, "max_tokens"),
        "{}",
        refused.text()
    );
}

#[test]
fn a_key_is_asked_for_where_there_is_one() {
    let options = ServeOptions { api_key: Some("secret".to_owned()), ..ServeOptions::default() };
    let served = served_with(EngineOptions::default(), options);
    let with =
        |header: &str| Exchange::new(served.address, "GET", "/v1/models", header, b"").whole();
    for wrong in [
        "",
        "Authorization: Bearer secre\r\n",
        "Authorization: Bearer secret2\r\n",
        "Authorization: secret\r\n",
    ] {
        let refused = with(wrong);
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
    }
    assert_eq!(with("Authorization: Bearer secret\r\n").status, 200);
    assert_eq!(served.chat("Hi", json!({})).status, 401);
    // What shows nothing of anybody's is open.
    for path in ["/", "/health", "/metrics"] {
        assert_eq!(get(served.address, path).status, 200, "{path}");
    }
}

#[test]
fn bodies_heads_and_connections_are_bounded() {
    let options = ServeOptions {
        max_body_bytes: 10_000,
        max_connections: 3,
        read_timeout: Duration::from_millis(300),
        ..ServeOptions::default()
    };
    let served = served_with(EngineOptions::default(), options);
    assert_eq!(served.chat(&"x".repeat(20_000), json!({})).status, 413);
    let many: String = (0..200).map(|i| format!("X-{i}: y\r\n")).collect();
    assert_eq!(Exchange::new(served.address, "GET", "/health", &many, b"").head().0, 431);
    let head = b"POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 90\r\n\r\n{\"prompt\"";
    assert_eq!(Exchange::raw(served.address, head).head().0, 408);
    // Who never finishes a request gives its place up; until then others wait.
    let slow: Vec<Exchange> = (0..3)
        .map(|_| Exchange::raw(served.address, b"GET /health HTTP/1.1\r\nHost: t\r\n"))
        .collect();
    let started = Instant::now();
    assert_eq!(get(served.address, "/health").status, 200);
    assert!(started.elapsed() >= Duration::from_millis(100), "{:?}", started.elapsed());
    drop(slow);
}

#[test]
fn what_runs_may_finish_when_the_server_ends() {
    let mut served = served();
    let body = Served::body(
        "Go on",
        json!({"stream": true, "max_tokens": 300, "specexit": {"mode": "plain"}}),
    );
    let mut exchange = Exchange::new(
        served.address,
        "POST",
        "/v1/chat/completions",
        "",
        body.to_string().as_bytes(),
    );
    assert_eq!(exchange.head().0, 200);
    let mut text = exchange.chunk().unwrap();
    served.end();
    while let Some(chunk) = exchange.chunk() {
        text.extend(chunk);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert!(
        text.contains("\"finish_reason\":\"length\"")
            || text.contains("\"finish_reason\":\"stop\"")
    );
    served.ended();
    assert!(std::net::TcpStream::connect(served.address).is_err());
}
