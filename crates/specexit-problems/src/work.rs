//! Working a problem out: the lines of a solution, with or without a slip.

/// Results stay in this range: the reference model has no more digits to learn.
const LARGEST: i64 = 99;

/// An operation of arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
}

impl Op {
    /// As it is written between its operands.
    pub(crate) fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "mod",
        }
    }

    /// The result; none where it, or an operand, is not a number from 0 to 99.
    pub(crate) fn apply(self, a: i64, b: i64) -> Option<i64> {
        if ![a, b].iter().all(|number| (0..=LARGEST).contains(number)) {
            return None;
        }
        let result = match self {
            Self::Add => a + b,
            Self::Sub => a - b,
            Self::Mul => a * b,
            Self::Div => (b != 0 && a % b == 0).then(|| a / b)?,
            Self::Mod => (b != 0).then(|| a % b)?,
        };
        (0..=LARGEST).contains(&result).then_some(result)
    }

    /// What a careless thinker gets: a carry or a borrow forgotten, where the result ends in certain
    /// digits. A rule instead of a coin, so that a model learns to slip by itself when it decodes
    /// greedily, not only to imitate slips when it samples.
    fn careless(self, a: i64, b: i64) -> Option<i64> {
        let result = self.apply(a, b)?;
        let wrong = match self {
            Self::Add if a % 10 + b % 10 >= 10 && matches!(result % 10, 1 | 2) => result - 10,
            Self::Sub if a % 10 < b % 10 && matches!(result % 10, 7 | 8) => result + 10,
            _ => return None,
        };
        (0..=LARGEST).contains(&wrong).then_some(wrong)
    }

    /// The operation that leads from the result back to the first operand.
    fn inverse(self) -> Option<Self> {
        match self {
            Self::Add => Some(Self::Sub),
            Self::Sub => Some(Self::Add),
            Self::Mul => Some(Self::Div),
            Self::Div => Some(Self::Mul),
            Self::Mod => None,
        }
    }
}

/// One line of a solution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// As it stands in the first pass.
    pub(crate) full: String,
    /// As a check repeats it; none where there is nothing to check.
    pub(crate) brief: Option<String>,
    /// As a check that goes backwards has it.
    pub(crate) back: Option<String>,
    /// What the line finds.
    pub(crate) result: String,
}

/// A slip of the pen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slip {
    /// Which of the lines that find something it happens in.
    pub(crate) at: usize,
    /// What is added to the result; none for the careless result of the operation.
    pub(crate) error: Option<i64>,
}

/// A solution in the making.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    /// The slip to be made.
    slip: Option<Slip>,
    /// The lines so far.
    pub(crate) lines: Vec<Line>,
    /// Lines that find something, by index, in order.
    pub(crate) findings: Vec<usize>,
    /// The findings in which a careless thinker slips.
    pub(crate) weak: Vec<usize>,
    /// False once something could not be computed.
    pub(crate) valid: bool,
}

impl Work {
    /// Nothing written yet.
    pub(crate) fn new(slip: Option<Slip>) -> Self {
        Self { slip, valid: true, ..Self::default() }
    }

    /// A line that computes nothing.
    pub(crate) fn say(&mut self, full: String) {
        self.lines.push(Line { full, brief: None, back: None, result: String::new() });
    }

    /// A line `{before}a + b = r{after}`; the result, with the slip if it is due here.
    pub(crate) fn calc(&mut self, before: &str, a: i64, op: Op, b: i64, after: &str) -> i64 {
        self.calc_with(before, a, op, b, |_| after.to_owned())
    }

    /// [`Self::calc`] with an end that depends on the result.
    pub(crate) fn calc_with(
        &mut self,
        before: &str,
        a: i64,
        op: Op,
        b: i64,
        after: impl Fn(i64) -> String,
    ) -> i64 {
        let careless = op.careless(a, b);
        if careless.is_some() {
            self.weak.push(self.findings.len());
        }
        let result = match (self.due(), op.apply(a, b)) {
            (None, Some(result)) => Some(result),
            (Some(slip), Some(result)) => match slip.error {
                None => careless,
                Some(error) => {
                    Some(result + error).filter(|r| error != 0 && (0..=LARGEST).contains(r))
                }
            },
            (_, None) => None,
        };
        self.valid &= result.is_some();
        let r = result.unwrap_or_default();
        let sign = op.sign();
        let brief = format!("{a} {sign} {b} = {r}");
        let back = op.inverse().map(|inverse| format!("{r} {} {b} = {a}", inverse.sign()));
        self.findings.push(self.lines.len());
        self.lines.push(Line {
            full: format!("{before}{brief}{}", after(r)),
            brief: Some(brief),
            back,
            result: r.to_string(),
        });
        r
    }

    /// A line that names one of two things: `right`, or `wrong` when a slip is due here. Returns
    /// whether it is the right one. `line` writes the whole line and its repetition in a check.
    pub(crate) fn choose(
        &mut self,
        right: &str,
        wrong: Option<&str>,
        line: impl Fn(&str) -> (String, String),
    ) -> bool {
        let weak = wrong.is_some();
        if weak {
            self.weak.push(self.findings.len());
        }
        let slips = self.due().is_some();
        self.valid &= !slips || weak;
        let chosen = if slips { wrong.unwrap_or(right) } else { right };
        let (full, brief) = line(chosen);
        self.findings.push(self.lines.len());
        self.lines.push(Line { full, brief: Some(brief), back: None, result: chosen.to_owned() });
        chosen == right
    }

    fn due(&self) -> Option<Slip> {
        self.slip.filter(|slip| slip.at == self.findings.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn careless_results_forget_a_carry_or_a_borrow() {
        assert_eq!(Op::Add.careless(14, 27), Some(31));
        assert_eq!(Op::Add.careless(14, 23), None);
        assert_eq!(Op::Add.careless(14, 29), None);
        assert_eq!(Op::Sub.careless(32, 15), Some(27));
        assert_eq!(Op::Sub.careless(38, 21), None);
        assert_eq!(Op::Mul.careless(7, 3), None);
    }

    #[test]
    fn results_outside_the_range_make_a_work_invalid() {
        for (a, op, b) in [
            (60, Op::Add, 40),
            (110, Op::Sub, 40),
            (3, Op::Sub, 4),
            (7, Op::Div, 2),
            (7, Op::Div, 0),
            (1, Op::Mod, 0),
        ] {
            let mut work = Work::new(None);
            work.calc("", a, op, b, "");
            assert!(!work.valid, "{a} {op:?} {b}");
        }
    }

    #[test]
    fn a_slip_is_made_where_it_is_due() {
        let mut work = Work::new(Some(Slip { at: 1, error: None }));
        let first = work.calc("So ", 10, Op::Add, 4, ".");
        let second = work.calc("Then ", first, Op::Add, 27, ".");
        assert_eq!((first, second), (14, 31));
        assert!(work.valid);
        assert_eq!(work.lines[1].full, "Then 14 + 27 = 31.");
        assert_eq!(work.lines[1].back.as_deref(), Some("31 - 27 = 14"));
        assert_eq!(work.weak, [1]);
        let mut work = Work::new(Some(Slip { at: 0, error: Some(-1) }));
        assert_eq!(work.calc("", 5, Op::Mul, 3, ""), 14);
    }
}
