//! What a kill, or a disk that is full, leaves of `collect` and `label`.

use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value;

use crate::fixture::Fixture;
use crate::run::stdout;

/// Questions of a quick test, and of one whose runs last much longer than their start.
const FEW: usize = 24;
const MANY: usize = 150;

/// A command that writes a file, and that file as an unbroken run leaves it.
struct Work {
    command: Vec<String>,
    out: String,
    whole: Vec<u8>,
    /// Of an unbroken run.
    time: Duration,
}

impl Work {
    /// Runs `command` (without its `--out`) once from beginning to end.
    fn new(f: &Fixture, command: &[&str]) -> Self {
        let out = f.text(&format!("{}.jsonl", command[0]));
        let mut command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        command.extend(["--out".to_owned(), out.clone()]);
        let mut work = Self { command, out, whole: Vec::new(), time: Duration::ZERO };
        let start = Instant::now();
        work.finish();
        work.time = start.elapsed();
        work.whole = std::fs::read(&work.out).unwrap();
        work
    }

    fn finish(&self) {
        let words: Vec<&str> = self.command.iter().map(String::as_str).collect();
        stdout(&words);
    }

    fn start(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_specexit"));
        command.args(&self.command).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Keys of the records whose lines are whole; each must be there once.
    fn records(&self) -> usize {
        let text = std::fs::read_to_string(&self.out).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).skip(1);
        let mut keys = HashSet::new();
        for line in whole {
            let record: Value = serde_json::from_str(line).unwrap();
            let key = (record["id"].to_string(), record["sample"].to_string());
            assert!(keys.insert(key), "doubled: {line}");
        }
        keys.len()
    }

    /// Kills the program so many times at random moments, and goes on each time; a file that gets
    /// finished is compared and begun anew. Says how many kills left a part of the records.
    fn kill(&self, kills: usize, seed: u64) -> usize {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let total = self.whole.iter().filter(|&&b| b == b'\n').count() - 1;
        let (mut killed, mut partial, mut before) = (0, 0, 0);
        std::fs::remove_file(&self.out).unwrap();
        while killed < kills {
            let share = f64::from(random.next_u32()) / f64::from(u32::MAX);
            let mut child = self.start().spawn().unwrap();
            std::thread::sleep(self.time.mul_f64(share));
            let ended = child.try_wait().unwrap();
            if let Some(status) = ended {
                assert!(status.success(), "{status}");
                assert!(std::fs::read(&self.out).unwrap() == self.whole, "after {killed} kills");
                std::fs::remove_file(&self.out).unwrap();
                before = 0;
                continue;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            killed += 1;
            let records = self.records();
            assert!(records >= before, "{before} records before, {records} now");
            partial += usize::from(records > before && records < total);
            before = records;
        }
        self.finish();
        assert!(std::fs::read(&self.out).unwrap() == self.whole);
        assert_eq!(self.records(), total);
        partial
    }

    /// Runs under ever larger limits on the size of files: each run ends with one sentence until the
    /// whole fits, and none loses what was there.
    fn run_out_of_room(&self) {
        std::fs::remove_file(&self.out).unwrap();
        let mut before = 0;
        for share in [3, 2] {
            let blocks = self.whole.len() / share / 512;
            let output = Command::new("sh")
                .args(["-c", "trap '' XFSZ; ulimit -f \"$0\"; exec \"$@\"", &blocks.to_string()])
                .arg(env!("CARGO_BIN_EXE_specexit"))
                .args(&self.command)
                .output()
                .unwrap();
            let sentence = String::from_utf8(output.stderr).unwrap();
            let expected = format!("error: cannot write {}: ", self.out);
            let last = sentence.lines().last().unwrap();
            assert!(last.starts_with(&expected) && last.contains("too large"), "{sentence}");
            assert_eq!(output.status.code(), Some(1));
            let records = self.records();
            assert!(records > before, "{before} records before, {records} now");
            before = records;
        }
        self.finish();
        assert!(std::fs::read(&self.out).unwrap() == self.whole);
    }
}

/// Both commands on the fixture's model.
fn works(f: &Fixture, questions: usize) -> [Work; 2] {
    let (model, questions) = (f.model(), f.questions(questions));
    let collect = ["collect", "--model", &model, "--questions", &questions, "--threads", "1"];
    // Warm enough for samples to differ, cold enough for thoughts to end.
    let sampled =
        ["--temperature", "0.3", "--samples", "2", "--waits", "2", "--wait-count", "drawn"];
    let collect = Work::new(f, &[&collect[..], &sampled].concat());
    let traces = f.text("all-traces.jsonl");
    std::fs::copy(&collect.out, &traces).unwrap();
    let label = ["label", "--model", &model, "--traces", &traces, "--threads", "1", "--all-cuts"];
    [collect, Work::new(f, &label)]
}

#[test]
fn a_few_kills_lose_and_double_nothing() {
    let f = Fixture::new();
    for work in works(&f, FEW) {
        work.kill(4, 11);
    }
}

#[test]
#[ignore = "takes minutes: cargo test -p specexit --test cli -- --ignored twenty_kills"]
fn twenty_kills_lose_and_double_nothing() {
    let f = Fixture::new();
    for work in works(&f, MANY) {
        let partial = work.kill(20, 20);
        assert!(partial >= 5, "only {partial} of 20 kills hit the work itself");
    }
}

#[test]
fn a_full_disk_is_told_and_the_work_kept() {
    let f = Fixture::new();
    for work in works(&f, FEW) {
        work.run_out_of_room();
    }
}

#[test]
fn a_device_that_is_always_full_is_told() {
    let f = Fixture::new();
    let (model, questions) = (f.model(), f.questions(1));
    let command = ["collect", "--model", &model, "--questions", &questions, "--out", "/dev/full"];
    let (code, sentence) = crate::run::failure(&command);
    assert_eq!(code, 1);
    assert!(sentence.starts_with("cannot write /dev/full: "), "{sentence}");
}
