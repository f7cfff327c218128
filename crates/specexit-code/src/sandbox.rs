//! Running a program in a child process that can do no harm.

use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process_group};
use tempfile::TempDir;
use thiserror::Error;

use crate::program::{Task, program};
use crate::read::{Kept, drain};

const CONTAIN: &str = include_str!("contain.sh");
const RUNNER: &str = include_str!("runner.py");
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where system programs and libraries lie; shown to the child read-only.
const SYSTEM: [&str; 11] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/nix/store",
    "/gnu/store",
];
/// Folders that may be covered by the child's root, because nothing of Python's lies there.
const MOUNT_POINTS: [&str; 5] = ["/mnt", "/media", "/srv", "/tmp", "/var/tmp"];
/// A user without rights.
const NOBODY: u32 = 65534;
/// Users that systems keep for services that come and go. Processes are counted per user, so every
/// run of a superuser's sandbox is another one.
const TRANSIENT_USERS: std::ops::RangeInclusive<u32> = 61_184..=65_519;
/// Bytes of the standard error that are reported.
const LONGEST_REPORT: usize = 4096;
/// A longer program is not a model's.
const LONGEST_PROGRAM: usize = 1 << 20;
/// What a shell returns for a command that was ended by a signal is this and the signal.
const BY_SIGNAL: i32 = 128;

/// What a program may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From start to end.
    pub wall: Duration,
    /// CPU time per process, in whole seconds.
    pub cpu_seconds: u64,
    /// Address space per process, in bytes.
    pub memory: u64,
    /// Processes and threads at the same time, Python among them.
    pub processes: u64,
    /// A single file, in bytes.
    pub file: u64,
    /// All files together, in bytes.
    pub files: u64,
    /// Standard output and standard error together, in bytes.
    pub output: u64,
}

impl Default for Limits {
    /// Generous for HumanEval: 10 s, 512 MiB, 8 processes, 16 MiB of files, 1 MiB of output.
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(10),
            cpu_seconds: 10,
            memory: 512 << 20,
            processes: 8,
            file: 8 << 20,
            files: 16 << 20,
            output: 1 << 20,
        }
    }
}

/// How a program is kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Namespaces of its own, or it is not run at all.
    #[default]
    Namespaces,
    /// Limits alone: no child processes, but the network and all files of the user who runs it are
    /// within reach. For systems without user namespaces, and programs that are trusted.
    LimitsOnly,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All tests passed.
    Passed,
    /// A test failed, or the program did.
    Failed {
        /// The end of its standard error.
        stderr: String,
    },
    /// The wall clock or the CPU time ran out.
    TimedOut,
    /// It asked for more memory than it may use.
    OutOfMemory,
    /// It wrote more than it may.
    TooMuchOutput,
    /// The answer holds no code.
    NoCode,
    /// The sandbox could not run it; says nothing about the program.
    CannotRun {
        /// Why.
        reason: String,
    },
}

/// A verdict on a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grade {
    /// How it ended.
    pub outcome: Outcome,
    /// How it was kept apart: `LimitsOnly` means that the network was within reach.
    pub isolation: Isolation,
    /// From start to end.
    pub wall: Duration,
}

/// Why there is no sandbox.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// Python does not start.
    #[error("{python} does not run: {reason}; name a Python 3 interpreter")]
    Python {
        /// The interpreter.
        python: String,
        /// What happened.
        reason: String,
    },
    /// A trivial program does not pass.
    #[error("the sandbox does not work here: {reason}")]
    Unusable {
        /// What happened.
        reason: String,
    },
}

/// Runs programs.
#[derive(Debug, Clone)]
pub struct Sandbox {
    python: PathBuf,
    limits: Limits,
    isolation: Isolation,
    mount_point: &'static str,
    /// Paths shown read-only.
    shown: Vec<String>,
}

