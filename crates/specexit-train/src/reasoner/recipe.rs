//! What `pretrain` is told by a recipe's folder.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use specexit_problems::Family;

use super::corpus::ReasonerCorpus;
use super::tokenizer::{EOS, PAD};
use crate::error::{Result, TrainError};
use crate::net::decoder::DecoderShape;
use crate::pretrain::PretrainOptions;

/// The file that a recipe's folder holds.
pub const RECIPE_FILE: &str = "pretrain.toml";

/// Rows of the embedding come in multiples of this: kernels take whole vectors.
const VOCABULARY_MULTIPLE: usize = 16;

/// How a reasoner is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Sizes of the model; the vocabulary is the tokenizer's.
    pub model: DecoderShape,
    /// Which texts it sees.
    pub data: DataRecipe,
    /// How it learns.
    pub training: PretrainOptions,
}

/// Which texts a reasoner sees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecipe {
    /// Seed of problems and thoughts.
    pub seed: u64,
    /// Texts of each family in a round: words, algebra, code, logic.
    pub family_turns: [u64; 4],
    /// Share of the run in which there are exercises in looking things up; they begin as all of the
    /// texts and get fewer.
    pub recall_until: f64,
    /// Share of the run over which problems rise to the highest difficulty.
    pub difficulty_ramp: f64,
    /// Share of the run in which thoughts have few checks: first passes are learnt first.
    pub few_checks_until: f64,
    /// Most checks in that share.
    pub few_checks: usize,
    /// Probability of a slip where a careless thinker makes one.
    pub careless: f64,
    /// Probability of a slip that no rule explains.
    pub stray: f64,
}

impl Default for DataRecipe {
    fn default() -> Self {
        Self {
            seed: 1,
            family_turns: [1; 4],
            recall_until: 0.0,
            difficulty_ramp: 0.3,
            few_checks_until: 0.4,
            few_checks: 1,
            careless: 0.85,
            stray: 0.03,
        }
    }
}

impl DataRecipe {
    /// The family of text number `index`, and the number of the round of families it belongs to.
    pub(super) fn turn(&self, index: u64) -> (Family, u64) {
        let round = self.family_turns.iter().sum::<u64>().max(1);
        let mut turn = index % round;
        for (family, turns) in Family::ALL.into_iter().zip(self.family_turns) {
            match turn.checked_sub(turns) {
                Some(left) => turn = left,
                None => return (family, index / round),
            }
        }
        (Family::Words, index / round)
    }
}

impl Recipe {
    /// Reads a recipe: a folder with `pretrain.toml`, or such a file.
    ///
    /// # Errors
    /// When the file is absent, or a field is missing, unknown or of the wrong type.
    pub fn open(path: &Path) -> Result<Self> {
        let file = if path.is_dir() { path.join(RECIPE_FILE) } else { path.to_owned() };
        let text = std::fs::read_to_string(&file).map_err(TrainError::io("read", &file))?;
        toml::from_str(&text).map_err(|e| {
            let place = e.to_string();
            TrainError::bad_file(&file, place.trim_end().to_owned())
        })
    }

    /// The options of a run that writes to `out`.
    ///
    /// # Errors
    /// When the tokenizer lacks a marker.
    pub fn options(&self, out: PathBuf, corpus: &ReasonerCorpus) -> Result<PretrainOptions> {
        let vocab_size = corpus.vocab_size().next_multiple_of(VOCABULARY_MULTIPLE);
        Ok(PretrainOptions {
            out,
            shape: DecoderShape { vocab_size, ..self.model.clone() },
            eos_token_id: vec![corpus.marker(EOS)?],
            pad_token_id: Some(corpus.marker(PAD)?),
            files: corpus.files().to_vec(),
            ..self.training.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/reference")
    }

    #[test]
    fn the_reference_recipe_is_complete() {
        let recipe = Recipe::open(&ours()).unwrap();
        let corpus = ReasonerCorpus::new(&recipe.data).unwrap();
        let options = recipe.options(PathBuf::from("out"), &corpus).unwrap();
        assert!(options.shape.vocab_size >= corpus.vocab_size());
        assert_eq!(options.files.len(), 3);
    }

    #[test]
    fn families_take_their_turns() {
        let recipe = DataRecipe { family_turns: [1, 0, 2, 1], ..DataRecipe::default() };
        let turns: Vec<(Family, u64)> = (0..5).map(|i| recipe.turn(i)).collect();
        let (words, code, logic) = (Family::Words, Family::Code, Family::Logic);
        assert_eq!(turns, [(words, 0), (code, 0), (code, 0), (logic, 0), (words, 1)]);
    }

    #[test]
    fn mistakes_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let text = std::fs::read_to_string(ours().join(RECIPE_FILE)).unwrap();
        let write = |text: &str| std::fs::write(folder.path().join(RECIPE_FILE), text).unwrap();
        write(&text.replace("lr = ", "learning_rate = "));
        let error = Recipe::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("learning_rate") && error.contains(RECIPE_FILE), "{error}");
        write(&text.replace("seed = 1\nproducts", "seed = 1\nout = \"here\"\nproducts"));
        let error = Recipe::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("unknown field `out`"), "{error}");
        assert!(Recipe::open(&folder.path().join("none")).is_err());
    }
}
