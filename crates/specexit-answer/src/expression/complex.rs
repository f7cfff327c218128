//! Complex values in double precision.

use std::f64::consts;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::{Add, Div, Mul, Sub};

use super::{Expr, Function, POSITIVE};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Complex {
    pub(super) re: f64,
    pub(super) im: f64,
}

impl Add for Complex {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { re: self.re + other.re, im: self.im + other.im }
    }
}

impl Sub for Complex {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { re: self.re - other.re, im: self.im - other.im }
    }
}

impl Mul for Complex {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        Self {
            re: self.re * other.re - self.im * other.im,
            im: self.re * other.im + self.im * other.re,
        }
    }
}

impl Div for Complex {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        if other.im == 0.0 {
            return Self { re: self.re / other.re, im: self.im / other.re };
        }
        let size = other.re * other.re + other.im * other.im;
        let product = self * Self { im: -other.im, ..other };
        Self { re: product.re / size, im: product.im / size }
    }
}

impl Complex {
    const ONE: Self = Self::real(1.0);
    const I: Self = Self { re: 0.0, im: 1.0 };

    const fn real(re: f64) -> Self {
        Self { re, im: 0.0 }
    }

    pub(super) fn is_finite(self) -> bool {
        self.re.is_finite() && self.im.is_finite()
    }

    pub(super) fn abs(self) -> f64 {
        if self.im == 0.0 { self.re.abs() } else { self.re.hypot(self.im) }
    }

    fn as_real(self) -> Option<f64> {
        (self.im == 0.0).then_some(self.re)
    }

    fn exp(self) -> Self {
        if self.im == 0.0 {
            return Self::real(self.re.exp());
        }
        let size = self.re.exp();
        Self { re: size * self.im.cos(), im: size * self.im.sin() }
    }

    fn ln(self) -> Self {
        match self.as_real() {
            Some(re) if re >= 0.0 => Self::real(re.ln()),
            _ => Self { re: self.abs().ln(), im: self.im.atan2(self.re) },
        }
    }

    fn sqrt(self) -> Self {
        match self.as_real() {
            Some(re) if re >= 0.0 => Self::real(re.sqrt()),
            Some(re) => Self { re: 0.0, im: (-re).sqrt() },
            None => self.power(Self::real(0.5)),
        }
    }

    fn power(self, exponent: Self) -> Self {
        match (self.as_real(), exponent.as_real()) {
            (Some(base), Some(exponent)) if base >= 0.0 || exponent.fract() == 0.0 => {
                Self::real(base.powf(exponent))
            }
            (None, Some(exponent)) if exponent.fract() == 0.0 && exponent.abs() <= 64.0 => {
                let product = (0..exponent.abs() as u32).fold(Self::ONE, |p, _| p * self);
                if exponent < 0.0 { Self::ONE / product } else { product }
            }
            _ => (self.ln() * exponent).exp(),
        }
    }

    fn cos(self) -> Self {
        match self.as_real() {
            Some(re) => Self::real(re.cos()),
            None => {
                ((Self::I * self).exp() + (Self::real(-1.0) * Self::I * self).exp())
                    / Self::real(2.0)
            }
        }
    }

    fn sin(self) -> Self {
        match self.as_real() {
            Some(re) => Self::real(re.sin()),
            None => {
                ((Self::I * self).exp() - (Self::real(-1.0) * Self::I * self).exp())
                    / Self { re: 0.0, im: 2.0 }
            }
        }
    }
}

/// The value of an expression where its variables have the values of a point.
pub(super) fn value(expr: &Expr<'_>, point: usize) -> Option<Complex> {
    let at = |expr: &Expr<'_>| value(expr, point);
    Some(match expr {
        Expr::Number(digits) => Complex::real(digits.parse().ok()?),
        Expr::Repeating(before, period) => {
            // More digits than a double holds.
            let digits = period.repeat(24 / period.len().max(1) + 1);
            let point = if before.contains('.') { "" } else { "." };
            Complex::real(format!("{before}{point}{digits}").parse().ok()?)
        }
        Expr::Pi => Complex::real(consts::PI),
        Expr::E => Complex::real(consts::E),
        Expr::I => Complex::I,
        Expr::Variable(name) => Complex::real(bind(name, point)),
        Expr::Sum(terms) => {
            let mut sum = Complex::real(0.0);
            for (minus, term) in terms {
                let term = at(term)?;
                sum = if *minus { sum - term } else { sum + term };
            }
            sum
        }
        Expr::Product(factors) => {
            let mut product = Complex::ONE;
            for (divided, factor) in factors {
                let factor = at(factor)?;
                product = if *divided { product / factor } else { product * factor };
            }
            product
        }
        Expr::Power(base, exponent) => at(base)?.power(at(exponent)?),
        Expr::Root(index, radicand) => {
            let radicand = at(radicand)?;
            let index_value = f64::from(*index);
            match radicand.as_real() {
                _ if *index == 2 => radicand.sqrt(),
                Some(re) if re < 0.0 && index % 2 == 1 => {
                    Complex::real(-(-re).powf(index_value.recip()))
                }
                _ => radicand.power(Complex::real(index_value.recip())),
            }
        }
        Expr::Call(function, argument) => call(*function, at(argument)?)?,
        Expr::Log(base, argument) => at(argument)?.ln() / at(base)?.ln(),
        Expr::Binomial(n, k) => {
            let (n, k) = (at(n)?.as_real()?, at(k)?.as_real()?);
            if k < 0.0 || k.fract() != 0.0 || k > 512.0 {
                return None;
            }
            let product = (0..k as u32).map(f64::from).map(|i| (n - i) / (i + 1.0)).product();
            Complex::real(product)
        }
    })
}

fn call(function: Function, x: Complex) -> Option<Complex> {
    let of_real = |f: fn(f64) -> f64| x.as_real().map(|x| Complex::real(f(x)));
    Some(match function {
        Function::Abs => Complex::real(x.abs()),
        Function::Arccos => of_real(f64::acos)?,
        Function::Arcsin => of_real(f64::asin)?,
        Function::Arctan => of_real(f64::atan)?,
        Function::Ceil => of_real(f64::ceil)?,
        Function::Floor => of_real(f64::floor)?,
        Function::Cis => (Complex::I * x).exp(),
        Function::Cos => x.cos(),
        Function::Cot => x.cos() / x.sin(),
        Function::Csc => Complex::ONE / x.sin(),
        Function::Degrees => x * Complex::real(consts::PI / 180.0),
        Function::Exp => x.exp(),
        Function::Factorial => {
            let n = x.as_real().filter(|n| *n >= 0.0 && n.fract() == 0.0 && *n <= 170.0)?;
            Complex::real((1..=n as u32).map(f64::from).product())
        }
        Function::Ln => x.ln(),
        Function::Log10 => x.ln() / Complex::real(consts::LN_10),
        Function::Sec => Complex::ONE / x.cos(),
        Function::Sin => x.sin(),
        Function::Tan => x.sin() / x.cos(),
    })
}

/// A value that depends on nothing but name and point: between 1 and 3, or between -3 and 3 at the
/// last points.
fn bind(name: &str, point: usize) -> f64 {
    let mut hasher = DefaultHasher::new();
    (name, point).hash(&mut hasher);
    let hash = hasher.finish();
    let size = 1.0 + 2.0 * (hash >> 11) as f64 / (1_u64 << 53) as f64;
    // The parity of the name flips, so that every variable is negative at one of the two.
    let flip = name.bytes().fold(0, |sum, b| sum + usize::from(b)) + point;
    if point >= POSITIVE && flip.is_multiple_of(2) { -size } else { size }
}
