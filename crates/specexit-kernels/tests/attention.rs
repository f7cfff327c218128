//! Attention against an f64 softmax, and the same bits whatever is computed beside it.

mod common;

use common::{Numbers, all_kernels, bits};
use specexit_kernels::{
    AttentionSequence, AttentionShape, CacheNumbers, Isa, Kernels, KeysValues, Precision, bf16,
};

/// A sequence of a test call: `rows` new rows after `start` cached positions.
struct Sequence {
    rows: usize,
    start: usize,
    /// The same keys and values, which are bf16 numbers, in each of `STORED`.
    caches: [KeysValues; 3],
}

const STORED: [CacheNumbers; 3] = [CacheNumbers::F32, CacheNumbers::Bf16, CacheNumbers::Int8];

impl Sequence {
    fn cache(&self, stored: CacheNumbers) -> &KeysValues {
        let index = STORED.iter().position(|s| *s == stored);
        &self.caches[index.expect("a cache of each")]
    }
}

/// A cache of all positions of `[keys, values]`.
fn filled(
    kv_heads: usize,
    head_dim: usize,
    kept: CacheNumbers,
    numbers: &[Vec<f32>; 2],
) -> KeysValues {
    let kernels = Kernels::new(1, Precision::F32);
    let mut cache = KeysValues::new(kv_heads, head_dim, kept);
    let [keys, values] = numbers.each_ref().map(|n| n.chunks_exact(kv_heads * head_dim));
    keys.zip(values).for_each(|(key, value)| cache.push(&kernels, key, value));
    cache
}

/// A call: queries with two unused columns per row, and its sequences in row order.
struct Call {
    shape: AttentionShape,
    q: Vec<f32>,
    sequences: Vec<Sequence>,
}

const PADDING: usize = 2;

impl Call {
    fn new(heads: usize, kv_heads: usize, head_dim: usize, sizes: &[(usize, usize)]) -> Call {
        let shape =
            AttentionShape { heads, kv_heads, head_dim, scale: (head_dim as f32).powf(-0.5) };
        let mut numbers = Numbers::new((heads * 1000 + head_dim * 10 + sizes.len()) as u64);
        let mut cache = |rows, start| {
            // Two positions more than any row may see: they must not matter.
            let n = (rows + start) * kv_heads * head_dim;
            let unseen = vec![f32::NAN; 2 * kv_heads * head_dim];
            [numbers.take(n), unseen].concat()
        };
        let sequences: Vec<Sequence> = sizes
            .iter()
            .map(|&(rows, start)| {
                let numbers = [0, 1].map(|_| {
                    let numbers = cache(rows, start).into_iter();
                    numbers.map(|x| bf16::from_f32(x).to_f32()).collect::<Vec<_>>()
                });
                let caches = STORED.map(|kept| filled(kv_heads, head_dim, kept, &numbers));
                Sequence { rows, start, caches }
            })
            .collect();
        let m: usize = sequences.iter().map(|s| s.rows).sum();
        let q = numbers.take(m * (heads * head_dim + PADDING)).iter().map(|q| q * 4.0).collect();
        Call { shape, q, sequences }
    }

    fn width(&self) -> usize {
        self.shape.heads * self.shape.head_dim
    }

    fn stride(&self) -> usize {
        self.width() + PADDING
    }

    fn run(&self, kernels: &Kernels, stored: CacheNumbers) -> Vec<f32> {
        let mut row = 0;
        let sequences: Vec<AttentionSequence<'_>> = self
            .sequences
            .iter()
            .map(|s| {
                row += s.rows;
                let rows = row - s.rows..row;
                AttentionSequence { rows, start: s.start, cache: s.cache(stored) }
            })
            .collect();
        let mut out = vec![f32::NAN; row * self.width()];
        kernels.attention(&mut out, &self.q, self.stride(), self.shape, &sequences);
        out
    }

