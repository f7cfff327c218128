//! What `pretrain` is to do.

use specexit_train::{PretrainOptions, ReasonerCorpus, Recipe};

use crate::low;

/// A reasoner to train.
pub(crate) struct Pretrain {
    pub(crate) options: PretrainOptions,
    pub(crate) corpus: ReasonerCorpus,
    pub(crate) json: bool,
}

impl Pretrain {
    pub(crate) fn new(args: low::Pretrain) -> anyhow::Result<Self> {
        let recipe = Recipe::open(&args.recipe)?;
        let corpus = ReasonerCorpus::new(&recipe.data)?;
        let options = recipe.options(args.out, &corpus)?;
        Ok(Self { options, corpus, json: args.json })
    }
}