impl Sandbox {
    /// Finds the interpreter (a path, or a name on the search path) and tries the sandbox with a
    /// program that must pass.
    ///
    /// # Errors
    /// [`SandboxError::Python`] where the interpreter does not start, [`SandboxError::Unusable`]
    /// where the isolation is not permitted here or the limits are too tight for Python itself.
    pub fn new(python: &Path, limits: Limits, isolation: Isolation) -> Result<Self, SandboxError> {
        let no_python =
            |reason: String| SandboxError::Python { python: python.display().to_string(), reason };
        let places = "import os, sys\n\
            names = [sys.executable, sys.prefix, sys.exec_prefix, sys.base_prefix]\n\
            for name in names: print(name); print(os.path.realpath(name))";
        let found = Command::new(python)
            .args(["-I", "-B", "-c", places])
            .stdin(Stdio::null())
            .output()
            .map_err(|e| no_python(e.to_string()))?;
        let lines = String::from_utf8_lossy(&found.stdout).into_owned();
        let mut lines = lines.lines();
        let Some(executable) = lines.next().filter(|path| path.starts_with('/')) else {
            return Err(no_python(tail_text(&found.stderr)));
        };
        let mut shown: Vec<String> = Vec::new();
        let own = lines.skip(1).filter(|path| *path != "/").map(str::to_owned);
        for path in SYSTEM.into_iter().map(str::to_owned).chain(own) {
            let covered = shown.iter().any(|above| Path::new(&path).starts_with(above));
            if !covered && Path::new(&path).exists() {
                shown.push(path);
            }
        }
        let free = |point: &&str| {
            Path::new(point).is_dir()
                && !shown.iter().any(|path| Path::new(path).starts_with(point))
        };
        let mount_point =
            MOUNT_POINTS.into_iter().find(free).ok_or_else(|| SandboxError::Unusable {
                reason: format!("Python lies in each of {}", MOUNT_POINTS.join(", ")),
            })?;
        let sandbox =
            Self { python: PathBuf::from(executable), limits, isolation, mount_point, shown };
        match sandbox.run("assert 1 + 1 == 2\n").outcome {
            Outcome::Passed => Ok(sandbox),
            Outcome::CannotRun { reason } => Err(SandboxError::Unusable { reason }),
            other => Err(SandboxError::Unusable {
                reason: format!("a program that must pass ended with {other:?}"),
            }),
        }
    }

    /// Runs the tests of a task on the code in an answer.
    #[must_use]
    pub fn grade(&self, task: &Task, answer: &str) -> Grade {
        match program(task, answer) {
            Some(program) => self.run(&program),
            None => {
                Grade { outcome: Outcome::NoCode, isolation: self.isolation, wall: Duration::ZERO }
            }
        }
    }

    /// Runs a program; it passes when it comes to its end without an exception.
    #[must_use]
    pub fn run(&self, program: &str) -> Grade {
        let start = Instant::now();
        let outcome = if program.len() > LONGEST_PROGRAM {
            Outcome::CannotRun { reason: "the program is longer than 1 MiB".to_owned() }
        } else {
            let ran = self.try_run(program, start);
            ran.unwrap_or_else(|e| Outcome::CannotRun { reason: e.to_string() })
        };
        Grade { outcome, isolation: self.isolation, wall: start.elapsed() }
    }

    fn try_run(&self, program: &str, start: Instant) -> io::Result<Outcome> {
        // Unguessable, so that no ordinary output is taken for the runner's words.
        let word = format!("{:032x}", rand::random::<u128>());
        let folder = match self.isolation {
            Isolation::Namespaces => None,
            Isolation::LimitsOnly => Some(private_folder()?),
        };
        let mut command = self.command(folder.as_ref(), &word);
        let mut child = command.spawn().map_err(|e| {
            let name = command.get_program().to_string_lossy();
            io::Error::new(
                e.kind(),
                format!("{name} does not start ({e}); is util-linux installed?"),
            )
        })?;
        let ended = self.follow(&mut child, program, start);
        let status = child.wait()?;
        Ok(self.judge(&ended, status, &word, start))
    }