    /// Row `row` of sequence `index`, computed in a call of its own.
    fn run_alone(
        &self,
        kernels: &Kernels,
        stored: CacheNumbers,
        index: usize,
        row: usize,
    ) -> Vec<f32> {
        let before: usize = self.sequences[..index].iter().map(|s| s.rows).sum();
        let s = &self.sequences[index];
        let q = &self.q[(before + row) * self.stride()..][..self.stride()];
        let sequence =
            AttentionSequence { rows: 0..1, start: s.start + row, cache: s.cache(stored) };
        let mut out = vec![f32::NAN; self.width()];
        kernels.attention(&mut out, q, self.stride(), self.shape, &[sequence]);
        out
    }

    /// Every row and head by an f64 softmax over what the caches hold of all positions; queries rounded to
    /// bf16 if `rounded`.
    fn reference(&self, stored: CacheNumbers, rounded: bool) -> Vec<f64> {
        let AttentionShape { heads, kv_heads, head_dim, scale } = self.shape;
        let width = kv_heads * head_dim;
        let number = |q: f32| if rounded { bf16::from_f32(q).to_f64() } else { f64::from(q) };
        let mut out = Vec::new();
        let mut q_rows = self.q.chunks_exact(self.stride());
        for s in &self.sequences {
            let mut numbers = [(); 2].map(|()| vec![0.0; (s.start + s.rows) * width]);
            let [keys, values] = &mut numbers;
            let positions = keys.chunks_exact_mut(width).zip(values.chunks_exact_mut(width));
            for (position, (key, value)) in positions.enumerate() {
                s.cache(stored).read(position, key, value);
            }
            for row in 0..s.rows {
                let q = q_rows.next().expect("one row of q per row");
                for head in 0..heads {
                    let q = &q[head * head_dim..][..head_dim];
                    let kv = head / (heads / kv_heads);
                    let at = |cache: &[f32], j: usize| -> Vec<f64> {
                        let start = (j * kv_heads + kv) * head_dim;
                        cache[start..start + head_dim].iter().map(|&v| f64::from(v)).collect()
                    };
                    let scores: Vec<f64> = (0..=s.start + row)
                        .map(|j| {
                            let dot: f64 =
                                at(&numbers[0], j).iter().zip(q).map(|(k, &q)| k * number(q)).sum();
                            dot * f64::from(scale)
                        })
                        .collect();
                    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    let mut sums = vec![0.0; head_dim];
                    for (j, weight) in weights.iter().enumerate() {
                        for (sum, v) in sums.iter_mut().zip(at(&numbers[1], j)) {
                            *sum += weight / total * v;
                        }
                    }
                    out.extend(sums);
                }
            }
        }
        out
    }
}

/// Heads shared and not, head sizes that fill vectors and that do not, rows that cross the chunks of
/// 256 positions and the blocks of 64 queries, several sequences.
fn calls() -> Vec<Call> {
    if cfg!(miri) {
        return vec![
            Call::new(4, 2, 5, &[(3, 0), (1, 6)]),
            Call::new(2, 1, 18, &[(1, 33)]),
            Call::new(2, 2, 16, &[(1, 9), (2, 3)]),
        ];
    }
    vec![
        Call::new(1, 1, 1, &[(1, 0)]),
        Call::new(2, 2, 16, &[(5, 0)]),
        Call::new(4, 2, 24, &[(3, 5), (1, 0), (7, 2)]),
        Call::new(9, 3, 64, &[(1, 700), (4, 254), (70, 0)]),
        Call::new(14, 2, 64, &[(9, 510)]),
        Call::new(8, 1, 128, &[(17, 250), (1, 255), (1, 256)]),
        Call::new(3, 1, 80, &[(2, 1023), (33, 100)]),
        // As many key heads as heads: more and fewer than are taken together, and some left over.
        Call::new(6, 6, 32, &[(1, 0), (1, 300), (5, 127), (1, 128), (1, 1)]),
        Call::new(13, 13, 16, &[(1, 130), (2, 3), (1, 255)]),
        Call::new(4, 4, 64, &[(1, 129), (3, 64), (1, 2)]),
        Call::new(2, 2, 128, &[(1, 70), (2, 64)]),
    ]
}

