//! A server with a completions API for tests, answered by a real engine: what a client gets of it must
//! be what the engine itself says. Faults are put in where a test wants them.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use specexit_engine::{Engine, Output, Request, Sampling, Scored};
use specexit_model::Model;

/// The name under which the server has its model.
pub const SERVED: &str = "tiny";

/// Whose habits the server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habits {
    /// Token ids in a field of their own, prompts scored by `echo`.
    Vllm,
    /// The same, but the token that ended the output is only named.
    Sglang,
    /// Token ids beside log probabilities, ends cut off, no `echo`.
    LlamaServer,
    /// Texts and nothing else.
    TextOnly,
}

/// What goes wrong with one completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This status, with further header lines (each ending with `\r\n`) and this body.
    Status(u16, String, String),
    /// These bytes with status 200.
    Body(String),
    /// A body that ends before its promised length.
    Truncated,
    /// The connection is closed without a word.
    HangUp,
    /// The last token id is beyond the vocabulary.
    OutOfVocabulary,
}

/// What a server is told before it starts.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its habits.
    pub habits: Habits,
    /// Faults of the next completions, those of probes included; `None` for one without.
    pub faults: VecDeque<Option<Fault>>,
    /// Everything fails after so many completions, until [`MockServer::recover`].
    pub up_for: usize,
    /// What its tokenizer makes of a prompt is one token longer than it should be.
    pub other_tokenizer: bool,
    /// Unknown filters are ignored.
    pub ignores_filters: bool,
    /// Log probabilities are those of the temperature sampled with.
    pub tempered_logprobs: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            habits: Habits::Vllm,
            faults: VecDeque::new(),
            up_for: usize::MAX,
            other_tokenizer: false,
            ignores_filters: false,
            tempered_logprobs: false,
        }
    }
}

/// A running server; it ends when dropped.
pub struct MockServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

struct Shared {
    model: Model,
    engine: Mutex<Engine>,
    script: Mutex<Script>,
    completions: AtomicUsize,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    bodies: Mutex<Vec<Value>>,
    keys: Mutex<Vec<Option<String>>>,
    closed: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MockServer {
    /// Serves `model` through `engine` on a free port of this machine.
    ///
    /// # Errors
    /// The operating system's refusal.
    pub fn start(model: Model, engine: Engine, script: Script) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            model,
            engine: Mutex::new(engine),
            script: Mutex::new(script),
            completions: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
            bodies: Mutex::default(),
            keys: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let served = Arc::clone(&shared);
        let listener = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if served.closed.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let served = Arc::clone(&served);
                // A client that hangs up is no concern of the server's.
                std::thread::spawn(move || drop(serve(&served, stream)));
            }
        });
        Ok(Self { address, shared, listener: Some(listener) })
    }

    /// Its address, without a path.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Completions asked for so far, failed ones included.
    #[must_use]
    pub fn completions(&self) -> usize {
        self.shared.completions.load(Ordering::SeqCst)
    }

    /// Most completions that were under way at a time.
    #[must_use]
    pub fn most_in_flight(&self) -> usize {
        self.shared.most_in_flight.load(Ordering::SeqCst)
    }

    /// The bodies of all completions asked for.
    #[must_use]
    pub fn bodies(&self) -> Vec<Value> {
        lock(&self.shared.bodies).clone()
    }

    /// The `Authorization` header of every request.
    #[must_use]
    pub fn keys(&self) -> Vec<Option<String>> {
        lock(&self.shared.keys).clone()
    }

    /// Puts faults before the next completions.
    pub fn fail(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        lock(&self.shared.script).faults.extend(faults);
    }

    /// Is down after so many further completions.
    pub fn fail_after(&self, completions: usize) {
        lock(&self.shared.script).up_for = self.completions() + completions;
    }

    /// Is never down again.
    pub fn recover(&self) {
        lock(&self.shared.script).up_for = usize::MAX;
    }
}

impl Drop for MockServer {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        // Wakes the listener.
        drop(TcpStream::connect(self.address));
        if let Some(listener) = self.listener.take() {
            drop(listener.join());
        }
    }
}

/// One request per connection.
fn serve(shared: &Shared, mut stream: TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        head.push(line.trim_end().to_owned());
    }
    let header = |name: &str| {
        head.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let length = header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    lines.read_exact(&mut body)?;
    lock(&shared.keys).push(header("authorization"));
    let first = head.first().cloned().unwrap_or_default();
    if first.starts_with("GET /v1/models ") {
        let context = shared.model.target.config.max_position_embeddings;
        let models = json!({"object": "list", "data": [{"id": SERVED, "max_model_len": context}]});
        return answer(&mut stream, 200, "", &models.to_string());
    }
    if !first.starts_with("POST /v1/completions ") {
        return answer(&mut stream, 404, "", &json!({"detail": "Not Found"}).to_string());
    }
    let under_way = shared.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
    shared.most_in_flight.fetch_max(under_way, Ordering::SeqCst);
    let number = shared.completions.fetch_add(1, Ordering::SeqCst);
    let done = complete(shared, &mut stream, number, &body);
    shared.in_flight.fetch_sub(1, Ordering::SeqCst);
    done
}

