//! Problems and thoughts as their users see them.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use specexit_problems::{Difficulty, Family, Problem, Problems, Split, ThoughtRules};

fn all(split: Split, seed: u64) -> Problems {
    Problems::new(&[], Difficulty::MIN..=Difficulty::MAX, split, seed)
}

#[test]
fn splits_never_overlap() {
    let mut seen: HashMap<String, Split> = HashMap::new();
    for split in Split::ALL {
        for seed in 0..3 {
            for problem in all(split, seed).take(1500) {
                assert_eq!(problem.split(), split);
                assert_eq!(*seen.entry(problem.essence()).or_insert(split), split);
            }
        }
    }
}

#[test]
fn a_set_is_even_distinct_and_repeatable() {
    let problems: Vec<Problem> = all(Split::Test, 7).take(800).collect();
    assert_eq!(problems.len(), 800);
    for family in Family::ALL {
        for level in 1..=4 {
            let of =
                problems.iter().filter(|p| p.family == family && p.difficulty.level() == level);
            assert_eq!(of.count(), 50);
        }
    }
    let questions: HashSet<&str> = problems.iter().map(|p| p.question.as_str()).collect();
    assert_eq!(questions.len(), 800);
    for (a, b) in problems.iter().zip(all(Split::Test, 7)) {
        assert_eq!((&a.question, &a.answer), (&b.question, &b.answer));
    }
}

/// The letters of the options, in order.
fn options(question: &str) -> Vec<char> {
    let letter = |word: &str| word.strip_prefix('(')?.split(')').next()?.parse().ok();
    question.split("Options: ").nth(1).unwrap().split(' ').filter_map(letter).collect()
}

#[test]
fn answers_are_numbers_or_options_and_not_always_the_same() {
    for family in Family::ALL {
        let mut answers: HashMap<String, usize> = HashMap::new();
        for problem in
            Problems::new(&[family], Difficulty::MIN..=Difficulty::MAX, Split::Train, 1).take(400)
        {
            if family == Family::Logic {
                let letter: char = problem.answer.parse().unwrap();
                assert!(options(&problem.question).contains(&letter), "{}", problem.question);
            } else {
                assert!(problem.answer.parse::<i64>().is_ok_and(|n| (0..100).contains(&n)));
            }
            *answers.entry(problem.answer).or_default() += 1;
        }
        assert!(answers.values().all(|&count| count < 200), "{family}: {answers:?}");
        assert!(answers.len() >= 4);
    }
}

/// Every `a op b = c` of a text, with whether it holds.
fn sums(text: &str) -> Vec<bool> {
    let words: Vec<&str> =
        text.split([' ', '\n']).map(|w| w.trim_end_matches(['.', ',', '?', ':', ';'])).collect();
    let number = |word: &str| word.parse::<i64>().ok();
    words
        .windows(5)
        .filter_map(|w| {
            let (a, b, c) = (number(w[0])?, number(w[2])?, number(w[4])?);
            let result = match w[1] {
                "+" => a + b,
                "-" => a - b,
                "*" => a * b,
                "/" => a / b,
                "mod" => a % b,
                _ => return None,
            };
            (w[3] == "=").then_some(result == c)
        })
        .collect()
}

#[test]
fn thoughts_slip_now_and_then_and_always_find_it() {
    let problems: Vec<Problem> = all(Split::Train, 3).take(2000).collect();
    let mut slips = 0;
    for (i, problem) in problems.iter().enumerate() {
        let thought = problem.thought(&ThoughtRules::default(), i as u64);
        let wrong = sums(&thought).iter().filter(|right| !**right).count();
        let found = thought.matches("I made a mistake.").count();
        assert!(wrong <= 1 && found <= 1 && wrong <= found, "{thought}");
        assert!(thought.ends_with("\n\n") && thought.contains(&problem.answer));
        slips += found;
        let calm = ThoughtRules { careless: 0.0, stray: 0.0, ..ThoughtRules::default() };
        assert!(sums(&problem.thought(&calm, i as u64)).into_iter().all(|right| right));
    }
    assert!((150..450).contains(&slips), "{slips} of 2000");
}

#[test]
fn the_number_of_checks_has_a_heavy_tail() {
    let count = |problem: &Problem, seed| {
        let thought = problem.thought(&ThoughtRules::default(), seed);
        thought.matches(" let me check ").count()
    };
    let mut counts: Vec<usize> =
        all(Split::Train, 5).take(2000).enumerate().map(|(i, p)| count(&p, i as u64)).collect();
    counts.sort_unstable();
    let mean = counts.iter().sum::<usize>() as f64 / 2000.0;
    assert!((3.5..5.0).contains(&mean), "{mean}");
    assert!(counts[1000] < 5 && counts[1900] >= 8, "{} {}", counts[1000], counts[1900]);
}

#[test]
fn right_outputs_are_recognised() {
    for problem in all(Split::Calibration, 2).take(200) {
        let output = format!("<think>\n1 2 A\n\n</think>\n\n{}", problem.stated_answer());
        assert!(problem.is_right(&output), "{output}");
        let wrong = if problem.answer == "A" || problem.answer == "7" { "B" } else { "A" };
        let wrong = if problem.answer.parse::<u8>().is_ok() { "777" } else { wrong };
        assert!(!problem.is_right(&format!("</think>\n\nThe answer is {wrong}.")));
    }
}

proptest! {
    #[test]
    fn any_seed_gives_a_problem_and_a_thought(seed: u64, family in 0usize..4, level: u8) {
        let family = Family::ALL[family];
        let problem = Problem::generate(family, Difficulty::new(level), Split::Train, seed);
        prop_assert_eq!(problem.split(), Split::Train);
        let rules = ThoughtRules { most_checks: 3, ..ThoughtRules::default() };
        let thought = problem.thought(&rules, seed);
        prop_assert_eq!(&thought, &problem.thought(&rules, seed));
        prop_assert!(thought.matches(" let me check ").count() <= 3 + usize::from(
            thought.contains("mistake")));
    }
}
