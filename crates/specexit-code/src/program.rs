//! Putting a program together.

use crate::extract::{defines, extract_code, is_definition};

/// A programming task as HumanEval writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Imports, helpers, and the head of the function with its docstring.
    pub prompt: String,
    /// The function to write.
    pub entry_point: String,
    /// Code that defines `check(candidate)`, which raises where the function is wrong.
    pub test: String,
}

/// The whole program that tests the code of an answer; `None` where the answer holds no code.
///
/// Code that defines the function follows what stands before it in the prompt (imports, helpers);
/// other code is taken as the function's body and follows the whole prompt.
#[must_use]
pub fn program(task: &Task, answer: &str) -> Option<String> {
    let code = extract_code(answer, &task.entry_point)?;
    let (before, code) = if defines(&code, &task.entry_point) {
        (preamble(task), code)
    } else {
        (task.prompt.clone(), indented(&code))
    };
    let both = format!("{before}\n{code}");
    // Such imports are allowed at the beginning of a file only.
    let is_future = |line: &&str| line.starts_with("from __future__ import");
    let future: Vec<&str> = both.lines().filter(is_future).collect();
    let rest: Vec<&str> = both.lines().filter(|line| !is_future(line)).collect();
    let (future, rest) = (future.join("\n"), rest.join("\n"));
    Some(format!("{future}\n{rest}\n\n{}\n\ncheck({})\n", task.test, task.entry_point))
}

/// What stands in the prompt before the function.
fn preamble(task: &Task) -> String {
    let lines: Vec<&str> =
        task.prompt.lines().take_while(|line| !is_definition(line, &task.entry_point)).collect();
    lines.join("\n")
}

/// A body at the left margin is moved under its head.
fn indented(body: &str) -> String {
    let first = body.lines().find(|line| !line.trim().is_empty()).unwrap_or("");
    if first.starts_with([' ', '\t']) {
        return body.to_owned();
    }
    let lines: Vec<String> = body
        .lines()
        .map(|line| if line.trim().is_empty() { String::new() } else { format!("    {line}") })
        .collect();
    lines.join("\n")
}
