//! Units behind a value, and amounts in different ones.

use crate::typography::{fold, strip_marks};

/// Length, mass, time, money, angle.
type Dimensions = [i8; 5];

const LENGTH: Dimensions = [1, 0, 0, 0, 0];
const MASS: Dimensions = [0, 1, 0, 0, 0];
const TIME: Dimensions = [0, 0, 1, 0, 0];
const MONEY: Dimensions = [0, 0, 0, 1, 0];
const ANGLE: Dimensions = [0, 0, 0, 0, 1];
const VOLUME: Dimensions = [3, 0, 0, 0, 0];

/// Singular names, dimensions, and the size as a fraction of metre, kilogram, second, dollar,
/// degree.
const UNITS: [(&[&str], Dimensions, u64, u64); 25] = [
    (&["m", "meter", "metre"], LENGTH, 1, 1),
    (&["cm", "centimeter", "centimetre"], LENGTH, 1, 100),
    (&["mm", "millimeter", "millimetre"], LENGTH, 1, 1000),
    (&["km", "kilometer", "kilometre"], LENGTH, 1000, 1),
    (&["in", "inch", "inche"], LENGTH, 254, 10_000),
    (&["ft", "foot", "feet"], LENGTH, 3048, 10_000),
    (&["yd", "yard"], LENGTH, 9144, 10_000),
    (&["mi", "mile"], LENGTH, 1_609_344, 1000),
    (&["kg", "kilogram"], MASS, 1, 1),
    (&["g", "gram"], MASS, 1, 1000),
    (&["mg", "milligram"], MASS, 1, 1_000_000),
    (&["lb", "pound"], MASS, 45_359_237, 100_000_000),
    (&["oz", "ounce"], MASS, 45_359_237, 1_600_000_000),
    (&["s", "sec", "second"], TIME, 1, 1),
    (&["min", "minute"], TIME, 60, 1),
    (&["h", "hr", "hour"], TIME, 3600, 1),
    (&["day"], TIME, 86_400, 1),
    (&["week"], TIME, 604_800, 1),
    (&["dollar"], MONEY, 1, 1),
    (&["cent"], MONEY, 1, 100),
    (&["degree", "°"], ANGLE, 1, 1),
    (&["l", "liter", "litre"], VOLUME, 1, 1000),
    (&["ml", "milliliter", "millilitre"], VOLUME, 1, 1_000_000),
    (&["mph"], [1, 0, -1, 0, 0], 1_609_344, 3_600_000),
    (&["kph"], [1, 0, -1, 0, 0], 1000, 3600),
];
/// Longer texts have no unit worth looking for.
const LONGEST: usize = 300;

/// What an amount is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unit {
    dimensions: Dimensions,
    /// Size in base units as a fraction.
    size: (u64, u64),
}

impl Unit {
    const ONE: Self = Self { dimensions: [0; 5], size: (1, 1) };

    fn times(self, other: Self, power: i8) -> Option<Self> {
        let mut product = self;
        for (sum, more) in product.dimensions.iter_mut().zip(other.dimensions) {
            *sum = sum.checked_add(more.checked_mul(power)?)?;
        }
        for _ in 0..power.unsigned_abs() {
            let (up, down) = if power > 0 { other.size } else { (other.size.1, other.size.0) };
            let size = (product.size.0.checked_mul(up)?, product.size.1.checked_mul(down)?);
            let divisor = gcd(size.0, size.1);
            product.size = (size.0 / divisor, size.1 / divisor);
        }
        Some(product)
    }

