//! What kills leave of `train`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::fixture::Fixture;
use crate::run::stdout;

/// Files of a run that must not depend on interruptions.
const RESULTS: [&str; 4] =
    ["metrics.jsonl", "report.json", "head/model.safetensors", "head/config.json"];

/// Labels of so many thoughts of the fixture's model.
fn labels(f: &Fixture, thoughts: usize) -> String {
    let (model, questions) = (f.model(), f.questions(thoughts));
    let (traces, labels) = (f.text("traces.jsonl"), f.text("labels.jsonl"));
    let collect = ["collect", "--model", &model, "--questions", &questions, "--out", &traces];
    stdout(&[&collect[..], &["--temperature", "0.3", "--waits", "2"]].concat());
    stdout(&["label", "--model", &model, "--traces", &traces, "--out", &labels]);
    labels
}

fn train(f: &Fixture, labels: &str, epochs: &str, out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_specexit"));
    command
        .args(["train", "--model", &f.model(), "--labels", labels, "--epochs", epochs])
        .args(["--probe-epochs", epochs, "--batch-tokens", "300", "--held-out", "0.2"])
        // A checkpoint after each second step, so that most kills leave one behind.
        .args(["--checkpoint-steps", "2", "--out"])
        .arg(out)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn results(out: &Path) -> Vec<Vec<u8>> {
    RESULTS.map(|name| std::fs::read(out.join(name)).unwrap()).to_vec()
}

/// Kills training so many times at random moments and goes on each time; a run that ends is compared
/// with an unbroken one and begun anew. Says how many kills hit training itself.
fn kill(f: &Fixture, thoughts: usize, epochs: &str, kills: usize, seed: u64) -> usize {
    let labels = labels(f, thoughts);
    let whole = PathBuf::from(f.text("whole"));
    let start = Instant::now();
    assert!(train(f, &labels, epochs, &whole).status().unwrap().success());
    let time = start.elapsed();
    let expected = results(&whole);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut killed, mut hit, mut begun) = (0, 0, 0);
    let mut out = PathBuf::from(f.text("run-0"));
    loop {
        let mut child = train(f, &labels, epochs, &out).spawn().unwrap();
        if killed < kills {
            let share = f64::from(random.next_u32()) / f64::from(u32::MAX);
            std::thread::sleep(time.mul_f64(share).max(Duration::from_millis(1)));
            if child.try_wait().unwrap().is_none() {
                child.kill().unwrap();
                child.wait().unwrap();
                killed += 1;
                hit += usize::from(out.join("last.safetensors").exists());
                continue;
            }
        }
        assert!(child.wait().unwrap().success(), "after {killed} kills");
        assert!(results(&out) == expected, "after {killed} kills");
        if killed == kills {
            return hit;
        }
        begun += 1;
        out = PathBuf::from(f.text(&format!("run-{begun}")));
    }
}

#[test]
fn a_few_kills_change_no_bit_of_a_head() {
    kill(&Fixture::new(), 12, "2", 3, 5);
}

#[test]
#[ignore = "takes minutes: cargo test -p specexit --test cli -- --ignored twenty_kills"]
fn twenty_kills_change_no_bit_of_a_head() {
    let hit = kill(&Fixture::new(), 60, "12", 20, 21);
    assert!(hit >= 10, "only {hit} of 20 kills hit training itself");
}
