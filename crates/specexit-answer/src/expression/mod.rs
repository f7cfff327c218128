//! The value of an expression in the normal spelling.
//!
//! Rational expressions are compared exactly, others as complex numbers in double precision.
//! Variables get arbitrary but fixed values, so two expressions with variables are taken as equal
//! when they agree at several points.

mod complex;
mod exact;
mod parse;

use complex::Complex;

/// Points at which all variables are positive, as the rules for roots and logarithms assume.
const POSITIVE: usize = 3;
/// All points; at the others some variables are negative.
const POINTS: usize = 5;

/// What a text means.
#[derive(Debug, Clone, PartialEq)]
enum Expr<'a> {
    /// Decimal digits, perhaps with a point.
    Number(&'a str),
    /// `0.1\overline{6}`: what stands before the bar, and what is under it.
    Repeating(&'a str, &'a str),
    Pi,
    E,
    I,
    Variable(&'a str),
    /// The terms with a minus sign are marked.
    Sum(Vec<(bool, Expr<'a>)>),
    /// The factors divided by are marked.
    Product(Vec<(bool, Expr<'a>)>),
    Power(Box<Expr<'a>>, Box<Expr<'a>>),
    /// The index and what is under the root.
    Root(u32, Box<Expr<'a>>),
    Call(Function, Box<Expr<'a>>),
    /// The base and the argument.
    Log(Box<Expr<'a>>, Box<Expr<'a>>),
    Binomial(Box<Expr<'a>>, Box<Expr<'a>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Abs,
    Arccos,
    Arcsin,
    Arctan,
    Ceil,
    Cis,
    Cos,
    Cot,
    Csc,
    /// An angle in degrees.
    Degrees,
    Exp,
    Factorial,
    Floor,
    Ln,
    Log10,
    Sec,
    Sin,
    Tan,
}

impl Expr<'_> {
    fn any(&self, test: &impl Fn(&Self) -> bool) -> bool {
        test(self)
            || match self {
                Self::Sum(parts) | Self::Product(parts) => {
                    parts.iter().any(|(_, part)| part.any(test))
                }
                Self::Root(_, inner) | Self::Call(_, inner) => inner.any(test),
                Self::Power(a, b) | Self::Log(a, b) | Self::Binomial(a, b) => {
                    a.any(test) || b.any(test)
                }
                _ => false,
            }
    }

    fn has_variables(&self) -> bool {
        self.any(&|part| matches!(part, Expr::Variable(_)))
    }

    fn has_absolute_value(&self) -> bool {
        self.any(&|part| matches!(part, Expr::Call(Function::Abs, _)))
    }
}

/// True for words: letters, spaces, hyphens and the like, with at least two letters in a row.
/// `p-q` and `ab-c` are differences, not words.
pub(crate) fn is_words(text: &str) -> bool {
    let letters = |c: char| c.is_alphabetic() || matches!(c, ' ' | '-' | '\'' | '.');
    let run = text.split(|c: char| !c.is_alphabetic()).map(|word| word.chars().count()).max();
    let shortest = if text.contains('-') { 3 } else { 2 };
    text.chars().all(letters) && run.is_some_and(|run| run >= shortest)
}

fn read(text: &str) -> Option<Expr<'_>> {
    if text.is_empty() || is_words(text) { None } else { parse::parse(text) }
}

/// True for what can be read as an expression.
pub(crate) fn is_expression(text: &str) -> bool {
    read(text).is_some()
}

/// True for an expression that has a value and no variables.
pub(crate) fn is_constant(text: &str) -> bool {
    read(text).is_some_and(|expr| !expr.has_variables())
}

/// The value of an expression without variables, if it is real.
pub(crate) fn real(text: &str) -> Option<f64> {
    let expr = read(text).filter(|expr| !expr.has_variables())?;
    complex::value(&expr, 0).filter(|value| value.is_finite() && value.im == 0.0).map(|v| v.re)
}

/// True when both are expressions and have the same value.
pub(crate) fn same_value(a: &str, b: &str) -> bool {
    let (Some(a), Some(b)) = (read(a), read(b)) else { return false };
    if let (Some(a), Some(b)) = (exact::value(&a), exact::value(&b)) {
        return a == b;
    }
    // Only an absolute value says that its variable may be negative.
    let points = if a.has_absolute_value() || b.has_absolute_value() { POINTS } else { POSITIVE };
    let mut compared = false;
    for point in 0..points {
        let (a, b) = match (complex::value(&a, point), complex::value(&b, point)) {
            (Some(a), Some(b)) => (a, b),
            (None, None) => continue,
            _ => return false,
        };
        match (a.is_finite(), b.is_finite()) {
            (true, true) if !near(a, b) => return false,
            (true, true) => compared = true,
            (false, false) => {}
            _ => return false,
        }
    }
    compared
}

/// Rounding in the evaluation, not in the answers.
fn near(a: Complex, b: Complex) -> bool {
    (a - b).abs() <= 1e-10 * a.abs().max(b.abs()) + 1e-13
}

/// True when one equation is a multiple of the other, given as pairs of sides.
pub(crate) fn same_equation(a: (&str, &str), b: (&str, &str)) -> bool {
    let sides = [read(a.0), read(a.1), read(b.0), read(b.1)];
    let [Some(a0), Some(a1), Some(b0), Some(b1)] = sides else { return false };
    let mut ratio: Option<Complex> = None;
    for point in 0..POSITIVE {
        let difference = |left: &Expr<'_>, right: &Expr<'_>| {
            Some(complex::value(left, point)? - complex::value(right, point)?)
        };
        let (Some(a), Some(b)) = (difference(&a0, &a1), difference(&b0, &b1)) else {
            return false;
        };
        let now = a / b;
        // Both sides alike say nothing; such an equation is compared as text.
        if !now.is_finite() || now.abs() < 1e-9 || a.abs() < 1e-9 {
            return false;
        }
        if ratio.is_some_and(|ratio| (ratio - now).abs() > 1e-9 * ratio.abs()) {
            return false;
        }
        ratio = Some(now);
    }
    [&a0, &a1].into_iter().any(Expr::has_variables)
}
