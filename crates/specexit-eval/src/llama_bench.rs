//! The same measurements by llama.cpp's own `llama-bench`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::error::{EvalError, Result};
use crate::speed::{Speed, SpeedOptions};
use crate::statistics::median;

/// What llama.cpp reached, and ours relative to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VsLlamaCpp {
    /// Commit that the program was built from.
    pub build: String,
    /// Tokens per second of plain decoding, one sequence.
    pub decode_tok_s: f64,
    /// Cost of reading so many rows in units of one decoded row's. llama-bench computes the logits
    /// of the last row only, a verification those of all, so this is llama.cpp's lower bound.
    pub verify_cost: BTreeMap<usize, f64>,
    /// Our tokens per second over theirs.
    pub decode_ratio: f64,
    /// Our seconds for so many rows over theirs.
    pub forward_time_ratio: BTreeMap<usize, f64>,
}

/// Runs `llama-bench` once per repetition, so that it can take turns with our own measurement.
pub struct LlamaBench {
    program: PathBuf,
    args: Vec<String>,
    build: String,
    decode_tok_s: Vec<f64>,
    rows_s: BTreeMap<usize, Vec<f64>>,
}

/// One test of `llama-bench -o json`.
#[derive(Deserialize)]
struct Test {
    build_commit: String,
    n_prompt: usize,
    n_gen: usize,
    samples_ts: Vec<f64>,
}

impl LlamaBench {
    /// Prepares runs on `model` that measure what `options` say.
    #[must_use]
    pub fn new(program: &Path, model: &Path, threads: usize, options: &SpeedOptions) -> Self {
        let rows: Vec<String> = options.rows.iter().map(usize::to_string).collect();
        let args = [
            ("-m", model.display().to_string()),
            ("-t", threads.to_string()),
            ("-p", rows.join(",")),
            ("-n", options.tokens.to_string()),
            ("-d", options.context.to_string()),
            ("-r", REPETITIONS.to_string()),
            ("-ngl", "0".to_owned()),
            ("-o", "json".to_owned()),
        ];
        Self {
            program: program.to_owned(),
            args: args.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect(),
            build: String::new(),
            decode_tok_s: Vec::new(),
            rows_s: BTreeMap::new(),
        }
    }

    /// The command as it is run.
    #[must_use]
    pub fn command(&self) -> String {
        format!("{} {}", self.program.display(), self.args.join(" "))
    }

    /// One run.
    ///
    /// # Errors
    /// A program that cannot be run, fails, or prints something else.
    pub fn repeat(&mut self) -> Result<()> {
        let output = Command::new(&self.program).args(&self.args).output();
        let output = output.map_err(EvalError::io("run", &self.program))?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let last = stderr.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message");
            return Err(self.failed(format!("failed ({}): {last}", output.status)));
        }
        let tests: Vec<Test> = serde_json::from_slice(&output.stdout).map_err(|e| {
            self.failed(format!(
                "printed no llama-bench results: {e}; give the path of llama-bench"
            ))
        })?;
        self.take(tests);
        Ok(())
    }

    fn take(&mut self, tests: Vec<Test>) {
        for test in tests {
            if test.n_gen > 0 {
                self.decode_tok_s.extend(test.samples_ts);
            } else {
                let seconds = test.samples_ts.iter().map(|rate| test.n_prompt as f64 / rate);
                self.rows_s.entry(test.n_prompt).or_default().extend(seconds);
            }
            self.build = test.build_commit;
        }
    }

    /// The medians, beside `ours`.
    #[must_use]
    pub fn result(&self, ours: &Speed) -> VsLlamaCpp {
        let decode_tok_s = median(&self.decode_tok_s);
        let rows_s = self.rows_s.iter().map(|(&rows, times)| (rows, median(times)));
        let rows_s: BTreeMap<usize, f64> = rows_s.collect();
        let ratio =
            |(&rows, theirs): (&usize, &f64)| Some((rows, ours.forward_s.get(&rows)? / theirs));
        VsLlamaCpp {
            build: self.build.clone(),
            decode_tok_s,
            verify_cost: rows_s.iter().map(|(&rows, s)| (rows, s * decode_tok_s)).collect(),
            decode_ratio: ours.decode_tok_s / decode_tok_s,
            forward_time_ratio: rows_s.iter().filter_map(ratio).collect(),
        }
    }

    fn failed(&self, problem: String) -> EvalError {
        EvalError::Program { program: self.program.clone(), problem }
    }
}

/// Timed repetitions inside one run; loading the model costs more than all of them.
const REPETITIONS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn bench(program: &Path) -> LlamaBench {
        LlamaBench::new(program, Path::new("m.gguf"), 2, &SpeedOptions::default())
    }

    #[test]
    fn results_are_read_and_compared() {
        let mut bench = bench(Path::new("llama-bench"));
        assert!(
            bench.command().ends_with("-m m.gguf -t 2 -p 2,4,8 -n 64 -d 128 -r 3 -ngl 0 -o json")
        );
        let tests = r#"[
            {"build_commit": "abc", "n_prompt": 8, "n_gen": 0, "samples_ts": [80.0, 1.0, 90.0]},
            {"build_commit": "abc", "n_prompt": 0, "n_gen": 64, "samples_ts": [50.0]}
        ]"#;
        bench.take(serde_json::from_str(tests).unwrap());
        let ours = Speed {
            decode_tok_s: 40.0,
            forward_s: BTreeMap::from([(1, 0.025), (8, 0.05)]),
            verify_cost: BTreeMap::from([(8, 2.0)]),
            weight_gb_s: 1.0,
        };
        let vs = bench.result(&ours);
        assert_eq!((vs.decode_tok_s, vs.decode_ratio), (50.0, 0.8));
        assert_eq!(vs.verify_cost, BTreeMap::from([(8, 5.0)]));
        assert_eq!(vs.forward_time_ratio, BTreeMap::from([(8, 0.5)]));
    }

    #[test]
    fn a_program_that_is_not_llama_bench_is_refused() {
        let error = bench(Path::new("/nonexistent/llama-bench")).repeat().unwrap_err().to_string();
        assert!(error.starts_with("cannot run /nonexistent/llama-bench"), "{error}");
        let error = bench(Path::new("true")).repeat().unwrap_err().to_string();
        assert!(error.contains("printed no llama-bench results"), "{error}");
        let error = bench(Path::new("false")).repeat().unwrap_err().to_string();
        assert!(error.contains("failed (exit status: 1): no message"), "{error}");
    }
}