fn complete(shared: &Shared, stream: &mut TcpStream, number: usize, body: &[u8]) -> io::Result<()> {
    let body: Value = serde_json::from_slice(body)?;
    lock(&shared.bodies).push(body.clone());
    let (script, fault) = {
        let mut script = lock(&shared.script);
        let fault = script.faults.pop_front().flatten();
        (script.clone(), fault)
    };
    if number >= script.up_for {
        return Ok(());
    }
    match &fault {
        Some(Fault::HangUp) => return Ok(()),
        Some(Fault::Status(status, headers, body)) => {
            return answer(stream, *status, headers, body);
        }
        Some(Fault::Body(body)) => return answer(stream, 200, "", body),
        _ => {}
    }
    let mut reply = match generate(shared, &script, &body) {
        Ok(reply) => reply,
        Err(problem) => {
            let error = json!({"error": {"message": problem}});
            return answer(stream, 400, "", &error.to_string());
        }
    };
    if fault == Some(Fault::OutOfVocabulary)
        && let Some(ids) = reply["choices"][0]["token_ids"].as_array_mut()
        && let Some(last) = ids.last_mut()
    {
        *last = json!(shared.model.target.config.vocab_size);
    }
    let text = reply.to_string();
    if fault == Some(Fault::Truncated) {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len());
        stream.write_all(head.as_bytes())?;
        return stream.write_all(&text.as_bytes()[..text.len() / 2]);
    }
    answer(stream, 200, "", &text)
}

fn answer(stream: &mut TcpStream, status: u16, headers: &str, body: &str) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nConnection: close\r\n{headers}\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

/// A reply to `body`, or what is wrong with it.
fn generate(shared: &Shared, script: &Script, body: &Value) -> Result<Value, String> {
    let text = |e: specexit_model::ModelError| e.to_string();
    let tokenizer = &shared.model.tokenizer;
    if body["model"] != SERVED {
        return Err(format!("the model {} does not exist", body["model"]));
    }
    let mut prompt: Vec<u32> = match &body["prompt"] {
        Value::String(prompt) => tokenizer.encode(prompt, false).map_err(text)?,
        ids => serde_json::from_value(ids.clone()).map_err(|e| e.to_string())?,
    };
    if script.other_tokenizer && body["prompt"].is_string() {
        prompt.push(1);
    }
    let number = |field: &str, default: f64| body[field].as_f64().unwrap_or(default);
    let max_tokens = number("max_tokens", 16.0) as usize;
    let top_k = number("top_k", -1.0).max(0.0) as usize;
    let sampling = Sampling {
        temperature: number("temperature", 1.0) as f32,
        top_p: number("top_p", 1.0) as f32,
        top_k: if script.ignores_filters { 0 } else { top_k },
        min_p: if script.ignores_filters { 0.0 } else { number("min_p", 0.0) as f32 },
        seed: number("seed", 0.0) as u64,
    };
    let mut engine = lock(&shared.engine);
    let request =
        Request { sampling, record_logprobs: true, ..Request::new(prompt.clone(), max_tokens) };
    let mut output = engine.run(request).map_err(|e| e.to_string())?;
    let stopped = stop_at(shared, &mut output, body["stop"][0].as_str()).map_err(text)?;
    let eos = &shared.model.target.config.eos_token_ids;
    let ended_by = output.token_ids.last().copied().filter(|last| eos.contains(last));
    if script.habits != Habits::Vllm && ended_by.is_some() {
        output.token_ids.pop();
        output.logprobs.pop();
    }
    if script.tempered_logprobs && sampling.temperature > 0.0 {
        output.logprobs.iter_mut().for_each(|p| *p /= sampling.temperature);
    }
    let stop = stopped || ended_by.is_some();
    let generated =
        output.token_ids.len() + usize::from(script.habits != Habits::Vllm && ended_by.is_some());
    let mut choice = json!({
        "index": 0,
        "text": tokenizer.decode(&output.token_ids, false).map_err(text)?,
        "finish_reason": if stop { "stop" } else { "length" },
        "logprobs": null,
    });
    if body["logprobs"].is_u64() && script.habits != Habits::TextOnly {
        let echo = body["echo"] == true;
        if echo && script.habits == Habits::LlamaServer {
            return Err("Only no echo is supported".to_owned());
        }
        let mut logprobs: Vec<Option<f32>> = Vec::new();
        if echo {
            let scored = Scored { tokens: prompt.clone(), from: 1, prefix: None };
            let scores = engine.score(&[scored]).map_err(|e| e.to_string())?;
            logprobs.push(None);
            logprobs.extend(scores[0].iter().map(|&p| Some(p)));
        }
        logprobs.extend(output.logprobs.iter().map(|&p| Some(p)));
        choice["logprobs"] = match script.habits {
            Habits::LlamaServer => {
                let content = output.token_ids.iter().zip(&logprobs);
                let content: Vec<Value> =
                    content.map(|(id, p)| json!({"id": id, "logprob": p})).collect();
                json!({ "content": content })
            }
            _ => json!({ "token_logprobs": logprobs }),
        };
    }
    let returns_ids = matches!(script.habits, Habits::Vllm | Habits::Sglang);
    if returns_ids && body["return_token_ids"] == true {
        choice["token_ids"] = json!(output.token_ids);
        choice["prompt_token_ids"] = json!(prompt);
    }
    match script.habits {
        Habits::Vllm => choice["stop_reason"] = json!(stopped.then(|| &body["stop"][0])),
        Habits::Sglang => choice["matched_stop"] = json!(ended_by),
        Habits::LlamaServer | Habits::TextOnly => {}
    }
    let usage = json!({"prompt_tokens": prompt.len(), "completion_tokens": generated});
    Ok(json!({"object": "text_completion", "model": SERVED, "choices": [choice], "usage": usage}))
}

/// Ends an output with the token that completes the text `stop`.
fn stop_at(
    shared: &Shared,
    output: &mut Output,
    stop: Option<&str>,
) -> specexit_model::Result<bool> {
    let Some(stop) = stop else { return Ok(false) };
    for end in 1..=output.token_ids.len() {
        if shared.model.tokenizer.decode(&output.token_ids[..end], false)?.contains(stop) {
            output.token_ids.truncate(end);
            output.logprobs.truncate(end);
            return Ok(true);
        }
    }
    Ok(false)
}
