//! Long work on stderr: a bar on a terminal, otherwise a plain line every few seconds.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use specexit_train::{Bar, Progress};

/// The fitting kind for this stderr.
pub(crate) fn reporter() -> Box<dyn Progress> {
    if io::stderr().is_terminal() {
        Box::new(TerminalBar::default())
    } else {
        Box::new(Lines::default())
    }
}

/// The library's bar, left with the cursor on a line of its own: results follow on stdout.
#[derive(Default)]
struct TerminalBar {
    bar: Bar,
    drawn: bool,
}

impl Progress for TerminalBar {
    fn start(&mut self, stage: &str, unit: &str, total: u64, done: u64) {
        self.finish();
        self.bar.start(stage, unit, total, done);
        self.drawn = true;
    }

    fn advance(&mut self, done: u64, message: &str) {
        self.bar.advance(done, message);
    }

    fn note(&mut self, line: &str) {
        self.bar.note(line);
    }

    fn finish(&mut self) {
        self.bar.finish();
        if std::mem::take(&mut self.drawn) {
            eprintln!();
        }
    }
}

/// Time between two lines.
const PAUSE: Duration = Duration::from_secs(5);

/// Plain lines, for log files.
#[derive(Default)]
struct Lines {
    stage: String,
    unit: String,
    total: u64,
    done: u64,
    printed: Option<Instant>,
}

impl Lines {
    fn print(&mut self, message: &str) {
        let Self { stage, unit, total, done, .. } = self;
        let message = if message.is_empty() { String::new() } else { format!(": {message}") };
        eprintln!("{stage} {done}/{total} {unit}{message}");
        self.printed = Some(Instant::now());
    }
}

impl Progress for Lines {
    fn start(&mut self, stage: &str, unit: &str, total: u64, done: u64) {
        stage.clone_into(&mut self.stage);
        unit.clone_into(&mut self.unit);
        self.total = total;
        self.done = done;
        self.print(if done > 0 { "going on from an earlier run" } else { "" });
    }

    fn advance(&mut self, done: u64, message: &str) {
        self.done = done;
        if self.printed.is_none_or(|at| at.elapsed() >= PAUSE) {
            self.print(message);
        }
    }

    fn note(&mut self, line: &str) {
        eprintln!("{line}");
    }

    fn finish(&mut self) {
        self.print("finished");
    }
}
