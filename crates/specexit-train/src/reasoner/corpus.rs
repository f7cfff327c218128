//! Training texts of the reference reasoner.

use std::path::Path;

use specexit_model::Tokenizer;
use specexit_model::chat_template::{ChatTemplate, Message, RenderOptions};
use specexit_model::hash::{Hasher, sha256_hex};
use specexit_problems::{Difficulty, Problem, Problems, Split, ThoughtRules};

use super::recall;
use super::recipe::DataRecipe;
use super::tokenizer::{CHAT_TEMPLATE, EOS, FIRST_WORD, THINK_END, tokenizer_files};
use crate::error::{Result, TrainError};
use crate::pretrain::{Corpus, Sample};
use crate::provenance::derived_seed;

/// Texts for the held-out loss.
const HELD_OUT: usize = 96;

/// Problems of the training split with thoughts about them, drawn without end.
#[derive(Debug)]
pub struct ReasonerCorpus {
    recipe: DataRecipe,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    files: Vec<(String, Vec<u8>)>,
    /// Ids of everything but the markers, for exercises.
    words: Vec<u32>,
}

impl ReasonerCorpus {
    /// Texts as a recipe wants them.
    ///
    /// # Errors
    /// When tokenizer or template are refused by the libraries that read them.
    pub fn new(recipe: &DataRecipe) -> Result<Self> {
        let files = tokenizer_files();
        let tokenizer = Tokenizer::from_json(&files[0].1, Path::new(&files[0].0))?;
        let template = ChatTemplate::from_source(
            Path::new("chat_template.jinja"),
            CHAT_TEMPLATE.to_owned(),
            serde_json::Map::new(),
        )?;
        let words = (FIRST_WORD..tokenizer.vocab_size() as u32).collect();
        Ok(Self { recipe: recipe.clone(), tokenizer, template, files, words })
    }

    /// The tokenizer's files: name and contents.
    #[must_use]
    pub fn files(&self) -> &[(String, Vec<u8>)] {
        &self.files
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// One more than the largest token id.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.vocab_size()
    }

    /// The id of one of the tokenizer's markers.
    ///
    /// # Errors
    /// When the tokenizer lacks it.
    pub fn marker(&self, token: &str) -> Result<u32> {
        let id = self.tokenizer.token_id(token);
        id.ok_or_else(|| TrainError::NoData(format!("the tokenizer has no token {token}")))
    }

    /// Prompt, thought and answer as the model is to write them.
    fn write(&self, problem: &Problem, rules: &ThoughtRules, seed: u64) -> Result<Sample> {
        let message = Message::new("user", problem.question.as_str());
        let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
        let prompt = self.template.render(&[message], &options)?;
        let mut tokens = self.tokenizer.encode(&prompt, false)?;
        let loss_from = tokens.len();
        let thought = problem.thought(rules, seed);
        let output = format!("{thought}{THINK_END}\n\n{}{EOS}", problem.stated_answer());
        tokens.extend(self.tokenizer.encode(&output, false)?);
        Ok(Sample { tokens, loss_from })
    }

    /// Text number `index` when the share `progress` of the run is done.
    fn draw(&self, index: u64, progress: f64) -> Result<Sample> {
        let r = &self.recipe;
        let seed = derived_seed(r.seed, &["text", &index.to_string()]);
        if progress < r.recall_until {
            let gone = progress / r.recall_until;
            let draw = derived_seed(r.seed, &["recall", &index.to_string()]);
            // They are shorter than thoughts: counted in tokens they get fewer sooner.
            if draw as f64 >= gone * gone * u64::MAX as f64 {
                return Ok(recall::exercise(&self.words, gone, draw));
            }
        }
        let (family, round) = r.turn(index);
        let levels = f64::from(Difficulty::MAX.level());
        let hardest =
            (1.0 + (levels * progress / r.difficulty_ramp.max(1e-9)).min(levels - 1.0)) as u64;
        let level = 1 + round % hardest;
        let difficulty = Difficulty::new(level as u8);
        let problem = Problem::generate(family, difficulty, Split::Train, seed);
        let mut rules = ThoughtRules { careless: r.careless, stray: r.stray, ..Default::default() };
        if progress < r.few_checks_until {
            rules.most_checks = r.few_checks;
        }
        self.write(&problem, &rules, seed)
    }
}

/// The libraries refuse no text of ours. Should they ever, an empty one stands in its place, which
/// `pretrain` refuses by its number.
fn or_empty(sample: Result<Sample>) -> Sample {
    sample.unwrap_or(Sample { tokens: Vec::new(), loss_from: 0 })
}

impl Corpus for ReasonerCorpus {
    fn sample(&self, index: u64, progress: f64) -> Sample {
        or_empty(self.draw(index, progress))
    }

    fn held_out(&self) -> Vec<Sample> {
        let levels = Difficulty::MIN..=Difficulty::MAX;
        let problems = Problems::new(&[], levels, Split::Calibration, self.recipe.seed);
        let texts = problems.take(HELD_OUT).enumerate();
        texts.map(|(i, p)| or_empty(self.write(&p, &ThoughtRules::default(), i as u64))).collect()
    }

    fn hash(&self) -> String {
        // A few texts of the beginning, the middle and the end stand for the generator's version.
        let mut hasher = Hasher::new();
        for (_, contents) in &self.files {
            hasher.text(&sha256_hex(contents));
        }
        for index in 0..64 {
            let sample = self.sample(index, f64::from(index as u32) / 64.0);
            sample.tokens.iter().for_each(|token| hasher.number(u64::from(*token)));
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus() -> ReasonerCorpus {
        ReasonerCorpus::new(&DataRecipe::default()).unwrap()
    }

    #[test]
    fn a_text_is_prompt_thought_and_answer() {
        let corpus = corpus();
        let sample = corpus.sample(5, 1.0);
        let decode = |ids: &[u32]| corpus.tokenizer.decode(ids, false).unwrap();
        let prompt = decode(&sample.tokens[..sample.loss_from]);
        assert!(prompt.starts_with("<|im_start|>user\n"), "{prompt}");
        assert!(prompt.ends_with("<|im_end|>\n<|im_start|>assistant\n<think>\n"), "{prompt}");
        let output = decode(&sample.tokens[sample.loss_from..]);
        let (thought, answer) = output.split_once("</think>\n\n").unwrap();
        assert!(thought.ends_with("\n\n") && answer.starts_with("The answer is "), "{output}");
        assert!(answer.ends_with(".<|im_end|>"));
    }

    #[test]
    fn texts_get_harder_and_longer() {
        let corpus = corpus();
        let length = |progress| {
            (0..400).map(|i| corpus.sample(i, progress).tokens.len()).sum::<usize>() / 400
        };
        let (early, late) = (length(0.0), length(1.0));
        eprintln!("{early} {late}");
        assert!(2 * early < late, "{early} {late}");
        let longest = (0..4000).map(|i| corpus.sample(i, 1.0).tokens.len()).max();
        assert!(longest.is_some_and(|n| (700..2048).contains(&n)), "{longest:?}");
    }

    #[test]
    fn texts_are_a_function_of_their_number() {
        let (a, b) = (corpus(), corpus());
        assert_eq!(a.sample(77, 0.5), b.sample(77, 0.5));
        assert_ne!(a.sample(77, 0.5), a.sample(81, 0.5));
        assert_eq!(a.hash(), b.hash());
        let other = DataRecipe { seed: 9, ..DataRecipe::default() };
        assert_ne!(a.hash(), ReasonerCorpus::new(&other).unwrap().hash());
        assert_eq!(a.held_out().len(), HELD_OUT);
    }
}
