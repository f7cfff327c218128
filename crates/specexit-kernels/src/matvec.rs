//! Few rows of f32 weights times one vector, on the calling thread: what a signal probe is.

use crate::simd::{LANES, Lanes, Simd};

/// Rows whose sums stand in registers together, so that none waits for its own last addition.
const ROWS: usize = 8;

/// `y[i] = rows[i] · x`: `rows` `[y.len(), x.len()]`.
#[inline(always)]
pub(crate) fn matvec<S: Simd>(s: S, y: &mut [f32], rows: &[f32], x: &[f32]) {
    if x.is_empty() {
        y.fill(0.0);
        return;
    }
    let together = y.len() / ROWS * ROWS;
    let (y, y_rest) = y.split_at_mut(together);
    let (rows, rows_rest) = rows.split_at(together * x.len());
    for (y, rows) in y.chunks_exact_mut(ROWS).zip(rows.chunks_exact(ROWS * x.len())) {
        let sums = dots::<S, ROWS>(s, rows, x);
        for (y, sums) in y.chunks_exact_mut(4).zip(sums.as_chunks::<4>().0) {
            y.copy_from_slice(&s.sum4(*sums));
        }
    }
    for (y, row) in y_rest.iter_mut().zip(rows_rest.chunks_exact(x.len())) {
        *y = s.sum(dots::<S, 1>(s, row, x)[0]);
    }
}

/// Products of `R` rows with `x`, added lane by lane.
#[inline(always)]
fn dots<S: Simd, const R: usize>(s: S, rows: &[f32], x: &[f32]) -> [S::F; R] {
    let mut sums = [s.splat(0.0); R];
    let (vectors, rest) = x.as_chunks::<LANES>();
    let row = |r: usize| rows[r * x.len()..(r + 1) * x.len()].as_chunks::<LANES>();
    let mut whole: [&[Lanes]; R] = [&[]; R];
    for r in 0..R {
        // As long as `vectors`, which spares the loop its checks.
        whole[r] = &row(r).0[..vectors.len()];
    }
    for (i, x) in vectors.iter().enumerate() {
        let x = s.load(x);
        for r in 0..R {
            sums[r] = s.fma(s.load(&whole[r][i]), x, sums[r]);
        }
    }
    if !rest.is_empty() {
        let x = s.load_part(rest, 0.0);
        for r in 0..R {
            sums[r] = s.fma(s.load_part(row(r).1, 0.0), x, sums[r]);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{CheckedIsa, Isa};

    #[test]
    fn agrees_with_f64_on_any_shape() {
        for (m, k) in [(3, 192), (128, 65), (9, 16), (8, 5), (1, 1), (0, 7), (5, 0)] {
            let rows: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.37).sin()).collect();
            let x: Vec<f32> = (0..k).map(|i| (i as f32 * 0.71).cos()).collect();
            for isa in Isa::available() {
                let mut said = vec![f32::NAN; m];
                let (y, rows, x): (&mut [f32], &[f32], &[f32]) = (&mut said, &rows, &x);
                let isa = CheckedIsa::new(isa);
                dispatch!(isa, matvec(y: &mut [f32], rows: &[f32], x: &[f32]));
                for (i, y) in said.iter().enumerate() {
                    let terms = rows[i * k..][..k].iter().zip(x);
                    let exact: f64 = terms.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    assert!(
                        (f64::from(*y) - exact).abs() < 1e-5,
                        "[{m}, {k}] row {i}: {y} {exact}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_in_any_company() {
        let k = 77;
        let rows: Vec<f32> = (0..20 * k).map(|i| (i as f32 * 0.37).sin()).collect();
        let x: Vec<f32> = (0..k).map(|i| (i as f32 * 0.71).cos()).collect();
        for isa in Isa::available() {
            let product = |rows: &[f32]| {
                let mut said = vec![0f32; rows.len() / k];
                let (y, x): (&mut [f32], &[f32]) = (&mut said, &x);
                let isa = CheckedIsa::new(isa);
                dispatch!(isa, matvec(y: &mut [f32], rows: &[f32], x: &[f32]));
                said
            };
            let alone: Vec<f32> = rows.chunks_exact(k).flat_map(product).collect();
            assert_eq!(product(&rows), alone, "{isa}");
        }
    }
}
