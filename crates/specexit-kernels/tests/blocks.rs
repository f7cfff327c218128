//! Products with quantised weights, against the formats' definition in f64, and the same bits
//! whatever stands beside a row.

mod common;

use common::{Numbers, all_kernels, bits, blocks};
use proptest::prelude::*;
use specexit_kernels::{BlockFormat, Isa, Kernels, Matrix, Precision};

const CASES: u32 = if cfg!(miri) { 1 } else { 60 };

const PRECISIONS: [Precision; 2] = [Precision::Bf16, Precision::F32];

/// A matrix of random blocks, and its weights by the formats' definition.
fn matrix(format: BlockFormat, rows: usize, cols: usize, seed: u64) -> (Matrix, Vec<f64>) {
    let stored = blocks::random(format, rows * cols, seed);
    let len = cols / format.columns() * format.bytes();
    let row = |row: usize| &stored[row * len..][..len];
    let matrix = Matrix::from_blocks(format, rows, cols, 2, row).expect("finite scales");
    assert_eq!((matrix.rows(), matrix.cols()), (rows, cols));
    (matrix, blocks::decode(format, &stored))
}

/// The formats that a test with random shapes tries: all, or under Miri, which is slow, two.
fn formats(seed: u64) -> Vec<BlockFormat> {
    let chosen = [seed as usize % 5, 5 + seed as usize % 3];
    if cfg!(miri) {
        chosen.map(|i| BlockFormat::ALL[i]).to_vec()
    } else {
        BlockFormat::ALL.to_vec()
    }
}

/// Shapes for a format: columns a multiple of its block.
fn columns(format: BlockFormat, small: usize) -> usize {
    format.columns() * if format.columns() == 256 { small.div_ceil(4) } else { small }
}

/// Checks `y = x · wᵀ` for one of the precisions.
fn assert_close(kernels: &Kernels, y: &[f32], x: &[f32], weights: &[f64], cols: usize) {
    let rows = weights.len() / cols;
    for (i, &y) in y.iter().enumerate() {
        let (x, w) = (&x[i / rows * cols..][..cols], &weights[i % rows * cols..][..cols]);
        let (mut sum, mut size, mut rounding) = (0.0, 0.0, 0.0);
        for (x, w) in x.chunks_exact(32).zip(w.chunks_exact(32)) {
            // Each activation is off by half a step of its block's scale.
            let step = x.iter().fold(0.0_f32, |m, x| m.max(x.abs())) / 127.0;
            for (&x, &w) in x.iter().zip(w) {
                sum += f64::from(x) * w;
                size += (f64::from(x) * w).abs();
                rounding += 0.501 * f64::from(step) * w.abs();
            }
        }
        let tolerance = match kernels.precision() {
            Precision::F32 => 1e-5 * size,
            Precision::Bf16 => rounding + 1e-4 * size,
        };
        let error = (f64::from(y) - sum).abs();
        assert!(error <= tolerance, "{kernels:?}, {i}: {y} against {sum}, {tolerance} allowed");
    }
}

