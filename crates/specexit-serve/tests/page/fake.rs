//! A server that plays its answers from a script, cut on the wire where it hurts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::script::Script;

const PAGE: &str = include_str!("../../assets/page.html");

/// What the connections and the test share.
#[derive(Default)]
struct Shared {
    key: Option<String>,
    modes: Vec<&'static str>,
    asked: Mutex<Vec<Value>>,
    hung_up: Mutex<usize>,
    open: Mutex<bool>,
    opened: Condvar,
}

/// A running server; its threads end with the test's process.
pub(crate) struct Fake {
    /// `http://127.0.0.1:PORT`.
    pub(crate) url: String,
    shared: Arc<Shared>,
}

impl Fake {
    /// A server that knows all three modes and asks for no key.
    pub(crate) fn start() -> Fake {
        Fake::with(&["plain", "eagle3", "specexit"], None)
    }

    /// A server with these modes, and a key if one is given.
    pub(crate) fn with(modes: &[&'static str], key: Option<&str>) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            key: key.map(str::to_owned),
            modes: modes.to_vec(),
            ..Shared::default()
        });
        let mine = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&mine);
                // A browser hangs up whenever it likes; the test sees what came of it.
                std::thread::spawn(move || drop(answer(stream, &shared)));
            }
        });
        Fake { url, shared }
    }

    /// The bodies of all questions so far.
    pub(crate) fn asked(&self) -> Vec<Value> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// How many streams the browser left before their end.
    pub(crate) fn hung_up(&self) -> usize {
        *self.shared.hung_up.lock().unwrap()
    }

    /// Lets gated answers go on.
    pub(crate) fn open_gate(&self) {
        *self.shared.open.lock().unwrap() = true;
        self.shared.opened.notify_all();
    }
}

fn plain(stream: &mut TcpStream, status: &str, kind: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

fn refuse(stream: &mut TcpStream, status: &str, message: &str) -> std::io::Result<()> {
    let error = json!({"error": {"message": message, "type": "x", "param": null, "code": null}});
    plain(stream, status, "application/json", &error.to_string())
}

fn answer(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let (mut length, mut key) = (0, None);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        let (name, value) = line.trim().split_once(": ").unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap_or(0),
            "authorization" => key = value.strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let route = first.split(" HTTP").next().unwrap_or_default();
    if route == "GET /" {
        return plain(&mut stream, "200 OK", "text/html; charset=utf-8", PAGE);
    }
    if shared.key.is_some() && key != shared.key {
        return refuse(&mut stream, "401 Unauthorized", "this key is not known");
    }
    match route {
        "GET /v1/models" => {
            let default = shared.modes.last();
            let model = json!({"id": "fake", "object": "model", "created": 0, "owned_by": "specexit",
                "specexit": {"modes": shared.modes, "default_mode": default,
                "profiles": ["default", "paper", "angelslim"], "risks": [0.01, 0.05],
                "context": 2048, "examples": ["Solve for k: 5k + 3 = 28.", "What is <b>1</b> + 1?"]}});
            let list = json!({"object": "list", "data": [model]}).to_string();
            plain(&mut stream, "200 OK", "application/json", &list)
        }
        "POST /v1/chat/completions" => {
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            shared.asked.lock().unwrap().push(body.clone());
            let question = body["messages"][0]["content"].as_str().unwrap_or_default();
            if question.contains("busy") {
                return refuse(&mut stream, "429 Too Many Requests", "64 questions wait already");
            }
            let mode = body["specexit"]["mode"].as_str().unwrap_or_default();
            let script = match question.contains("untraced") {
                true => Script::untraced(),
                false => Script::of(mode, question),
            };
            let streamed = play(&mut stream, &script, shared);
            if streamed.is_err() {
                *shared.hung_up.lock().unwrap() += 1;
            }
            streamed
        }
        _ => refuse(&mut stream, "404 Not Found", "there is no such thing here"),
    }
}

/// Sends a script in pieces that respect neither lines nor letters.
fn play(stream: &mut TcpStream, script: &Script, shared: &Shared) -> std::io::Result<()> {
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n",
    )?;
    for (number, part) in script.parts.iter().enumerate() {
        if number == 1 && script.gated {
            let mut open = shared.open.lock().unwrap();
            while !*open {
                open = shared.opened.wait(open).unwrap();
            }
        }
        if number == 1 && script.endless {
            loop {
                stream.write_all(b": still thinking\n\n")?;
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        // Behind the first byte of a letter that has several, and between CR and LF.
        let hurts = |pair: &[u8]| pair[0] >= 0xc0 || pair == b"\r\n";
        let mut from = 0;
        for (at, _) in part.windows(2).enumerate().filter(|(_, pair)| hurts(pair)) {
            stream.write_all(&part[from..=at])?;
            from = at + 1;
            // Apart in time, or the browser would get them as one.
            std::thread::sleep(Duration::from_millis(4));
        }
        stream.write_all(&part[from..])?;
    }
    Ok(())
}
