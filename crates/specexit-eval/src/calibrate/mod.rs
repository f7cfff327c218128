//! Calibration: from the risk that a user accepts to the setting that saves most at that risk.
//!
//! The *risk* of a setting is the probability that a question which full thinking answers right is answered
//! wrong under it. [`calibrate()`] promises, with confidence 1 − δ over the draw of the calibration
//! questions, that the chosen setting's risk is at most ε. It is fixed-sequence testing in the Learn-then-Test
//! framework (Angelopoulos et al. 2021, arXiv 2110.01052): a quarter of the questions chooses one path through
//! the grid, on which thresholds loosen step by step, and the others test its settings in that order, each by
//! the exact binomial tail, until one cannot be shown to be safe. What comes before the testing may look at
//! anything; that the tested questions had no part in it is what the promise rests on. A [`Demand`] may be
//! about the next so many questions instead; then the tail is hypergeometric.

mod choice;
mod demand;
mod drift;
mod file;
mod grid;
mod run;
mod splits;

pub use choice::{Choice, Outcomes, Part, choose};
pub use demand::Demand;
pub use drift::{SHIFTED, Shift, Spread, shifts, spreads};
pub use file::{CALIBRATION_FILE, Calibration, GivenUp, Promise};
pub(crate) use grid::{STEPS, length_below, share_above};
pub use grid::{grid, hopeless_grid};
pub use run::{Calibrated, calibrate, outcomes};
pub use splits::{Kept, check_splits};
