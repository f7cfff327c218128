//! The operations around the products: against plain formulas, and row-invariant.

mod common;

use common::{Numbers, all_kernels, bits};
use specexit_kernels::{Kernels, Matrix, Precision, RopeTable, bf16};

/// Widths with and without a rest behind the last vector.
const WIDTHS: &[usize] = if cfg!(miri) { &[1, 16, 20] } else { &[1, 15, 16, 40, 64, 576] };

/// Row counts from a single one to enough for a fork-join.
const ROWS: [usize; 4] = if cfg!(miri) { [1, 2, 3, 4] } else { [1, 2, 16, 70] };

/// Checks that `operation(kernels, input rows, output rows)` gives every row the same bits alone,
/// among others and on 1 to 3 threads, and returns nothing else that matters.
fn assert_row_invariant(
    input_width: usize,
    output_width: usize,
    operation: impl Fn(&Kernels, &[f32], &mut [f32]),
) {
    for (one, more) in all_kernels(1).iter().zip([2, 3].map(all_kernels).iter().flatten()) {
        for m in ROWS {
            let x: Vec<f32> =
                Numbers::new(5).take(m * input_width).iter().map(|x| x * 9.0).collect();
            let mut y = vec![0.0; m * output_width];
            operation(one, &x, &mut y);
            let mut on_more = vec![0.0; m * output_width];
            operation(more, &x, &mut on_more);
            assert_eq!(bits(&on_more), bits(&y), "{more:?}");
            for row in 0..m {
                let mut alone = vec![0.0; output_width];
                operation(one, &x[row * input_width..][..input_width], &mut alone);
                assert_eq!(bits(&alone), bits(&y[row * output_width..][..output_width]), "{one:?}");
            }
        }
    }
}

#[test]
fn norms_of_heads_are_norms_of_rows_and_leave_the_other_columns() {
    let (m, heads, width, offset, stride) = (3, 4, 21, 5, 5 + 4 * 21 + 2);
    let mut numbers = Numbers::new(17);
    let (x, weight) = (numbers.take(m * stride), numbers.take(width));
    for kernels in all_kernels(2) {
        let mut y = x.clone();
        kernels.rms_norm_heads(&mut y, stride, offset, heads, &weight, 1e-6);
        for (x, y) in x.chunks_exact(stride).zip(y.chunks_exact(stride)) {
            let inner = offset..offset + heads * width;
            let mut expected = x.to_vec();
            kernels.rms_norm(&mut expected[inner.clone()], &x[inner], &weight, 1e-6);
            assert_eq!(bits(y), bits(&expected), "{kernels:?}");
        }
    }
}

#[test]
fn norms_are_row_invariant() {
    for &width in WIDTHS {
        let weight = Numbers::new(1).take(width);
        assert_row_invariant(width, width, |k, x, y| k.rms_norm(y, x, &weight, 1e-6));
    }
}

#[test]
fn silu_mul_is_row_invariant() {
    for &width in WIDTHS {
        assert_row_invariant(2 * width, width, |k, x, y| k.silu_mul(y, x, width));
    }
}

#[test]
fn norm_agrees_with_f64() {
    for &width in WIDTHS {
        let mut numbers = Numbers::new(width as u64);
        let (x, weight) = (numbers.take(2 * width), numbers.take(width));
        for kernels in all_kernels(1) {
            let mut y = vec![0.0; 2 * width];
            kernels.rms_norm(&mut y, &x, &weight, 1e-5);
            for (x, y) in x.chunks_exact(width).zip(y.chunks_exact(width)) {
                let squares: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
                let scale = 1.0 / (squares / width as f64 + f64::from(1e-5_f32)).sqrt();
                for i in 0..width {
                    let expected = f64::from(x[i]) * scale * f64::from(weight[i]);
                    assert!((f64::from(y[i]) - expected).abs() <= 1e-6 * expected.abs());
                }
            }
        }
    }
}

