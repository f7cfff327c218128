//! Ordering and elimination puzzles with option letters.

use crate::dice::Dice;
use crate::people::NAMES;
use crate::work::Work;

const LETTERS: [&str; 6] = ["A", "B", "C", "D", "E", "F"];

/// Something people differ in: the comparatives, and the superlatives, upwards and downwards.
const SCALES: [[&str; 4]; 3] = [
    ["taller", "shorter", "tallest", "shortest"],
    ["older", "younger", "oldest", "youngest"],
    ["faster", "slower", "fastest", "slowest"],
];

/// What somebody did.
const DEEDS: [&str; 5] =
    ["took the key", "ate the cake", "broke the cup", "hid the map", "lost the ball"];

/// How a suspect is cleared.
#[derive(Clone, Copy, Debug)]
enum Alibi {
    Not,
    Impossible,
    RuledOut,
}

impl Alibi {
    /// `It was not Eva`
    fn clears(self, name: &str) -> String {
        match self {
            Self::Not => format!("It was not {name}"),
            Self::Impossible => format!("It could not be {name}"),
            Self::RuledOut => format!("We can rule out {name}"),
        }
    }
}

#[derive(Clone, Debug)]
enum Form {
    /// People in a row.
    Order {
        scale: usize,
        /// From the most to the least.
        people: Vec<usize>,
        /// Neighbours compared: the place of the first, and whether it is told the other way round.
        told: Vec<(usize, bool)>,
        /// The place asked for.
        asked: usize,
    },
    /// One of several did it.
    Suspects {
        deed: usize,
        people: Vec<usize>,
        /// Who is cleared, by place in `people`, and how.
        cleared: Vec<(usize, Alibi)>,
        /// The one who is not.
        guilty: usize,
    },
}

/// A puzzle.
#[derive(Clone, Debug)]
pub(crate) struct Puzzle {
    form: Form,
    /// Place in `people` behind each option letter.
    options: Vec<usize>,
}

impl Puzzle {
    /// Three people in a row for an easy puzzle, five for a hard one; three to six suspects.
    pub(crate) fn generate(difficulty: u8, dice: &mut Dice) -> Self {
        let form = if dice.chance(0.5) {
            Self::order([3, 3, 4, 4, 5][usize::from(difficulty.min(4))], dice)
        } else {
            Self::suspects([3, 3, 4, 5, 6][usize::from(difficulty.min(4))], dice)
        };
        let count = match &form {
            Form::Order { people, .. } | Form::Suspects { people, .. } => people.len(),
        };
        Self { form, options: dice.order(count) }
    }

    fn order(count: usize, dice: &mut Dice) -> Form {
        let people = dice.order(NAMES.len()).into_iter().take(count).collect();
        let told = dice.order(count - 1).into_iter().map(|place| (place, dice.chance(0.5)));
        let told = told.collect();
        let asked = dice.pick([0, 1, count - 1]);
        Form::Order { scale: dice.below(SCALES.len()), people, told, asked }
    }

    fn suspects(count: usize, dice: &mut Dice) -> Form {
        let people = dice.order(NAMES.len()).into_iter().take(count).collect();
        let order = dice.order(count);
        let alibis = [Alibi::Not, Alibi::Impossible, Alibi::RuledOut];
        let cleared = order[1..].iter().map(|&place| (place, dice.pick(alibis))).collect();
        Form::Suspects { deed: dice.below(DEEDS.len()), people, cleared, guilty: order[0] }
    }

    fn people(&self) -> &[usize] {
        match &self.form {
            Form::Order { people, .. } | Form::Suspects { people, .. } => people,
        }
    }

