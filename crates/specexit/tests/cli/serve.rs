//! The server as a process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::run::failure;

/// A running server; it is killed when dropped.
pub(crate) struct Serving {
    pub(crate) child: Child,
    pub(crate) address: String,
}

impl Serving {
    pub(crate) fn start(more: &[&str]) -> Self {
        let args = ["serve", "--model", "reference", "--port", "0", "--threads", "1"];
        let mut child = Command::new(env!("CARGO_BIN_EXE_specexit"))
            .args(args)
            .args(more)
            .env_remove("SPECEXIT_API_KEY")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit("http://").next().unwrap().to_owned();
        assert!(line.starts_with("serving reference at http://127.0.0.1:"), "{line}");
        Self { child, address }
    }

    /// The body of a response to a request without one of its own.
    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.split_once("\r\n\r\n").unwrap().1.to_owned()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_serves_until_it_is_told_to_end() {
    let mut serving = Serving::start(&["--risk", "0.02", "--served-name", "mine"]);
    let models: serde_json::Value = serde_json::from_str(&serving.get("/v1/models")).unwrap();
    assert_eq!(models["data"][0]["id"], "mine");
    assert_eq!(models["data"][0]["specexit"]["risks"], serde_json::json!([0.01, 0.02, 0.05]));
    assert_eq!(models["data"][0]["specexit"]["examples"].as_array().unwrap().len(), 4);
    assert!(
        serving
            .get("/metrics")
            .contains("specexit_info{version=\"0.1.0\",model=\"mine\",head=\"reference\"} 1\n")
    );
    let pid = Pid::from_child(&serving.child);
    kill_process(pid, Signal::TERM).unwrap();
    for _ in 0..200 {
        if let Some(status) = serving.child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("it goes on after SIGTERM");
}

#[test]
fn what_cannot_be_served_is_one_sentence() {
    let serve = |more: &[&str]| failure(&[&["serve", "--model", "reference"], more].concat());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, sentence) = serve(&["--port", &port]);
    assert_eq!(code, 1);
    assert!(sentence.starts_with(&format!("cannot listen on 127.0.0.1:{port}: ")), "{sentence}");
    for (flags, start) in [
        (&["--max-batch", "0"][..], "--max-batch is 0"),
        (&["--kv-gb", "0"], "--kv-gb is 0"),
        (&["--kv-gb", "nan"], "--kv-gb is NaN"),
        (&["--api-key", ""], "the API key is empty"),
        (&["--stall", "9"], "invalid value '9' for '--stall <TOKENS:GAIN>': expected two numbers"),
        (
            &["--loops", "0:3"],
            "invalid value '0:3' for '--loops <CYCLE:REPEATS>': the longest cycle",
        ),
        (&["--mode", "eagle3", "--stall", "9:0.1"], "--stall does not apply to mode eagle3"),
        (&["--mode", "plain", "--confidence", "0.5"], "--confidence does not apply to mode plain"),
    ] {
        let (code, sentence) = serve(flags);
        assert_eq!(code, 2, "{sentence}");
        assert!(sentence.starts_with(start), "{sentence}");
    }
    let (_, sentence) = serve(&["--risk", "0.001"]);
    assert!(sentence.contains("nothing was promised at a risk of 0.001"), "{sentence}");
}

/// A Python that has the official client: the one that `SPECEXIT_OPENAI_PYTHON` names, or `python3`.
fn python() -> Option<std::ffi::OsString> {
    let python = std::env::var_os("SPECEXIT_OPENAI_PYTHON").unwrap_or_else(|| "python3".into());
    let found = Command::new(&python).args(["-c", "import openai"]).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    eprintln!("skipped: {} has no openai; `pip install openai` brings it", python.display());
    None
}

#[test]
fn the_official_client_is_served() {
    let Some(python) = python() else { return };
    let serving = Serving::start(&[]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openai/checks.py");
    let url = format!("http://{}", serving.address);
    let output = Command::new(python).args([script, &url]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let troubles = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{troubles}");
    assert!(said.lines().count() > 25 && said.ends_with(" checks passed\n"), "{said}");
}
