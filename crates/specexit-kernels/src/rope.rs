//! Rotary position embedding.

use std::sync::OnceLock;

use crate::simd::{LANES, Simd};

/// Positions whose cosines and sines are computed together.
const PAGE: usize = 64;

/// Cosines and sines of the angles `position * inv_freq[i]` (Su et al. 2021), computed in f64 and
/// rounded to f32.
///
/// They are computed for 64 positions at a time when one of them is first used, and kept: a table
/// for 131,072 positions takes no more memory than the positions that occur.
#[derive(Debug)]
pub struct RopeTable {
    inv_freq: Vec<f32>,
    max_positions: usize,
    /// Per page: for each position the cosines, then the sines.
    pages: Vec<OnceLock<Box<[f32]>>>,
}

impl RopeTable {
    /// A table for heads of `2 * inv_freq.len()` values and positions below `max_positions`.
    ///
    /// `inv_freq[i]` is in radians per position; scaled variants (Llama 3, linear) differ in these
    /// only.
    pub fn new(inv_freq: &[f32], max_positions: usize) -> RopeTable {
        let pages = (0..max_positions.div_ceil(PAGE)).map(|_| OnceLock::new()).collect();
        RopeTable { inv_freq: inv_freq.to_vec(), max_positions, pages }
    }

    /// Values per head.
    pub fn head_dim(&self) -> usize {
        2 * self.inv_freq.len()
    }

    /// The number of positions it covers.
    pub fn max_positions(&self) -> usize {
        self.max_positions
    }

    /// Cosines and sines `[head_dim / 2]` of one position.
    ///
    /// # Panics
    ///
    /// If `position` is not below `max_positions`.
    pub fn at(&self, position: u32) -> (&[f32], &[f32]) {
        let position = position as usize;
        assert!(position < self.max_positions, "position {position} of {}", self.max_positions);
        let half = self.inv_freq.len();
        let page = self.pages[position / PAGE].get_or_init(|| self.page(position / PAGE));
        page[position % PAGE * 2 * half..][..2 * half].split_at(half)
    }

    fn page(&self, index: usize) -> Box<[f32]> {
        let half = self.inv_freq.len();
        let mut page = vec![0.0; PAGE * 2 * half].into_boxed_slice();
        for (i, row) in page.chunks_exact_mut((2 * half).max(1)).enumerate() {
            let position = (index * PAGE + i) as f64;
            let (cos, sin) = row.split_at_mut(half);
            for ((cos, sin), &inv_freq) in cos.iter_mut().zip(sin).zip(&self.inv_freq) {
                let (s, c) = (position * f64::from(inv_freq)).sin_cos();
                (*cos, *sin) = (c as f32, s as f32);
            }
        }
        page
    }
}

/// Rotates `heads` heads from column `offset` on, in rows of `row_stride` values.
#[inline(always)]
pub(crate) fn rope_rows<S: Simd>(
    s: S,
    x: &mut [f32],
    row_stride: usize,
    offset: usize,
    heads: usize,
    positions: &[u32],
    table: &RopeTable,
) {
    let head_dim = table.head_dim();
    for (row, &position) in x.chunks_exact_mut(row_stride).zip(positions) {
        let (cos, sin) = table.at(position);
        for head in row[offset..offset + heads * head_dim].chunks_exact_mut(head_dim) {
            let (a, b) = head.split_at_mut(head_dim / 2);
            rotate(s, a, b, cos, sin);
        }
    }
}

/// `(a, b) = (a cos - b sin, b cos + a sin)`
#[inline(always)]
fn rotate<S: Simd>(s: S, a: &mut [f32], b: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (a_vectors, a_rest) = a.as_chunks_mut::<LANES>();
    let (b_vectors, b_rest) = b.as_chunks_mut::<LANES>();
    let (cos_vectors, cos_rest) = cos.as_chunks::<LANES>();
    let (sin_vectors, sin_rest) = sin.as_chunks::<LANES>();
    let vectors = a_vectors.iter_mut().zip(b_vectors).zip(cos_vectors).zip(sin_vectors);
    for (((a, b), cos), sin) in vectors {
        let turned = turn(s, s.load(a), s.load(b), s.load(cos), s.load(sin));
        s.store(turned.0, a);
        s.store(turned.1, b);
    }
    let (cos, sin) = (s.load_part(cos_rest, 0.0), s.load_part(sin_rest, 0.0));
    let turned = turn(s, s.load_part(a_rest, 0.0), s.load_part(b_rest, 0.0), cos, sin);
    s.store_part(turned.0, a_rest);
    s.store_part(turned.1, b_rest);
}

#[inline(always)]
fn turn<S: Simd>(s: S, a: S::F, b: S::F, cos: S::F, sin: S::F) -> (S::F, S::F) {
    let minus_sin = s.sub(s.splat(0.0), sin);
    (s.fma(b, minus_sin, s.mul(a, cos)), s.fma(a, sin, s.mul(b, cos)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Scalar;

    #[test]
    fn position_zero_turns_nothing() {
        let table = RopeTable::new(&[1.0, 0.1], 4);
        let mut x = [1.0, 2.0, 3.0, 4.0];
        rope_rows(Scalar, &mut x, 4, 0, 1, &[0], &table);
        assert_eq!(x, [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn turns_pairs_by_their_angle_and_leaves_other_columns() {
        let table = RopeTable::new(&[1.0, 0.01], 200);
        let mut x = [9.0, 1.0, 2.0, 3.0, 4.0, 9.0];
        rope_rows(Scalar, &mut x, 6, 1, 1, &[150], &table);
        let (angle_0, angle_1) = (150.0_f64, f64::from(0.01_f32) * 150.0);
        let expected = [
            9.0,
            angle_0.cos() - 3.0 * angle_0.sin(),
            2.0 * angle_1.cos() - 4.0 * angle_1.sin(),
            3.0 * angle_0.cos() + angle_0.sin(),
            4.0 * angle_1.cos() + 2.0 * angle_1.sin(),
            9.0,
        ];
        for (x, expected) in x.iter().zip(expected) {
            assert!((f64::from(*x) - expected).abs() < 1e-6, "{x} {expected}");
        }
    }

    #[test]
    fn only_used_pages_are_computed() {
        let table = RopeTable::new(&[1.0; 64], 131_072);
        table.at(131_071);
        assert_eq!(table.pages.iter().filter(|page| page.get().is_some()).count(), 1);
    }

    #[test]
    #[should_panic(expected = "position 4 of 4")]
    fn a_position_beyond_the_table_panics() {
        RopeTable::new(&[1.0], 4).at(4);
    }
}
