//! What `bench` is to do.

use std::path::PathBuf;

use specexit_eval::SpeedOptions;
use specexit_model::ModelSource;

use super::{HeadChoice, ModelChoice};
use crate::failure::usage;
use crate::low;

/// One measurement.
pub(crate) struct Bench {
    pub(crate) model: ModelChoice,
    pub(crate) head: Option<HeadChoice>,
    pub(crate) options: SpeedOptions,
    /// llama-bench and the file that it reads.
    pub(crate) llama_bench: Option<(PathBuf, PathBuf)>,
    pub(crate) json: bool,
}

impl Bench {
    pub(crate) fn new(args: low::Bench) -> anyhow::Result<Self> {
        let model = ModelChoice::new(&args.model)?;
        if args.repetitions == 0 {
            return usage("--repetitions is 0; at least one is needed");
        }
        let llama_bench = match (args.vs_llama_cpp, &model.source) {
            (None, _) => None,
            (Some(program), ModelSource::Gguf(file)) => Some((program, file.clone())),
            (Some(_), _) => return usage("--vs-llama-cpp needs a .gguf file as --model"),
        };
        let head = HeadChoice::new(&args.head, &model)?;
        let options = SpeedOptions { repetitions: args.repetitions, ..SpeedOptions::default() };
        Ok(Self { model, head, options, llama_bench, json: args.json })
    }
}
