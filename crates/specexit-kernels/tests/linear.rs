//! Linear layers against f64 sums, and the same bits whatever stands beside a row.

mod common;

use common::{Numbers, all_kernels, bits};
use proptest::prelude::*;
use specexit_kernels::{Isa, Kernels, Matrix, Precision, bf16};

const CASES: u32 = if cfg!(miri) { 2 } else { 200 };

/// `x · wᵀ` in f64, and for each element the sum of the absolute products.
fn reference(x: &[f32], w: &Matrix, precision: Precision) -> (Vec<f64>, Vec<f64>) {
    let round = |value: f32| match precision {
        Precision::Bf16 => bf16::from_f32(value).to_f64(),
        Precision::F32 => f64::from(value),
    };
    let (mut sums, mut sizes) = (Vec::new(), Vec::new());
    for x in x.chunks_exact(w.cols()) {
        for row in 0..w.rows() {
            let mut weights = vec![0.0; w.cols()];
            w.read_row(row, &mut weights);
            let products = x.iter().zip(&weights).map(|(&x, &w)| round(x) * f64::from(w));
            sums.push(products.clone().sum());
            sizes.push(products.map(f64::abs).sum());
        }
    }
    (sums, sizes)
}

fn assert_close(kernels: &Kernels, y: &[f32], x: &[f32], w: &Matrix) {
    let (sums, sizes) = reference(x, w, kernels.precision());
    for (i, y) in y.iter().enumerate() {
        // One rounding per product, half an ulp of at most the sum of sizes.
        let steps = (w.cols() + 2) as f64;
        let tolerance = sizes[i] * steps * f64::from(f32::EPSILON) / 2.0;
        let error = (f64::from(*y) - sums[i]).abs();
        assert!(error <= tolerance, "{kernels:?} element {i}: {y} against {}", sums[i]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_instruction_set_agrees_with_f64(
        m in 1..20_usize, n in 1..70_usize, k in 1..200_usize, seed: u64,
    ) {
        let (m, n, k) = if cfg!(miri) { (m % 3 + 1, n % 10 + 1, k % 70 + 1) } else { (m, n, k) };
        let mut numbers = Numbers::new(seed);
        let w = Matrix::from_f32(n, k, &numbers.take(n * k));
        let x = numbers.take(m * k);
        let bias = numbers.take(n);
        let before = numbers.take(m * n);
        for kernels in all_kernels(1) {
            let mut y = vec![f32::NAN; m * n];
            kernels.linear(&mut y, &x, &w, None);
            assert_close(&kernels, &y, &x, &w);

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

    #[test]
    fn a_row_has_the_same_bits_alone_and_among_others(
        m in 2..17_usize, n in 1..70_usize, k in 1..200_usize, seed: u64,
    ) {
        let (m, n, k) = if cfg!(miri) { (m % 3 + 1, n % 10 + 1, k % 70 + 1) } else { (m, n, k) };
        let mut numbers = Numbers::new(seed);
        let w = Matrix::from_f32(n, k, &numbers.take(n * k));
        let x = numbers.take(m * k);
        for kernels in all_kernels(1) {
            let mut y = vec![0.0; m * n];
            kernels.linear(&mut y, &x, &w, None);
            for row in 0..m {
                let mut alone = vec![0.0; n];
                kernels.linear(&mut alone, &x[row * k..][..k], &w, None);
                prop_assert_eq!(bits(&alone), bits(&y[row * n..][..n]), "{:?}, row {}", kernels, row);
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads_or_rows() {
    // Enough work for several threads.
    let (n, k) = if cfg!(miri) { (20, 70) } else { (700, 200) };
    let most = if cfg!(miri) { 6 } else { 515 };
    let mut numbers = Numbers::new(7);
    let w = Matrix::from_f32(n, k, &numbers.take(n * k));
    let x = numbers.take(most * k);
    for isa in Isa::available() {
        for precision in [Precision::Bf16, Precision::F32] {
            let mut expected: Option<Vec<f32>> = None;
            for threads in 1..=3 {
                let kernels = Kernels::with_isa(threads, precision, isa);
                for m in [most, 1, 2, 3, 4, 5, most.min(8), most / 2] {
                    let mut y = vec![0.0; m * n];
                    kernels.linear(&mut y, &x[..m * k], &w, None);
                    let expected = expected.get_or_insert_with(|| y.clone());
                    assert_eq!(bits(&y), bits(&expected[..m * n]), "{kernels:?}, {m} rows");
                }
            }
        }
    }
}

/// Activations that do not fit in the level-1 cache are taken in pieces.
#[test]
fn long_rows_have_the_same_bits_alone_and_among_others() {
    let (n, k, m) = if cfg!(miri) { (9, 140, 5) } else { (70, 6_000, 9) };
    let mut numbers = Numbers::new(13);
    let w = Matrix::from_f32(n, k, &numbers.take(n * k));
    let x = numbers.take(m * k);
    for kernels in all_kernels(2) {
        for m in 1..=m {
            let mut y = vec![0.0; m * n];
            kernels.linear(&mut y, &x[..m * k], &w, None);
            assert_close(&kernels, &y, &x[..m * k], &w);
            let mut last = vec![0.0; n];
            kernels.linear(&mut last, &x[(m - 1) * k..][..k], &w, None);
            assert_eq!(bits(&last), bits(&y[(m - 1) * n..]), "{kernels:?}, {m} rows");
        }
    }
}

#[test]
fn avx2_and_avx512_have_the_same_bits_in_f32() {
    let mut numbers = Numbers::new(3);
    let w = Matrix::from_f32(37, 101, &numbers.take(37 * 101));
    let x = numbers.take(5 * 101);
    let results: Vec<Vec<u32>> = Isa::available()
        .into_iter()
        .filter(|&isa| isa != Isa::Scalar)
        .map(|isa| {
            let mut y = vec![0.0; 5 * 37];
            Kernels::with_isa(1, Precision::F32, isa).linear(&mut y, &x, &w, None);
            bits(&y)
        })
        .collect();
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn nan_and_infinity_pass_through() {
    let w = Matrix::from_f32(9, 40, &[1.0; 9 * 40]);
    for kernels in all_kernels(1) {
        for value in [f32::NAN, f32::INFINITY] {
            let mut x = [1.0; 2 * 40];
            x[40 + 33] = value;
            let mut y = [0.0; 2 * 9];
            kernels.linear(&mut y, &x, &w, None);
            assert!(y[..9].iter().all(|&y| y == 40.0), "{kernels:?}");
            assert!(y[9..].iter().all(|&y| y.to_bits() == value.to_bits() || y.is_nan()));
            assert!(y[9..].iter().all(|&y| !y.is_finite()), "{kernels:?}");
        }
    }
}

#[test]
fn degenerate_shapes() {
    for kernels in all_kernels(2) {
        kernels.linear(&mut [], &[], &Matrix::zeros(0, 5), None);
        kernels.linear(&mut [], &[], &Matrix::zeros(5, 5), None);
        let mut y = [7.0; 6];
        kernels.linear_add(&mut y, &[], &Matrix::zeros(3, 0));
        assert_eq!(y, [7.0; 6]);
        kernels.linear(&mut y, &[], &Matrix::zeros(3, 0), Some(&[1.0, 2.0, 3.0]));
        assert_eq!(y, [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
        kernels.linear(&mut y, &[], &Matrix::zeros(3, 0), None);
        assert_eq!(y, [0.0; 6]);
    }
}

#[test]
#[should_panic(expected = "x is not [2, 5]")]
fn a_wrong_length_panics() {
    let kernels = Kernels::new(1, Precision::F32);
    kernels.linear(&mut [0.0; 6], &[0.0; 9], &Matrix::zeros(3, 5), None);
}
