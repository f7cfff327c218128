//! Sixteen rows of stored blocks regrouped as a panel, and a row read back.

use half::f16;

use super::format::{BLOCK_COLUMNS, BlockFormat, PANEL_ROWS, SubScales};
use super::ggml::{Unpacked, unpack};
use super::{Layout, Line};

/// The row of a panel, 0 to 15, in which a scale is infinite or NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotFiniteScale(pub(crate) usize);

/// Regroups `rows`, at most sixteen of whole stored blocks and equal length, as `panel`, which is
/// zeroed and stays so where rows or blocks are missing.
pub(crate) fn fill_panel(
    format: BlockFormat,
    rows: &[&[u8]],
    panel: &mut [Line],
) -> Result<(), NotFiniteScale> {
    let layout = format.layout();
    let mut unpacked = Unpacked::EMPTY;
    let blocks_per_stored = format.columns() / BLOCK_COLUMNS;
    for (lane, row) in rows.iter().enumerate() {
        let mut bad = false;
        for (stored, bytes) in row.chunks_exact(format.bytes()).enumerate() {
            unpack(format, bytes, &mut unpacked);
            let infinite = |bits: u16| bits & 0x7c00 == 0x7c00;
            bad |= infinite(unpacked.scale) || infinite(unpacked.offset);
            let first = stored * blocks_per_stored;
            let chunk = &mut panel[first / layout.blocks * layout.lines()..][..layout.lines()];
            put_scales(&layout, chunk, first % layout.blocks, lane, &unpacked);
            for b in 0..blocks_per_stored {
                let at = layout.header + (first + b) % layout.blocks * layout.payload;
                let lines = &mut chunk[at..at + layout.payload];
                put_codes(layout.bits, lines, lane, &unpacked.codes[b]);
            }
        }
        if bad {
            return Err(NotFiniteScale(lane));
        }
    }
    Ok(())
}

/// Row `lane` of `panel`, as f32: `code * scale + offset` rounded once, which is what the format says.
pub(crate) fn read_row(format: BlockFormat, panel: &[Line], lane: usize, row: &mut [f32]) {
    let layout = format.layout();
    let chunks = panel.chunks_exact(layout.lines());
    for (row, chunk) in row.chunks_mut(layout.blocks * BLOCK_COLUMNS).zip(chunks) {
        for (b, row) in row.chunks_exact_mut(BLOCK_COLUMNS).enumerate() {
            let (scales, offset) = scales(&layout, chunk, b, lane);
            let lines = &chunk[layout.header + b * layout.payload..][..layout.payload];
            let codes = codes(layout.bits, lines, lane);
            let (first, second) = row.split_at_mut(BLOCK_COLUMNS / 2);
            for (half, (row, scale)) in [first, second].into_iter().zip(scales).enumerate() {
                for (weight, code) in row.iter_mut().zip(&codes[half * BLOCK_COLUMNS / 2..]) {
                    let scaled = scale * (i32::from(*code) - layout.zero as i32) as f32;
                    *weight = if layout.offset { scaled + offset } else { scaled };
                }
            }
        }
    }
}

/// Where the f16 scale and offset of block `b` stand in the header, in bytes.
fn scale_at(layout: &Layout, b: usize) -> (usize, usize) {
    match (layout.sub_scales, layout.offset) {
        (SubScales::None, false) => (32 * b, 0),
        (SubScales::None, true) => (64 * b, 64 * b + 32),
        _ => (0, 32),
    }
}

/// Where the sub-scales of block `b` and what follows them (offsets, or scales of the second half)
/// stand in the header, in bytes.
fn sub_scale_at(b: usize) -> (usize, usize) {
    (64 + 32 * b, 64 + 32 * b + PANEL_ROWS)
}

