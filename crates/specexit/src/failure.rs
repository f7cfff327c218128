//! Errors become one sentence on stderr and an exit code.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// Arguments that cannot be meant as typed.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// A [`UsageError`] as a result.
pub(crate) fn usage<T>(problem: impl Into<String>) -> anyhow::Result<T> {
    Err(UsageError(problem.into()).into())
}

/// Help or the version was asked for: printed as it is, on stdout.
#[derive(Debug)]
pub(crate) struct Help(pub(crate) String);

impl fmt::Display for Help {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Help {}

/// Prints what went wrong: 0 nothing after all, 1 an error, 2 wrong usage.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(Help(text)) = error.downcast_ref() {
        // Nobody is left to tell if stdout is closed.
        let _ = crate::output::print(text);
        return ExitCode::SUCCESS;
    }
    // The reader of a pipe has seen enough (`| head`): that is its right, and no failure.
    let io = error.downcast_ref::<io::Error>();
    if io.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {}", one_line(&error.to_string()));
    if error.is::<UsageError>() { ExitCode::from(2) } else { ExitCode::FAILURE }
}

/// Messages of libraries may span lines; ours is one.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
