//! Finding the final answer in a model's text, and comparing answers.
//!
//! [`extract`] looks where models put their answers: `\boxed{…}`, then `#### …`, then "the answer
//! is …", then the last number of the text; or an option letter. [`equal`] compares two answers by
//! their value, not their spelling: `$1,234.50`, `1234.5` and `\frac{2469}{2}` are the same.
//! [`matches_gold`] does both for a reference answer as the common data sets write it.
//!
//! Equal means equal in value: an expression in another form (`(a+5)(b+2)` multiplied out) is equal,
//! a rounded number (`4.67` for `14/3`) is not. Percent signs, currencies, degrees and units after a
//! number are ignored, so `10` equals `10\%` and `5 cm` equals `5`.

mod answer;
mod brackets;
mod compare;
mod expression;
mod extract;
mod gold;
mod latex;
mod number;
mod option_letter;
mod statement;
mod trim;
mod typography;

pub use answer::{Answer, AnswerKind, ParseKindError};
pub use compare::equal;
pub use extract::extract;
pub use gold::{gold_answer, matches_gold};
