//! Which path leads where.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, MatchedPath, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use crate::api::{Chat, Completion};
use crate::app::{App, Plan};
use crate::error::{ApiError, Result};
use crate::metrics::Route;
use crate::page::PAGE;
use crate::stream;
use crate::whole;

/// Which form an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Chat,
    Completion,
}

/// The server without its port.
pub(crate) fn router(app: Arc<App>, max_body_bytes: usize) -> Router {
    let api = Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completion))
        .route("/v1/models", get(models))
        .route("/v1/models/{*model}", get(model))
        .route_layer(from_fn_with_state(Arc::clone(&app), authorise));
    Router::new()
        .route("/", get(async || Html(PAGE)))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .merge(api)
        .route_layer(from_fn_with_state(Arc::clone(&app), count))
        .fallback(async || ApiError::new(StatusCode::NOT_FOUND, "there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this path is asked by another method")
        })
        .layer(DefaultBodyLimit::max(max_body_bytes))
        .with_state(app)
}

async fn chat(State(app): State<Arc<App>>, request: Request) -> Result<Response> {
    let plan = planned(&app, request, |app, body| app.chat(&Chat::parse(body)?)).await?;
    answer(app, plan, Form::Chat).await
}

async fn completion(State(app): State<Arc<App>>, request: Request) -> Result<Response> {
    let plan =
        planned(&app, request, |app, body| app.completion(&Completion::parse(body)?)).await?;
    answer(app, plan, Form::Completion).await
}

/// Reading a long prompt takes a while, so it is done where it holds up nobody.
async fn planned(
    app: &Arc<App>,
    request: Request,
    plan: impl FnOnce(&App, &[u8]) -> Result<Plan> + Send + 'static,
) -> Result<Plan> {
    let body = tokio::time::timeout(app.body_timeout, Bytes::from_request(request, app)).await;
    let body = match body {
        Ok(Ok(body)) => body,
        Ok(Err(rejection)) => {
            app.metrics.reject("body");
            return Err(ApiError::new(rejection.status(), rejection.body_text()));
        }
        Err(_) => {
            app.metrics.reject("timeout");
            let message = "the body of the request did not come in time";
            return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, message));
        }
    };
    let app = Arc::clone(app);
    let planned = tokio::task::spawn_blocking(move || plan(&app, &body)).await;
    planned.map_err(|_| ApiError::failed("reading the request failed"))?
}

async fn answer(app: Arc<App>, mut plan: Plan, form: Form) -> Result<Response> {
    let jobs = std::mem::take(&mut plan.jobs);
    let count = jobs.len();
    let answers = app.handle.submit(jobs).await.inspect_err(|error| {
        app.metrics.reject(error.code.unwrap_or("refused"));
    })?;
    if plan.stream {
        Ok(stream::response(app, plan, answers, count, form))
    } else {
        Ok(Json(whole::answer(&app, &plan, answers, count, form).await?).into_response())
    }
}

async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({"object": "list", "data": [about(&app)]}))
}

async fn model(
    State(app): State<Arc<App>>,
    axum::extract::Path(name): axum::extract::Path<String>,
) -> Result<Json<Value>> {
    if name == app.name {
        return Ok(Json(about(&app)));
    }
    let message = format!("there is no model {name} here, only {}", app.name);
    Err(ApiError::new(StatusCode::NOT_FOUND, message).with_code("model_not_found"))
}

fn about(app: &App) -> Value {
    let modes: Vec<String> = app.exits.modes.iter().map(ToString::to_string).collect();
    let profiles = specexit_exit::Profile::ALL.map(specexit_exit::Profile::as_str);
    json!({
        "id": app.name,
        "object": "model",
        "created": app.began,
        "owned_by": "specexit",
        "specexit": {
            "modes": modes,
            "default_mode": app.exits.mode.to_string(),
            "profiles": profiles,
            "risks": app.exits.risks(),
            "context": app.model.config.max_position_embeddings,
            "examples": app.examples,
        },
    })
}

async fn health(State(app): State<Arc<App>>) -> Response {
    let shared = &app.handle.shared;
    if !shared.alive.load(Ordering::Relaxed) {
        return ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the engine has stopped; restart the server",
        )
        .into_response();
    }
    if shared.draining.load(Ordering::Relaxed) {
        return ApiError::draining().into_response();
    }
    Json(json!({"status": "ok"})).into_response()
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, TYPE)], app.metrics.text()).into_response()
}

/// Lets only those through who know the key, where there is one.
async fn authorise(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(key) = &app.api_key else { return next.run(request).await };
    let given = request.headers().get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    // The time of the comparison says nothing but the length.
    if given.is_some_and(|given| bool::from(given.ct_eq(key.as_bytes()))) {
        return next.run(request).await;
    }
    let message = "the API key is missing or wrong; send it as `Authorization: Bearer KEY`";
    let error = ApiError::new(StatusCode::UNAUTHORIZED, message).with_code("invalid_api_key");
    ([(header::WWW_AUTHENTICATE, "Bearer")], error).into_response()
}

/// Counts requests by route and status.
async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("other", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    let status = response.status().as_str().to_owned();
    app.metrics.requests.get_or_create(&Route { route, status }).inc();
    response
}
