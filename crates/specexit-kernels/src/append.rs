//! From the rows of a layer's joint projection to rotated queries and a longer cache.

use std::ops::Range;

use crate::attention::{AttentionShape, KeysValues};
use crate::disjoint::Disjoint;
use crate::kernels::Kernels;
use crate::rope::RopeTable;

/// Rows from which sequences are shared among threads: fewer take about as long as a fork-join.
const SHARED_ROWS: usize = 4;

/// What is done to queries and keys before they meet.
#[derive(Clone, Copy, Debug)]
pub struct Positioning<'a> {
    /// Weights `[head_dim]` of the norms of each query head and each key head, and their epsilon.
    pub norms: Option<([&'a [f32]; 2], f32)>,
    /// The rotation.
    pub rope: &'a RopeTable,
    /// Position of each row.
    pub positions: &'a [u32],
}

/// Rows of one sequence, and the cache that gets their keys and values.
#[derive(Debug)]
pub struct NewRows<'a> {
    /// Rows of the call.
    pub rows: Range<usize>,
    /// Keys and values of the sequence in this layer.
    pub cache: &'a mut KeysValues,
}

impl Kernels {
    /// Normalises and rotates the queries and keys of rows `queries|keys|values` in place, and appends
    /// keys and values to the sequences' caches: `qkv` `[positions.len(), (heads + 2 kv_heads) * head_dim]`.
    ///
    /// Rows that belong to no sequence are prepared, or left as they are.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit, a position exceeds the table, or the sequences' rows do not follow
    /// one another.
    pub fn append(
        &self,
        qkv: &mut [f32],
        shape: AttentionShape,
        how: Positioning<'_>,
        sequences: &mut [NewRows<'_>],
    ) {
        let AttentionShape { heads, kv_heads, head_dim, .. } = shape;
        let (keys, values) = (heads * head_dim, (heads + kv_heads) * head_dim);
        let stride = values + kv_heads * head_dim;
        let m = how.positions.len();
        assert_eq!(qkv.len(), m * stride, "qkv is not [{m}, {stride}]");
        assert_eq!(how.rope.head_dim(), head_dim, "the rotation is of other heads");
        if let Some((norms, _)) = how.norms {
            assert!(norms.iter().all(|norm| norm.len() == head_dim), "norms of other heads");
        }
        assert!(
            sequences.windows(2).all(|pair| pair[0].rows.end <= pair[1].rows.start)
                && sequences.iter().all(|s| s.rows.start <= s.rows.end && s.rows.end <= m),
            "rows of sequences that do not follow one another"
        );
        let push = |sequence: &mut NewRows<'_>, qkv: &[f32]| {
            for row in qkv.chunks_exact(stride) {
                sequence.cache.push(self, &row[keys..values], &row[values..]);
            }
        };

        let threads = self.threads();
        let longest = sequences.iter().map(|s| s.rows.len()).max().unwrap_or(0);
        if threads == 1 || m < SHARED_ROWS || 2 * longest * threads > 3 * m {
            self.prepare(qkv, 0, shape, how);
            for sequence in sequences {
                let rows = &qkv[sequence.rows.start * stride..sequence.rows.end * stride];
                push(sequence, rows);
            }
            return;
        }
        // Each thread appends to the caches that it is the first to read afterwards.
        let count = sequences.len();
        let (qkv, sequences) = (&Disjoint::new(qkv), &Disjoint::new(sequences));
        self.pool().run(|thread| {
            let share = thread * count / threads..(thread + 1) * count / threads;
            // SAFETY: the shares of different threads do not overlap.
            for sequence in unsafe { sequences.part(share) } {
                let Range { start, end } = sequence.rows;
                // SAFETY: the rows of different sequences do not overlap, as asserted above.
                let rows = unsafe { qkv.part(start * stride..end * stride) };
                self.prepare(rows, start, shape, how);
                push(sequence, rows);
            }
        });
    }

