//! One call to the server, and what its failures mean.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use ureq::Agent;
use ureq::http::{Response, header};

use super::retry::{Failure, retry_after};

/// Largest reply that is read: log probabilities of a long prompt take tens of megabytes.
const LARGEST: u64 = 1 << 29;
/// Characters of a server's message that are shown.
const SHOWN: usize = 300;

/// A server's completions API.
#[derive(Clone)]
pub(super) struct Api {
    agent: Agent,
    /// Up to and including `/v1`.
    base: String,
    key: Option<String>,
}

impl Api {
    pub(super) fn new(base: String, key: Option<String>, timeout: Duration) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("specexit/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.into(), base, key }
    }

    /// The address of an operation.
    pub(super) fn url(&self, operation: &str) -> String {
        format!("{}/{operation}", self.base)
    }

    pub(super) fn get(&self, operation: &str) -> Result<Value, Failure> {
        let mut request = self.agent.get(self.url(operation));
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        read(request.call().map_err(failed)?)
    }

    pub(super) fn post(&self, operation: &str, body: &[u8]) -> Result<Value, Failure> {
        let url = self.url(operation);
        let mut request = self.agent.post(url).header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        read(request.send(body).map_err(failed)?)
    }
}

/// No reply at all: the server may be starting, or on its way down.
fn failed(error: ureq::Error) -> Failure {
    match error {
        ureq::Error::Timeout(_) => Failure::passing("did not answer in time"),
        ureq::Error::Io(error) => Failure::passing(format!("could not be reached ({error})")),
        ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => {
            Failure::passing(format!("could not be reached ({error})"))
        }
        ureq::Error::Protocol(error) => Failure::passing(format!("does not speak HTTP ({error})")),
        other => Failure::lasting(format!("cannot be asked ({other})")),
    }
}

fn read(mut response: Response<ureq::Body>) -> Result<Value, Failure> {
    let status = response.status().as_u16();
    let after = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok());
    let after = after.and_then(|value| retry_after(value, SystemTime::now()));
    let body = response.body_mut().with_config().limit(LARGEST).read_to_vec();
    if (200..300).contains(&status) {
        let body = body.map_err(|e| match e {
            ureq::Error::Timeout(_) => Failure::passing("did not answer in time"),
            other => Failure::passing(format!("broke off its answer ({other})")),
        })?;
        return serde_json::from_slice(&body).map_err(|_| {
            Failure::passing(format!("did not answer in JSON but with {:?}", shown(&body)))
        });
    }
    let message = body.map_or_else(|_| String::new(), |body| message(&body));
    let reason = format!("answered with status {status}{message}");
    let again = matches!(status, 408 | 425 | 429) || status >= 500;
    Err(Failure { reason, again, after })
}

/// What an error reply says: the message that it wraps in JSON, or its text.
fn message(body: &[u8]) -> String {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let inner = parsed.as_ref().and_then(|value| {
        let places = ["/error/message", "/message", "/detail", "/error"];
        places.into_iter().find_map(|at| value.pointer(at)?.as_str())
    });
    let text = inner.map_or_else(|| shown(body), |text| shown(text.as_bytes()));
    if text.is_empty() { text } else { format!(" ({text})") }
}

/// The beginning of a text, on one line.
fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_messages_are_found_in_their_wrappings() {
        assert_eq!(
            message(br#"{"error": {"message": "no such\nmodel", "code": 404}}"#),
            " (no such model)"
        );
        assert_eq!(message(br#"{"object": "error", "message": "too long"}"#), " (too long)");
        assert_eq!(message(br#"{"detail": "Not Found"}"#), " (Not Found)");
        assert_eq!(message(b"<html> bad  gateway"), " (<html> bad gateway)");
        assert_eq!(message(b""), "");
        assert_eq!(message("é".repeat(400).as_bytes()).chars().count(), SHOWN + 1 + 3);
    }
}
