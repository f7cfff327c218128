//! What the reference reasoner is made of: its tokenizer, its texts, its recipe.

mod corpus;
mod recall;
mod recipe;
mod tokenizer;

pub use corpus::ReasonerCorpus;
pub use recipe::{DataRecipe, RECIPE_FILE, Recipe};
pub use tokenizer::{CHAT_TEMPLATE, EOS, PAD, THINK_END, THINK_START, tokenizer_files};
