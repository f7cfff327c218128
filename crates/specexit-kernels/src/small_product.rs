//! Products of small f32 matrices on the calling thread, by the `gemm` library.

/// A matrix stored row by row, or what it is when turned over.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    values: &'a [f32],
    /// Rows and columns as they are read.
    shape: [usize; 2],
    /// Numbers from one row, and from one column, to the next.
    strides: [isize; 2],
}

impl<'a> View<'a> {
    /// The matrix `[rows, columns]` itself.
    ///
    /// # Panics
    ///
    /// If there are not `rows * columns` values.
    #[must_use]
    pub fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(values.len(), rows * columns, "values are not [{rows}, {columns}]");
        Self { values, shape: [rows, columns], strides: [columns as isize, 1] }
    }

    /// Its transpose.
    #[must_use]
    pub fn transposed(self) -> Self {
        let ([rows, columns], [row, column]) = (self.shape, self.strides);
        Self { values: self.values, shape: [columns, rows], strides: [column, row] }
    }
}

/// `a · b`, `[a's rows, b's columns]`, row by row.
///
/// # Panics
///
/// If the inner dimensions differ.
#[must_use]
pub fn small_product(a: View<'_>, b: View<'_>) -> Vec<f32> {
    let ([m, k], [inner, n]) = (a.shape, b.shape);
    assert_eq!(k, inner, "factors differ in their inner dimension");
    let mut out = vec![0f32; m * n];
    if m == 0 || n == 0 || k == 0 {
        return out;
    }
    // SAFETY: shapes and strides of a `View` lie inside its values by construction, `out` has m rows
    // of n numbers, and nothing else refers to it.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.values.as_ptr(),
            a.strides[1],
            a.strides[0],
            b.values.as_ptr(),
            b.strides[1],
            b.strides[0],
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
    out
}

// Miri cannot run the library's SIMD.
#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_definition_in_any_orientation() {
        for [m, k, n] in [[1, 1, 1], [3, 5, 2], [17, 33, 19], [0, 4, 2], [2, 0, 3]] {
            let number = |i: usize| (i * 7 % 13) as f32 - 6.0;
            let a: Vec<f32> = (0..m * k).map(number).collect();
            let b: Vec<f32> = (0..k * n).map(|i| number(i + 3)).collect();
            let expected: Vec<f32> = (0..m * n)
                .map(|i| (0..k).map(|j| a[i / n * k + j] * b[j * n + i % n]).sum())
                .collect();
            let turn = |x: &[f32], rows: usize, columns: usize| -> Vec<f32> {
                (0..x.len()).map(|i| x[i % rows * columns + i / rows]).collect()
            };
            let (at, bt) = (turn(&a, m, k), turn(&b, k, n));
            for (a, b) in [
                (View::new(&a, m, k), View::new(&b, k, n)),
                (View::new(&at, k, m).transposed(), View::new(&b, k, n)),
                (View::new(&a, m, k), View::new(&bt, n, k).transposed()),
            ] {
                assert_eq!(small_product(a, b), expected, "[{m}, {k}, {n}]");
            }
        }
    }
}
