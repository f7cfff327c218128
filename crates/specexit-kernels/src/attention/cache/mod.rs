//! Keys and values of one sequence in one layer, laid out as attention reads them.
//!
//! A *panel* holds sixteen positions. The keys of a panel stand head by head and column by column, for
//! each column the numbers of the sixteen positions side by side: a query meets sixteen keys in one
//! vector, and no sum crosses its lanes. The values stand position by position, sixteen columns in a
//! vector. In bf16 and in 8 bits, where two products are added at a time, every number is followed by the
//! one that is multiplied beside it: of keys the next column's, of values the next position's. Heads are
//! padded with zeros to whole vectors of values and to whole pairs of columns of keys; in 8 bits to whole
//! lines, and behind a head's keys in a panel stand the scales of its keys at the sixteen positions, then
//! those of its values.

mod numbers;
mod put;

use bytemuck::{Pod, Zeroable};
use half::bf16;

use crate::kernels::Kernels;
use crate::simd::LANES;
pub use numbers::{CacheNumbers, ParseCacheNumbersError};

/// Positions of a panel.
pub(super) const PANEL: usize = LANES;

/// Sixteen f32, 32 bf16 or 64 bytes, as a vector loads them.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Line([u8; 64]);

impl Line {
    pub(super) const ZERO: Line = Line([0; 64]);
}

/// Keys and values of one sequence in one layer.
///
/// It can be cut to any length; what is appended moves nothing except when the memory has to grow.
/// Memory is taken for [`PANEL`](Self::PANEL) positions at a time.
#[derive(Clone, Debug)]
pub struct KeysValues {
    kv_heads: usize,
    head_dim: usize,
    numbers: CacheNumbers,
    len: usize,
    keys: Vec<Line>,
    values: Vec<Line>,
}

impl KeysValues {
    /// Positions for which memory is taken together.
    pub const PANEL: usize = PANEL;