    /// Feeds and reads the child until it ends or must be ended.
    fn follow(&self, child: &mut Child, program: &str, start: Instant) -> Ended {
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (too_much, events) = mpsc::channel();
        let total = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // A child that ends early does not read on, which its outcome shows.
                stdin.map(|mut stdin| stdin.write_all(program.as_bytes()))
            });
            let most = self.limits.output;
            let (total, too_much_too) = (&total, too_much.clone());
            let stdout = scope.spawn(move || {
                stdout.map(|stream| drain(stream, total, most, LONGEST_REPORT, &too_much))
            });
            let stderr = scope.spawn(move || {
                stderr.map(|stream| drain(stream, total, most, LONGEST_REPORT, &too_much_too))
            });
            let left = self.limits.wall.saturating_sub(start.elapsed());
            let cause = match events.recv_timeout(left) {
                Ok(()) => Some(Outcome::TooMuchOutput),
                Err(RecvTimeoutError::Timeout) => Some(Outcome::TimedOut),
                // Both streams are closed: the child has ended.
                Err(RecvTimeoutError::Disconnected) => None,
            };
            end_group(child);
            let kept = |thread: std::thread::ScopedJoinHandle<'_, Option<Kept>>| {
                thread.join().ok().flatten().unwrap_or_default()
            };
            Ended { cause, stdout: kept(stdout), stderr: kept(stderr) }
        })
    }

    fn judge(&self, ended: &Ended, status: ExitStatus, word: &str, start: Instant) -> Outcome {
        let stderr = tail_text(&ended.stderr.tail);
        if let Some(cause) = &ended.cause {
            return cause.clone();
        }
        let stdout = String::from_utf8_lossy(&ended.stdout.tail);
        if !String::from_utf8_lossy(&ended.stdout.head).starts_with(&format!("{word} begins")) {
            let reason = if stderr.is_empty() { status.to_string() } else { stderr };
            return Outcome::CannotRun { reason };
        }
        if status.success() && stdout.ends_with(&format!("{word} passed\n")) {
            return Outcome::Passed;
        }
        let signal = status.signal().or_else(|| status.code().map(|code| code - BY_SIGNAL));
        let is = |wanted: Signal| signal == Some(wanted.as_raw());
        let out_of_time = start.elapsed() >= Duration::from_secs(self.limits.cpu_seconds);
        if is(Signal::XCPU) || is(Signal::KILL) && out_of_time {
            return Outcome::TimedOut;
        }
        // Nobody but the kernel's memory killer sends this in time.
        if is(Signal::KILL) || stdout.contains(&format!("{word} memory\n")) {
            return Outcome::OutOfMemory;
        }
        let stderr = match signal {
            Some(signal @ 1..=64) => {
                format!("{stderr}\nended by signal {signal}").trim_start().to_owned()
            }
            _ => stderr,
        };
        Outcome::Failed { stderr }
    }

    fn command(&self, folder: Option<&TempDir>, word: &str) -> Command {
        let limits = &self.limits;
        let processes = match self.isolation {
            // The first shell counts, and `unshare` where it runs as the same user.
            Isolation::Namespaces => {
                limits.processes.saturating_add(if geteuid().is_root() { 1 } else { 2 })
            }
            // Counted over all processes of the user, so any other number would mean nothing.
            Isolation::LimitsOnly => 1,
        };
        let set_limits = [
            format!("--as={}", limits.memory),
            format!("--cpu={}:{}", limits.cpu_seconds, limits.cpu_seconds.saturating_add(1)),
            format!("--nproc={processes}"),
            format!("--fsize={}", limits.file),
            "--nofile=64".to_owned(),
            "--core=0".to_owned(),
        ];
        // Limits on processes do not hold for a superuser.
        let identity = match (geteuid().is_root(), self.isolation) {
            (false, _) => String::new(),
            (true, Isolation::Namespaces) => as_user(rand::random_range(TRANSIENT_USERS)),
            (true, Isolation::LimitsOnly) => as_user(NOBODY),
        };
        // The child dies with the thread that started it.
        let mut command = Command::new("setpriv");
        match self.isolation {
            Isolation::Namespaces => {
                command.args(["--no-new-privs", "--pdeathsig=KILL", "--", "unshare"]);
                if !geteuid().is_root() {
                    command.args(["--user", "--map-root-user"]);
                }
                command.args(["--mount", "--pid", "--net", "--ipc", "--uts", "--fork"]);
                command.args(["--kill-child", "--", "sh", "-c", CONTAIN, "contain"]);
                command.args([self.mount_point, &limits.files.to_string(), &identity]);
                command.args(&self.shown).arg("--").args(&set_limits).arg("--");
            }
            Isolation::LimitsOnly => {
                command.args(identity.split_whitespace());
                command.args(["--no-new-privs", "--pdeathsig=KILL", "--", "prlimit"]);
                command.args(&set_limits).arg("--");
            }
        }
        command.arg(&self.python).args(["-B", "-s", "-c", RUNNER, word]);
        let home = folder.map_or(Path::new("/work"), TempDir::path);
        command.current_dir(folder.map_or(Path::new("/"), TempDir::path));
        command.env_clear().env("PATH", SEARCH_PATH).env("LANG", "C.UTF-8");
        // Sets of strings have the same order in every run.
        command.env("HOME", home).env("TMPDIR", home).env("PYTHONHASHSEED", "0");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0);
        command
    }
}

/// What was read of a child, and why it was ended, if it was.
struct Ended {
    cause: Option<Outcome>,
    stdout: Kept,
    stderr: Kept,
}

/// Ends all processes of the child's group. In a pid namespace the first process is among them, and
/// with it the kernel ends all others, whatever group they moved to. The child was not waited for
/// yet, so its number cannot belong to another process.
fn end_group(child: &Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(group) = group {
        // The only failure is that all of them have ended.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Options of `setpriv`.
fn as_user(id: u32) -> String {
    format!("--reuid={id} --regid={id} --clear-groups")
}

/// A folder that is removed when dropped, and that the child may write.
fn private_folder() -> io::Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("specexit-code-").tempdir()?;
    if geteuid().is_root() {
        std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY))?;
    }
    Ok(folder)
}

fn tail_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}
