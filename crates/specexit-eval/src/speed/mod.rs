//! How fast a target decodes here, beside what the machine allows.
//!
//! Speculation pays only if a forward over a handful of rows costs little more than over one; the ratio is the
//! number that bounds every speed-up, so it is measured directly. Every [`Shape`] is also held against its floor:
//! the time in which the machine, by its own probe ([`MachineProbe`]), could read the weights and do the sums.

mod floor;
mod head;
mod machine_probe;
mod meter;
mod others;
mod resident;
mod result;
mod shape;

pub use floor::Floor;
pub use head::{DRAFTED, HeadCost, HeadMeter};
pub use machine_probe::{MachineProbe, MachineSpeed};
pub use meter::{SpeedMeter, SpeedOptions};
pub use others::CpuTimes;
pub use resident::Memory;
pub(crate) use result::paired;
pub use result::{Rate, Speed};
pub use shape::Shape;

use specexit_model::Target;

/// So many different token ids: what is computed does not depend on which they are.
fn tokens(target: &Target, count: usize) -> Vec<u32> {
    let vocab = target.config.vocab_size as u32;
    (0..count as u32).map(|i| i.wrapping_mul(7_919) % vocab).collect()
}
