//! The same measurements by llama.cpp's own `llama-bench`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::error::{EvalError, Result};
use crate::speed::{Shape, SpeedOptions, paired};
use crate::statistics::{median, quantile};

/// What llama.cpp reached, and our speed over its: above 1 ours is faster. Each repetition is compared with the one
/// that took turns with it, and the ratios' medians are given.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VsLlamaCpp {
    /// Commit that the program was built from.
    pub build: String,
    /// Of plain decoding.
    pub decode: f64,
    /// Quartiles of that ratio over the repetitions: the lower and the upper.
    pub decode_quartiles: [f64; 2],
    /// Of reading a prompt of 512 tokens, if both did.
    pub prefill512: Option<f64>,
    /// Of eight rows of one sequence, if both did.
    pub verify8: Option<f64>,
    /// Of all shapes that both ran. llama-bench computes the logits of the last row only, a verification those of
    /// all, so ours does more there.
    pub ratios: BTreeMap<Shape, f64>,
    /// llama.cpp's own tokens per second.
    pub tok_s: BTreeMap<Shape, f64>,
    /// What was run in each repetition.
    pub commands: Vec<String>,
}

/// Runs `llama-bench` once per repetition, so that it can take turns with our own measurement.
pub struct LlamaBench {
    program: PathBuf,
    runs: Vec<Run>,
    build: String,
    /// Tokens per second, one number a repetition.
    tok_s: BTreeMap<Shape, Vec<f64>>,
}

/// One call: `llama-bench` crosses all lengths with all depths, so that each depth needs its own.
struct Run {
    args: Vec<String>,
    /// What a test over so many tokens is.
    shape: fn(usize) -> Shape,
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
        let run = |lengths: &[usize], generated: usize, depth: usize, shape: fn(usize) -> Shape| {
            let lengths: Vec<String> = lengths.iter().map(usize::to_string).collect();
            let args = [
                ("-m", model.display().to_string()),
                ("-t", threads.to_string()),
                ("-p", lengths.join(",")),
                ("-n", generated.to_string()),
                ("-d", depth.to_string()),
                ("-r", REPETITIONS.to_string()),
                ("-ngl", "0".to_owned()),
                ("-o", "json".to_owned()),
            ];
            let args = args.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
            Run { args: args.collect(), shape }
        };
        let mut runs = vec![run(&options.rows, options.tokens, options.context, Shape::Verify)];
        if !options.prefill.is_empty() {
            runs.push(run(&options.prefill, 0, 0, Shape::Prefill));
        }
        Self { program: program.to_owned(), runs, build: String::new(), tok_s: BTreeMap::new() }
    }

    /// One run of each kind.
    ///
    /// # Errors
    /// A program that cannot be run, fails, or prints something else.
    pub fn repeat(&mut self) -> Result<()> {
        for run in 0..self.runs.len() {
            let Run { args, shape } = &self.runs[run];
            let (tests, shape) = (self.tests(args)?, *shape);
            self.take(tests, shape);
        }
        Ok(())
    }

    fn tests(&self, args: &[String]) -> Result<Vec<Test>> {
        let output = Command::new(&self.program).args(args).output();
        let output = output.map_err(EvalError::io("run", &self.program))?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let last = stderr.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message");
            return Err(self.failed(format!("failed ({}): {last}", output.status)));
        }
        serde_json::from_slice(&output.stdout).map_err(|e| {
            self.failed(format!(
                "printed no llama-bench results: {e}; give the path of llama-bench"
            ))
        })
    }

    fn take(&mut self, tests: Vec<Test>, shape: fn(usize) -> Shape) {
        for test in tests {
            let shape = if test.n_gen > 0 { Shape::Decode } else { shape(test.n_prompt) };
            self.tok_s.entry(shape).or_default().push(median(&test.samples_ts));
            self.build = test.build_commit;
        }
    }

    /// The medians, beside `ours`: our tokens per second of a shape in each repetition.
    #[must_use]
    pub fn result(&self, ours: impl Fn(Shape) -> Vec<f64>) -> VsLlamaCpp {
        let ratios =
            self.tok_s.iter().map(|(&shape, theirs)| (shape, paired(&ours(shape), theirs)));
        let ratios: BTreeMap<Shape, Vec<f64>> =
            ratios.filter(|(_, ratios)| !ratios.is_empty()).collect();
        let decode = ratios.get(&Shape::Decode).map_or(&[][..], Vec::as_slice);
        let decode_quartiles = [quantile(decode, 0.25), quantile(decode, 0.75)];
        let of = |shape: Shape| ratios.get(&shape).map(|ratios| median(ratios));
        VsLlamaCpp {
            build: self.build.clone(),
            decode: median(decode),
            decode_quartiles,
            prefill512: of(Shape::Prefill(512)),
            verify8: of(Shape::Verify(8)),
            ratios: ratios.iter().map(|(&shape, ratios)| (shape, median(ratios))).collect(),
            tok_s: self.tok_s.iter().map(|(&shape, tok_s)| (shape, median(tok_s))).collect(),
            commands: self.commands(),
        }
    }

    /// What is run in each repetition.
    fn commands(&self) -> Vec<String> {
        let program = self.program.display();
        self.runs.iter().map(|run| format!("{program} {}", run.args.join(" "))).collect()
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
    fn rows_are_read_at_the_context_and_prompts_without_one() {
        assert_eq!(
            bench(Path::new("llama-bench")).commands(),
            [
                "llama-bench -m m.gguf -t 2 -p 2,4,8,16 -n 64 -d 128 -r 3 -ngl 0 -o json",
                "llama-bench -m m.gguf -t 2 -p 128,512 -n 0 -d 0 -r 3 -ngl 0 -o json",
            ]
        );
    }

    #[test]
    fn results_are_read_and_compared_repetition_by_repetition() {
        let mut bench = bench(Path::new("llama-bench"));
        for decoded in [64.0, 100.0, 40.0] {
            let tests = format!(
                r#"[
                {{"build_commit": "abc", "n_prompt": 8, "n_gen": 0, "samples_ts": [80.0, 1.0, 90.0]}},
                {{"build_commit": "abc", "n_prompt": 0, "n_gen": 64, "samples_ts": [{decoded}]}}
            ]"#
            );
            bench.take(serde_json::from_str(&tests).unwrap(), Shape::Verify);
        }
        let tests =
            r#"[{"build_commit": "abc", "n_prompt": 512, "n_gen": 0, "samples_ts": [9.0]}]"#;
        bench.take(serde_json::from_str(tests).unwrap(), Shape::Prefill);
        let vs = bench.result(|shape| match shape {
            Shape::Decode => vec![32.0, 75.0, 40.0],
            Shape::Verify(8) => vec![160.0; 3],
            _ => Vec::new(),
        });
        assert_eq!((vs.decode, vs.verify8, vs.prefill512), (0.75, Some(2.0), None));
        assert_eq!(vs.decode_quartiles, [0.625, 0.875]);
        assert_eq!(vs.tok_s[&Shape::Decode], 64.0);
        assert_eq!((vs.tok_s[&Shape::Verify(8)], vs.tok_s[&Shape::Prefill(512)]), (80.0, 9.0));
        assert!(!vs.ratios.contains_key(&Shape::Prefill(512)));
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
