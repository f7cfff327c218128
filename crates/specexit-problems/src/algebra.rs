//! Linear equations and modular arithmetic.

use crate::dice::Dice;
use crate::work::{Op, Work};

const VARIABLES: [&str; 5] = ["x", "y", "z", "n", "k"];

/// An equation, or a sum to be reduced.
#[derive(Clone, Debug)]
enum Form {
    /// `a x + b = c`, or `a x - b = c`.
    Simple { a: i64, op: Op, b: i64, c: i64 },
    /// `a (x + b) = c`, or with a minus.
    Bracket { a: i64, op: Op, b: i64, c: i64 },
    /// `a (x + b) + c = d`, or with a minus before `c`.
    Nested { a: i64, b: i64, op: Op, c: i64, d: i64 },
    /// `a x + b = c x + d`.
    BothSides { a: i64, b: i64, c: i64, d: i64 },
    /// `(a + b) * c mod m`, with `+ d` where d is not 0.
    Residue { a: i64, b: i64, c: i64, d: i64, m: i64 },
}

/// A task of algebra.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    variable: usize,
    form: Form,
}

impl Task {
    /// A task of the kinds that a difficulty has.
    pub(crate) fn generate(difficulty: u8, dice: &mut Dice) -> Self {
        loop {
            let variable = dice.below(VARIABLES.len());
            let form = match (difficulty, dice.below(2)) {
                (0 | 1, 0) => Self::simple(dice),
                (0 | 1, _) => Self::bracket(dice),
                (2, 0) => Self::residue(dice, false),
                (2, _) => Self::both_sides(dice),
                (3, 0) => Self::residue(dice, false),
                (3, _) => Self::nested(dice),
                (_, 0) => Self::residue(dice, true),
                (_, _) => Self::nested(dice),
            };
            let task = Self { variable, form };
            let mut work = Work::new(None);
            task.solve(&mut work);
            if work.valid {
                return task;
            }
        }
    }

    fn sign(dice: &mut Dice) -> Op {
        dice.pick([Op::Add, Op::Sub])
    }

    fn simple(dice: &mut Dice) -> Form {
        let (a, op, b) = (dice.within(2..=9), Self::sign(dice), dice.within(1..=39));
        let x = dice.within(1..=15);
        Form::Simple { a, op, b, c: op.apply(a * x, b).unwrap_or(-1) }
    }

    fn bracket(dice: &mut Dice) -> Form {
        let (a, op, b) = (dice.within(2..=9), Self::sign(dice), dice.within(1..=12));
        let x = dice.within(1..=15);
        Form::Bracket { a, op, b, c: op.apply(x, b).map_or(-1, |sum| a * sum) }
    }

    fn nested(dice: &mut Dice) -> Form {
        let (a, b, op) = (dice.within(2..=6), dice.within(1..=9), Self::sign(dice));
        let (x, c) = (dice.within(1..=12), dice.within(1..=29));
        Form::Nested { a, b, op, c, d: op.apply(a * (x + b), c).unwrap_or(-1) }
    }

    fn both_sides(dice: &mut Dice) -> Form {
        let (c, b, x) = (dice.within(2..=5), dice.within(1..=29), dice.within(1..=12));
        let a = c + dice.within(1..=4);
        Form::BothSides { a, b, c, d: a * x + b - c * x }
    }

    fn residue(dice: &mut Dice, long: bool) -> Form {
        let m = dice.within(3..=9);
        let d = if long { dice.within(2..=39) } else { 0 };
        Form::Residue {
            a: dice.within(4..=29),
            b: dice.within(4..=29),
            c: dice.within(2..=9),
            d,
            m,
        }
    }

