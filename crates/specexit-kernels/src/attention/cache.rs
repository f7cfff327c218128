//! Keys and values of one sequence in one layer, laid out as attention reads them.
//!
//! A *panel* holds sixteen positions. The keys of a panel stand head by head and column by column, for
//! each column the numbers of the sixteen positions side by side: a query meets sixteen keys in one
//! vector, and no sum crosses its lanes. The values stand position by position, sixteen columns in a
//! vector. In bf16, where two products are added at a time, every number is followed by the one that is
//! multiplied beside it: of keys the next column's, of values the next position's. Heads are padded
//! with zeros to whole vectors of values and to whole pairs of columns of keys.

use bytemuck::{Pod, Zeroable};
use half::bf16;

use crate::isa::Precision;
use crate::kernels::Kernels;
use crate::simd::LANES;

/// Positions of a panel.
pub(super) const PANEL: usize = LANES;

/// Columns that are rounded at a time, an even number.
const PIECE: usize = 256;

/// Sixteen f32 or 32 bf16, as a vector loads them.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Line([u8; 64]);

impl Line {
    pub(super) const ZERO: Line = Line([0; 64]);
}

/// Keys and values of one sequence in one layer, in the numbers that linear layers multiply with: bf16
/// under [`Precision::Bf16`], else f32.
///
/// It can be cut to any length; what is appended moves nothing except when the memory has to grow.
/// Memory is taken for [`PANEL`](Self::PANEL) positions at a time.
#[derive(Clone, Debug)]
pub struct KeysValues {
    kv_heads: usize,
    head_dim: usize,
    precision: Precision,
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
    pub fn new(kv_heads: usize, head_dim: usize, precision: Precision) -> KeysValues {
        assert!(kv_heads > 0 && head_dim > 0, "empty heads");
        KeysValues { kv_heads, head_dim, precision, len: 0, keys: Vec::new(), values: Vec::new() }
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
    pub(super) fn precision(&self) -> Precision {
        self.precision
    }

    /// Keys and values of all panels.
    pub(super) fn lines(&self) -> [&[Line]; 2] {
        [&self.keys, &self.values]
    }

    /// Numbers that are multiplied together.
    fn group(&self) -> usize {
        match self.precision {
            Precision::F32 => 1,
            Precision::Bf16 => 2,
        }
    }

    /// Lines of a head's keys in a panel: one for each column, or pair of columns.
    fn head_lines(&self) -> usize {
        self.head_dim.div_ceil(self.group())
    }

    /// Lines of a panel's keys.
    fn key_lines(&self) -> usize {
        self.kv_heads * self.head_lines()
    }

    /// Lines of the values at one position, or pair of positions.
    fn row_lines(&self) -> usize {
        self.kv_heads * self.head_dim.div_ceil(LANES)
    }

    /// Lines of a panel's values.
    fn value_lines(&self) -> usize {
        self.row_lines() * (PANEL / self.group())
    }

    /// Appends a position: `key` and `value` `[kv_heads * head_dim]`, the key rotated.
    ///
    /// # Panics
    ///
    /// If a length does not fit.
    pub fn push(&mut self, kernels: &Kernels, key: &[f32], value: &[f32]) {
        let width = self.kv_heads * self.head_dim;
        assert_eq!([key.len(), value.len()], [width; 2], "not a position of {width} numbers");
        let (panel, lane) = (self.len / PANEL, self.len % PANEL);
        let (key_lines, value_lines) = (self.key_lines(), self.value_lines());
        if self.keys.len() < (panel + 1) * key_lines {
            self.keys.resize((panel + 1) * key_lines, Line::ZERO);
            self.values.resize((panel + 1) * value_lines, Line::ZERO);
        }
        let row_lines = self.row_lines();
        let row = panel * value_lines + lane / self.group() * row_lines;
        // Heads that need no padding are like a single one.
        let is_padded = !self.head_dim.is_multiple_of(LANES);
        let heads = if is_padded { self.kv_heads } else { 1 };
        let keys = self.keys[panel * key_lines..][..key_lines].chunks_exact_mut(key_lines / heads);
        let values = self.values[row..][..row_lines].chunks_exact_mut(row_lines / heads);
        let keys = keys.zip(key.chunks_exact(width / heads));
        let values = values.zip(value.chunks_exact(width / heads));
        match self.precision {
            Precision::F32 => {
                for (lines, key) in keys {
                    let lines: &mut [[f32; PANEL]] = bytemuck::cast_slice_mut(lines);
                    for (line, key) in lines.iter_mut().zip(key) {
                        line[lane] = *key;
                    }
                }
                for (lines, value) in values {
                    let columns: &mut [f32] = bytemuck::cast_slice_mut(lines);
                    columns[..value.len()].copy_from_slice(value);
                }
            }
            Precision::Bf16 => {
                let mut rounded = [bf16::ZERO; PIECE];
                for (lines, key) in keys {
                    let lines: &mut [[[bf16; 2]; PANEL]] = bytemuck::cast_slice_mut(lines);
                    let pieces = lines.chunks_mut(PIECE / 2).zip(key.chunks(PIECE));
                    for (lines, key) in pieces {
                        kernels.round(&mut rounded[..key.len()], key);
                        rounded[key.len()..].fill(bf16::ZERO);
                        for (line, pair) in lines.iter_mut().zip(rounded.as_chunks().0) {
                            line[lane] = *pair;
                        }
                    }
                }
                for (lines, value) in values {
                    let columns: &mut [u32] = bytemuck::cast_slice_mut(lines);
                    for (columns, value) in columns.chunks_mut(PIECE).zip(value.chunks(PIECE)) {
                        kernels.round(&mut rounded[..value.len()], value);
                        put_beside(columns, &rounded[..value.len()], lane % 2);
                    }
                }
            }
        }
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
        let (panel, lane, group) = (position / PANEL, position % PANEL, self.group());
        let keys = &self.keys[panel * self.key_lines()..];
        let values = &self.values[panel * self.value_lines() + lane / group * self.row_lines()..];
        let number = |lines: &[Line], line: usize, place: usize| match self.precision {
            Precision::F32 => bytemuck::cast_ref::<Line, [f32; LANES]>(&lines[line])[place],
            Precision::Bf16 => {
                bytemuck::cast_ref::<Line, [bf16; 2 * LANES]>(&lines[line])[place].to_f32()
            }
        };
        for i in 0..width {
            let (head, column) = (i / self.head_dim, i % self.head_dim);
            let line = head * self.head_lines() + column / group;
            key[i] = number(keys, line, lane * group + column % group);
            let line = head * self.head_dim.div_ceil(LANES) + column / LANES;
            value[i] = number(values, line, column % LANES * group + lane % group);
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

/// Writes the first or the second bf16 of each pair and leaves the other as it is.
fn put_beside(pairs: &mut [u32], numbers: &[bf16], place: usize) {
    // As whole words, which the compiler vectorises.
    let first = cfg!(target_endian = "little") == (place == 0);
    let (shift, kept) = if first { (0, 0xffff_0000) } else { (16, 0x0000_ffff) };
    for (pair, number) in pairs.iter_mut().zip(numbers) {
        *pair = *pair & kept | u32::from(number.to_bits()) << shift;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(p: usize, width: usize) -> [Vec<f32>; 2] {
        let number = |i: usize| (p * 100 + i) as f32 + 1.0 / 256.0;
        [(0..width).map(number).collect(), (0..width).map(|i| -number(i)).collect()]
    }

    fn filled(kv_heads: usize, head_dim: usize, precision: Precision, n: usize) -> KeysValues {
        let kernels = Kernels::new(1, precision);
        let mut cache = KeysValues::new(kv_heads, head_dim, precision);
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
            let expected = position(p + first, width).map(|numbers| match cache.precision {
                Precision::F32 => numbers,
                Precision::Bf16 => numbers.iter().map(|x| bf16::from_f32(*x).to_f32()).collect(),
            });
            assert_eq!(found, expected, "position {p} of {cache:?}");
        }
    }

    const BOTH: [Precision; 2] = [Precision::F32, Precision::Bf16];

    #[test]
    fn positions_are_read_as_they_were_pushed() {
        for (kv_heads, head_dim) in [(1, 1), (2, 5), (3, 16), (1, 24), (1, 300)] {
            for precision in BOTH {
                check(&filled(kv_heads, head_dim, precision, 35), 0);
            }
        }
    }

    #[test]
    fn what_is_cut_off_is_overwritten() {
        for precision in BOTH {
            let kernels = Kernels::new(1, precision);
            let mut cache = filled(2, 6, precision, 40);
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
        for precision in BOTH {
            let mut cache = KeysValues::new(2, 32, precision);
            let number = if precision == Precision::F32 { 4 } else { 2 };
            assert_eq!(cache.panel_bytes(), 16 * 2 * 64 * number);
            cache.reserve(33);
            assert_eq!(cache.capacity_bytes(), 3 * cache.panel_bytes());
            let kernels = Kernels::new(1, precision);
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
