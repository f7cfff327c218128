//! Grading answers that are programs.
//!
//! [`program`] finds the code in a model's answer and puts it together with the tests of a
//! HumanEval-style [`Task`]; [`Sandbox::run`] runs the program by Python in a child process that can
//! do no harm, and says how it ended. [`Sandbox::grade`] does both.
//!
//! The child is contained by the kernel's means, through the command line tools of util-linux:
//!
//! | danger | what holds it |
//! |---|---|
//! | endless loop, sleep | wall clock; CPU seconds per process |
//! | fork bomb, children left behind | a limit on processes; a pid namespace, in which all die with the first |
//! | memory | address space per process (all together: times the number of processes) |
//! | output | read as it comes and never kept beyond a tail; too much ends the run |
//! | files | a root of its own: system folders read-only, all else a small file system in memory that vanishes |
//! | network | a network namespace without devices; no Unix socket is within reach |
//! | secrets | empty environment, no file outside the system folders and Python's own, no standard input |
//! | privileges | never uid 0 outside, no capabilities, `no_new_privs`, no nested namespaces |
//!
//! It is no defence against a program that wants to *pass* without solving its task: code and tests
//! share an interpreter, as they do in every grader of this kind.

mod extract;
mod program;
mod read;
mod sandbox;

pub use extract::extract_code;
pub use program::{Task, program};
pub use sandbox::{Grade, Isolation, Limits, Outcome, Sandbox, SandboxError};
