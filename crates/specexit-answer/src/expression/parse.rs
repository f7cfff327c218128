//! Reading an expression in the normal spelling.

use super::{Expr, Function};

/// Parentheses and arguments nested deeper than this have no value.
const DEEPEST: usize = 48;
/// `3!!!` is no answer, but might be a long row of calls.
const MOST_FACTORIALS: usize = 3;

/// Commands that can follow a factor without a sign.
const FACTORS: [&str; 27] = [
    "\\frac", "\\sqrt", "\\binom", "\\pi", "\\sin", "\\cos", "\\tan", "\\cot", "\\sec", "\\csc",
    "\\log", "\\ln", "\\lg", "\\exp", "\\cis", "\\alpha", "\\beta", "\\gamma", "\\theta", "\\phi",
    "\\lambda", "\\omega", "\\arcsin", "\\arccos", "\\arctan", "\\lfloor", "\\lceil",
];

/// The whole text as one expression.
pub(super) fn parse(text: &str) -> Option<Expr<'_>> {
    let mut parser = Parser { text, at: 0, depth: 0, inside_bars: false };
    let expr = parser.sum()?;
    parser.rest().is_empty().then_some(expr)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    inside_bars: bool,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn starts(&self, token: &str) -> bool {
        self.rest().starts_with(token)
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.starts(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn skip_spaces(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn sum(&mut self) -> Option<Expr<'a>> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        let mut terms = vec![(false, self.product()?)];
        loop {
            self.skip_spaces();
            let minus = if self.eat("+") {
                false
            } else if self.eat("-") {
                true
            } else {
                break;
            };
            terms.push((minus, self.product()?));
        }
        self.depth -= 1;
        Some(single(terms).unwrap_or_else(Expr::Sum))
    }

    fn product(&mut self) -> Option<Expr<'a>> {
        let mut factors = vec![(false, self.signed()?)];
        loop {
            self.skip_spaces();
            if self.eat("*") {
                factors.push((false, self.signed()?));
            } else if self.eat("/") {
                factors.push((true, self.signed()?));
            } else if self.starts_factor() {
                factors.push((false, self.power()?));
            } else {
                return Some(single(factors).unwrap_or_else(Expr::Product));
            }
        }
    }

    /// Something that can be multiplied without a sign. A digit can be only behind `!` or `)`:
    /// `2 3` is no product.
    fn starts_factor(&self) -> bool {
        let rest = self.rest();
        let closed = self.text[..self.at].ends_with(['!', ')']);
        FACTORS.iter().any(|name| rest.starts_with(name))
            || rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '(')
            || closed && rest.starts_with(|c: char| c.is_ascii_digit())
            || !self.inside_bars && rest.starts_with('|')
    }

    fn signed(&mut self) -> Option<Expr<'a>> {
        let mut minus = false;
        loop {
            self.skip_spaces();
            if self.eat("-") {
                minus = !minus;
            } else if !self.eat("+") {
                let value = self.power()?;
                return Some(if minus { Expr::Sum(vec![(true, value)]) } else { value });
            }
        }
    }

    fn power(&mut self) -> Option<Expr<'a>> {
        let mut value = self.atom()?;
        let mut factorials = 0;
        while self.eat("!") {
            value = Expr::Call(Function::Factorial, Box::new(value));
            factorials += 1;
        }
        if factorials > MOST_FACTORIALS {
            return None;
        }
        if self.eat("°") {
            value = Expr::Call(Function::Degrees, Box::new(value));
        }
        if self.eat("^") {
            let exponent = self.braced()?;
            value = Expr::Power(Box::new(value), Box::new(exponent));
        }
        Some(value)
    }

    fn atom(&mut self) -> Option<Expr<'a>> {
        self.skip_spaces();
        if self.rest().starts_with(|c: char| c.is_ascii_digit()) {
            return self.number();
        }
        if self.eat("(") {
            let bars = std::mem::take(&mut self.inside_bars);
            let value = self.sum()?;
            self.inside_bars = bars;
            return self.eat(")").then_some(value);
        }
        for (open, close, function) in [
            ("|", "|", Function::Abs),
            ("\\lfloor", "\\rfloor", Function::Floor),
            ("\\lceil", "\\rceil", Function::Ceil),
        ] {
            if self.eat(open) {
                let bars = std::mem::replace(&mut self.inside_bars, open == "|");
                let value = self.sum()?;
                self.inside_bars = bars;
                return self.eat(close).then(|| Expr::Call(function, Box::new(value)));
            }
        }
        if self.eat("\\frac") {
            let numerator = self.braced()?;
            return Some(Expr::Product(vec![(false, numerator), (true, self.braced()?)]));
        }
        if self.eat("\\binom") {
            let n = self.braced()?;
            return Some(Expr::Binomial(Box::new(n), Box::new(self.braced()?)));
        }
        if self.eat("\\sqrt") {
            let mut index = 2;
            if self.eat("[") {
                let (digits, rest) = digits(self.rest());
                index = digits.parse().ok().filter(|index| (1..=64).contains(index))?;
                self.at = self.text.len() - rest.len();
                self.eat("]").then_some(())?;
            }
            return Some(Expr::Root(index, Box::new(self.braced()?)));
        }
        if self.starts("\\") { self.named() } else { self.variable() }
    }

    /// Digits with decimals, and a mixed fraction right behind a whole number.
    fn number(&mut self) -> Option<Expr<'a>> {
        let start = self.at;
        let rest = self.rest();
        let length = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let value = &rest[..length];
        self.at += length;
        if value.matches('.').count() > 1 {
            return None;
        }
        if value.contains('.') {
            if self.eat("\\overline{") {
                let (period, rest) = digits(self.rest());
                self.at = self.text.len() - rest.len();
                return (!period.is_empty() && self.eat("}"))
                    .then_some(Expr::Repeating(value, period));
            }
            return Some(Expr::Number(value));
        }
        let rest = self.rest();
        let mixed = match rest.strip_prefix(' ') {
            Some(fraction) if fraction.starts_with(|c: char| c.is_ascii_digit()) => {
                Some(slash_fraction(fraction)?)
            }
            Some(_) => None,
            None => braced_fraction(rest),
        };
        let Some((numerator, denominator, after)) = mixed else {
            return Some(Expr::Number(&self.text[start..start + length]));
        };
        self.at = self.text.len() - after.len();
        let fraction = vec![(false, Expr::Number(numerator)), (true, Expr::Number(denominator))];
        Some(Expr::Sum(vec![(false, Expr::Number(value)), (false, Expr::Product(fraction))]))
    }

    fn braced(&mut self) -> Option<Expr<'a>> {
        if !self.eat("{") {
            return None;
        }
        let bars = std::mem::take(&mut self.inside_bars);
        let value = self.sum()?;
        self.inside_bars = bars;
        self.eat("}").then_some(value)
    }

    /// A constant or a function by name.
    fn named(&mut self) -> Option<Expr<'a>> {
        let rest = self.rest();
        let length = 1 + rest[1..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let name = &rest[..length];
        self.at += length;
        let function = match name {
            "\\pi" => return Some(Expr::Pi),
            "\\alpha" | "\\beta" | "\\gamma" | "\\theta" | "\\phi" | "\\lambda" | "\\omega" => {
                return Some(Expr::Variable(name));
            }
            "\\sin" => Function::Sin,
            "\\cos" => Function::Cos,
            "\\tan" => Function::Tan,
            "\\cot" => Function::Cot,
            "\\sec" => Function::Sec,
            "\\csc" => Function::Csc,
            "\\cis" => Function::Cis,
            "\\arcsin" => Function::Arcsin,
            "\\arccos" => Function::Arccos,
            "\\arctan" => Function::Arctan,
            "\\exp" => Function::Exp,
            "\\ln" => Function::Ln,
            "\\log" if self.eat("_") => {
                let base = self.braced()?;
                return Some(Expr::Log(Box::new(base), Box::new(self.operand()?)));
            }
            "\\log" | "\\lg" => Function::Log10,
            _ => return None,
        };
        let inverse = match function {
            Function::Sin => Some(Function::Arcsin),
            Function::Cos => Some(Function::Arccos),
            Function::Tan => Some(Function::Arctan),
            _ => None,
        };
        if let Some(inverse) = inverse
            && self.eat("^{-1}")
        {
            return Some(Expr::Call(inverse, Box::new(self.operand()?)));
        }
        if self.eat("^") {
            let exponent = self.braced()?;
            let value = Expr::Call(function, Box::new(self.operand()?));
            return Some(Expr::Power(Box::new(value), Box::new(exponent)));
        }
        Some(Expr::Call(function, Box::new(self.operand()?)))
    }

    /// The argument of a function without brackets: `\sin 2x`.
    fn operand(&mut self) -> Option<Expr<'a>> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        self.skip_spaces();
        let bracket = self.starts("(");
        let mut factors = vec![(false, self.power()?)];
        while !bracket && self.rest().starts_with(|c: char| c.is_ascii_alphabetic()) {
            factors.push((false, self.power()?));
        }
        self.depth -= 1;
        Some(single(factors).unwrap_or_else(Expr::Product))
    }

    /// One letter, perhaps with an index. Three letters in a row are a word.
    fn variable(&mut self) -> Option<Expr<'a>> {
        let rest = self.rest();
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        if letters == 0 || letters > 2 {
            return None;
        }
        let mut end = 1;
        if rest[1..].starts_with("_{") {
            end = 1 + rest[1..].find('}')? + 1;
        }
        self.at += end;
        Some(match &rest[..end] {
            "e" => Expr::E,
            "i" => Expr::I,
            name => Expr::Variable(name),
        })
    }
}

/// The only part, if it is unmarked; else the parts.
fn single<'a>(mut parts: Vec<(bool, Expr<'a>)>) -> Result<Expr<'a>, Vec<(bool, Expr<'a>)>> {
    match parts.pop() {
        Some((false, part)) if parts.is_empty() => Ok(part),
        Some(last) => {
            parts.push(last);
            Err(parts)
        }
        None => Err(parts),
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// `1/2` with whole numbers, and what follows.
fn slash_fraction(text: &str) -> Option<(&str, &str, &str)> {
    let (numerator, rest) = digits(text);
    let (denominator, rest) = digits(rest.strip_prefix('/')?);
    (!numerator.is_empty() && !denominator.is_empty()).then_some((numerator, denominator, rest))
}

/// `\frac{1}{2}` with whole numbers, and what follows.
fn braced_fraction(text: &str) -> Option<(&str, &str, &str)> {
    let (numerator, rest) = digits(text.strip_prefix("\\frac{")?);
    let (denominator, rest) = digits(rest.strip_prefix("}{")?);
    let rest = rest.strip_prefix('}')?;
    (!numerator.is_empty() && !denominator.is_empty()).then_some((numerator, denominator, rest))
}
