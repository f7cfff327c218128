//! Problems and where they come from.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use sha2::{Digest, Sha256};
use specexit_answer::{AnswerKind, matches_gold};

use crate::dice::Dice;
use crate::family::Family;
use crate::split::Split;
use crate::thought::{self, ThoughtRules};
use crate::work::{Slip, Work};
use crate::{algebra, code, logic, words};

/// How hard a problem is, from 1 (two or three steps) to 4 (five or more).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Difficulty(u8);

impl Difficulty {
    /// The easiest.
    pub const MIN: Self = Self(1);
    /// The hardest.
    pub const MAX: Self = Self(4);

    /// A difficulty; one outside 1 to 4 becomes the nearest.
    #[must_use]
    pub fn new(level: u8) -> Self {
        Self(level.clamp(Self::MIN.0, Self::MAX.0))
    }

    /// Its number, 1 to 4.
    #[must_use]
    pub fn level(self) -> u8 {
        self.0
    }
}

#[derive(Clone, Debug)]
enum Task {
    Words(words::Story),
    Algebra(algebra::Task),
    Code(code::Program),
    Logic(logic::Puzzle),
}

/// A problem with its exact answer.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Its family.
    pub family: Family,
    /// How hard it is.
    pub difficulty: Difficulty,
    /// The question as put to a model.
    pub question: String,
    /// The right answer: a number, or an option letter.
    pub answer: String,
    /// What sort of answer it has.
    pub kind: AnswerKind,
    task: Task,
}

/// How often a problem is drawn again when it belongs to another split. Each draw hits a split of a
/// tenth with probability 0.1, so running out has a probability below 1e-40.
const DRAWS: usize = 1000;

impl Problem {
    /// The problem of a family, a difficulty, a split and a seed: always the same one.
    #[must_use]
    pub fn generate(family: Family, difficulty: Difficulty, split: Split, seed: u64) -> Self {
        let mut dice = Dice::new(seed, u64::from(difficulty.0) << 8 | family as u64);
        let mut drawn = Self::draw(family, difficulty, &mut dice);
        for _ in 0..DRAWS {
            if drawn.split() == split {
                break;
            }
            drawn = Self::draw(family, difficulty, &mut dice);
        }
        drawn
    }

    fn draw(family: Family, difficulty: Difficulty, dice: &mut Dice) -> Self {
        let level = difficulty.0;
        let task = match family {
            Family::Words => Task::Words(words::Story::generate(level, dice)),
            Family::Algebra => Task::Algebra(algebra::Task::generate(level, dice)),
            Family::Code => Task::Code(code::Program::generate(level, dice)),
            Family::Logic => Task::Logic(logic::Puzzle::generate(level, dice)),
        };
        let kind = if family == Family::Logic { AnswerKind::Option } else { AnswerKind::Number };
        let question = match &task {
            Task::Words(story) => story.question(),
            Task::Algebra(task) => task.question(),
            Task::Code(program) => program.question(),
            Task::Logic(puzzle) => puzzle.question(),
        };
        let mut problem = Self { family, difficulty, question, answer: String::new(), kind, task };
        problem.answer = problem.solve(None).1;
        problem
    }

    /// Works the problem out, with a slip if one is asked for: the work and the answer it leads to.
    pub(crate) fn solve(&self, slip: Option<Slip>) -> (Work, String) {
        let mut work = Work::new(slip);
        let answer = match &self.task {
            Task::Words(story) => story.solve(&mut work),
            Task::Algebra(task) => task.solve(&mut work),
            Task::Code(program) => program.solve(&mut work),
            Task::Logic(puzzle) => puzzle.solve(&mut work),
        };
        (work, answer)
    }

    /// How easily the problem makes a thinker doubt, from 0 to 6: a matter of its surface (names,
    /// letters, small numbers), which a model can learn to recognise.
    pub(crate) fn doubt(&self) -> usize {
        match &self.task {
            Task::Words(story) => story.doubt(),
            Task::Algebra(task) => task.doubt(),
            Task::Code(program) => program.doubt(),
            Task::Logic(puzzle) => puzzle.doubt(),
        }
    }

    /// What the problem is about, without what does not matter (the names in a word problem, say):
    /// problems of one essence are the same problem.
    #[must_use]
    pub fn essence(&self) -> String {
        match &self.task {
            Task::Words(story) => story.essence(),
            Task::Algebra(task) => task.essence(),
            Task::Code(program) => program.essence(),
            Task::Logic(puzzle) => puzzle.essence(),
        }
    }

    /// The split it belongs to.
    #[must_use]
    pub fn split(&self) -> Split {
        Split::of(&self.essence())
    }

    /// A short name: the family and the beginning of the question's hash.
    #[must_use]
    pub fn id(&self) -> String {
        let hash = Sha256::digest(self.question.as_bytes());
        let hex: String = hash[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{hex}", self.family)
    }

    /// Whether an output ends in the right answer.
    #[must_use]
    pub fn is_right(&self, output: &str) -> bool {
        matches_gold(output, &self.answer, self.kind) == Some(true)
    }

    /// The answer as the reference reasoner states it after its thought.
    #[must_use]
    pub fn stated_answer(&self) -> String {
        format!("The answer is {}.", self.answer)
    }

    /// A doubtful thinker's thought about the problem, in paragraphs that each end in a blank line.
    /// The same seed and rules give the same thought.
    #[must_use]
    pub fn thought(&self, rules: &ThoughtRules, seed: u64) -> String {
        // Another stream of choices than that of the problem itself.
        thought::write(self, rules, &mut Dice::new(seed, u64::MAX))
    }
}

/// Distinct problems of a split, families and difficulties in turn; endless as long as the families
/// have further problems, which is thousands.
#[derive(Debug)]
pub struct Problems {
    families: Vec<Family>,
    difficulties: RangeInclusive<u8>,
    split: Split,
    seed: u64,
    next: u64,
    seen: HashSet<String>,
}

/// How many problems in a row may be known before the iterator gives up.
const REPEATS: usize = 10_000;

impl Problems {
    /// Problems of the given families (none means all) and difficulties.
    #[must_use]
    pub fn new(
        families: &[Family],
        difficulties: RangeInclusive<Difficulty>,
        split: Split,
        seed: u64,
    ) -> Self {
        let families = if families.is_empty() { &Family::ALL } else { families };
        Self {
            families: families.to_vec(),
            difficulties: difficulties.start().0..=difficulties.end().0,
            split,
            seed,
            next: 0,
            seen: HashSet::new(),
        }
    }
}

impl Iterator for Problems {
    type Item = Problem;

    fn next(&mut self) -> Option<Problem> {
        let families = self.families.len() as u64;
        let (first, last) = (*self.difficulties.start(), *self.difficulties.end());
        let levels = u64::from(last.checked_sub(first)?) + 1;
        for attempt in 0..REPEATS {
            // A repetition draws again in the same place, so that the turns stay even.
            let n = self.next;
            let family = self.families[(n % families) as usize];
            let level = first + (n / families % levels) as u8;
            let seed = Dice::new(self.seed, n).below(usize::MAX) as u64 ^ attempt as u64;
            let problem = Problem::generate(family, Difficulty::new(level), self.split, seed);
            if self.seen.insert(problem.essence()) {
                self.next += 1;
                return Some(problem);
            }
        }
        None
    }
}
