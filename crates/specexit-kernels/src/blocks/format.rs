//! The formats and how their panels are laid out.

use std::fmt;

use super::Line;

/// Columns of a block: those that share a scale in most formats, and one block of activations.
pub(crate) const BLOCK_COLUMNS: usize = 32;

/// Rows of a panel: the lanes of a vector.
pub(crate) const PANEL_ROWS: usize = 16;

/// One of GGML's quantised block formats, as GGUF files store them.
///
/// A weight is `scale * (code - zero) + offset`, where the code has 4 to 8 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types, reason = "these are the formats' names")]
pub enum BlockFormat {
    /// 4 bits around 8, one f16 scale for 32 columns.
    Q4_0,
    /// 4 bits, f16 scale and offset for 32 columns.
    Q4_1,
    /// 5 bits around 16, one f16 scale for 32 columns.
    Q5_0,
    /// 5 bits, f16 scale and offset for 32 columns.
    Q5_1,
    /// 8 bits around 128 (stored as signed bytes), one f16 scale for 32 columns.
    Q8_0,
    /// 4 bits; per 32 columns a scale and an offset of 6 bits, in f16 units for 256 columns.
    Q4_K,
    /// 5 bits; scales and offsets as [`Q4_K`](Self::Q4_K).
    Q5_K,
    /// 6 bits around 32; per 16 columns a signed scale of 8 bits, in f16 units for 256 columns.
    Q6_K,
}

/// The scales below a superblock's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SubScales {
    /// A block of 32 columns has its f16 scale itself.
    None,
    /// Bytes without sign per 32 columns, for scale and offset.
    Unsigned,
    /// Signed bytes per 16 columns, for the scale.
    Signed,
}

/// What a format's panels look like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    /// Bits of a code.
    pub(crate) bits: u32,
    /// The code of weight 0 where the format has no offset, as a power of two; 0 for code 0.
    pub(crate) zero: u32,
    /// Whether an offset is added to the scaled code.
    pub(crate) offset: bool,
    pub(crate) sub_scales: SubScales,
    /// Blocks of a chunk.
    pub(crate) blocks: usize,
    /// Lines of scales at the start of a chunk.
    pub(crate) header: usize,
    /// Lines of codes of each block.
    pub(crate) payload: usize,
}

impl Layout {
    /// Lines of a chunk.
    pub(crate) const fn lines(&self) -> usize {
        self.header + self.blocks * self.payload
    }

    /// Chunks of a panel with `cols` columns.
    pub(crate) const fn chunks(&self, cols: usize) -> usize {
        cols.div_ceil(self.blocks * BLOCK_COLUMNS)
    }

    /// Bytes of a panel with `cols` columns.
    pub(crate) const fn panel_bytes(&self, cols: usize) -> usize {
        self.chunks(cols) * self.lines() * size_of::<Line>()
    }
}

impl BlockFormat {
    /// All formats.
    pub const ALL: [BlockFormat; 8] = [
        BlockFormat::Q4_0,
        BlockFormat::Q4_1,
        BlockFormat::Q5_0,
        BlockFormat::Q5_1,
        BlockFormat::Q8_0,
        BlockFormat::Q4_K,
        BlockFormat::Q5_K,
        BlockFormat::Q6_K,
    ];

    /// Columns of one stored block: 32 or 256. A matrix has a multiple of it.
    pub const fn columns(self) -> usize {
        match self.layout().sub_scales {
            SubScales::None => BLOCK_COLUMNS,
            SubScales::Unsigned | SubScales::Signed => 256,
        }
    }

    /// Bytes of one stored block.
    pub const fn bytes(self) -> usize {
        match self {
            BlockFormat::Q4_0 => 2 + 16,
            BlockFormat::Q4_1 => 4 + 16,
            BlockFormat::Q5_0 => 2 + 4 + 16,
            BlockFormat::Q5_1 => 4 + 4 + 16,
            BlockFormat::Q8_0 => 2 + 32,
            BlockFormat::Q4_K => 4 + 12 + 128,
            BlockFormat::Q5_K => 4 + 12 + 32 + 128,
            BlockFormat::Q6_K => 128 + 64 + 16 + 2,
        }
    }

    pub(crate) const fn layout(self) -> Layout {
        let (bits, zero, offset) = match self {
            BlockFormat::Q4_0 => (4, 8, false),
            BlockFormat::Q4_1 | BlockFormat::Q4_K => (4, 0, true),
            BlockFormat::Q5_0 => (5, 16, false),
            BlockFormat::Q5_1 | BlockFormat::Q5_K => (5, 0, true),
            BlockFormat::Q6_K => (6, 32, false),
            BlockFormat::Q8_0 => (8, 128, false),
        };
        let sub_scales = match self {
            BlockFormat::Q4_K | BlockFormat::Q5_K => SubScales::Unsigned,
            BlockFormat::Q6_K => SubScales::Signed,
            _ => SubScales::None,
        };
        // A line has room for 32 f16, and for the byte scales of two blocks.
        let (blocks, header) = match sub_scales {
            SubScales::None => (2, if offset { 2 } else { 1 }),
            SubScales::Unsigned | SubScales::Signed => (8, 1 + 4),
        };
        let payload = if bits == 8 { 8 } else { 4 + (bits as usize - 4) };
        Layout { bits, zero, offset, sub_scales, blocks, header, payload }
    }

    /// The format's name as GGUF files have it.
    pub const fn name(self) -> &'static str {
        match self {
            BlockFormat::Q4_0 => "Q4_0",
            BlockFormat::Q4_1 => "Q4_1",
            BlockFormat::Q5_0 => "Q5_0",
            BlockFormat::Q5_1 => "Q5_1",
            BlockFormat::Q8_0 => "Q8_0",
            BlockFormat::Q4_K => "Q4_K",
            BlockFormat::Q5_K => "Q5_K",
            BlockFormat::Q6_K => "Q6_K",
        }
    }
}

impl fmt::Display for BlockFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_take_hardly_more_than_the_file() {
        for format in BlockFormat::ALL {
            let stored = PANEL_ROWS * 1024 / format.columns() * format.bytes();
            let panel = format.layout().panel_bytes(1024);
            assert!(panel >= stored && panel as f64 <= 1.03 * stored as f64, "{format}: {panel}");
        }
    }
}
