//! `demo`: will run the model built into the program, once there is one.

use crate::output::print;

const TEXT: &str = "\
This version has no built-in model yet, so there is nothing to solve problems with out of the box.
On a model that you have (a folder, a .gguf file or a hub id) these commands do the same and more:

  specexit generate --model MODEL \"What is 17 * 23?\"
  specexit collect --model MODEL --questions train.jsonl --out traces.jsonl
  specexit label --model MODEL --traces traces.jsonl --out labels.jsonl
  specexit train --model MODEL --labels labels.jsonl --out run
  specexit compare --model MODEL --head run/head --questions test.jsonl

The first needs nothing but the model; the others make a draft head of it and show what it saves.
";

/// Says what to run instead.
pub(crate) fn demo() -> anyhow::Result<()> {
    Ok(print(TEXT)?)
}