    fn name(&self, place: usize) -> &'static str {
        NAMES[self.people()[place]]
    }

    fn letter(&self, place: usize) -> &'static str {
        let option = self.options.iter().position(|&p| p == place).unwrap_or_default();
        LETTERS[option]
    }

    /// `Eva (B)`: a name with its option, so that the answer is at hand when the name is found.
    fn option(&self, place: usize) -> String {
        format!("{} ({})", self.name(place), self.letter(place))
    }

    /// `second tallest`, without the article.
    fn asked_place(words: &[&'static str; 4], count: usize, asked: usize) -> String {
        match asked {
            0 => words[2].to_owned(),
            last if last + 1 == count => words[3].to_owned(),
            _ => format!("second {}", words[2]),
        }
    }

    pub(crate) fn question(&self) -> String {
        let text = match &self.form {
            Form::Order { scale, people, told, asked } => {
                let words = &SCALES[*scale];
                let mut text = "We know this: ".to_owned();
                for &(place, inverse) in told {
                    let (more, less) = (self.name(place), self.name(place + 1));
                    text.push_str(&match inverse {
                        false => format!("{more} is {} than {less}. ", words[0]),
                        true => format!("{less} is {} than {more}. ", words[1]),
                    });
                }
                text + &format!("Who is the {}?", Self::asked_place(words, people.len(), *asked))
            }
            Form::Suspects { deed, cleared, .. } => {
                let mut text = format!("One of them {}.", DEEDS[*deed]);
                for &(place, alibi) in cleared {
                    text.push_str(&format!(" {}.", alibi.clears(self.name(place))));
                }
                text + &format!(" Who {}?", DEEDS[*deed])
            }
        };
        let options = self.options.iter().zip(LETTERS);
        let options: Vec<String> =
            options.map(|(&place, letter)| format!("{} ({letter})", self.name(place))).collect();
        format!("{text} Options: {}.", options.join(", "))
    }

    /// What the puzzle is about: here the names are part of it.
    pub(crate) fn essence(&self) -> String {
        format!("logic {:?} {:?}", self.form, self.options)
    }

    pub(crate) fn solve(&self, work: &mut Work) -> String {
        match &self.form {
            Form::Order { scale, people, told, asked } => {
                self.solve_order(work, &SCALES[*scale], people.len(), told, *asked)
            }
            Form::Suspects { cleared, guilty, .. } => self.solve_suspects(work, cleared, *guilty),
        }
    }

    /// Clues in one form, then from the top down.
    fn solve_order(
        &self,
        work: &mut Work,
        words: &[&'static str; 4],
        count: usize,
        told: &[(usize, bool)],
        asked: usize,
    ) -> String {
        for &(place, _) in told {
            let (more, less) = (self.name(place), self.name(place + 1));
            work.say(format!("So {more} is above {less}."));
        }
        let first = self.name(0);
        work.choose(first, None, |name| {
            let brief = format!("{} is first", self.option(0));
            (format!("Nobody is above {name}, so {brief}."), brief)
        });
        for place in 1..count {
            let before = self.name(place - 1);
            work.choose(self.name(place), None, |name| {
                let brief = format!("{} is next", self.option(place));
                (format!("Then {before} is above {name}, so {brief}."), brief)
            });
        }
        // Clues told the other way round at both ends confuse a careless thinker.
        let ends = [told.first(), told.last()];
        let confusing = asked > 0 && ends.iter().flatten().all(|(_, inverse)| *inverse);
        let wrong = if asked + 1 == count { asked - 1 } else { asked + 1 };
        let what = format!("The {} is", Self::asked_place(words, count, asked));
        self.conclude(work, &what, asked, confusing.then_some(wrong))
    }

    /// Clue by clue, then option by option.
    fn solve_suspects(&self, work: &mut Work, cleared: &[(usize, Alibi)], guilty: usize) -> String {
        for &(place, alibi) in cleared {
            work.say(format!("{}, so no {}.", alibi.clears(self.name(place)), self.option(place)));
        }
        work.say("We look at each option.".to_owned());
        for &place in &self.options {
            let verdict = if place == guilty { "left" } else { "out" };
            work.choose(verdict, None, |verdict| {
                let brief = format!("{} is {verdict}", self.option(place));
                (format!("Option {brief}."), brief)
            });
        }
        // The suspect that was cleared last, in passing.
        let confusing = matches!(cleared.last(), Some((_, Alibi::RuledOut)))
            && matches!(cleared.first(), Some((_, Alibi::Not)));
        let wrong = cleared.last().map(|(place, _)| *place).filter(|_| confusing);
        self.conclude(work, "It was", guilty, wrong)
    }

    fn conclude(&self, work: &mut Work, what: &str, at: usize, wrong: Option<usize>) -> String {
        let right = self.name(at);
        let wrong_name = wrong.map(|place| self.name(place));
        let is_right = work.choose(right, wrong_name, |name| {
            let found = if name == right { at } else { wrong.unwrap_or(at) };
            let says = format!("{what} {name} ({})", self.letter(found));
            (format!("{says}."), says)
        });
        self.letter(if is_right { at } else { wrong.unwrap_or(at) }).to_owned()
    }

    pub(crate) fn doubt(&self) -> usize {
        // The first two options.
        let person = |option: usize| self.people()[self.options[option]];
        person(0) % 5 + person(1) % 3
    }
}
