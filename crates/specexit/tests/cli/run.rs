//! Running the program.

use assert_cmd::Command;

/// The program with `args`, in a plain environment.
pub(crate) fn specexit(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_specexit"));
    command.args(args).env_remove("NO_COLOR").env("COLUMNS", "100");
    command
}

/// Stdout of a run that must succeed.
pub(crate) fn stdout(args: &[&str]) -> String {
    let output = specexit(args).assert().success().get_output().clone();
    String::from_utf8(output.stdout).unwrap()
}

/// The JSON that a run prints.
pub(crate) fn json(args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&stdout(args)).unwrap()
}

/// Exit code and the one line on stderr of a run that must fail without printing anything.
pub(crate) fn failure(args: &[&str]) -> (i32, String) {
    let output = specexit(args).assert().failure().get_output().clone();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{args:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    let sentence = stderr.strip_prefix("error: ").and_then(|rest| rest.strip_suffix('\n'));
    let sentence = sentence.unwrap_or_else(|| panic!("not one error line: {stderr:?}"));
    assert!(!sentence.contains('\n'), "several lines: {stderr:?}");
    (output.status.code().unwrap(), sentence.to_owned())
}
