//! A position is written into its panel.

use half::bf16;

use super::{CacheNumbers, KeysValues, Line, PANEL};
use crate::elementwise::SMALLEST;
use crate::kernels::Kernels;
use crate::simd::LANES;

/// Columns that are rounded at a time, whole vectors.
const PIECE: usize = 256;

/// Writes `key` and `value` `[kv_heads * head_dim]` behind the positions that `cache` holds, where there must be
/// room.
pub(super) fn position(cache: &mut KeysValues, kernels: &Kernels, key: &[f32], value: &[f32]) {
    let (panel, lane) = (cache.len / PANEL, cache.len % PANEL);
    let (key_lines, value_lines) = (cache.key_lines(), cache.value_lines());
    let (head_lines, number_lines) = (cache.head_lines(), cache.number_lines());
    let (numbers, group) = (cache.numbers, cache.numbers.group());
    // Heads that need no padding and no scale are like a single one.
    let is_apart = numbers.scale_lines() > 0 || !cache.head_dim.is_multiple_of(LANES);
    let heads = if is_apart { cache.kv_heads } else { 1 };
    let merged = cache.kv_heads / heads;
    let (width, blocks) = (cache.head_dim * merged, cache.row_blocks() / heads);
    let row = lane / group * cache.row_blocks();
    let keys = &mut cache.keys[panel * key_lines..][..key_lines];
    let values = &mut cache.values[panel * value_lines..][..value_lines];

    let heads = keys.chunks_exact_mut(head_lines * merged).zip(key.chunks_exact(width));
    for (head, ((keys, key), value)) in heads.zip(value.chunks_exact(width)).enumerate() {
        let (keys, scales) = keys.split_at_mut(number_lines * merged);
        let start = row + head * blocks;
        match numbers {
            CacheNumbers::F32 => {
                let keys: &mut [[f32; PANEL]] = bytemuck::cast_slice_mut(keys);
                for (block, key) in keys.iter_mut().zip(key) {
                    block[lane] = *key;
                }
                let values: &mut [f32] = bytemuck::cast_slice_mut(values);
                values[start * LANES..][..value.len()].copy_from_slice(value);
            }
            CacheNumbers::Bf16 => {
                let keys: &mut [[[bf16; 2]; PANEL]] = bytemuck::cast_slice_mut(keys);
                let values: &mut [u32] = bytemuck::cast_slice_mut(values);
                let values = &mut values[start * LANES..][..value.len()];
                let mut rounded = [bf16::ZERO; PIECE];
                put_key(keys, lane, key, &mut rounded, |to, key| kernels.round(to, key));
                for (pairs, value) in values.chunks_mut(PIECE).zip(value.chunks(PIECE)) {
                    kernels.round(&mut rounded[..value.len()], value);
                    put_beside(pairs, &rounded[..value.len()], lane % 2);
                }
            }
            CacheNumbers::Int8 => {
                let keys: &mut [[[i8; 2]; PANEL]] = bytemuck::cast_slice_mut(keys);
                let values: &mut [[i8; 2]] = bytemuck::cast_slice_mut(values);
                let values = &mut values[start * LANES..][..value.len()];
                let scales: &mut [[f32; PANEL]] = bytemuck::cast_slice_mut::<Line, _>(scales);
                let mut bytes = [0; PIECE];
                let factor = scale(kernels, key, &mut scales[0][lane]);
                put_key(keys, lane, key, &mut bytes, |to, key| {
                    kernels.round_bytes(to, key, factor);
                });
                let factor = scale(kernels, value, &mut scales[1][lane]);
                for (pairs, value) in values.chunks_mut(PIECE).zip(value.chunks(PIECE)) {
                    kernels.round_bytes(&mut bytes[..value.len()], value, factor);
                    for (pair, byte) in pairs.iter_mut().zip(&bytes) {
                        pair[lane % 2] = *byte;
                    }
                }
            }
        }
    }
}

/// Writes a key, rounded piece by piece, as pairs of neighbouring columns, the last one padded with 0.
fn put_key<T: Copy + Default>(
    blocks: &mut [[[T; 2]; PANEL]],
    lane: usize,
    key: &[f32],
    rounded: &mut [T; PIECE],
    round: impl Fn(&mut [T], &[f32]),
) {
    for (blocks, key) in blocks.chunks_mut(PIECE / 2).zip(key.chunks(PIECE)) {
        round(&mut rounded[..key.len()], key);
        rounded[key.len()..].fill(T::default());
        for (block, pair) in blocks.iter_mut().zip(rounded.as_chunks().0) {
            block[lane] = *pair;
        }
    }
}

/// Sets the scale of numbers in 8 bits, and says what they are multiplied with before they are rounded.
fn scale(kernels: &Kernels, x: &[f32], scale: &mut f32) -> f32 {
    let largest = kernels.largest(x);
    *scale = largest / 127.0;
    if largest < SMALLEST { 0.0 } else { 127.0 / largest }
}

/// Writes the first or the second bf16 of each pair and leaves the other as it is.
fn put_beside(pairs: &mut [u32], numbers: &[bf16], place: usize) {
    // As whole words, which the compiler vectorises.
    let first = cfg!(target_endian = "little") == (place == 0);
    let (shift, kept) = if first { (0, 0xffff_0000) } else { (16, 0x0000_ffff) };
    for (pair, number) in pairs.iter_mut().zip(numbers) {
        *pair = *pair & kept | u32::from(number.to_bits()) << shift;
    }
}
