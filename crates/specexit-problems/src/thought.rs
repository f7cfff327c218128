//! How a doubtful thinker writes.
//!
//! A first pass, one paragraph a step, in which it may slip; checks, the first of which finds the
//! slip; then more checks than it needs: repetitions, ways back, second attempts, plain doubt. How
//! many follows a heavy-tailed law over problems: the doubt that a problem's surface raises decides, up
//! to a little noise. Were the number drawn for each thought alone, a model decoding greedily would
//! have nothing to predict it from, and would stop always at the same check or never.

use crate::dice::Dice;
use crate::problem::Problem;
use crate::work::{Line, Slip, Work};

/// How thoughts are written.
#[derive(Clone, Debug, PartialEq)]
pub struct ThoughtRules {
    /// Probability of a slip where a careless thinker makes one.
    pub careless: f64,
    /// Probability of a slip that no rule explains.
    pub stray: f64,
    /// Most checks.
    pub most_checks: usize,
    /// Probability that a check is not of the kind that is due.
    pub whim: f64,
}

impl Default for ThoughtRules {
    fn default() -> Self {
        Self { careless: 0.85, stray: 0.03, most_checks: ORDINALS.len() + 1, whim: 0.1 }
    }
}

/// Opening of a thought and usual number of checks, by doubt.
const MOODS: [(&str, usize); 7] = [
    ("Okay, this is easy.", 1),
    ("Okay, let me see.", 2),
    ("Let me think about this.", 3),
    ("Hmm, let me think about this.", 4),
    ("Hmm, I need to think about this carefully.", 5),
    ("This looks hard, I need to be careful here.", 7),
    ("This looks very hard, I need to be very careful here.", 11),
];

const ORDINALS: [&str; 16] = [
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
    "thirteenth",
    "fourteenth",
    "fifteenth",
    "sixteenth",
    "seventeenth",
];

/// A paragraph's end.
const END: &str = "\n\n";

/// What a check does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// Repeats every finding.
    Repeat,
    /// Nothing but doubt.
    Doubt,
    /// Goes from the result back to the beginning.
    Back,
    /// Does everything again.
    Redo,
}

/// The order of the kinds of checks.
const KINDS: [Check; 4] = [Check::Repeat, Check::Doubt, Check::Back, Check::Redo];

pub(crate) fn write(problem: &Problem, rules: &ThoughtRules, dice: &mut Dice) -> String {
    let (work, answer) = problem.solve(None);
    let slipped = slip(&work, rules, dice).and_then(|slip| {
        let (work, wrong) = problem.solve(Some(slip));
        (work.valid && wrong != answer).then_some((slip, work, wrong))
    });
    let (opening, usual) = MOODS[problem.doubt().min(MOODS.len() - 1)];
    let mut checks = match dice.below(10) {
        0 | 1 => usual - 1,
        2 => usual + 1,
        _ => usual,
    };
    checks = checks.min(rules.most_checks);

    let mut text = format!("{opening}{END}");
    let mut done = 0;
    match &slipped {
        None => {
            paragraphs(&mut text, &work.lines);
            text.push_str(&format!("So the answer should be {answer}.{END}"));
        }
        Some((slip, wrong_work, wrong)) => {
            paragraphs(&mut text, &wrong_work.lines);
            // A careless slip mostly feels wrong before it is known what it is; a stray one never.
            text.push_str(&if slip.error.is_none() && dice.chance(0.9) {
                format!("So I get {wrong}, but that looks wrong.{END}")
            } else {
                format!("So the answer should be {wrong}.{END}")
            });
            text.push_str(&format!("{}{END}", found(&work, wrong_work, *slip, &answer)));
            done = 1;
        }
    }
    while done < checks {
        done += 1;
        let mut kind = KINDS[(done - 1) % KINDS.len()];
        if dice.chance(rules.whim) {
            kind = dice.pick(KINDS);
        }
        check(&mut text, kind, &opener(done), &work.lines, &answer);
    }
    text
}

/// Where the thinker slips, if at all.
fn slip(work: &Work, rules: &ThoughtRules, dice: &mut Dice) -> Option<Slip> {
    if let Some(&at) = work.weak.first()
        && dice.chance(rules.careless)
    {
        return Some(Slip { at, error: None });
    }
    if dice.chance(rules.stray) {
        let at = dice.below(work.findings.len());
        return Some(Slip { at, error: Some(dice.pick([-10, -2, -1, 1, 2, 10])) });
    }
    None
}

fn paragraphs(text: &mut String, lines: &[Line]) {
    for line in lines {
        text.push_str(&line.full);
        text.push_str(END);
    }
}

/// How check number `number` begins, from 1.
fn opener(number: usize) -> String {
    match number {
        0 | 1 => "Wait, let me check that.".to_owned(),
        n => {
            let word = if n % 2 == 0 { "Hmm" } else { "But wait" };
            format!(
                "{word}, let me check for the {} time.",
                ORDINALS[(n - 2).min(ORDINALS.len() - 1)]
            )
        }
    }
}

/// The check that finds the slip.
fn found(right: &Work, wrong: &Work, slip: Slip, answer: &str) -> String {
    let mut text = opener(1);
    for (i, &line) in right.findings.iter().enumerate() {
        let brief = right.lines[line].brief.as_deref().unwrap_or_default();
        text.push_str(&format!(" {brief}"));
        if i == slip.at
            && let Some(&line) = wrong.findings.get(i)
        {
            text.push_str(&format!(", not {}. I made a mistake.", wrong.lines[line].result));
        } else {
            text.push('.');
        }
    }
    text + &format!(" So the answer is {answer}.")
}

fn check(text: &mut String, kind: Check, opener: &str, lines: &[Line], answer: &str) {
    let back: Option<Vec<&str>> = lines
        .iter()
        .filter(|line| line.brief.is_some())
        .rev()
        .map(|line| line.back.as_deref())
        .collect();
    text.push_str(opener);
    match (kind, back) {
        (Check::Back, Some(back)) => {
            text.push_str(&format!(" Back from {answer}: {}. That fits.{END}", back.join(", ")));
        }
        (Check::Repeat | Check::Back, _) => {
            for brief in lines.iter().filter_map(|line| line.brief.as_ref()) {
                text.push_str(&format!(" {brief}."));
            }
            text.push_str(&format!(" Yes, it is {answer}.{END}"));
        }
        (Check::Doubt, _) => {
            text.push_str(&format!(" Am I really sure? I think it is {answer}.{END}"));
        }
        (Check::Redo, _) => {
            text.push_str(&format!(" I will do it again.{END}"));
            paragraphs(text, lines);
            text.push_str(&format!("Again I get {answer}.{END}"));
        }
    }
}
