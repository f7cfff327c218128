//! The value of an expression in the normal spelling.
//!
//! Variables get arbitrary but fixed values, so two expressions with variables are taken as equal
//! when they agree at several points.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Parentheses and arguments nested deeper than this have no value.
const DEEPEST: usize = 48;
/// Points at which an expression with variables is evaluated.
const POINTS: usize = 3;

/// True for words: letters, spaces, hyphens and the like, at least two letters in a row.
pub(crate) fn is_words(text: &str) -> bool {
    let letters = |c: char| c.is_alphabetic() || matches!(c, ' ' | '-' | '\'' | '.');
    text.chars().all(letters) && text.chars().filter(|c| c.is_alphabetic()).count() > 1
}

/// True for an expression that has a value and no variables.
pub(crate) fn is_constant(text: &str) -> bool {
    let mut parser = Parser::new(text, 0);
    !is_words(text) && parser.whole().is_some() && !parser.variables
}

/// The values of an expression at all points; `None` for what is no expression.
pub(crate) fn values(text: &str) -> Option<[f64; POINTS]> {
    if text.is_empty() || is_words(text) {
        return None;
    }
    let mut values = [0.0; POINTS];
    for (point, value) in values.iter_mut().enumerate() {
        *value = Parser::new(text, point).whole()?;
    }
    Some(values)
}

/// Equal at every point where both have a value, and there is such a point.
pub(crate) fn same_values(a: &[f64; POINTS], b: &[f64; POINTS]) -> bool {
    let mut compared = false;
    for (&a, &b) in a.iter().zip(b) {
        if a.is_finite() && b.is_finite() {
            // Rounding in the evaluation, not in the answers.
            if (a - b).abs() > 1e-10 * a.abs().max(b.abs()) + 1e-13 {
                return false;
            }
            compared = true;
        } else if a.is_finite() != b.is_finite() {
            return false;
        }
    }
    compared
}