    /// No position yet, of `kv_heads` heads of `head_dim` keys and values.
    ///
    /// # Panics
    ///
    /// If either is 0.
    pub fn new(kv_heads: usize, head_dim: usize, numbers: CacheNumbers) -> KeysValues {
        assert!(kv_heads > 0 && head_dim > 0, "empty heads");
        KeysValues { kv_heads, head_dim, numbers, len: 0, keys: Vec::new(), values: Vec::new() }
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no position is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of a panel of keys and values.
    pub fn panel_bytes(&self) -> usize {
        (self.key_lines() + self.value_lines()) * size_of::<Line>()
    }

    /// Heads, and keys or values of each.
    pub(super) fn heads(&self) -> [usize; 2] {
        [self.kv_heads, self.head_dim]
    }

    /// Which numbers are held.
    pub(super) fn numbers(&self) -> CacheNumbers {
        self.numbers
    }

    /// Keys and values of all panels.
    pub(super) fn lines(&self) -> [&[Line]; 2] {
        [&self.keys, &self.values]
    }

    /// Lines of a head's keys in a panel, the scales apart.
    fn number_lines(&self) -> usize {
        self.numbers.lines(self.head_dim.div_ceil(self.numbers.group()))
    }

    /// Lines of a head's keys in a panel, and of its scales.
    pub(super) fn head_lines(&self) -> usize {
        self.number_lines() + self.numbers.scale_lines()
    }

    /// Lines of a panel's keys.
    fn key_lines(&self) -> usize {
        self.kv_heads * self.head_lines()
    }

    /// Blocks of the values at one position, or pair of positions.
    fn row_blocks(&self) -> usize {
        self.kv_heads * self.head_dim.div_ceil(LANES)
    }

    /// Lines of a panel's values.
    fn value_lines(&self) -> usize {
        self.numbers.lines(self.row_blocks() * (PANEL / self.numbers.group()))
    }

    /// Appends a position: `key` and `value` `[kv_heads * head_dim]`, the key rotated.
    ///
    /// # Panics
    ///
    /// If a length does not fit.
    pub fn push(&mut self, kernels: &Kernels, key: &[f32], value: &[f32]) {
        let width = self.kv_heads * self.head_dim;
        assert_eq!([key.len(), value.len()], [width; 2], "not a position of {width} numbers");
        let panel = self.len / PANEL;
        let (key_lines, value_lines) = (self.key_lines(), self.value_lines());
        if self.keys.len() < (panel + 1) * key_lines {
            self.keys.resize((panel + 1) * key_lines, Line::ZERO);
            self.values.resize((panel + 1) * value_lines, Line::ZERO);
        }
        put::position(self, kernels, key, value);
        self.len += 1;
    }

    /// What position `position` holds, as f32: `key` and `value` `[kv_heads * head_dim]`.
    ///
    /// # Panics
    ///
    /// If a length does not fit or the position is not held.
    pub fn read(&self, position: usize, key: &mut [f32], value: &mut [f32]) {
        assert!(position < self.len, "position {position} of {}", self.len);
        let width = self.kv_heads * self.head_dim;
        assert_eq!([key.len(), value.len()], [width; 2], "not a position of {width} numbers");
        let (panel, lane, group) = (position / PANEL, position % PANEL, self.numbers.group());
        let keys = &self.keys[panel * self.key_lines()..];
        let values = &self.values[panel * self.value_lines()..];
        // The number at `place` of block `block`.
        let number = |lines: &[Line], block: usize, place: usize| {
            let place = block * LANES * group + place;
            match self.numbers {
                CacheNumbers::F32 => bytemuck::cast_slice::<Line, f32>(lines)[place],
                CacheNumbers::Bf16 => bytemuck::cast_slice::<Line, bf16>(lines)[place].to_f32(),
                CacheNumbers::Int8 => f32::from(bytemuck::cast_slice::<Line, i8>(lines)[place]),
            }
        };
        let vectors = self.head_dim.div_ceil(LANES);
        for head in 0..self.kv_heads {
            let lines = &keys[head * self.head_lines()..][..self.head_lines()];
            let (lines, scales) = lines.split_at(self.number_lines());
            let mut scale = [1.0; 2];
            for (scale, scales) in scale.iter_mut().zip(scales) {
                *scale = bytemuck::cast_ref::<Line, [f32; PANEL]>(scales)[lane];
            }
            for column in 0..self.head_dim {
                let i = head * self.head_dim + column;
                let place = lane * group + column % group;
                key[i] = number(lines, column / group, place) * scale[0];
                let block = lane / group * self.row_blocks() + head * vectors + column / LANES;
                let place = column % LANES * group + lane % group;
                value[i] = number(values, block, place) * scale[1];
            }
        }
    }

    /// Forgets every position from `len` on; a longer `len` changes nothing.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// A copy of the first `len` positions (all of them when fewer are held).
    #[must_use]
    pub fn fork(&self, len: usize) -> KeysValues {
        let len = len.min(self.len);
        let panels = len.div_ceil(PANEL);
        let keys = self.keys[..panels * self.key_lines()].to_vec();
        let values = self.values[..panels * self.value_lines()].to_vec();
        KeysValues { len, keys, values, ..*self }
    }

    /// Makes room for `positions` in all, and for no more.
    pub fn reserve(&mut self, positions: usize) {
        let panels = positions.div_ceil(PANEL);
        let (keys, values) = (panels * self.key_lines(), panels * self.value_lines());
        self.keys.reserve_exact(keys.saturating_sub(self.keys.len()));
        self.values.reserve_exact(values.saturating_sub(self.values.len()));
    }

    /// Gives back the room beyond what is held.
    pub fn shrink(&mut self) {
        let panels = self.len.div_ceil(PANEL);
        self.keys.truncate(panels * self.key_lines());
        self.values.truncate(panels * self.value_lines());
        self.keys.shrink_to_fit();
        self.values.shrink_to_fit();
    }

    /// Bytes that are taken, used or not.
    pub fn capacity_bytes(&self) -> usize {
        (self.keys.capacity() + self.values.capacity()) * size_of::<Line>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Precision;

    fn position(p: usize, width: usize) -> [Vec<f32>; 2] {
        let number = |i: usize| (p * 100 + i) as f32 + 1.0 / 256.0;
        [(0..width).map(number).collect(), (0..width).map(|i| -number(i)).collect()]
    }

    fn filled(kv_heads: usize, head_dim: usize, numbers: CacheNumbers, n: usize) -> KeysValues {
        let kernels = Kernels::new(1, Precision::F32);
        let mut cache = KeysValues::new(kv_heads, head_dim, numbers);
        for p in 0..n {
            let [key, value] = position(p, kv_heads * head_dim);
            cache.push(&kernels, &key, &value);
        }
        cache
    }

    /// All positions from `first` on are as they were pushed, rounded where they are kept so.
    fn check(cache: &KeysValues, first: usize) {
        let width = cache.kv_heads * cache.head_dim;
        for p in 0..cache.len() {
            let mut found = [vec![0.0; width], vec![0.0; width]];
            let [key, value] = &mut found;
            cache.read(p, key, value);
            let expected = position(p + first, width).map(|numbers| match cache.numbers {
                CacheNumbers::F32 => numbers,
                CacheNumbers::Bf16 => numbers.iter().map(|x| bf16::from_f32(*x).to_f32()).collect(),
                CacheNumbers::Int8 => numbers.chunks(cache.head_dim).flat_map(in_8_bits).collect(),
            });
            assert_eq!(found, expected, "position {p} of {cache:?}");
        }
    }

    /// A head's numbers as [`CacheNumbers::Int8`] defines them.
    fn in_8_bits(x: &[f32]) -> Vec<f32> {
        let largest = x.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
        let scale = largest / 127.0;
        x.iter().map(|x| (x * (127.0 / largest)).round_ties_even() * scale).collect()
    }

    const ALL: [CacheNumbers; 3] = [CacheNumbers::F32, CacheNumbers::Bf16, CacheNumbers::Int8];

    #[test]
    fn positions_are_read_as_they_were_pushed() {
        for (kv_heads, head_dim) in [(1, 1), (2, 5), (3, 16), (1, 24), (1, 300)] {
            for numbers in ALL {
                check(&filled(kv_heads, head_dim, numbers, 35), 0);
            }
        }
    }

    #[test]
    fn what_is_cut_off_is_overwritten() {
        for numbers in ALL {
            let kernels = Kernels::new(1, Precision::F32);
            let mut cache = filled(2, 6, numbers, 40);
            cache.truncate(19);
            cache.truncate(30);
            assert_eq!(cache.len(), 19);
            for p in 19..25 {
                let [key, value] = position(p, 12);
                cache.push(&kernels, &key, &value);
            }
            check(&cache, 0);
            let fork = cache.fork(17);
            assert_eq!((fork.len(), cache.fork(99).len()), (17, 25));
            check(&fork, 0);
        }
    }

    #[test]
    fn room_is_for_whole_panels_and_can_be_given_back() {
        for numbers in ALL {
            let mut cache = KeysValues::new(2, 32, numbers);
            let (number, scales) = match numbers {
                CacheNumbers::F32 => (4, 0),
                CacheNumbers::Bf16 => (2, 0),
                CacheNumbers::Int8 => (1, 16 * 2 * 2 * 4),
            };
            assert_eq!(cache.panel_bytes(), 16 * 2 * 64 * number + scales);
            cache.reserve(33);
            assert_eq!(cache.capacity_bytes(), 3 * cache.panel_bytes());
            let kernels = Kernels::new(1, Precision::F32);
            for p in 0..33 {
                let [key, value] = position(p, 64);
                cache.push(&kernels, &key, &value);
            }
            assert_eq!(cache.capacity_bytes(), 3 * cache.panel_bytes());
            cache.truncate(16);
            cache.shrink();
            assert_eq!(cache.capacity_bytes(), cache.panel_bytes());
            check(&cache, 0);
        }
    }
}
