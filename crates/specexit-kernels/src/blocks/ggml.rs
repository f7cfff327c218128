//! What one stored block of a GGML format says.

use half::f16;

use super::format::{BLOCK_COLUMNS, BlockFormat};

/// Blocks of 32 columns in the largest stored block.
const MOST: usize = 8;

/// One stored block, taken apart: the first `format.columns() / 32` of the arrays count.
#[derive(Clone, Copy)]
pub(super) struct Unpacked {
    /// The f16 scale, of all columns.
    pub(super) scale: u16,
    /// What is added is this f16 times `sub_offsets`, or this f16 itself without sub-scales. The
    /// K formats subtract; their sign is turned here.
    pub(super) offset: u16,
    /// Codes without sign.
    pub(super) codes: [[u8; BLOCK_COLUMNS]; MOST],
    /// Scales in units of `scale`: of 32 columns the first, of 16 both (signed).
    pub(super) sub_scales: [[u8; 2]; MOST],
    /// Offsets in units of `offset`.
    pub(super) sub_offsets: [u8; MOST],
}

impl Unpacked {
    pub(super) const EMPTY: Unpacked = Unpacked {
        scale: 0,
        offset: 0,
        codes: [[0; BLOCK_COLUMNS]; MOST],
        sub_scales: [[0; 2]; MOST],
        sub_offsets: [0; MOST],
    };
}

/// A stored block of [`BlockFormat::Q8_0`]: a scale that takes the largest number to 127, and all
/// numbers as multiples of it. The scale is infinite where f16 cannot hold it.
pub(crate) fn q8_0(numbers: &[f32; BLOCK_COLUMNS]) -> [u8; 2 + BLOCK_COLUMNS] {
    let largest = numbers.iter().fold(0f32, |a, b| a.max(b.abs()));
    let scale = f16::from_f32(largest / 127.0);
    let mut block = [0; 2 + BLOCK_COLUMNS];
    block[..2].copy_from_slice(&scale.to_le_bytes());
    if scale > f16::ZERO {
        for (code, number) in block[2..].iter_mut().zip(numbers) {
            let multiple = (number / scale.to_f32()).round().clamp(-127.0, 127.0);
            *code = (multiple as i8).cast_unsigned();
        }
    }
    block
}

/// Takes `block`, `format.bytes()` long, apart.
#[inline]
pub(super) fn unpack(format: BlockFormat, block: &[u8], out: &mut Unpacked) {
    match format {
        BlockFormat::Q4_0 => {
            out.scale = half(block, 0);
            nibbles(&block[2..], &mut out.codes[0]);
        }
        BlockFormat::Q4_1 => {
            (out.scale, out.offset) = (half(block, 0), half(block, 2));
            nibbles(&block[4..], &mut out.codes[0]);
        }
        BlockFormat::Q5_0 => {
            out.scale = half(block, 0);
            nibbles(&block[6..], &mut out.codes[0]);
            fifth_bits(&block[2..], &mut out.codes[0]);
        }
        BlockFormat::Q5_1 => {
            (out.scale, out.offset) = (half(block, 0), half(block, 2));
            nibbles(&block[8..], &mut out.codes[0]);
            fifth_bits(&block[4..], &mut out.codes[0]);
        }
        BlockFormat::Q8_0 => {
            out.scale = half(block, 0);
            for (code, byte) in out.codes[0].iter_mut().zip(&block[2..]) {
                *code = byte ^ 0x80;
            }
        }
        BlockFormat::Q4_K => {
            six_bit_scales(block, out);
            long_nibbles(&block[16..], &mut out.codes);
        }
        BlockFormat::Q5_K => {
            six_bit_scales(block, out);
            long_nibbles(&block[48..], &mut out.codes);
            for (b, codes) in out.codes.iter_mut().enumerate() {
                for (code, high) in codes.iter_mut().zip(&block[16..48]) {
                    *code |= (high >> b & 1) << 4;
                }
            }
        }
        BlockFormat::Q6_K => {
            let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
            out.scale = half(block, 208);
            for (b, codes) in out.codes.iter_mut().enumerate() {
                out.sub_scales[b] = [scales[2 * b], scales[2 * b + 1]];
                // Each half of 128 columns: blocks 0 and 1 in the low nibbles, 2 and 3 in the high.
                let (half, quarter) = (b / 4, b % 4);
                let low = &low[64 * half + 32 * (quarter % 2)..][..BLOCK_COLUMNS];
                let high = &high[32 * half..][..BLOCK_COLUMNS];
                for (i, code) in codes.iter_mut().enumerate() {
                    let nibble = low[i] >> (4 * (quarter / 2)) & 15;
                    *code = nibble | (high[i] >> (2 * quarter) & 3) << 4;
                }
            }
        }
    }
}

/// The two little-endian bytes at `at`.
fn half(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

/// 16 bytes: the first 16 codes in the low nibbles, the last in the high ones.
fn nibbles(bytes: &[u8], codes: &mut [u8; BLOCK_COLUMNS]) {
    let (low, high) = codes.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(&bytes[..16]) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
}

/// 4 bytes: bit `i` is bit 4 of code `i`.
fn fifth_bits(bytes: &[u8], codes: &mut [u8; BLOCK_COLUMNS]) {
    let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    for (i, code) in codes.iter_mut().enumerate() {
        *code |= ((bits >> i & 1) as u8) << 4;
    }
}

/// 128 bytes: of each 32, the low nibbles are one block and the high ones the next.
fn long_nibbles(bytes: &[u8], codes: &mut [[u8; BLOCK_COLUMNS]; MOST]) {
    for (pair, bytes) in codes.chunks_exact_mut(2).zip(bytes.chunks_exact(BLOCK_COLUMNS)) {
        let (low, high) = pair.split_at_mut(1);
        for ((low, high), byte) in low[0].iter_mut().zip(&mut high[0]).zip(bytes) {
            (*low, *high) = (byte & 15, byte >> 4);
        }
    }
}

/// `Q4_K` and `Q5_K`: two f16, then eight scales and eight offsets of 6 bits in 12 bytes. The first
/// four of each are the low bits of bytes 0 to 3 and 4 to 7; of the others, bytes 8 to 11 have the
/// low four bits (scales low, offsets high) and the top bits of bytes 0 to 7 the upper two.
fn six_bit_scales(block: &[u8], out: &mut Unpacked) {
    (out.scale, out.offset) = (half(block, 0), half(block, 2) ^ 0x8000);
    let packed = &block[4..16];
    for b in 0..4 {
        out.sub_scales[b][0] = packed[b] & 63;
        out.sub_offsets[b] = packed[b + 4] & 63;
        out.sub_scales[b + 4][0] = packed[b + 8] & 15 | packed[b] >> 6 << 4;
        out.sub_offsets[b + 4] = packed[b + 8] >> 4 | packed[b + 4] >> 6 << 4;
    }
}
