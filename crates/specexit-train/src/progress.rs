//! How long work tells its caller where it stands.

use indicatif::{ProgressBar, ProgressStyle};

/// Receives the state of long work. All methods do nothing by default.
pub trait Progress {
    /// A stage begins: `total` units are to be done, `done` of them already are (after a resume).
    fn start(&mut self, stage: &str, unit: &str, total: u64, done: u64) {
        let _ = (stage, unit, total, done);
    }

    /// `done` units of the current stage are done; `message` says what is happening now.
    fn advance(&mut self, done: u64, message: &str) {
        let _ = (done, message);
    }

    /// Something worth keeping on the screen.
    fn note(&mut self, line: &str) {
        let _ = line;
    }

    /// The current stage is over.
    fn finish(&mut self) {}

    /// Whether the work should stop at the next safe place, keeping what it has.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Says nothing and never cancels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {}

/// Draws a bar on the terminal; prints nothing where there is none.
#[derive(Debug, Default)]
pub struct Bar {
    bar: Option<ProgressBar>,
}

impl Progress for Bar {
    fn start(&mut self, stage: &str, unit: &str, total: u64, done: u64) {
        self.finish();
        let template = format!(
            "{{prefix:8}} {{wide_bar}} {{human_pos}}/{{human_len}} {unit} · {{per_sec}} · \
             {{elapsed}} + {{eta}} {{msg}}"
        );
        // The template is ours: should indicatif ever refuse it, its default style still works.
        let style = ProgressStyle::with_template(&template)
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(total).with_style(style).with_prefix(stage.to_owned());
        // Work done before the resume must not count into the rate.
        bar.set_position(done);
        bar.reset_eta();
        self.bar = Some(bar);
    }

    fn advance(&mut self, done: u64, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(message.to_owned());
            bar.set_position(done);
        }
    }

    fn note(&mut self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.println(line);
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
    }
}
