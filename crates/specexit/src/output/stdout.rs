//! Writing to stdout, where every failure is an error instead of a panic.

use std::io::{self, Write};

use serde::Serialize;

/// Writes `text` and flushes, so that a stream is seen as it comes.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes one JSON document on one line, so that a program can read several.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string(value)?;
    text.push('\n');
    Ok(print(&text)?)
}
