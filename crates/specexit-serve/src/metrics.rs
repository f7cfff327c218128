//! What the server says of itself, in Prometheus' words.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use specexit_engine::Engine;
use specexit_eval::calibrate::Shift;

use std::sync::atomic::AtomicU64;

use crate::worker::Done;

type Number = Gauge<f64, AtomicU64>;

/// A label.
macro_rules! labels {
    ($name:ident { $($field:ident),+ }) => {
        #[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
        pub(crate) struct $name {
            $(pub(crate) $field: String,)+
        }
    };
}

labels!(Route { route, status });
labels!(Kind { kind });
labels!(Reason { reason });
labels!(Position { position });
labels!(Signal { signal });

/// All numbers.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) requests: Family<Route, Counter>,
    pub(crate) request_seconds: Histogram,
    pub(crate) first_token: Histogram,
    pub(crate) cancelled: Counter,
    pub(crate) rejected: Family<Reason, Counter>,
    pub(crate) connections: Gauge,
    first_answer_token: Histogram,
    tokens: Family<Kind, Counter>,
    exits: Family<Reason, Counter>,
    rounds: Counter,
    drafted: Family<Position, Counter>,
    accepted: Family<Position, Counter>,
    saved: Counter<f64, AtomicU64>,
    thinking_tokens: Histogram,
    acceptance_length: Histogram,
    draft_depth: Histogram,
    queue: Gauge,
    running: Gauge,
    kv_bytes: Gauge,
    prefix_bytes: Gauge,
    drift: Family<Signal, Number>,
    /// Mean thinking tokens of full thinking, where a calibration says.
    full_thinking: Option<f64>,
}

const SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
const TOKENS: [f64; 11] =
    [0.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];
const LENGTHS: [f64; 10] = [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0];
const DEPTHS: [f64; 8] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0];

/// What a server is, for its `info` metric.
pub(crate) struct About<'a> {
    pub(crate) model: &'a str,
    pub(crate) head: &'a str,
    pub(crate) kv_limit: Option<usize>,
    /// Mean thinking tokens of full thinking, where a calibration says.
    pub(crate) full_thinking: Option<f64>,
}

impl Metrics {
    pub(crate) fn new(about: &About<'_>) -> Self {
        let mut registry = Registry::default();
        let version = env!("CARGO_PKG_VERSION");
        registry.register(
            "specexit",
            "What is served",
            Info::new(
                [("version", version), ("model", about.model), ("head", about.head)]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .to_vec(),
            ),
        );
        let r = registry.sub_registry_with_prefix("specexit");
        let requests = family(r, "requests", "HTTP requests by route and status");
        let tokens = family(r, "tokens", "Tokens: prompt read, prompt cached, thinking, answer");
        let exits = family(r, "exits", "Thoughts by what ended them");
        let drafted = family(r, "drafted", "Drafted tokens by their place in the round");
        let accepted = family(r, "accepted", "Accepted drafted tokens by their place in the round");
        let rejected = family(r, "rejected", "Requests refused: queue, size, drain");
        let (rounds, cancelled) = (Counter::default(), Counter::default());
        r.register("rounds", "Target forwards that verified or decoded", rounds.clone());
        r.register("cancelled", "Requests whose client went away", cancelled.clone());
        let saved = Counter::default();
        if about.full_thinking.is_some() {
            let help = "Estimate: thinking tokens of the calibration's questions less those of early exits";
            r.register("thinking_tokens_saved", help, saved.clone());
        }
        let seconds = |r: &mut Registry, name: &str, help: &str| {
            let histogram = Histogram::new(SECONDS);
            r.register_with_unit(name, help, Unit::Seconds, histogram.clone());
            histogram
        };
        let request_seconds = seconds(r, "request", "From a request to the end of its answer");
        let first_token = seconds(r, "time_to_first_token", "From a request to its first token");
        let first_answer_token = seconds(
            r,
            "time_to_first_answer_token",
            "From admission to the first token behind the thought",
        );
        let buckets = |r: &mut Registry, name: &str, help: &str, bounds: &[f64]| {
            let histogram = Histogram::new(bounds.iter().copied());
            r.register(name, help, histogram.clone());
            histogram
        };
        let thinking_tokens =
            buckets(r, "thinking_tokens", "Thinking tokens of an answer", &TOKENS);
        let acceptance_length =
            buckets(r, "acceptance_length", "Tokens per round of an answer", &LENGTHS);
        let draft_depth =
            buckets(r, "draft_depth", "Drafted tokens per round of an answer", &DEPTHS);
        let queue = gauge(r, "queue_length", "Answers that wait");
        let running = gauge(r, "running_sequences", "Answers being generated");
        let kv_bytes =
            gauge(r, "kv_bytes", "Memory that running answers have reserved for keys and values");
        let prefix_bytes =
            gauge(r, "prefix_bytes", "Memory of keys and values kept for prompts to come");
        let connections = gauge(r, "connections", "Open connections");
        if let Some(limit) = about.kv_limit {
            gauge(r, "kv_limit_bytes", "Memory that answers may reserve").set(limit as i64);
        }
        let drift = Family::default();
        r.register(
            "calibration_drift",
            "Population stability index of signals at boundaries against the \
             calibration's; above 0.2 promises may not hold",
            drift.clone(),
        );
        Self {
            registry,
            requests,
            request_seconds,
            first_token,
            cancelled,
            rejected,
            connections,
            first_answer_token,
            tokens,
            exits,
            rounds,
            drafted,
            accepted,
            saved,
            thinking_tokens,
            acceptance_length,
            draft_depth,
            queue,
            running,
            kv_bytes,
            prefix_bytes,
            drift,
            full_thinking: about.full_thinking,
        }
    }