#[test]
fn agrees_with_an_f64_softmax() {
    for call in calls() {
        let references =
            STORED.map(|stored| [false, true].map(|rounded| call.reference(stored, rounded)));
        for (kernels, stored) in all_kernels(1).iter().flat_map(|k| STORED.map(|s| (k, s))) {
            // Queries and weights are rounded to what keys and values are kept in: to bf16, or to 15 bits
            // and a sign. Values are at most 1.
            let (rounds, error) = match (kernels.precision(), stored) {
                (Precision::Bf16, CacheNumbers::Bf16) => (true, 1.0 / 512.0),
                (Precision::Bf16, CacheNumbers::Int8) => (false, 1.0 / 8192.0),
                _ => (false, 0.0),
            };
            let tolerance = 3e-6 + error;
            let which = STORED.iter().position(|s| *s == stored).expect("one of them");
            let expected = &references[which][usize::from(rounds)];
            for (i, (y, expected)) in call.run(kernels, stored).iter().zip(expected).enumerate() {
                let error = (f64::from(*y) - expected).abs();
                let what = format!("{:?} {kernels:?} {stored:?} element {i}", call.shape);
                assert!(error < tolerance, "{what}: {y} {expected}");
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_among_others_on_any_number_of_threads() {
    for call in calls() {
        for (isa, stored) in Isa::available().into_iter().flat_map(|i| STORED.map(|s| (i, s))) {
            let kernels = Kernels::with_isa(1, Precision::Bf16, isa);
            let together = call.run(&kernels, stored);
            for threads in 2..=3 {
                let kernels = Kernels::with_isa(threads, Precision::Bf16, isa);
                let found = call.run(&kernels, stored);
                assert_eq!(bits(&found), bits(&together), "{threads} threads, {isa}, {stored:?}");
            }
            let mut rows = together.chunks_exact(call.width());
            for (index, sequence) in call.sequences.iter().enumerate() {
                for row in 0..sequence.rows {
                    let alone = call.run_alone(&kernels, stored, index, row);
                    let among = rows.next().expect("one row of out per row");
                    let what = format!("{isa} {stored:?} {:?} row {row}", call.shape);
                    assert_eq!(bits(&alone), bits(among), "{what}");
                }
            }
        }
    }
}

#[test]
fn avx2_and_avx512_have_the_same_bits_and_so_have_bf16_numbers_in_either_form() {
    for call in calls() {
        for alike in [&STORED[..2], &STORED[2..]] {
            let isas = Isa::available().into_iter().filter(|&isa| isa != Isa::Scalar);
            let runs = isas.flat_map(|isa| alike.iter().map(move |&stored| (isa, stored)));
            let run = |(isa, stored)| call.run(&Kernels::with_isa(1, Precision::F32, isa), stored);
            let results: Vec<Vec<u32>> = runs.map(|which| bits(&run(which))).collect();
            assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
        }
    }
}

fn f32s(keys: &[f32], values: &[f32]) -> KeysValues {
    filled(1, 2, CacheNumbers::F32, &[keys.to_vec(), values.to_vec()])
}

#[test]
fn scores_far_apart_neither_overflow_nor_vanish() {
    let shape = AttentionShape { heads: 1, kv_heads: 1, head_dim: 2, scale: 1.0 };
    let keys: Vec<f32> = (0..600).flat_map(|j| [j as f32 * 10.0, 0.0]).collect();
    let values: Vec<f32> = (0..600).flat_map(|j| [j as f32, 1.0]).collect();
    for kernels in all_kernels(1) {
        for (q, expected) in [(1.0, 599.0), (-1.0, 0.0)] {
            let cache = &f32s(&keys, &values);
            let sequence = AttentionSequence { rows: 0..1, start: 599, cache };
            let mut out = [0.0; 2];
            kernels.attention(&mut out, &[q, 0.0], 2, shape, &[sequence]);
            assert!((out[0] - expected).abs() < 0.1 && (out[1] - 1.0).abs() < 1e-6, "{out:?}");
        }
    }
}

#[test]
fn in_8_bits_nothing_is_lost_of_heads_of_any_width_and_nan_is_not_hidden() {
    // Sums of more than 512 products are kept below 2^31.
    for head_dim in [8, 512, 1030] {
        let shape =
            AttentionShape { heads: 1, kv_heads: 1, head_dim, scale: 1.0 / head_dim as f32 };
        let keys = [1.0, -1.0, 0.5].map(|key| vec![key; head_dim]).concat();
        let values = [[0.5, -0.25, 1.0]; 1030].concat()[..3 * head_dim].to_vec();
        let numbers = [keys, values];
        // Queries are 1, so that scores are the keys.
        let weights = [1.0_f32, -1.0, 0.5].map(f32::exp);
        for kernels in all_kernels(1) {
            let run = |numbers: &[Vec<f32>; 2]| {
                let cache = &filled(1, head_dim, CacheNumbers::Int8, numbers);
                let sequence = AttentionSequence { rows: 0..1, start: 2, cache };
                let mut out = vec![0.0; head_dim];
                kernels.attention(&mut out, &vec![1.0; head_dim], head_dim, shape, &[sequence]);
                out
            };
            for (column, found) in run(&numbers).iter().enumerate() {
                let values = (0..3).map(|p| weights[p] * numbers[1][p * head_dim + column]);
                let expected = values.sum::<f32>() / weights.iter().sum::<f32>();
                assert!((found - expected).abs() < 1.0 / 127.0, "{found} {expected}");
            }
            for which in 0..2 {
                for odd in [f32::NAN, f32::INFINITY] {
                    let mut numbers = numbers.clone();
                    numbers[which][head_dim + 3] = odd;
                    assert!(run(&numbers).iter().all(|x| x.is_nan()), "{which} {odd}");
                }
            }
        }
    }
}

#[test]
fn rows_of_no_sequence_are_left_alone() {
    let shape = AttentionShape { heads: 1, kv_heads: 1, head_dim: 2, scale: 1.0 };
    let cache = &f32s(&[1.0; 2], &[1.0; 2]);
    let sequence = AttentionSequence { rows: 1..2, start: 0, cache };
    let mut out = [5.0; 6];
    let kernels = Kernels::new(1, Precision::F32);
    kernels.attention(&mut out, &[1.0; 6], 2, shape, std::slice::from_ref(&sequence));
    assert_eq!(out, [5.0, 5.0, 1.0, 1.0, 5.0, 5.0]);
    let empty = AttentionSequence { rows: 1..1, start: 0, cache: &f32s(&[], &[]) };
    kernels.attention(&mut out, &[1.0; 6], 2, shape, &[sequence, empty]);
    kernels.attention(&mut [], &[], 2, shape, &[]);
}

#[test]
#[should_panic(expected = "rows of two sequences overlap")]
fn overlapping_sequences_panic() {
    let shape = AttentionShape { heads: 1, kv_heads: 1, head_dim: 2, scale: 1.0 };
    let cache = f32s(&[1.0; 8], &[1.0; 8]);
    let sequence = |rows| AttentionSequence { rows, start: 0, cache: &cache };
    let (q, mut out) = ([1.0; 6], [0.0; 6]);
    let kernels = Kernels::new(1, Precision::F32);
    kernels.attention(&mut out, &q, 2, shape, &[sequence(1..3), sequence(0..2)]);
}

#[test]
#[should_panic(expected = "keys and values end at 4, before position 5")]
fn a_cache_that_is_too_short_panics() {
    let shape = AttentionShape { heads: 1, kv_heads: 1, head_dim: 2, scale: 1.0 };
    let cache = &f32s(&[1.0; 8], &[1.0; 8]);
    let sequence = AttentionSequence { rows: 0..2, start: 3, cache };
    let kernels = Kernels::new(1, Precision::F32);
    kernels.attention(&mut [0.0; 4], &[1.0; 4], 2, shape, &[sequence]);
}
