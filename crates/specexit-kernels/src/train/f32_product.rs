//! Products of small f32 matrices on one thread: what attention of one head consists of.

use crate::simd::{LANES, Lanes, Simd};

/// Columns of a tile; every matrix that is read by rows is padded to a multiple.
pub(super) const WIDTH: usize = 2 * LANES;

/// Rows of a tile where there are registers for it.
const TILE: usize = 8;

/// A matrix read number by number: by rows, or by columns for its transposed.
#[derive(Clone, Copy)]
pub(super) struct Strided<'a> {
    pub(super) values: &'a [f32],
    /// From one row of the result to the next.
    pub(super) row: usize,
    /// From one inner index to the next.
    pub(super) inner: usize,
}

/// `c = a · b` or `c += a · b`: `a` `[m, k]`, `b` `[k, n]` with rows `b_stride` apart, `c` `[m, n]`
/// with rows `c_stride` apart, `n` a multiple of [`WIDTH`].
#[inline(always)]
pub(super) fn product<S: Simd>(
    s: S,
    c: &mut [f32],
    c_stride: usize,
    a: Strided<'_>,
    b: &[f32],
    b_stride: usize,
    [m, n, k]: [usize; 3],
    add: bool,
) {
    debug_assert!(n.is_multiple_of(WIDTH));
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    let tile_rows = if S::MANY_REGISTERS { TILE } else { 2 };
    for column in (0..n).step_by(WIDTH) {
        let b = Columns { b: &b[column..], stride: b_stride, k };
        for row in (0..m).step_by(tile_rows) {
            let a = Strided { values: &a.values[row * a.row..], ..a };
            let c = &mut c[row * c_stride + column..];
            match (m - row).min(tile_rows) {
                1 => tile::<S, 1>(s, c, c_stride, a, b, add),
                2 => tile::<S, 2>(s, c, c_stride, a, b, add),
                3 => tile::<S, 3>(s, c, c_stride, a, b, add),
                4 => tile::<S, 4>(s, c, c_stride, a, b, add),
                5 => tile::<S, 5>(s, c, c_stride, a, b, add),
                6 => tile::<S, 6>(s, c, c_stride, a, b, add),
                7 => tile::<S, 7>(s, c, c_stride, a, b, add),
                _ => tile::<S, 8>(s, c, c_stride, a, b, add),
            }
        }
    }
}

/// Columns of `b`, the first two vectors of each row.
#[derive(Clone, Copy)]
struct Columns<'a> {
    b: &'a [f32],
    stride: usize,
    k: usize,
}

#[inline(always)]
fn tile<S: Simd, const M: usize>(
    s: S,
    c: &mut [f32],
    c_stride: usize,
    a: Strided<'_>,
    Columns { b, stride, k }: Columns<'_>,
    add: bool,
) {
    // One check for the whole tile instead of one for every number.
    assert!((M - 1) * a.row + (k - 1) * a.inner < a.values.len());
    assert!((k - 1) * stride + WIDTH <= b.len());
    let mut sums = [[s.splat(0.0); 2]; M];
    for i in 0..k {
        // SAFETY: within `b` as asserted above.
        let vectors = unsafe { b.get_unchecked(i * stride..i * stride + WIDTH) };
        let (vectors, _): (&[Lanes], _) = vectors.as_chunks();
        let (low, high) = (s.load(&vectors[0]), s.load(&vectors[1]));
        for j in 0..M {
            // SAFETY: at most the index that was asserted above.
            let x = s.splat(unsafe { *a.values.get_unchecked(j * a.row + i * a.inner) });
            sums[j][0] = s.fma(x, low, sums[j][0]);
            sums[j][1] = s.fma(x, high, sums[j][1]);
        }
    }
    for j in 0..M {
        let (vectors, _) = c[j * c_stride..][..WIDTH].as_chunks_mut();
        for h in 0..2 {
            let sum = if add { s.add(s.load(&vectors[h]), sums[j][h]) } else { sums[j][h] };
            s.store(sum, &mut vectors[h]);
        }
    }
}

/// `[rows, columns]` to `[columns, rows]`, both multiples of sixteen.
#[inline(always)]
pub(super) fn transpose(to: &mut [f32], from: &[f32], rows: usize, columns: usize) {
    for first in (0..rows).step_by(LANES) {
        for column in 0..columns {
            let to = &mut to[column * rows + first..][..LANES];
            for i in 0..LANES {
                to[i] = from[(first + i) * columns + column];
            }
        }
    }
}
