//! Rational values without rounding.

use super::{Expr, Function};

/// Exponents and factorials beyond this have no exact value here.
const LARGEST: i128 = 512;

/// A fraction in lowest terms with a positive denominator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rational {
    numerator: i128,
    denominator: i128,
}

impl Rational {
    const ONE: Self = Self { numerator: 1, denominator: 1 };

    fn new(numerator: i128, denominator: i128) -> Option<Self> {
        let divisor = i128::try_from(gcd(numerator.unsigned_abs(), denominator.unsigned_abs()));
        let divisor = divisor.ok().filter(|_| denominator != 0)?;
        let sign = denominator.signum();
        Some(Self {
            numerator: (numerator / divisor).checked_mul(sign)?,
            denominator: (denominator / divisor).checked_mul(sign)?,
        })
    }

    fn whole(value: i128) -> Self {
        Self { numerator: value, denominator: 1 }
    }

    fn as_whole(self) -> Option<i128> {
        (self.denominator == 1).then_some(self.numerator)
    }

    fn plus(self, other: Self) -> Option<Self> {
        let left = self.numerator.checked_mul(other.denominator)?;
        let right = other.numerator.checked_mul(self.denominator)?;
        Self::new(left.checked_add(right)?, self.denominator.checked_mul(other.denominator)?)
    }

    fn minus(self) -> Option<Self> {
        Some(Self { numerator: self.numerator.checked_neg()?, ..self })
    }

    fn times(self, other: Self) -> Option<Self> {
        Self::new(
            self.numerator.checked_mul(other.numerator)?,
            self.denominator.checked_mul(other.denominator)?,
        )
    }

    fn inverse(self) -> Option<Self> {
        Self::new(self.denominator, self.numerator)
    }

    fn power(self, exponent: i128) -> Option<Self> {
        let size = u32::try_from(exponent.unsigned_abs()).ok()?;
        // Zero to the power of zero, and one over zero, have no value.
        let base = if exponent < 0 { self.inverse()? } else { self };
        if size == 0 && self.numerator == 0 {
            return None;
        }
        Some(Self {
            numerator: base.numerator.checked_pow(size)?,
            denominator: base.denominator.checked_pow(size)?,
        })
    }

    fn root(self, index: u32) -> Option<Self> {
        if self.numerator < 0 && index.is_multiple_of(2) {
            return None;
        }
        let magnitude = whole_root(self.numerator.checked_abs()?, index)?;
        Self::new(
            magnitude.checked_mul(self.numerator.signum())?,
            whole_root(self.denominator, index)?,
        )
    }

    fn floor(self) -> Self {
        Self::whole(self.numerator.div_euclid(self.denominator))
    }
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The root of a whole number, if it is whole itself.
fn whole_root(value: i128, index: u32) -> Option<i128> {
    let guess = (value as f64).powf(1.0 / f64::from(index)).round() as i128;
    (guess.saturating_sub(1)..=guess.saturating_add(1))
        .find(|candidate| candidate.checked_pow(index) == Some(value))
}

/// The exact value of an expression, if it is rational and not too large.
pub(super) fn value(expr: &Expr<'_>) -> Option<Rational> {
    match expr {
        Expr::Number(digits) => decimal(digits),
        Expr::Repeating(before, period) => {
            let before = (decimal(before)?, decimals(before));
            let cycle = 10_i128.checked_pow(u32::try_from(period.len()).ok()?)? - 1;
            let scale = 10_i128.checked_pow(before.1)?;
            before.0.plus(Rational::new(period.parse().ok()?, cycle.checked_mul(scale)?)?)
        }
        Expr::Sum(terms) => terms.iter().try_fold(Rational::whole(0), |sum, (minus, term)| {
            let term = value(term)?;
            sum.plus(if *minus { term.minus()? } else { term })
        }),
        Expr::Product(factors) => {
            factors.iter().try_fold(Rational::ONE, |product, (divided, factor)| {
                let factor = value(factor)?;
                product.times(if *divided { factor.inverse()? } else { factor })
            })
        }
        Expr::Power(base, exponent) => {
            let (base, exponent) = (value(base)?, value(exponent)?);
            let root = u32::try_from(exponent.denominator).ok()?;
            // Odd roots of negative numbers as powers are complex by convention.
            let base = if root == 1 {
                base
            } else if base.numerator < 0 {
                return None;
            } else {
                base.root(root)?
            };
            let whole = exponent.numerator;
            (whole.checked_abs()? <= LARGEST).then(|| base.power(whole)).flatten()
        }
        Expr::Root(index, radicand) => value(radicand)?.root(*index),
        Expr::Call(function, argument) => {
            let argument = value(argument)?;
            match function {
                Function::Abs if argument.numerator < 0 => argument.minus(),
                Function::Abs => Some(argument),
                Function::Floor => Some(argument.floor()),
                Function::Ceil => argument.minus()?.floor().minus(),
                Function::Factorial => {
                    let n = argument.as_whole().filter(|n| (0..=LARGEST).contains(n))?;
                    (1..=n).try_fold(1, i128::checked_mul).map(Rational::whole)
                }
                _ => None,
            }
        }
        Expr::Binomial(n, k) => {
            let (n, k) = (value(n)?.as_whole()?, value(k)?.as_whole()?);
            if !(0..=LARGEST).contains(&k) || !(k..=1 << 62).contains(&n) {
                return None;
            }
            let steps = (0..k).try_fold(1_i128, |product, i| {
                product.checked_mul(n - i).map(|product| product / (i + 1))
            });
            steps.map(Rational::whole)
        }
        Expr::Pi | Expr::E | Expr::I | Expr::Variable(_) | Expr::Log(..) => None,
    }
}

fn decimals(text: &str) -> u32 {
    text.split_once('.').map_or(0, |(_, decimals)| decimals.len() as u32)
}

fn decimal(text: &str) -> Option<Rational> {
    let digits = text.replace('.', "");
    let digits = if digits.is_empty() { "0" } else { &digits };
    Rational::new(digits.parse().ok()?, 10_i128.checked_pow(decimals(text))?)
}