    /// Everything as text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// A request was refused before it reached the engine.
    pub(crate) fn reject(&self, reason: &str) {
        self.rejected.get_or_create(&Reason { reason: reason.to_owned() }).inc();
    }

    /// An answer has ended.
    pub(crate) fn done(&self, done: &Done, prompt: usize, seconds: f64) {
        let output = &done.output;
        let thinking = done.thinking_tokens();
        for (kind, tokens) in [
            ("prompt", prompt - output.prefix_tokens),
            ("cached", output.prefix_tokens),
            ("thinking", thinking),
            ("answer", done.tokens - thinking),
        ] {
            self.tokens.get_or_create(&Kind { kind: kind.to_owned() }).inc_by(tokens as u64);
        }
        if let Some(exit) = output.exit {
            self.exits.get_or_create(&Reason { reason: exit.reason.to_string() }).inc();
        }
        self.rounds.inc_by(output.rounds as u64);
        for (family, counts) in
            [(&self.drafted, &output.offered_at), (&self.accepted, &output.accepted_at)]
        {
            for (place, &count) in counts.iter().enumerate() {
                let position = (place + 1).to_string();
                family.get_or_create(&Position { position }).inc_by(count as u64);
            }
        }
        self.request_seconds.observe(seconds);
        if let Some(first) = output.first_answer_s {
            self.first_answer_token.observe(first);
        }
        self.thinking_tokens.observe(thinking as f64);
        if output.rounds > 0 {
            self.acceptance_length.observe(output.tau());
            self.draft_depth.observe(output.drafted as f64 / output.rounds as f64);
        }
        if let Some(full) = self.full_thinking.filter(|_| done.early()) {
            self.saved.inc_by((full - thinking as f64).max(0.0));
        }
    }

    /// How the engine stands.
    pub(crate) fn engine(&self, engine: &Engine) {
        self.queue.set(engine.waiting() as i64);
        self.running.set(engine.running() as i64);
        self.kv_bytes.set(engine.kv_reserved() as i64);
        self.prefix_bytes.set(engine.prefix_bytes_held() as i64);
    }

    /// How far signals have shifted.
    pub(crate) fn drift(&self, shifts: &[Shift]) {
        for Shift { signal, index } in shifts {
            self.drift.get_or_create(&Signal { signal: signal.clone() }).set(*index);
        }
    }
}

fn family<L>(registry: &mut Registry, name: &str, help: &str) -> Family<L, Counter>
where
    L: Clone + std::hash::Hash + Eq + EncodeLabelSet + std::fmt::Debug + Send + Sync + 'static,
{
    let family = Family::default();
    registry.register(name, help, family.clone());
    family
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}