/// Writes the scales of a stored block, whose first block of 32 columns is `first` of its chunk.
fn put_scales(layout: &Layout, chunk: &mut [Line], first: usize, lane: usize, from: &Unpacked) {
    let header = chunk[..layout.header].as_flattened_mut();
    let (scale, offset) = scale_at(layout, first);
    header[scale + 2 * lane..][..2].copy_from_slice(&from.scale.to_le_bytes());
    if layout.offset {
        header[offset + 2 * lane..][..2].copy_from_slice(&from.offset.to_le_bytes());
    }
    if layout.sub_scales != SubScales::None {
        for b in 0..layout.blocks {
            let (scales, second) = sub_scale_at(b);
            header[scales + lane] = from.sub_scales[b][0];
            header[second + lane] = match layout.sub_scales {
                SubScales::Signed => from.sub_scales[b][1],
                _ => from.sub_offsets[b],
            };
        }
    }
}

/// The scales of both halves of block `b` of a chunk, and its offset.
fn scales(layout: &Layout, chunk: &[Line], b: usize, lane: usize) -> ([f32; 2], f32) {
    let header = chunk[..layout.header].as_flattened();
    let half = |at: usize| {
        let bytes = [header[at + 2 * lane], header[at + 2 * lane + 1]];
        f16::from_le_bytes(bytes).to_f32()
    };
    let (scale, offset) = scale_at(layout, b);
    let scale = half(scale);
    let offset = if layout.offset { half(offset) } else { 0.0 };
    let (first, second) = sub_scale_at(b);
    match layout.sub_scales {
        SubScales::None => ([scale; 2], offset),
        SubScales::Unsigned => {
            let [sub_scale, sub_offset] = [first, second].map(|at| f32::from(header[at + lane]));
            ([scale * sub_scale; 2], offset * sub_offset)
        }
        SubScales::Signed => {
            let sub = [first, second].map(|at| f32::from(header[at + lane].cast_signed()));
            (sub.map(|sub| scale * sub), 0.0)
        }
    }
}

/// Bytes of row `lane` in a line.
fn of_lane(line: &Line, lane: usize) -> u32 {
    u32::from_le_bytes([line[4 * lane], line[4 * lane + 1], line[4 * lane + 2], line[4 * lane + 3]])
}

fn put_codes(bits: u32, lines: &mut [Line], lane: usize, codes: &[u8; BLOCK_COLUMNS]) {
    let groups = codes.as_chunks::<4>().0;
    let group = |g: usize| u32::from_le_bytes(groups[g]);
    let mut put = |line: usize, four: u32| {
        lines[line][4 * lane..][..4].copy_from_slice(&four.to_le_bytes());
    };
    if bits == 8 {
        (0..8).for_each(|g| put(g, group(g)));
        return;
    }
    let low = |g: usize| group(g) & 0x0f0f_0f0f;
    (0..4).for_each(|line| put(line, low(2 * line) | low(2 * line + 1) << 4));
    let high = |g: usize| group(g) >> 4 & 0x0303_0303;
    match bits {
        5 => put(4, (0..8).fold(0, |plane, g| plane | high(g) << g)),
        6 => (0..2).for_each(|line| {
            put(4 + line, (0..4).fold(0, |plane, g| plane | high(4 * line + g) << (2 * g)));
        }),
        _ => {}
    }
}

fn codes(bits: u32, lines: &[Line], lane: usize) -> [u8; BLOCK_COLUMNS] {
    let mut codes = [0; BLOCK_COLUMNS];
    for (g, four) in codes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let low = || of_lane(&lines[g / 2], lane) >> (4 * (g % 2)) & 0x0f0f_0f0f;
        let code = match bits {
            8 => of_lane(&lines[g], lane),
            5 => low() | (of_lane(&lines[4], lane) >> g & 0x0101_0101) << 4,
            6 => {
                let plane = of_lane(&lines[4 + g / 4], lane) >> (2 * (g % 4));
                low() | (plane & 0x0303_0303) << 4
            }
            _ => low(),
        };
        *four = code.to_le_bytes();
    }
    codes
}