#[test]
fn silu_mul_agrees_with_f64() {
    let gates: Vec<f32> =
        (-1100..1100).step_by(if cfg!(miri) { 100 } else { 1 }).map(|i| i as f32 * 0.1).collect();
    let ups = Numbers::new(2).take(gates.len());
    let gate_up = [gates.clone(), ups.clone()].concat();
    for kernels in all_kernels(1) {
        let mut y = vec![0.0; gates.len()];
        kernels.silu_mul(&mut y, &gate_up, gates.len());
        for i in 0..y.len() {
            let gate = f64::from(gates[i]);
            let expected = gate / (1.0 + (-gate).exp()) * f64::from(ups[i]);
            let error = (f64::from(y[i]) - expected).abs();
            assert!(error <= 5e-7 * expected.abs() + 1e-35, "{gate}: {} {expected}", y[i]);
        }
    }
}

#[test]
fn rope_turns_each_head_by_its_position_and_keeps_lengths() {
    let inv_freq: Vec<f32> = (0..20).map(|i| 10_000_f32.powf(-(i as f32) / 20.0)).collect();
    let table = RopeTable::new(&inv_freq, 1000);
    let (heads, offset, stride) = (3, 7, 7 + 3 * 40 + 5);
    let positions = [0, 1, 999];
    let x = Numbers::new(11).take(positions.len() * stride);
    for kernels in all_kernels(1) {
        let mut y = x.clone();
        kernels.rope(&mut y, stride, offset, heads, &positions, &table);
        for (row, &position) in positions.iter().enumerate() {
            let (x, y) = (&x[row * stride..][..stride], &y[row * stride..][..stride]);
            assert_eq!(x[..offset], y[..offset]);
            assert_eq!(x[offset + heads * 40..], y[offset + heads * 40..]);
            for head in 0..heads {
                for (i, inv_freq) in inv_freq.iter().enumerate() {
                    let at = offset + head * 40 + i;
                    let (a, b) = (f64::from(x[at]), f64::from(x[at + 20]));
                    let (sin, cos) = (f64::from(position) * f64::from(*inv_freq)).sin_cos();
                    assert!((f64::from(y[at]) - (a * cos - b * sin)).abs() < 4e-7);
                    assert!((f64::from(y[at + 20]) - (b * cos + a * sin)).abs() < 4e-7);
                }
            }
        }
    }
}

#[test]
fn rope_is_row_invariant() {
    let table = RopeTable::new(&[1.0, 0.3, 0.02], 100);
    let stride = 2 * 6;
    assert_row_invariant(stride, stride, |k, x, y| {
        y.copy_from_slice(x);
        let positions = vec![42; y.len() / stride];
        k.rope(y, stride, 0, 2, &positions, &table);
    });
}

#[test]
fn embed_widens_rows() {
    let values = Numbers::new(4).take(10 * 33);
    let table = Matrix::from_f32(10, 33, &values);
    for kernels in all_kernels(1) {
        let mut y = vec![0.0; 3 * 33];
        kernels.embed(&mut y, &[9, 0, 9], &table);
        for (y, id) in y.chunks_exact(33).zip([9, 0, 9]) {
            let rounded = values[id * 33..][..33].iter().map(|&x| bf16::from_f32(x).to_f32());
            let expected: Vec<f32> = rounded.collect();
            assert_eq!(y, expected);
        }
    }
    let zero = bf16::ZERO.to_f32();
    let mut y = [1.0; 33];
    Kernels::new(1, Precision::F32).embed(&mut y, &[0], &Matrix::zeros(1, 33));
    assert_eq!(y, [zero; 33]);
}

#[test]
#[should_panic(expected = "row 10 of 10")]
fn an_unknown_id_panics() {
    let kernels = Kernels::new(1, Precision::F32);
    kernels.embed(&mut [0.0; 2], &[10], &Matrix::zeros(10, 2));
}

#[test]
fn add_adds() {
    let n = if cfg!(miri) { 100 } else { 100_003 };
    let (x, before) = (Numbers::new(8).take(n), Numbers::new(9).take(n));
    for kernels in all_kernels(2) {
        let mut y = before.clone();
        kernels.add(&mut y, &x);
        assert!((0..n).all(|i| y[i] == before[i] + x[i]));
    }
}

#[test]
fn empty_calls_do_nothing() {
    let kernels = Kernels::new(2, Precision::Bf16);
    kernels.rms_norm(&mut [], &[], &[1.0], 1e-6);
    kernels.silu_mul(&mut [], &[], 4);
    kernels.add(&mut [], &[]);
    kernels.embed(&mut [], &[], &Matrix::zeros(3, 4));
    kernels.rope(&mut [], 8, 0, 1, &[], &RopeTable::new(&[1.0], 1));
}