    /// What a number of this unit is multiplied with to be one of the other, as the text of a
    /// fraction; `None` between different kinds of unit.
    pub(crate) fn factor_to(self, other: Self) -> Option<String> {
        let ratio = self.times(other, -1)?;
        (ratio.dimensions == [0; 5]).then(|| format!("{}/{}", ratio.size.0, ratio.size.1))
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}

/// An amount as its value and its unit, if it has a well-known one.
pub(crate) fn amount(text: &str) -> Option<(String, Unit)> {
    if text.len() > LONGEST {
        return None;
    }
    let text = fold(text);
    let text = strip_marks(&text);
    let degrees = text.trim_end().trim_end_matches(['}', '{']).trim_end();
    if let Some(value) = degrees.strip_suffix("\\circ").or_else(|| degrees.strip_suffix("\\degree"))
    {
        let value = value.trim_end_matches(['{', ' ']).trim_end_matches('^');
        return Some((value.to_owned(), find("degree")?)).filter(|(value, _)| holds_value(value));
    }
    let dollars = ["-\\$", "-$", "\\$", "$"].into_iter().find_map(|sign| {
        let value = text.strip_prefix(sign)?;
        Some(format!("{}{value}", if sign.starts_with('-') { "-" } else { "" }))
    });
    // What follows an amount of money (`per day`) does not change that it is one.
    if let Some(value) = dollars {
        return Some((value, find("dollar")?));
    }
    // From left to right: the first tail that is nothing but units.
    let starts = text.char_indices().filter(|(at, c)| {
        let before = text[..*at].chars().next_back();
        (c.is_alphabetic() || *c == '\\') && !before.is_some_and(|b| b.is_alphabetic() || b == '\\')
    });
    for (at, _) in starts {
        let value = text[..at].trim_end().trim_end_matches(['~', ' ']);
        let value =
            ["\\,", "\\ ", "\\;", "\\"].iter().find_map(|s| value.strip_suffix(s)).unwrap_or(value);
        if holds_value(value)
            && let Some(unit) = tail(&text[at..])
        {
            return Some((value.to_owned(), unit));
        }
    }
    None
}

fn holds_value(text: &str) -> bool {
    text.contains(|c: char| c.is_ascii_digit()) || text.contains("\\pi")
}

/// A text that is nothing but units: `square feet`, `\text{ cm}^2`, `miles per hour`.
fn tail(text: &str) -> Option<Unit> {
    // A single letter is a unit only where it is set as text: `5m` is a product.
    let set_as_text = text.starts_with('\\');
    let mut plain = text.to_owned();
    for command in ["\\text", "\\mbox", "\\mathrm", "\\textrm", "\\rm", "\\,", "\\ ", "{", "}", "~"]
    {
        plain = plain.replace(command, " ");
    }
    let plain = plain.replace('^', " ^ ").replace('/', " / ").to_lowercase();
    let mut unit = Unit::ONE;
    let (mut sign, mut power) = (1_i8, None);
    let mut last: Option<Unit> = None;
    let mut words = plain.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let word = word.trim_end_matches('.');
        match word {
            "per" | "/" | "a" | "an" if last.is_some() && power.is_none() => {
                (sign, last) = (-1, None);
            }
            "square" | "sq" | "cubic" | "cu" if power.is_none() => {
                power = Some(if word.starts_with('s') { 2 } else { 3 });
            }
            "^" => {
                let exponent: i8 = words.next()?.parse().ok().filter(|n| (2..=3).contains(n))?;
                unit = unit.times(last.take()?, sign * (exponent - 1))?;
            }
            word => {
                if last.is_some() || word.len() == 1 && !set_as_text {
                    return None;
                }
                let found = find(word)?;
                unit = unit.times(found, sign * power.take().unwrap_or(1))?;
                last = Some(found);
            }
        }
    }
    (power.is_none() && unit != Unit::ONE).then_some(unit)
}

fn find(word: &str) -> Option<Unit> {
    let singular = if word.len() > 2 { word.strip_suffix('s').unwrap_or(word) } else { word };
    let found = UNITS.iter().find(|(names, ..)| names.contains(&singular))?;
    Unit::ONE.times(Unit { dimensions: found.1, size: (found.2, found.3) }, 1)
}