    pub(crate) fn question(&self) -> String {
        let x = VARIABLES[self.variable];
        let equation = match &self.form {
            Form::Simple { a, op, b, c } => format!("{a}{x} {} {b} = {c}", op.sign()),
            Form::Bracket { a, op, b, c } => format!("{a}({x} {} {b}) = {c}", op.sign()),
            Form::Nested { a, b, op, c, d } => format!("{a}({x} + {b}) {} {c} = {d}", op.sign()),
            Form::BothSides { a, b, c, d } => format!("{a}{x} + {b} = {c}{x} + {d}"),
            Form::Residue { a, b, c, d, m } => {
                let sum = match d {
                    0 => format!("({a} + {b}) * {c}"),
                    d => format!("({a} + {b}) * {c} + {d}"),
                };
                return format!("Let {x} = {sum}. What is {x} mod {m}?");
            }
        };
        format!("Solve for {x}: {equation}.")
    }

    /// What the task is about; the variable's name does not matter.
    pub(crate) fn essence(&self) -> String {
        format!("algebra {:?}", self.form)
    }

    pub(crate) fn solve(&self, work: &mut Work) -> String {
        let x = VARIABLES[self.variable];
        let undone =
            |op: &Op| if *op == Op::Add { (Op::Sub, "subtract") } else { (Op::Add, "add") };
        let result = match &self.form {
            Form::Simple { a, op, b, c } => {
                work.say(format!("We need {x} alone."));
                let (undo, word) = undone(op);
                let r = work.calc(&format!("First {word} {b}, so {a}{x} = "), *c, undo, *b, ".");
                work.calc(&format!("Then divide by {a}, so {x} = "), r, Op::Div, *a, ".")
            }
            Form::Bracket { a, op, b, c } => {
                work.say(format!("We need {x} alone."));
                let (undo, word) = undone(op);
                let before = format!("First divide by {a}, so {x} {} {b} = ", op.sign());
                let r = work.calc(&before, *c, Op::Div, *a, ".");
                work.calc(&format!("Then {word} {b}, so {x} = "), r, undo, *b, ".")
            }
            Form::Nested { a, b, op, c, d } => {
                work.say(format!("We need {x} alone."));
                let (undo, word) = undone(op);
                let before = format!("First {word} {c}, so {a}({x} + {b}) = ");
                let r = work.calc(&before, *d, undo, *c, ".");
                let before = format!("Then divide by {a}, so {x} + {b} = ");
                let r = work.calc(&before, r, Op::Div, *a, ".");
                work.calc(&format!("Then subtract {b}, so {x} = "), r, Op::Sub, *b, ".")
            }
            Form::BothSides { a, b, c, d } => {
                work.say(format!("We need {x} on one side."));
                let before = format!("First subtract {c}{x}, the number before {x} is ");
                let left = work.calc(&before, *a, Op::Sub, *c, ".");
                let before = format!("Then subtract {b}, so {left}{x} = ");
                let right = work.calc(&before, *d, Op::Sub, *b, ".");
                work.calc(&format!("Then divide by {left}, so {x} = "), right, Op::Div, left, ".")
            }
            Form::Residue { a, b, c, d, m } => {
                work.say(format!("We can reduce mod {m} after each step."));
                let sum = work.calc("First ", *a, Op::Add, *b, ".");
                let sum = work.calc("Reduce it, ", sum, Op::Mod, *m, ".");
                let product = work.calc("Then ", sum, Op::Mul, *c, ".");
                let mut rest = work.calc("Reduce it, ", product, Op::Mod, *m, ".");
                if *d > 0 {
                    let sum = work.calc("Then ", rest, Op::Add, *d, ".");
                    rest = work.calc("Reduce it, ", sum, Op::Mod, *m, ".");
                }
                rest
            }
        };
        result.to_string()
    }

    pub(crate) fn doubt(&self) -> usize {
        let number = match self.form {
            Form::Simple { a, .. }
            | Form::Bracket { a, .. }
            | Form::Nested { a, .. }
            | Form::BothSides { a, .. } => a,
            Form::Residue { m, .. } => m,
        };
        self.variable + (number % 3) as usize
    }
}
