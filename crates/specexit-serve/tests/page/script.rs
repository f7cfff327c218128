//! What the fake server says: whole streams, written out as the contract has them.

use serde_json::{Value, json};

/// A stream of events, and how it behaves on the wire.
pub(crate) struct Script {
    /// Bytes up to the place where the server may wait, and those after it.
    pub(crate) parts: [Vec<u8>; 2],
    /// Wait between the two parts until the test allows the second.
    pub(crate) gated: bool,
    /// Never end.
    pub(crate) endless: bool,
}

/// The paragraphs of the longer thought; its last two are overthinking.
const PARAGRAPHS: [&str; 5] = [
    "Subtract 3 from both sides → 5·k = 25.",
    "Divide both sides by 5 ✓ so k = 5.",
    "The answer is 5 🧮 as 5·5 + 3 = 28.",
    "Wait, let me check that once more 🤔.",
    "5·5 is 25 and 25 + 3 is 28, so it holds.",
];

/// Paragraphs that are left when the signals close the thought.
const KEPT: usize = 3;

/// What the engine writes behind the exit.
pub(crate) const CLOSING: &str = "I have it.";

/// Words with the space before them, and the end of each paragraph as a token of its own.
fn words(paragraphs: &[&str]) -> Vec<String> {
    let mut tokens = Vec::new();
    for paragraph in paragraphs {
        for (at, word) in paragraph.split(' ').enumerate() {
            tokens.push(if at == 0 { word.to_owned() } else { format!(" {word}") });
        }
        tokens.push("\n\n".to_owned());
    }
    tokens
}

/// The thinking tokens of a mode.
fn thought(mode: &str) -> Vec<String> {
    if mode != "specexit" {
        return words(&PARAGRAPHS);
    }
    let mut tokens = words(&PARAGRAPHS[..KEPT]);
    tokens.push(CLOSING.to_owned());
    tokens
}

/// The number of thinking tokens of a mode.
pub(crate) fn thinking(mode: &str) -> usize {
    thought(mode).len()
}

/// One event; every third with CRLF, every fourth with a comment before it, some on two lines.
fn event(number: usize, data: &str) -> String {
    let end = if number.is_multiple_of(3) { "\r\n" } else { "\n" };
    let comment =
        if number.is_multiple_of(4) { format!(": keep going{end}") } else { String::new() };
    let space = if number.is_multiple_of(5) { "" } else { " " };
    // A comma between two of its values, where JSON may be broken into lines.
    let data = match number % 6 {
        3 => data.replacen(",\"", &format!(",{end}data:{space}\""), 1),
        _ => data.to_owned(),
    };
    format!("{comment}data:{space}{data}{end}{end}")
}

fn chunk(delta: Value, finish: Value) -> Value {
    json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": "fake",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
}

/// The chunks of a whole answer: the thought in accepted runs, its signals late and at paragraph ends only.
fn answer(mode: &str, content: &[&str]) -> Vec<Value> {
    let exits = mode == "specexit";
    let tokens = thought(mode);
    let thinking = tokens.len();
    let mut chunks = vec![chunk(json!({"role": "assistant", "content": ""}), Value::Null)];
    let mut opening = chunk(json!({}), Value::Null);
    opening["specexit"] = json!({"tokens": [{"index": 0, "text": "<think>", "phase": "marker"}]});
    chunks.push(opening);
    let mut late: Vec<Value> = Vec::new();
    for (run, texts) in tokens.chunks(3).enumerate() {
        let text = texts.concat();
        let mut one = chunk(json!({"reasoning_content": text, "reasoning": text}), Value::Null);
        let first = 1 + run * 3;
        let told: Vec<Value> = texts
            .iter()
            .enumerate()
            .map(|(i, t)| json!({"index": first + i, "text": t, "phase": "thinking"}))
            .collect();
        one["specexit"] = json!({"tokens": told, "signals": std::mem::take(&mut late)});
        chunks.push(one);
        for (i, _) in texts.iter().enumerate().filter(|(_, t)| *t == "\n\n") {
            let progress = (first + i) as f64 / thinking as f64;
            late.push(json!({"index": first + i, "confidence": null, "progress": progress,
                "remaining": (thinking - first - i) as f64}));
        }
    }
    let mut closing = chunk(json!({}), Value::Null);
    closing["specexit"] = json!({"signals": late,
        "tokens": [{"index": thinking + 1, "text": "</think>", "phase": "marker"}]});
    chunks.push(closing);
    for (i, text) in content.iter().enumerate() {
        let mut one = chunk(json!({"content": text}), Value::Null);
        one["specexit"] =
            json!({"tokens": [{"index": thinking + 2 + i, "text": text, "phase": "answer"}]});
        chunks.push(one);
    }
    let mut last = chunk(json!({}), json!("stop"));
    let reason = if exits { "signals" } else { "natural" };
    last["specexit"] = json!({"mode": mode, "thinking_tokens": thinking, "tau": 3.4, "rounds": 21,
        "draft_depth": 3.1, "exit": {"reason": reason, "token_index": thinking + usize::from(!exits),
        "confidence": 0.9, "progress": 0.8, "remaining": 4.0}});
    chunks.push(last);
    let whole = thinking + 2 + content.len();
    let mut usage = chunk(Value::Null, Value::Null);
    usage["choices"] = json!([]);
    usage["usage"] = json!({"prompt_tokens": 9, "completion_tokens": whole, "total_tokens": 9 + whole,
        "completion_tokens_details": {"reasoning_tokens": thinking}});
    chunks.push(usage);
    chunks
}

fn bytes(chunks: &[Value]) -> Vec<u8> {
    let events: Vec<String> =
        chunks.iter().enumerate().map(|(i, one)| event(i, &one.to_string())).collect();
    events.concat().into_bytes()
}

const DONE: &[u8] = b"data: [DONE]\n\n";

impl Script {
    /// A good answer, held back in the middle of the thought where the question says `gated`.
    pub(crate) fn of(mode: &str, question: &str) -> Script {
        let content: &[&str] = match (mode, question.contains("differ")) {
            ("specexit", true) => &["It", " is", " 6"],
            ("specexit", false) => &["\n", "k =", " 5"],
            _ => &["k =", " 5"],
        };
        let chunks = answer(mode, content);
        let (head, tail) = if question.contains("broken") {
            let broken = json!({"error": {"message": "the engine ran out of <b>memory</b>",
                "type": "server_error", "param": null, "code": null}});
            (chunks[..5].to_vec(), vec![broken])
        } else {
            (chunks[..7].to_vec(), chunks[7..].to_vec())
        };
        let mut tail = bytes(&tail);
        if question.contains("cut off") {
            tail.truncate(200);
        } else {
            tail.extend_from_slice(DONE);
        }
        Script {
            parts: [bytes(&head), tail],
            gated: question.contains("gated"),
            endless: question.contains("endless"),
        }
    }

    /// An answer of a server that knows no trace, with text that tries to be markup.
    pub(crate) fn untraced() -> Script {
        let text = "<img src=x onerror=\"document.title='broken in'\"> thinks";
        let chunks = [
            chunk(json!({"role": "assistant", "reasoning": text}), Value::Null),
            chunk(json!({"content": "<script>1</script>"}), json!("stop")),
        ];
        let mut tail = bytes(&chunks[1..]);
        tail.extend_from_slice(DONE);
        Script { parts: [bytes(&chunks[..1]), tail], gated: false, endless: false }
    }
}
