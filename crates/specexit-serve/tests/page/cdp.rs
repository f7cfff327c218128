//! A headless browser under control, over the pipe that Chromium offers for it.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use specexit_testkit::browser;
use tempfile::TempDir;

/// Longest wait for one answer of the browser: a cold start on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(60);

/// One tab of a headless browser; the browser ends with it.
pub(crate) struct Browser {
    child: Child,
    to: File,
    from: Receiver<Value>,
    session: Option<String>,
    next: u64,
    troubles: Vec<String>,
    // Removed after the browser is gone.
    _folder: TempDir,
}

impl Browser {
    /// Starts a browser with an empty tab; `None`, with a word about it, where none is installed.
    pub(crate) fn start() -> Option<Browser> {
        let Some(program) = browser() else {
            eprintln!("no Chromium or Chrome is on the path: the page is not tried in a browser");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let (input, output) = (folder.path().join("to"), folder.path().join("from"));
        let made = Command::new("mkfifo").args([&input, &output]).status().unwrap();
        assert!(made.success(), "mkfifo failed");
        let child = Command::new("sh")
            // A shell numbers the pipes 3 and 4 as the browser wants them, which safe Rust cannot.
            .args(["-c", r#"exec "$0" "$@" 3<"$SPECEXIT_TO" 4>"$SPECEXIT_FROM""#])
            .arg(&program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-extensions", "--mute-audio"])
            .args(["--disable-dev-shm-usage", "--remote-debugging-pipe"])
            // Nothing but the test's own server may be asked.
            .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .arg("about:blank")
            .env("SPECEXIT_TO", &input)
            .env("SPECEXIT_FROM", &output)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let to = OpenOptions::new().write(true).open(&input).unwrap();
        let mut reader = BufReader::new(File::open(&output).unwrap());
        let (sender, from) = mpsc::channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while reader.read_until(0, &mut message).is_ok_and(|bytes| bytes > 0) {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else { return };
                if sender.send(value).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let mut browser = Browser {
            child,
            to,
            from,
            session: None,
            next: 0,
            troubles: Vec::new(),
            _folder: folder,
        };
        let tab = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": tab["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Sends a command and waits for its result.
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&message).unwrap();
        bytes.push(0);
        self.to.write_all(&bytes).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut answer = self
                .from
                .recv_timeout(left)
                .unwrap_or_else(|e| panic!("no answer of the browser to {method}: {e}"));
            if answer["id"] == json!(self.next) {
                assert!(answer.get("error").is_none(), "{method}: {}", answer["error"]);
                return answer["result"].take();
            }
            self.note(&answer);
        }
    }

    /// Keeps what the page's console would show in red.
    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                self.troubles.push(params["exceptionDetails"].to_string());
            }
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                self.troubles.push(params["entry"].to_string());
            }
            _ => {}
        }
    }

    /// Exceptions and errors that the page has caused so far.
    pub(crate) fn troubles(&mut self) -> Vec<String> {
        // An answer that comes later than they brings them along.
        self.evaluate("0");
        std::mem::take(&mut self.troubles)
    }

    /// Goes to an address and waits until the page is there.
    pub(crate) fn open(&mut self, url: &str) {
        let went = self.call("Page.navigate", json!({"url": url}));
        assert!(went.get("errorText").is_none(), "cannot open {url}: {}", went["errorText"]);
        self.wait_until("document.readyState === 'complete'", PATIENCE);
    }

    /// The value of an expression in the page; a promise is waited for.
    pub(crate) fn evaluate(&mut self, js: &str) -> Value {
        let asked = json!({"expression": js, "returnByValue": true, "awaitPromise": true});
        let mut answer = self.call("Runtime.evaluate", asked);
        let wrong = answer.get("exceptionDetails");
        assert!(wrong.is_none(), "the page threw at {js}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].take()
    }

    /// The text of the first element that a selector finds, or nothing.
    pub(crate) fn text(&mut self, selector: &str) -> String {
        let js = format!("document.querySelector({})?.textContent ?? ''", json!(selector));
        self.evaluate(&js).as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression is true.
    pub(crate) fn wait_until(&mut self, js: &str, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        while self.evaluate(&format!("!!({js})")) != json!(true) {
            if Instant::now() > deadline {
                let shown = self.evaluate("document.body.innerText");
                panic!("still not true after {timeout:?}: {js}\nthe page shows: {shown}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Presses the mouse in the middle of an element, as a person would.
    pub(crate) fn click(&mut self, selector: &str) {
        let js = format!(
            "(() => {{ const e = document.querySelector({0}); if (!e) return null; \
             e.scrollIntoView({{ block: 'center', behavior: 'instant' }}); \
             const b = e.getBoundingClientRect(); \
             return {{ x: b.x + b.width / 2, y: b.y + b.height / 2 }}; }})()",
            json!(selector)
        );
        let at = self.evaluate(&js);
        assert!(at.is_object(), "nothing to click: {selector}");
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": at["x"], "y": at["y"], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Puts the cursor into a field and types over what it holds.
    pub(crate) fn type_into(&mut self, selector: &str, text: &str) {
        self.click(selector);
        let js = format!("document.querySelector({}).select()", json!(selector));
        self.evaluate(&js);
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Presses one key; `modifiers` as the protocol counts them (2 is Ctrl).
    pub(crate) fn press(&mut self, key: &str, code: u32, modifiers: u32) {
        for kind in ["rawKeyDown", "keyUp"] {
            let event = json!({"type": kind, "key": key, "code": key, "modifiers": modifiers,
                "windowsVirtualKeyCode": code, "nativeVirtualKeyCode": code});
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Sets the size of the window's inside; a narrow one acts as a phone.
    pub(crate) fn set_size(&mut self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Pretends a preference of the user, such as `prefers-color-scheme`.
    pub(crate) fn prefer(&mut self, name: &str, value: &str) {
        let media = json!({"features": [{"name": name, "value": value}]});
        self.call("Emulation.setEmulatedMedia", media);
    }

    /// Saves a picture (PNG) of the whole page.
    pub(crate) fn screenshot(&mut self, path: &Path) {
        let asked = json!({"format": "png", "captureBeyondViewport": true});
        let picture = self.call("Page.captureScreenshot", asked);
        std::fs::write(path, from_base64(picture["data"].as_str().unwrap())).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let closing = json!({"id": self.next + 1, "method": "Browser.close"}).to_string();
        // It may be gone already; then there is nothing left to close or to kill.
        let _ = self.to.write_all(format!("{closing}\0").as_bytes());
        for _ in 0..100 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut held, mut bits) = (0u32, 0u32);
    for letter in text.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        held = held << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits & 0xff) as u8);
        }
    }
    bytes
}
