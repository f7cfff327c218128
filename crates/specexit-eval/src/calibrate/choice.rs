//! The choice of a setting on two parts of the calibration questions.

use std::ops::Range;

use super::demand::Demand;
use crate::error::{EvalError, Result};
use crate::replay::Outcome;

/// Share of the questions that test settings.
pub(super) const TESTING: f64 = 0.75;
/// Multiples of the risk at which paths are compared: losses are too few for one alone.
const ALLOWANCES: [f64; 4] = [0.5, 1.0, 1.5, 2.0];

/// What every setting makes of every question.
pub struct Outcomes {
    /// Where each path of the grid ends among the settings.
    ends: Vec<usize>,
    /// `[settings][questions]`.
    settings: Vec<Vec<Seen>>,
    /// Whether full thinking is right, per question.
    right: Vec<bool>,
    /// Thinking tokens of full thinking.
    full: Vec<usize>,
}

#[derive(Clone, Copy)]
struct Seen {
    wrong: bool,
    tokens: usize,
}

/// Which questions choose a path, and which test its settings: indices of questions.
#[derive(Clone, Debug)]
pub struct Part {
    /// Choose.
    pub choose: Vec<usize>,
    /// Test.
    pub test: Vec<usize>,
}

/// The setting that was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Index of the setting in the grid, paths one after another; `None`: not even the most careful one
    /// could be shown to be safe, so no thought is ended early.
    pub setting: Option<usize>,
    /// Losses among the questions that tested it.
    pub lost: usize,
    /// Those questions that full thinking answers right.
    pub of: usize,
    /// Upper end of the exact one-sided 1 − δ interval of its risk, or of what the horizon loses.
    pub bound: f64,
    /// Thinking tokens as a share of those of full thinking, on the questions that tested it.
    pub thinking_share: f64,
    /// Settings tested.
    pub tested: usize,
}

impl Outcomes {
    /// From what a table says of all settings: `outcomes` is `[settings][questions]`, `full` says of each
    /// question whether full thinking is right and how long it is.
    #[must_use]
    pub fn new(paths: &[usize], outcomes: &[Vec<Outcome>], full: &[(bool, usize)]) -> Self {
        let seen = |of: &Outcome| Seen { wrong: !of.correct, tokens: of.thinking_tokens };
        let ends = paths.iter().scan(0, |end, length| {
            *end += length;
            Some(*end)
        });
        Self {
            ends: ends.collect(),
            settings: outcomes.iter().map(|row| row.iter().map(seen).collect()).collect(),
            right: full.iter().map(|(right, _)| *right).collect(),
            full: full.iter().map(|(_, tokens)| *tokens).collect(),
        }
    }

    /// Questions.
    #[must_use]
    pub fn questions(&self) -> usize {
        self.right.len()
    }

    /// Share that full thinking answers right.
    fn accuracy(&self) -> f64 {
        let right = self.right.iter().filter(|right| **right).count();
        right as f64 / self.questions().max(1) as f64
    }

    /// Lost and right answers of a setting among `questions`.
    #[must_use]
    pub fn lost(&self, setting: usize, questions: &[usize]) -> (usize, usize) {
        let right = questions.iter().filter(|&&q| self.right[q]);
        let lost = right.clone().filter(|&&q| self.settings[setting][q].wrong).count();
        (lost, right.count())
    }

    /// Thinking tokens of a setting on `questions`, as a share of those of full thinking.
    #[must_use]
    pub fn share(&self, setting: usize, questions: &[usize]) -> f64 {
        let tokens: usize = questions.iter().map(|&q| self.settings[setting][q].tokens).sum();
        let full: usize = questions.iter().map(|&q| self.full[q]).sum();
        tokens as f64 / full.max(1) as f64
    }

    /// The path that saves most on `questions` at about `risk`, from its most careful setting on.
    ///
    /// Along one path losses hardly ever shrink again, so that a test in its order gets as far as the data
    /// allow; a line drawn through all paths would stop at the first setting that only looked good.
    fn best_path(&self, questions: &[usize], risk: f64) -> Range<usize> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let paths = starts.zip(self.ends.iter().copied()).map(|(start, end)| start..end);
        let cost = |path: &Range<usize>| -> f64 {
            ALLOWANCES.iter().map(|a| self.share_within(path.clone(), questions, a * risk)).sum()
        };
        let costs = paths.map(|path| (cost(&path), path));
        costs.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(0..0, |(_, path)| path)
    }

    /// Thinking left by the loosest setting of a path before losses on `questions` pass a share `allowed`.
    fn share_within(&self, path: Range<usize>, questions: &[usize], allowed: f64) -> f64 {
        let within = path.map_while(|setting| {
            let (lost, right) = self.lost(setting, questions);
            (lost as f64 <= allowed * right as f64).then(|| self.share(setting, questions))
        });
        within.fold(1.0, f64::min)
    }
}

/// Chooses the cheapest setting that can be shown to keep what is demanded.
///
/// # Errors
/// Numbers that mean nothing, or too few questions to promise anything.
pub fn choose(outcomes: &Outcomes, part: &Part, demand: Demand) -> Result<Choice> {
    demand.validate()?;
    let of = part.test.iter().filter(|&&q| outcomes.right[q]).count();
    let accuracy = outcomes.accuracy();
    let needed = demand.test(accuracy).right_needed();
    if of < needed {
        return Err(EvalError::Nothing(format!(
            "with {of} right answers to test on, a risk of {} can never be promised with confidence {}: at \
             least {needed} are needed, so give about {} questions, or accept a higher risk",
            demand.risk,
            1.0 - demand.delta,
            demand.questions_needed(accuracy)
        )));
    }
    Ok(cheapest(outcomes, part, demand))
}

