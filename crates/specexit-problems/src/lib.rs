//! Procedural problems with exact answers, and thoughts about them.
//!
//! Four [`Family`]s stand in for the maths, algebra, code and logic sets on which early exit is
//! usually measured. A [`Problem`] is a pure function of family, difficulty, split and seed; which
//! split it belongs to follows from its content alone, so that training, calibration and test
//! problems never overlap. [`Problem::thought`] writes down how a doubtful thinker would solve it:
//! step by step, sometimes with a slip, then with more re-checks than it needs. Training a small model
//! on such thoughts gives a reasoner that overthinks by itself.

mod algebra;
mod code;
mod dice;
mod family;
mod logic;
mod people;
mod problem;
mod split;
mod thought;
mod words;
mod work;

pub use family::{Family, ParseFamilyError};
pub use problem::{Difficulty, Problem, Problems};
pub use split::{ParseSplitError, Split};
pub use thought::ThoughtRules;
