//! GGML's block formats by their definition, element by element: slow and obvious.

use specexit_kernels::BlockFormat;

use super::Numbers;

/// Where the f16 of a block stand.
fn halves(format: BlockFormat) -> &'static [usize] {
    match format {
        BlockFormat::Q4_0 | BlockFormat::Q5_0 | BlockFormat::Q8_0 => &[0],
        BlockFormat::Q6_K => &[208],
        _ => &[0, 2],
    }
}

/// Random blocks of `count` weights with scales up to 1.
pub fn random(format: BlockFormat, count: usize, seed: u64) -> Vec<u8> {
    let mut numbers = Numbers::new(seed ^ 77);
    let bytes = count / format.columns() * format.bytes();
    let mut stored: Vec<u8> = (0..bytes).map(|_| ((numbers.next() + 1.0) * 127.99) as u8).collect();
    for block in stored.chunks_exact_mut(format.bytes()) {
        for &at in halves(format) {
            block[at..at + 2].copy_from_slice(&half_bits(numbers.next()).to_le_bytes());
        }
    }
    stored
}

/// Blocks of `count` weights with all bytes `fill` and scales 1.
pub fn filled(format: BlockFormat, count: usize, fill: u8) -> Vec<u8> {
    let mut stored = vec![fill; count / format.columns() * format.bytes()];
    for block in stored.chunks_exact_mut(format.bytes()) {
        for &at in halves(format) {
            block[at..at + 2].copy_from_slice(&[0, 0x3c]);
        }
    }
    stored
}

/// A number in [-1, 1) as f16, truncated.
fn half_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let exponent = (bits >> 23 & 255) as i32 - 127 + 15;
    let sign = (bits >> 16 & 0x8000) as u16;
    if exponent <= 0 { sign } else { sign | (exponent as u16) << 10 | (bits >> 13 & 0x3ff) as u16 }
}

fn half(block: &[u8], at: usize) -> f64 {
    let bits = u16::from_le_bytes([block[at], block[at + 1]]);
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
    let size = match exponent {
        0 => fraction * 2.0_f64.powi(-24),
        _ => (1.0 + fraction / 1024.0) * 2.0_f64.powi(exponent - 15),
    };
    if bits & 0x8000 == 0 { size } else { -size }
}

/// The weights that `stored` blocks say.
pub fn decode(format: BlockFormat, stored: &[u8]) -> Vec<f64> {
    let blocks = stored.chunks_exact(format.bytes());
    blocks.flat_map(|block| (0..format.columns()).map(|i| weight(format, block, i))).collect()
}

/// Weight `i` of a block.
fn weight(format: BlockFormat, block: &[u8], i: usize) -> f64 {
    // Nibble `i` of 32 weights in 16 bytes.
    let nibble = |at: usize| f64::from(block[at + i % 16] >> (4 * (i / 16)) & 15);
    let fifth = |at: usize| f64::from(block[at + i / 8] >> (i % 8) & 1) * 16.0;
    let d = half(block, 0);
    match format {
        BlockFormat::Q4_0 => d * (nibble(2) - 8.0),
        BlockFormat::Q4_1 => d * nibble(4) + half(block, 2),
        BlockFormat::Q5_0 => d * (nibble(6) + fifth(2) - 16.0),
        BlockFormat::Q5_1 => d * (nibble(8) + fifth(4)) + half(block, 2),
        BlockFormat::Q8_0 => d * f64::from(block[2 + i].cast_signed()),
        BlockFormat::Q4_K | BlockFormat::Q5_K => {
            let (scale, min) = six_bits(&block[4..16], i / 32);
            let (qs, high) = match format {
                BlockFormat::Q4_K => (16, 0),
                _ => (48, block[16 + i % 32] >> (i / 32) & 1),
            };
            let byte = block[qs + i / 64 * 32 + i % 32];
            let low = if (i / 32).is_multiple_of(2) { byte & 15 } else { byte >> 4 };
            d * scale * f64::from(low + 16 * high) - half(block, 2) * min
        }
        BlockFormat::Q6_K => {
            let (part, quarter, l) = (i / 128, i / 32 % 4, i % 32);
            let low = block[64 * part + 32 * (quarter % 2) + l];
            let low = if quarter < 2 { low & 15 } else { low >> 4 };
            let high = block[128 + 32 * part + l] >> (2 * quarter) & 3;
            let scale = f64::from(block[192 + i / 16].cast_signed());
            half(block, 208) * scale * (f64::from(low + 16 * high) - 32.0)
        }
    }
}

/// Scale and offset `b` of the eight that 12 bytes hold.
fn six_bits(packed: &[u8], b: usize) -> (f64, f64) {
    let (scale, min) = if b < 4 {
        (packed[b] & 63, packed[b + 4] & 63)
    } else {
        (packed[b + 4] & 15 | (packed[b - 4] >> 6) << 4, packed[b + 4] >> 4 | (packed[b] >> 6) << 4)
    };
    (f64::from(scale), f64::from(min))
}