/// What a product with activations rounded to 8 bits should be, but for rounding of f32.
fn with_rounded_activations(x: &[f32], weights: &[f64], cols: usize) -> Vec<(f64, f64)> {
    let rounded: Vec<f64> = x
        .chunks_exact(32)
        .flat_map(|x| {
            let largest = x.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
            let (scale, inverse) = (largest / 127.0, 127.0 / largest);
            x.iter().map(move |x| f64::from(scale) * f64::from((x * inverse).round_ties_even()))
        })
        .collect();
    let mut sums = Vec::new();
    for x in rounded.chunks_exact(cols) {
        for w in weights.chunks_exact(cols) {
            let products = x.iter().zip(w).map(|(x, w)| x * w);
            sums.push((products.clone().sum(), products.map(f64::abs).sum()));
        }
    }
    sums
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_format_and_instruction_set_agrees_with_f64(
        m in 1..41_usize, n in 1..70_usize, k in 1..10_usize, seed: u64,
    ) {
        let (m, n, k) = if cfg!(miri) { (m % 2 + 1, n % 3 + 15, k % 3 + 1) } else { (m, n, k) };
        for format in formats(seed) {
            let cols = columns(format, k);
            let (w, weights) = matrix(format, n, cols, seed);
            let mut numbers = Numbers::new(seed);
            let (x, bias, before) =
                (numbers.take(m * cols), numbers.take(n), numbers.take(m * n));
            let exact = with_rounded_activations(&x, &weights, cols);
            for kernels in all_kernels(1) {
                let mut y = vec![f32::NAN; m * n];
                kernels.linear(&mut y, &x, &w, None);
                assert_close(&kernels, &y, &x, &weights, cols);
                if kernels.precision() == Precision::Bf16 {
                    for (y, (exact, size)) in y.iter().zip(&exact) {
                        let error = (f64::from(*y) - exact).abs();
                        prop_assert!(error <= 1e-5 * size, "{kernels:?} {format}: {y}, {exact}");
                    }
                }
                let mut biased = vec![f32::NAN; m * n];
                kernels.linear(&mut biased, &x, &w, Some(&bias));
                let mut added = before.clone();
                kernels.linear_add(&mut added, &x, &w);
                for i in 0..m * n {
                    prop_assert_eq!(biased[i].to_bits(), (y[i] + bias[i % n]).to_bits());
                    prop_assert_eq!(added[i].to_bits(), (before[i] + y[i]).to_bits());
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_among_others(
        m in 2..25_usize, n in 1..70_usize, k in 1..8_usize, seed: u64,
    ) {
        let (m, n, k) = if cfg!(miri) { (2, n % 3 + 15, k % 3 + 1) } else { (m, n, k) };
        for format in formats(seed) {
            let cols = columns(format, k);
            let (w, _) = matrix(format, n, cols, seed);
            let x = Numbers::new(seed).take(m * cols);
            for kernels in all_kernels(1) {
                let mut y = vec![0.0; m * n];
                kernels.linear(&mut y, &x, &w, None);
                for row in 0..m {
                    let mut alone = vec![0.0; n];
                    kernels.linear(&mut alone, &x[row * cols..][..cols], &w, None);
                    prop_assert_eq!(
                        bits(&alone), bits(&y[row * n..][..n]), "{:?} {}, row {}", kernels, format, row
                    );
                }
            }
        }
    }
}

/// A stack of every format and bf16, whose parts are not whole panels.
fn mixed(cols: usize, rows: usize) -> (Matrix, Vec<f64>) {
    let (mut parts, mut weights) = (Vec::new(), Vec::new());
    for (i, format) in BlockFormat::ALL.into_iter().enumerate() {
        let more = if cfg!(miri) { i } else { 5 * i };
        let (part, values) = matrix(format, rows + more, cols, i as u64);
        parts.push(part);
        weights.extend(values);
        if i % 3 == 1 {
            let values = Numbers::new(i as u64).take((rows - 3) * cols);
            let part = Matrix::from_f32(rows - 3, cols, &values);
            let mut row = vec![0.0; cols];
            for r in 0..rows - 3 {
                part.read_row(r, &mut row);
                weights.extend(row.iter().map(|&w| f64::from(w)));
            }
            parts.push(part);
        }
    }
    (Matrix::stack(parts), weights)
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads_or_rows_or_on_what_is_stacked() {
    let (cols, rows) = if cfg!(miri) { (256, 5) } else { (768, 90) };
    let (w, weights) = mixed(cols, rows);
    let n = w.rows();
    let most = if cfg!(miri) { 2 } else { 40 };
    let x = Numbers::new(5).take(most * cols);
    for isa in Isa::available() {
        for precision in if cfg!(miri) { &[Precision::Bf16][..] } else { &PRECISIONS } {
            let mut expected: Option<Vec<f32>> = None;
            for threads in 1..=if cfg!(miri) { 2 } else { 3 } {
                let kernels = Kernels::with_isa(threads, *precision, isa);
                for m in (1..=most).rev().filter(|m| *m < 20 || m % 10 == 0) {
                    let mut y = vec![f32::NAN; m * n];
                    kernels.linear(&mut y, &x[..m * cols], &w, None);
                    let expected = expected.get_or_insert_with(|| y.clone());
                    assert_eq!(bits(&y), bits(&expected[..m * n]), "{kernels:?}, {m} rows");
                }
                if threads == 1 {
                    assert_close(&kernels, &expected.clone().unwrap(), &x, &weights, cols);
                }
            }
        }
    }
    // Alone, a section gives the same bits as in the stack.
    let kernels = Kernels::new(2, Precision::Bf16);
    let mut stacked = vec![0.0; most * n];
    kernels.linear(&mut stacked, &x, &w, None);
    let (first, _) = matrix(BlockFormat::ALL[0], rows, cols, 0);
    let mut y = vec![0.0; most * rows];
    kernels.linear(&mut y, &x, &first, None);
    for row in 0..most {
        assert_eq!(bits(&stacked[row * n..][..rows]), bits(&y[row * rows..][..rows]));
    }
}

#[test]
fn vector_instruction_sets_have_the_same_bits() {
    let cols = if cfg!(miri) { 256 } else { 1024 };
    for format in BlockFormat::ALL {
        let (w, _) = matrix(format, 37, cols, 11);
        let x = Numbers::new(3).take(5 * cols);
        for precision in [Precision::Bf16, Precision::F32] {
            let results: Vec<Vec<u32>> = Isa::available()
                .into_iter()
                .filter(|&isa| isa != Isa::Scalar)
                .map(|isa| {
                    let mut y = vec![0.0; 5 * 37];
                    Kernels::with_isa(1, precision, isa).linear(&mut y, &x, &w, None);
                    bits(&y)
                })
                .collect();
            assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{format} {precision:?}");
        }
    }
}

#[test]
fn extreme_codes_do_not_overflow() {
    for format in formats(4) {
        let cols = columns(format, if cfg!(miri) { 1 } else { 4 });
        for fill in [0, 0xff] {
            let stored = blocks::filled(format, 17 * cols, fill);
            let len = cols / format.columns() * format.bytes();
            let row = |row: usize| &stored[row * len..][..len];
            let w = Matrix::from_blocks(format, 17, cols, 1, row).unwrap();
            let weights = blocks::decode(format, &stored);
            for sign in [1.0, -1.0] {
                let x = vec![sign; cols];
                for kernels in all_kernels(1) {
                    let mut y = vec![0.0; 17];
                    kernels.linear(&mut y, &x, &w, None);
                    assert_close(&kernels, &y, &x, &weights, cols);
                }
            }
        }
    }
}

#[test]
fn rows_are_read_back_without_loss() {
    for format in BlockFormat::ALL {
        let cols = columns(format, 5);
        let (w, weights) = matrix(format, 35, cols, 9);
        for row in [0, 1, 15, 16, 34] {
            let expected: Vec<f32> =
                weights[row * cols..][..cols].iter().map(|&w| w as f32).collect();
            let mut values = vec![f32::NAN; cols];
            w.read_row(row, &mut values);
            assert_eq!(values, expected, "{format}, row {row}");
            Kernels::new(1, Precision::Bf16).embed(&mut values, &[row as u32], &w);
            assert_eq!(values, expected, "{format}, row {row}");
        }
    }
}

#[test]
fn what_is_no_number_makes_its_row_nan_and_no_other() {
    for format in formats(3) {
        let cols = columns(format, 4);
        let (w, _) = matrix(format, 20, cols, 2);
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![1.0; 3 * cols];
            x[cols + 33] = value;
            for kernels in all_kernels(1) {
                let mut y = vec![0.0; 3 * 20];
                kernels.linear(&mut y, &x, &w, None);
                assert_eq!(bits(&y[..20]), bits(&y[40..]));
                assert!(y[..20].iter().all(|y| y.is_finite()), "{kernels:?}");
                if kernels.precision() == Precision::Bf16 {
                    assert!(y[20..40].iter().all(|y| y.is_nan()), "{kernels:?} {format}");
                } else {
                    assert!(y[20..40].iter().any(|y| !y.is_finite()), "{kernels:?} {format}");
                }
            }
        }
    }
}