struct Parser<'a> {
    rest: &'a str,
    point: usize,
    depth: usize,
    variables: bool,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, point: usize) -> Self {
        Self { rest: text, point, depth: 0, variables: false }
    }

    fn whole(&mut self) -> Option<f64> {
        let value = self.sum()?;
        self.rest.is_empty().then_some(value)
    }

    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn sum(&mut self) -> Option<f64> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        let mut value = self.product()?;
        loop {
            self.skip_spaces();
            if self.eat("+") {
                value += self.product()?;
            } else if self.eat("-") {
                value -= self.product()?;
            } else {
                self.depth -= 1;
                return Some(value);
            }
        }
    }

    fn product(&mut self) -> Option<f64> {
        let mut value = self.signed()?;
        loop {
            self.skip_spaces();
            if self.eat("*") {
                value *= self.signed()?;
            } else if self.eat("/") {
                value /= self.signed()?;
            } else if self.starts_factor() {
                value *= self.power()?;
            } else {
                return Some(value);
            }
        }
    }

    /// Something that can be multiplied without a sign. A digit cannot: `2 3` is no product.
    fn starts_factor(&self) -> bool {
        let command = self.rest.starts_with('\\')
            && ["\\frac", "\\sqrt", "\\pi", "\\sin", "\\cos", "\\tan", "\\cot", "\\sec", "\\csc"]
                .iter()
                .chain(&["\\log", "\\ln", "\\alpha", "\\beta", "\\theta"])
                .any(|name| self.rest.starts_with(name));
        command || self.rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '(')
    }

    fn signed(&mut self) -> Option<f64> {
        let mut sign = 1.0;
        loop {
            self.skip_spaces();
            if self.eat("-") {
                sign = -sign;
            } else if !self.eat("+") {
                return Some(sign * self.power()?);
            }
        }
    }

    fn power(&mut self) -> Option<f64> {
        let mut value = self.atom()?;
        while self.eat("!") {
            value = factorial(value)?;
        }
        if self.eat("^") {
            let exponent = self.braced()?;
            value = value.powf(exponent);
        }
        Some(value)
    }

    fn atom(&mut self) -> Option<f64> {
        self.skip_spaces();
        if self.rest.starts_with(|c: char| c.is_ascii_digit()) {
            return self.number();
        }
        if self.eat("(") {
            let value = self.sum()?;
            return self.eat(")").then_some(value);
        }
        if self.eat("|") {
            let value = self.sum()?;
            return self.eat("|").then_some(value.abs());
        }
        if self.eat("\\frac") {
            let numerator = self.braced()?;
            return Some(numerator / self.braced()?);
        }
        if self.eat("\\sqrt") {
            let index = if self.eat("[") {
                let index = self.number()?;
                self.eat("]").then_some(index)?
            } else {
                2.0
            };
            let radicand = self.braced()?;
            let odd = index % 2.0 == 1.0 && radicand < 0.0;
            return Some(if odd {
                -(-radicand).powf(1.0 / index)
            } else if index == 2.0 {
                radicand.sqrt()
            } else {
                radicand.powf(1.0 / index)
            });
        }
        if self.rest.starts_with('\\') { self.named() } else { self.variable() }
    }

    /// Digits with decimals, and a mixed fraction right behind a whole number.
    fn number(&mut self) -> Option<f64> {
        let bytes = self.rest.as_bytes();
        let length = bytes.iter().take_while(|b| b.is_ascii_digit() || **b == b'.').count();
        let (digits, rest) = self.rest.split_at(length);
        let value: f64 = digits.parse().ok()?;
        self.rest = rest;
        if digits.contains('.') {
            return Some(value);
        }
        let mixed = if let Some(fraction) = rest.strip_prefix(' ') {
            let (numerator, after) = whole_number(fraction)?;
            let (denominator, after) = whole_number(after.strip_prefix('/')?)?;
            Some((numerator / denominator, after))
        } else {
            mixed_fraction(rest)
        };
        Some(match mixed {
            Some((fraction, after)) => {
                self.rest = after;
                value + fraction
            }
            None => value,
        })
    }

    fn braced(&mut self) -> Option<f64> {
        if !self.eat("{") {
            return None;
        }
        let value = self.sum()?;
        self.eat("}").then_some(value)
    }

    /// A constant or a function by name.
    fn named(&mut self) -> Option<f64> {
        let name_length = 1 + self.rest[1..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let (name, rest) = self.rest.split_at(name_length);
        self.rest = rest;
        let function: fn(f64) -> f64 = match name {
            "\\pi" => return Some(std::f64::consts::PI),
            "\\alpha" | "\\beta" | "\\gamma" | "\\theta" | "\\phi" | "\\lambda" => {
                return Some(self.bind(name));
            }
            "\\sin" => f64::sin,
            "\\cos" => f64::cos,
            "\\tan" => f64::tan,
            "\\cot" => |x| x.tan().recip(),
            "\\sec" => |x| x.cos().recip(),
            "\\csc" => |x| x.sin().recip(),
            "\\ln" => f64::ln,
            "\\log" if self.eat("_") => {
                let base = self.braced()?;
                return Some(self.operand()?.log(base));
            }
            "\\log" => f64::log10,
            _ => return None,
        };
        if self.eat("^") {
            let exponent = self.braced()?;
            return Some(function(self.operand()?).powf(exponent));
        }
        Some(function(self.operand()?))
    }

    /// The argument of a function without brackets: `\sin 2x`.
    fn operand(&mut self) -> Option<f64> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        self.skip_spaces();
        let bracket = self.rest.starts_with('(');
        let mut value = self.power()?;
        while !bracket && self.rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
            value *= self.power()?;
        }
        self.depth -= 1;
        Some(value)
    }

    /// One letter, perhaps with an index. Three letters in a row are a word.
    fn variable(&mut self) -> Option<f64> {
        let letters = self.rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        if letters == 0 || letters > 2 {
            return None;
        }
        let mut end = 1;
        if self.rest[1..].starts_with("_{") {
            end = 1 + self.rest[1..].find('}')? + 1;
        }
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        if name == "e" {
            return Some(std::f64::consts::E);
        }
        Some(self.bind(name))
    }

    /// A value between 1 and 3 that depends on nothing but name and point.
    fn bind(&mut self, name: &str) -> f64 {
        self.variables = true;
        let mut hasher = DefaultHasher::new();
        (name, self.point).hash(&mut hasher);
        1.0 + 2.0 * (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn whole_number(text: &str) -> Option<(f64, &str)> {
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(length);
    Some((digits.parse().ok()?, rest))
}

/// `\frac{1}{2}` with whole numbers.
fn mixed_fraction(text: &str) -> Option<(f64, &str)> {
    let (numerator, rest) = whole_number(text.strip_prefix("\\frac{")?)?;
    let (denominator, rest) = whole_number(rest.strip_prefix("}{")?)?;
    Some((numerator / denominator, rest.strip_prefix('}')?))
}

fn factorial(value: f64) -> Option<f64> {
    (value >= 0.0 && value.fract() == 0.0 && value <= 170.0)
        .then(|| (1..=value as u32).map(f64::from).product())
}
