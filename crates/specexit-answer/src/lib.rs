//! Finding the final answer in a model's text, and comparing answers.
//!
//! [`extract`] looks where models put their answers: `\boxed{…}`, then `#### …`, then "the answer
//! is …", then the last number of the text; or an option letter. [`equal`] compares two answers by
//! their value, not their spelling: `$1,234.50`, `1234.5` and `\frac{2469}{2}` are the same.
//! [`matches_gold`] does both for a reference answer as the common data sets write it.
//!
//! Equal means equal in value: an expression in another form (`(a+5)(b+2)` multiplied out) is equal,
//! and so is an equation times a number (`x+2y=8` for `y=4-\frac{x}{2}`), a union of intervals in
//! another order or written as inequalities, and a list in another order. A rounded number (`4.67`
//! for `14/3`) is not equal. Rational values are compared exactly, all others in double precision.
//!
//! Percent signs, currencies, degrees and units are ignored where one side has none: `5 cm` equals
//! `5`, and `10\%` equals both 10 and 0.1. Where both sides have well-known units these must agree:
//! `5 cm` equals `50 mm` and neither `5 m` nor `5 cm^2`.
//!
//! `tests/pairs.jsonl` is a list of pairs checked by hand; on it false accepts and false rejects are
//! counted.

mod answer;
mod brackets;
mod compare;
mod expression;
mod extract;
mod gold;
mod intervals;
mod latex;
mod number;
mod option_letter;
mod relation;
mod statement;
mod trim;
mod typography;
mod units;

pub use answer::{Answer, AnswerKind, ParseKindError};
pub use compare::equal;
pub use extract::extract;
pub use gold::{gold_answer, matches_gold};
