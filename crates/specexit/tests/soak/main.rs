//! Many clients at once for a long time, some of them rude: nothing may be lost, left behind or mixed up.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[path = "../../../specexit-serve/tests/api/client.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod client;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use client::{Exchange, get, post};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

const CLIENTS: usize = 64;
const QUESTIONS: usize = 48;

struct Serving(Child, SocketAddr);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serving() -> Serving {
    let mut child = Command::new(env!("CARGO_BIN_EXE_specexit"))
        .args([
            "serve",
            "--model",
            "reference",
            "--port",
            "0",
            "--queue",
            "40",
            "--max-connections",
            "80",
            "--prefix-gb",
            "0.05",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().rsplit("http://").next().unwrap().parse().unwrap();
    Serving(child, address)
}

impl Serving {
    fn metric(&self, name: &str) -> f64 {
        let text = get(self.1, "/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Resident memory in MiB.
    fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }
}

fn question(number: usize, stream: bool) -> Value {
    let (a, b) = (2 + number % 9, number * 3 % 17);
    let text = match number % 3 {
        0 => format!("Solve for k: {a}k + {b} = {}.", a * 7 + b),
        1 => {
            format!("Max has {} eggs. He loses {b}. How many eggs does Max have now?", 40 + number)
        }
        _ => format!("What does this program return?\n 1: b = {a}\n 2: b = b + {b}\n 3: return b"),
    };
    let mode = ["specexit", "eagle3", "plain"][number / 3 % 3];
    json!({
        "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 700, "stream": stream,
        "specexit": {"mode": mode},
    })
}

fn said(choice: &Value) -> (String, String) {
    let text = |name: &str| choice[name].as_str().unwrap_or_default().to_owned();
    (text("reasoning_content"), text("content"))
}

#[test]
#[ignore = "64 clients for ten minutes (SPECEXIT_SOAK_SECONDS): \
            cargo test --release -p specexit --test soak -- --ignored --nocapture"]
fn many_clients_for_long() {
    let seconds = std::env::var("SPECEXIT_SOAK_SECONDS").map_or(600, |s| s.parse().unwrap());
    let serving = serving();
    let address = serving.1;
    let alone: Vec<(String, String)> = (0..QUESTIONS)
        .map(|number| {
            let whole = post(address, "/v1/chat/completions", &question(number, false)).json();
            said(&whole["choices"][0]["message"])
        })
        .collect();
    let counts: [AtomicUsize; 6] = Default::default();
    let [whole, streamed, left, refused, full, long] = &counts;
    let started = Instant::now();
    let go = || started.elapsed() < Duration::from_secs(seconds);
    let mut memory = Vec::new();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let alone = &alone;
            scope.spawn(move || {
                let mut random = ChaCha8Rng::seed_from_u64(client as u64);
                while go() {
                    let number = random.random_range(0..QUESTIONS);
                    let body = |stream| question(number, stream).to_string().into_bytes();
                    let ask = |body: &[u8]| {
                        Exchange::new(address, "POST", "/v1/chat/completions", "", body)
                    };
                    match random.random_range(0..10) {
                        0..4 => {
                            let response = ask(&body(false)).whole();
                            if response.status == 429 {
                                full.fetch_add(1, Ordering::Relaxed);
                                std::thread::sleep(Duration::from_millis(50));
                                continue;
                            }
                            assert_eq!(response.status, 200, "{}", response.text());
                            assert_eq!(
                                said(&response.json()["choices"][0]["message"]),
                                alone[number]
                            );
                            whole.fetch_add(1, Ordering::Relaxed);
                        }
                        4..7 => {
                            let response = ask(&body(true)).whole();
                            if response.status == 429 {
                                full.fetch_add(1, Ordering::Relaxed);
                                continue;
                            }
                            let pieces = response
                                .events()
                                .into_iter()
                                .map(|e| said(&e["choices"][0]["delta"]));
                            let joined = pieces
                                .fold(<(String, String)>::default(), |all, piece| {
                                    (all.0 + &piece.0, all.1 + &piece.1)
                                });
                            assert_eq!(joined, alone[number]);
                            streamed.fetch_add(1, Ordering::Relaxed);
                        }
                        7 => {
                            let mut exchange = ask(&body(true));
                            if random.random_range(0..3) > 0 && exchange.head().0 == 200 {
                                for _ in 0..random.random_range(1..12) {
                                    if exchange.chunk().is_none() {
                                        break;
                                    }
                                }
                            }
                            left.fetch_add(1, Ordering::Relaxed);
                        }
                        8 => {
                            let mut body = question(number, false);
                            body["messages"][0]["content"] = "word ".repeat(3000).into();
                            let status = ask(body.to_string().as_bytes()).whole().status;
                            assert!(matches!(status, 400 | 429), "{status}");
                            long.fetch_add(1, Ordering::Relaxed);
                        }
                        _ => {
                            let mut body = body(false);
                            let at = random.random_range(0..body.len());
                            match random.random_range(0..3) {
                                0 => body.truncate(at),
                                1 => body[at] = random.random(),
                                _ => body.insert(at, b'"'),
                            }
                            // A changed letter may leave a request as good as before.
                            let status = ask(&body).whole().status;
                            assert!(matches!(status, 200 | 400 | 404 | 429), "{status}");
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
        while go() {
            memory.push(serving.memory());
            std::thread::sleep(Duration::from_secs(5));
        }
    });
    let deadline = Instant::now() + Duration::from_secs(60);
    let gauges = ["specexit_running_sequences", "specexit_queue_length", "specexit_kv_bytes"];
    while gauges.iter().any(|gauge| serving.metric(gauge) > 0.0) {
        assert!(Instant::now() < deadline, "{:?}", gauges.map(|gauge| serving.metric(gauge)));
        std::thread::sleep(Duration::from_millis(100));
    }
    for (name, count) in ["whole", "streamed", "left", "malformed", "full", "too long"]
        .iter()
        .zip([whole, streamed, left, refused, full, long])
    {
        println!("{name}: {}", count.load(Ordering::Relaxed));
    }
    println!("cancelled: {}", serving.metric("specexit_cancelled_total"));
    let third = memory.len() / 3;
    let most = |part: &[f64]| part.iter().copied().fold(0.0, f64::max);
    let (early, late) =
        (most(&memory[..third.max(1)]), most(&memory[memory.len() - third.max(1)..]));
    println!("resident memory: {early:.1} MiB in the first third, {late:.1} MiB in the last");
    assert!(late <= early * 1.1 + 8.0, "memory grows: {memory:?}");
    assert_eq!(get(address, "/health").status, 200);
    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) > 0));
}