/// The same, where too few questions allow no exit.
pub(super) fn cheapest(outcomes: &Outcomes, part: &Part, demand: Demand) -> Choice {
    let test = demand.test(outcomes.accuracy());
    let of = part.test.iter().filter(|&&q| outcomes.right[q]).count();
    let mut choice = Choice {
        setting: None,
        lost: 0,
        of,
        bound: test.bound(0, of),
        thinking_share: 1.0,
        tested: 0,
    };
    for setting in outcomes.best_path(&part.choose, demand.risk) {
        choice.tested += 1;
        let (lost, of) = outcomes.lost(setting, &part.test);
        if !test.passes(lost, of) {
            break;
        }
        let share = outcomes.share(setting, &part.test);
        if share <= choice.thinking_share {
            let bound = test.bound(lost, of);
            choice =
                Choice { setting: Some(setting), lost, bound, thinking_share: share, ..choice };
        }
    }
    choice
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    fn demand(risk: f64, delta: f64) -> Demand {
        Demand { risk, delta, horizon: None }
    }

    /// A world in which question q is lost once less than a share `need[q]` of its thought is left, and
    /// settings leave 39/40 … 0/40 of it.
    fn world(random: &mut ChaCha8Rng, questions: usize) -> Outcomes {
        let mut share = || f64::from(random.next_u32()) / f64::from(u32::MAX);
        // Needs are low for most, high for few.
        let need: Vec<f64> = (0..questions).map(|_| share().powi(3)).collect();
        let setting = |step: usize| -> Vec<Outcome> {
            let left = (39 - step) as f64 / 40.0;
            let outcome = |need: &f64| Outcome {
                cut: Some(0),
                thinking_tokens: (left * 1000.0) as usize,
                total_tokens: 1000,
                probe_tokens: 0,
                correct: left >= *need,
            };
            need.iter().map(outcome).collect()
        };
        let outcomes: Vec<Vec<Outcome>> = (0..40).map(setting).collect();
        Outcomes::new(&[40], &outcomes, &vec![(true, 1000); questions])
    }

    /// Of a setting that leaves a share `left`: P(need > left) with need = u³.
    fn true_risk(choice: &Choice) -> f64 {
        choice.setting.map_or(0.0, |s| 1.0 - ((39 - s) as f64 / 40.0).cbrt())
    }

    #[test]
    fn the_promise_holds_as_often_as_it_says() {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let (mut broken, mut used, runs) = (0, 0.0, 600);
        for _ in 0..runs {
            let world = world(&mut random, 900);
            let part = Part { choose: (0..300).collect(), test: (300..900).collect() };
            let choice = choose(&world, &part, demand(0.1, 0.1)).unwrap();
            let risk = true_risk(&choice);
            broken += usize::from(risk > 0.1);
            used += risk / f64::from(runs);
        }
        // 10 % allowed: 60 of 600, standard deviation 7.3.
        assert!(broken <= 60 + 22, "{broken} of {runs} promises broken");
        assert!(used > 0.05, "the mean risk is {used}: a choice that never exits would pass too");
    }

    #[test]
    fn a_horizon_loses_no_more_than_promised() {
        let mut random = ChaCha8Rng::seed_from_u64(8);
        let (mut broken, mut long_run, runs) = (0, 0, 600);
        for _ in 0..runs {
            let world = world(&mut random, 1000);
            let part = Part { choose: (0..300).collect(), test: (300..900).collect() };
            let next: Vec<usize> = (900..1000).collect();
            let lost_more = |demand| {
                let setting = choose(&world, &part, demand).unwrap().setting;
                setting.is_some_and(|setting| world.lost(setting, &next).0 > 10)
            };
            broken += usize::from(lost_more(Demand { horizon: Some(100), ..demand(0.1, 0.1) }));
            long_run += usize::from(lost_more(demand(0.1, 0.1)));
        }
        // As above; the demand on the long run does not promise this, and does not hold it.
        assert!(broken <= 60 + 22, "{broken} of {runs} promises broken");
        assert!(broken > 10 && long_run > 100, "{broken} and {long_run} of {runs}");
    }

    #[test]
    fn too_few_questions_promise_nothing() {
        let world = world(&mut ChaCha8Rng::seed_from_u64(1), 300);
        let part = Part { choose: (0..100).collect(), test: (100..300).collect() };
        let error = choose(&world, &part, demand(0.01, 0.05)).unwrap_err().to_string();
        assert!(error.contains("at least 299 are needed, so give about 399 questions"), "{error}");
        assert!(choose(&world, &part, demand(0.0, 0.05)).is_err());
    }

    #[test]
    fn a_world_without_safe_exits_gets_none() {
        let lost = Outcome {
            cut: Some(0),
            thinking_tokens: 1,
            total_tokens: 1,
            probe_tokens: 0,
            correct: false,
        };
        let outcomes = vec![vec![lost; 400]; 40];
        let world = Outcomes::new(&[40], &outcomes, &[(true, 1000); 400]);
        let part = Part { choose: (0..100).collect(), test: (100..400).collect() };
        let choice = choose(&world, &part, demand(0.05, 0.05)).unwrap();
        assert_eq!((choice.setting, choice.thinking_share), (None, 1.0));
    }
}
