//! Tracing a short program.

use crate::dice::Dice;
use crate::work::{Op, Work};

const VARIABLES: [&str; 5] = ["a", "b", "x", "y", "n"];

/// What is added, subtracted or multiplied.
#[derive(Clone, Copy, Debug)]
enum Operand {
    Number(i64),
    /// The other variable.
    Other,
}

/// A statement about one of two variables.
#[derive(Clone, Copy, Debug)]
enum Statement {
    /// `x = x + 3`
    Set { variable: usize, op: Op, operand: Operand },
    /// `for i in range(3): x = x + 2`
    Loop { times: i64, variable: usize, op: Op, number: i64 },
    /// `if x > 10: x = x - 4`
    If { variable: usize, limit: i64, changed: usize, op: Op, number: i64 },
}

/// A program.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    names: [usize; 2],
    start: [i64; 2],
    statements: Vec<Statement>,
    returned: usize,
}

impl Program {
    /// A program of `difficulty + 1` statements.
    pub(crate) fn generate(difficulty: u8, dice: &mut Dice) -> Self {
        loop {
            let order = dice.order(VARIABLES.len());
            let mut program = Self {
                names: [order[0], order[1]],
                start: [dice.within(1..=20), dice.within(1..=12)],
                statements: Vec::new(),
                returned: 0,
            };
            while program.statements.len() <= usize::from(difficulty) {
                program.statements.push(Self::statement(dice));
            }
            program.returned = dice.below(2);
            let mut work = Work::new(None);
            program.solve(&mut work);
            let steps = usize::from(difficulty) + 1..=usize::from(difficulty) + 3;
            if work.valid && steps.contains(&work.findings.len()) {
                return program;
            }
        }
    }

    fn statement(dice: &mut Dice) -> Statement {
        let variable = dice.below(2);
        match dice.below(8) {
            0..=2 => {
                let op = dice.pick([Op::Add, Op::Add, Op::Sub]);
                Statement::Set { variable, op, operand: Operand::Number(dice.within(1..=29)) }
            }
            3 => {
                let operand = Operand::Number(dice.within(2..=4));
                Statement::Set { variable, op: Op::Mul, operand }
            }
            4 | 5 => {
                let op = dice.pick([Op::Add, Op::Add, Op::Sub]);
                Statement::Set { variable, op, operand: Operand::Other }
            }
            6 => {
                let (times, number) = (dice.within(2..=3), dice.within(2..=9));
                Statement::Loop { times, variable, op: dice.pick([Op::Add, Op::Sub]), number }
            }
            _ => Statement::If {
                variable,
                limit: dice.within(10..=30),
                changed: dice.below(2),
                op: dice.pick([Op::Add, Op::Sub]),
                number: dice.within(1..=19),
            },
        }
    }

    fn name(&self, variable: usize) -> &'static str {
        VARIABLES[self.names[variable]]
    }

    /// `x = x + 3`
    fn assignment(&self, variable: usize, op: Op, operand: Operand) -> String {
        let (x, sign) = (self.name(variable), op.sign());
        match operand {
            Operand::Number(number) => format!("{x} = {x} {sign} {number}"),
            Operand::Other => format!("{x} = {x} {sign} {}", self.name(1 - variable)),
        }
    }

    /// A statement as it stands in the program.
    fn line(&self, statement: &Statement) -> String {
        match *statement {
            Statement::Set { variable, op, operand } => self.assignment(variable, op, operand),
            Statement::Loop { times, variable, op, number } => {
                let body = self.assignment(variable, op, Operand::Number(number));
                format!("for i in range({times}): {body}")
            }
            Statement::If { variable, limit, changed, op, number } => {
                let body = self.assignment(changed, op, Operand::Number(number));
                format!("if {} > {limit}: {body}", self.name(variable))
            }
        }
    }

    /// The program, its lines numbered: a thought says which it is at.
    pub(crate) fn question(&self) -> String {
        let start = (0..2).map(|v| format!("{} = {}", self.name(v), self.start[v]));
        let statements = self.statements.iter().map(|statement| self.line(statement));
        let last = format!("return {}", self.name(self.returned));
        let mut text = "What does this program return?".to_owned();
        for (line, number) in start.chain(statements).chain([last]).zip(1..) {
            text.push_str(&format!("\n {number}: {line}"));
        }
        text
    }

    /// What the program does; the names of its variables do not matter.
    pub(crate) fn essence(&self) -> String {
        format!("code {:?} {:?} {}", self.start, self.statements, self.returned)
    }

    /// Every value is looked up by name before it is used, as one does on paper.
    pub(crate) fn solve(&self, work: &mut Work) -> String {
        let mut now = self.start;
        work.say(self.state(&now));
        // The first two lines give the variables their values.
        for (statement, number) in self.statements.iter().zip(3..) {
            let at = format!("Line {number}: ");
            match *statement {
                Statement::Set { variable, op, operand } => {
                    let before = format!("{at}{}, ", self.line(statement));
                    self.assign(work, &mut now, &before, variable, op, operand);
                }
                Statement::Loop { times, variable, op, number } => {
                    let operand = Operand::Number(number);
                    let line = self.assignment(variable, op, operand);
                    work.say(format!("{at}{times} rounds of {line}."));
                    for round in 1..=times {
                        let before = format!("Round {round}, ");
                        self.assign(work, &mut now, &before, variable, op, operand);
                    }
                }
                Statement::If { variable, limit, changed, op, number } => {
                    let operand = Operand::Number(number);
                    let (x, value) = (self.name(variable), now[variable]);
                    let question = format!("{at}if {x} > {limit}, {x}={value}");
                    if value > limit {
                        let line = self.assignment(changed, op, operand);
                        let before = format!("{question}, that is more, so {line}, ");
                        self.assign(work, &mut now, &before, changed, op, operand);
                    } else {
                        work.say(format!("{question}, that is not more, so no change."));
                    }
                }
            }
        }
        let (x, value) = (self.name(self.returned), now[self.returned]);
        work.say(format!("It returns {x}, and {x}={value}."));
        value.to_string()
    }

    /// Both values, said after every change: the next line looks them up here.
    fn state(&self, now: &[i64; 2]) -> String {
        format!("Now {}={}, {}={}.", self.name(0), now[0], self.name(1), now[1])
    }

    fn assign(
        &self,
        work: &mut Work,
        now: &mut [i64; 2],
        before: &str,
        variable: usize,
        op: Op,
        operand: Operand,
    ) {
        let (x, value) = (self.name(variable), now[variable]);
        let (number, other) = match operand {
            Operand::Number(number) => (number, String::new()),
            Operand::Other => {
                let number = now[1 - variable];
                (number, format!("{}={number}, ", self.name(1 - variable)))
            }
        };
        let before = format!("{before}{x}={value}, {other}");
        let start = *now;
        let state = |result| {
            let mut after = start;
            after[variable] = result;
            self.state(&after)
        };
        now[variable] = work.calc_with(&before, value, op, number, |r| format!(". {}", state(r)));
    }

    pub(crate) fn doubt(&self) -> usize {
        self.names[0] + (self.start[1] % 3) as usize
    }
}