    /// Rows from `first` on.
    fn prepare(&self, qkv: &mut [f32], first: usize, shape: AttentionShape, how: Positioning<'_>) {
        let AttentionShape { heads, kv_heads, head_dim, .. } = shape;
        let stride = (heads + 2 * kv_heads) * head_dim;
        let positions = &how.positions[first..][..qkv.len() / stride];
        let (keys, rope) = (heads * head_dim, how.rope);
        if let Some(([q_norm, k_norm], eps)) = how.norms {
            self.rms_norm_heads(qkv, stride, 0, heads, q_norm, eps);
            self.rms_norm_heads(qkv, stride, keys, kv_heads, k_norm, eps);
        }
        self.rope(qkv, stride, 0, heads, positions, rope);
        self.rope(qkv, stride, keys, kv_heads, positions, rope);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Precision;

    const SHAPE: AttentionShape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 6, scale: 1.0 };
    const STRIDE: usize = 8 * 6;

    fn rows(m: usize) -> Vec<f32> {
        (0..m * STRIDE).map(|i| (i as f32 * 0.37).sin()).collect()
    }

    /// Prepared rows, and what the caches hold of each position.
    fn run(threads: usize, sizes: &[usize], precision: Precision) -> (Vec<f32>, Vec<Vec<f32>>) {
        let kernels = Kernels::new(threads, precision);
        let m = sizes.iter().sum();
        let (table, weights) = (RopeTable::new(&[1.0, 0.5, 0.1], 99), [[0.5; 6], [2.0; 6]]);
        let norms = Some((weights.each_ref().map(|w| &w[..]), 1e-6));
        let positions: Vec<u32> = (0..m as u32).map(|i| i * 3 % 7).collect();
        let mut caches: Vec<_> =
            sizes.iter().map(|_| KeysValues::new(2, 6, precision.into())).collect();
        let mut qkv = rows(m);
        let mut next = 0;
        let mut sequences: Vec<_> = caches
            .iter_mut()
            .zip(sizes)
            .map(|(cache, size)| {
                next += size;
                NewRows { rows: next - size..next, cache }
            })
            .collect();
        let how = Positioning { norms, rope: &table, positions: &positions };
        kernels.append(&mut qkv, SHAPE, how, &mut sequences);
        let held = caches.iter().flat_map(|cache| {
            (0..cache.len()).map(|position| {
                let (mut key, mut value) = (vec![0.0; 12], vec![0.0; 12]);
                cache.read(position, &mut key, &mut value);
                [key, value].concat()
            })
        });
        (qkv, held.collect())
    }

    #[test]
    fn rows_are_prepared_and_kept_whoever_does_it() {
        for sizes in [&[1][..], &[1, 1, 1, 1, 1], &[2, 1, 3, 2], &[9, 1], &[2, 2]] {
            let (alone, kept) = run(1, sizes, Precision::F32);
            for threads in [2, 3] {
                assert_eq!(run(threads, sizes, Precision::F32), (alone.clone(), kept.clone()));
            }
            for (row, kept) in alone.chunks_exact(STRIDE).zip(&kept) {
                assert_eq!(row[24..], kept[..]);
            }
        }
    }

    #[test]
    fn a_row_is_normalised_then_rotated() {
        let (qkv, _) = run(1, &[1, 1], Precision::F32);
        let before = rows(2);
        for (head, weight) in [(0, 0.5), (3, 0.5), (4, 2.0), (5, 2.0)] {
            let x = &before[STRIDE + head * 6..][..6];
            let mean: f32 = x.iter().map(|x| x * x).sum::<f32>() / 6.0;
            let normed: Vec<f32> = x.iter().map(|x| x / (mean + 1e-6).sqrt() * weight).collect();
            for (i, frequency) in [1.0f32, 0.5, 0.1].into_iter().enumerate() {
                // Row 1 stands at position 3.
                let (sin, cos) = (3.0 * frequency).sin_cos();
                let (a, b) = (normed[i], normed[i + 3]);
                let found = [i, i + 3].map(|i| qkv[STRIDE + head * 6 + i]);
                let expected = [a * cos - b * sin, b * cos + a * sin];
                for (found, expected) in found.into_iter().zip(expected) {
                    assert!((found - expected).abs() < 1e-5, "{found} {expected}");
                }
            }
        }
        // Values stay as they are.
        assert_eq!(qkv[STRIDE + 36..], before[STRIDE + 36..]);
    }
}
