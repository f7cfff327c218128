//! What a client is told when something is wrong.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use specexit_engine::EngineError;

/// What request handling returns.
pub(crate) type Result<T> = std::result::Result<T, ApiError>;

/// An answer other than the one asked for, in OpenAI's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// One sentence: what was wrong, where, what to do.
    pub message: String,
    /// The field that it is about.
    pub param: Option<String>,
    /// What programs tell it by.
    pub code: Option<&'static str>,
    /// Seconds after which another try makes sense.
    pub retry_after: Option<u64>,
}

impl ApiError {
    /// An error of a status.
    #[must_use]
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None, retry_after: None }
    }

    /// A field that cannot be as it is.
    #[must_use]
    pub fn field(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(name.into()), ..Self::new(StatusCode::BAD_REQUEST, message) }
    }

    /// The same with a code.
    #[must_use]
    pub fn with_code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// The same about a field inside `outer`.
    #[must_use]
    pub fn inside(self, outer: &str) -> Self {
        let param = self.param.map(|inner| format!("{outer}.{inner}"));
        Self { param, ..self }
    }

    /// What the engine refused.
    #[must_use]
    pub fn refused(error: &EngineError) -> Self {
        let (param, code) = match error {
            EngineError::PromptTooLong { .. } => ("messages", Some("context_length_exceeded")),
            EngineError::EmptyPrompt => ("messages", None),
            EngineError::TooLarge { .. } => ("max_tokens", Some("request_too_large")),
            EngineError::NoHead { .. } | EngineError::NoProbe => ("specexit.mode", None),
            EngineError::Setting(_) => ("specexit", None),
            EngineError::BadRequest { .. } => ("", None),
            _ => return Self::failed(error.to_string()),
        };
        let param = (!param.is_empty()).then(|| param.to_owned());
        Self { param, code, ..Self::new(StatusCode::BAD_REQUEST, error.to_string()) }
    }

    /// Something of the server's own went wrong.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// The server is going away.
    #[must_use]
    pub fn draining() -> Self {
        let message = "the server is shutting down; ask another one, or try again later";
        Self { retry_after: Some(5), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// The document that clients get.
    #[must_use]
    pub fn body(&self) -> Value {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        json!({"error": {
            "message": self.message,
            "type": kind,
            "param": self.param,
            "code": self.code,
        }})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
