//! Weights in GGML's quantised block formats, kept at (almost) the width that they have in a file.
//!
//! A file has the blocks of one row after another. The products want one register of weights to hold
//! the same columns of sixteen rows, and to read memory in order. So rows are regrouped when they are
//! loaded, without changing a bit of what they say:
//!
//! - a *panel* is sixteen rows; panels follow one another in memory;
//! - a panel is a sequence of *chunks* of 64 columns, or 256 for the formats whose scales have
//!   scales (`Q4_K` and so on);
//! - a chunk is a *header* of scales, then the codes of each *block* of 32 columns;
//! - eight *groups* make a block; a group is four consecutive columns of each of the sixteen rows,
//!   row 0's four bytes first. Codes of 8 bits take a cache line a group. Of smaller codes the lower
//!   4 bits of groups `2 l` and `2 l + 1` share line `l` (low and high nibbles), and the bits above
//!   them follow in one line (1 bit: that of group `g` is bit `g` of each byte) or two (2 bits: those
//!   of group `g` are bits `2 (g % 4)` and the next of each byte of line `g / 4`).
//!
//! Everything is measured in lines of 64 bytes, so that no load is split between two.

mod format;
mod ggml;
mod panel;

pub use format::BlockFormat;
pub(crate) use format::{BLOCK_COLUMNS, Layout, PANEL_ROWS, SubScales};
pub(crate) use ggml::q8_0;
pub(crate) use panel::{NotFiniteScale, fill_panel, read_row};

/// A cache line.
pub(crate) type Line = [u8; 64];
