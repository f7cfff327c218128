//! A server on a tiny random model, in this process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use specexit_engine::{Engine, EngineOptions, Method};
use specexit_exit::Profile;
use specexit_kernels::Precision;
use specexit_model::{DraftHead, Model, ModelSource};
use specexit_serve::{Exits, ServeOptions, Server};
use specexit_testkit::{write_head, write_model};
use tokio::sync::oneshot;

use crate::client::{Response, get, post};

/// A running server; it ends when dropped.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _files: tempfile::TempDir,
}

pub(crate) fn served() -> Served {
    served_with(EngineOptions::default(), ServeOptions::default())
}

pub(crate) fn served_with(engine: EngineOptions, options: ServeOptions) -> Served {
    let files = tempfile::tempdir().unwrap();
    let (model_dir, head_dir) = (files.path().join("model"), files.path().join("head"));
    write_model(&model_dir, 1).unwrap();
    write_head(&head_dir, 2, 64, true).unwrap();
    let (tell, address) = std::sync::mpsc::channel();
    let (end, ended) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let source = ModelSource::parse(model_dir.to_str().unwrap()).unwrap();
        let model = Model::load(&source, 1, Precision::Bf16).unwrap();
        let head = Arc::new(DraftHead::load(&head_dir, &model.target).unwrap());
        let (target, tokenizer) = (Arc::clone(&model.target), Arc::clone(&model.tokenizer));
        let engine = Engine::new(target, tokenizer, Some(head), engine).unwrap();
        let exits = Exits {
            modes: vec![Method::Plain, Method::Eagle3, Method::SpecExit],
            mode: Method::SpecExit,
            policy: Profile::Default.policy(),
            calibration: None,
            head_hash: String::new(),
            loops: None,
            stall: None,
            closing_text: None,
            draft_tokens: 4,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let any = "127.0.0.1:0".parse().unwrap();
            let server = Server::start(any, engine, model.text(), exits, options).await.unwrap();
            tell.send(server.address().unwrap()).unwrap();
            let end = async {
                let _ = ended.await;
            };
            server.run(end).await.unwrap();
        });
    });
    let address = address.recv().unwrap();
    Served { address, end: Some(end), thread: Some(thread), _files: files }
}

impl Served {
    /// A greedy chat of one question, with more fields.
    pub(crate) fn body(question: &str, more: Value) -> Value {
        let mut body = json!({
            "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 40,
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    }

    pub(crate) fn chat(&self, question: &str, more: Value) -> Response {
        post(self.address, "/v1/chat/completions", &Self::body(question, more))
    }

    pub(crate) fn complete(&self, prompt: &str, more: Value) -> Response {
        let mut body = json!({"prompt": prompt, "temperature": 0, "max_tokens": 40});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        post(self.address, "/v1/completions", &body)
    }

    /// The value of a metric, labels and all; zero where it is not there.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = get(self.address, "/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits for a metric.
    pub(crate) fn wait(&self, name: &str, value: f64) {
        let started = Instant::now();
        while self.metric(name) != value {
            assert!(started.elapsed() < Duration::from_secs(20), "{name} is {}", self.metric(name));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Tells it to end.
    pub(crate) fn end(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(());
        }
    }

    /// Waits until it has ended.
    pub(crate) fn ended(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end();
    }
}
