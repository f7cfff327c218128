//! Collecting and labelling from a server that a tiny model answers, beside the same work done here.

mod faults;
mod refusals;
mod same;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use specexit_engine::{Engine, EngineOptions};
use specexit_kernels::Precision;
use specexit_model::{Model, ModelSource};
use specexit_testkit::{self as testkit, Fault, MockServer, SERVED, Script};

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
