//! The help of every command, whole.

use crate::run::{failure, stdout};

/// All commands; the empty one is the program itself.
const COMMANDS: [&str; 15] = [
    "",
    "generate",
    "collect",
    "label",
    "train",
    "report",
    "serve",
    "compare",
    "eval",
    "calibrate",
    "inspect",
    "bench",
    "problems",
    "pretrain",
    "demo",
];

#[test]
fn help_of_every_command() {
    for command in COMMANDS {
        let args: Vec<&str> = [command, "--help"].into_iter().filter(|a| !a.is_empty()).collect();
        let name = if command.is_empty() { "specexit" } else { command };
        insta::assert_snapshot!(name, stdout(&args));
    }
}

#[test]
fn version() {
    assert_eq!(stdout(&["--version"]), concat!("specexit ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn wrong_usage_is_one_sentence() {
    for (args, sentence) in [
        (&[][..], "no command is given; see `specexit --help`"),
        (&["swim"], "unrecognized subcommand 'swim'; see `--help`"),
        (
            &["generate", "Hi"],
            "the following required arguments were not provided: --model <MODEL>; see `--help`",
        ),
        (
            &["generate", "--model", "m", "--confidence", "high", "Hi"],
            "invalid value 'high' for '--confidence <X>': expected a number or off; see `--help`",
        ),
        (
            &["generate", "--model", "m", "--kv-cache", "int4", "Hi"],
            "invalid value 'int4' for '--kv-cache <NUMBERS>': unknown numbers of a cache \"int4\" (one of \
             f32, bf16, int8); see `--help`",
        ),
        (
            &["label", "--model", "m", "--traces", "t", "--out", "o", "--confidence-kind", "C9"],
            "invalid value 'C9' for '--confidence-kind <KIND>': unknown variant `C9`, expected one \
             of `C1`, `C2`, `C3`; see `--help`",
        ),
        (
            &["train", "--model", "m", "--labels", "l", "--out", "o", "--held-out", "2"],
            "held_out = 2; it must be from 0 to below 1",
        ),
        (
            &[
                "train",
                "--model",
                "m",
                "--labels",
                "l",
                "--out",
                "o",
                "--signals-only",
                "h",
                "--lr",
                "3e-4",
            ],
            "the argument '--signals-only <HEAD>' cannot be used with '--lr <X>'; see `--help`",
        ),
        (
            &[
                "train",
                "--model",
                "m",
                "--labels",
                "l",
                "--out",
                "o",
                "--signals-only",
                "h",
                "--loss-weights",
                "w1",
            ],
            "loss_weights w1 needs a token loss beside the signals', which neither signals_only nor \
             probe = draft has; use w2",
        ),
        (
            &["generate", "--model", "reference", "--head", "reference", "--method", "plain", "Hi"],
            "--head does not apply to method plain",
        ),
    ] {
        assert_eq!(failure(args), (2, sentence.to_owned()), "{args:?}");
    }
}
