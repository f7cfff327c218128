//! Some rows times some panels, in registers.

use super::QuantisedBlock;
use super::dot::{DotBytes, Floats, Ints};
use super::kind::{Kind, block_scales, chunk_scales, codes};
use crate::blocks::Line;
use crate::simd::{ByteSimd, Simd};

/// Lines of weights between those in use and those being fetched.
const AHEAD: usize = 128;

/// Sixteen sums for each of `P` panels and `M` rows.
type Sums<D, const M: usize, const P: usize> = [[Floats<D>; M]; P];

/// `x` times `panels`; `ahead` fetches the weights that lie behind those in use.
#[inline(always)]
pub(super) fn tile<D: DotBytes, K: Kind, const M: usize, const P: usize>(
    d: D,
    x: [&[QuantisedBlock]; M],
    panels: [&[Line]; P],
    ahead: bool,
) -> Sums<D, M, P> {
    let s = d.simd();
    let (lines, blocks) = (K::LAYOUT.lines(), K::LAYOUT.blocks);
    let mut sums = [[s.splat(0.0); M]; P];
    for c in 0..panels[0].len() / lines {
        let mut chunks = [&panels[0][c * lines..][..lines]; P];
        let mut common = [chunk_scales::<_, K>(s, chunks[0]); P];
        for p in 1..P {
            chunks[p] = &panels[p][c * lines..][..lines];
            common[p] = chunk_scales::<_, K>(s, chunks[p]);
        }
        if ahead {
            fetch(s, &chunks[0][..K::LAYOUT.header]);
        }
        for b in 0..blocks {
            let mut at = [&x[0][c * blocks + b]; M];
            for j in 1..M {
                at[j] = &x[j][c * blocks + b];
            }
            sums = block::<D, K, M, P>(d, at, chunks, common, b, ahead, sums);
        }
    }
    sums
}

/// Adds block `b` of each chunk.
#[inline(always)]
fn block<D: DotBytes, K: Kind, const M: usize, const P: usize>(
    d: D,
    x: [&QuantisedBlock; M],
    chunks: [&[Line]; P],
    common: [(Floats<D>, Floats<D>); P],
    b: usize,
    ahead: bool,
    mut sums: Sums<D, M, P>,
) -> Sums<D, M, P> {
    let s = d.simd();
    let start = K::LAYOUT.header + b * K::LAYOUT.payload;
    let mut lines = [&chunks[0][start..][..K::LAYOUT.payload]; P];
    let mut scales = [block_scales::<_, K>(s, chunks[0], common[0], b); P];
    for p in 1..P {
        lines[p] = &chunks[p][start..][..K::LAYOUT.payload];
        scales[p] = block_scales::<_, K>(s, chunks[p], common[p], b);
    }
    if ahead {
        fetch(s, lines[0]);
    }
    // Written out, so that each step is compiled with its own shifts.
    let mut ints = starts::<D, M, P>(d, x, K::STARTS[0]);
    ints = groups::<D, K, M, P>(d, x, lines, 0, ints);
    ints = groups::<D, K, M, P>(d, x, lines, 1, ints);
    if K::HALVES {
        for p in 0..P {
            for j in 0..M {
                sums[p][j] = add(d, sums[p][j], ints[p][j], scales[p].0, x[j]);
            }
        }
        ints = starts::<D, M, P>(d, x, K::STARTS[1]);
    }
    ints = groups::<D, K, M, P>(d, x, lines, 2, ints);
    ints = groups::<D, K, M, P>(d, x, lines, 3, ints);
    for p in 0..P {
        let (first, second) = scales[p];
        let scale = if K::HALVES { second } else { first };
        for j in 0..M {
            sums[p][j] = add(d, sums[p][j], ints[p][j], scale, x[j]);
            if K::LAYOUT.offset {
                sums[p][j] = s.fma(second, s.splat(x[j].scaled_sum), sums[p][j]);
            }
        }
    }
    sums
}

/// What the integer sums start with.
#[inline(always)]
fn starts<D: DotBytes, const M: usize, const P: usize>(
    d: D,
    x: [&QuantisedBlock; M],
    which: usize,
) -> [[Ints<D>; M]; P] {
    let s = d.simd();
    let mut row = [s.splat_int(x[0].starts[which]); M];
    for j in 1..M {
        row[j] = s.splat_int(x[j].starts[which]);
    }
    [row; P]
}

/// Adds the products of groups `2 l` and `2 l + 1`.
#[inline(always)]
fn groups<D: DotBytes, K: Kind, const M: usize, const P: usize>(
    d: D,
    x: [&QuantisedBlock; M],
    lines: [&[Line]; P],
    l: usize,
    mut ints: [[Ints<D>; M]; P],
) -> [[Ints<D>; M]; P] {
    let wide = K::LAYOUT.bits == 8;
    let mut weights = [codes::<_, K>(d.simd(), lines[0], l); P];
    for p in 1..P {
        weights[p] = codes::<_, K>(d.simd(), lines[p], l);
    }
    for j in 0..M {
        for p in 0..P {
            ints[p][j] = d.dot(ints[p][j], weights[p].0, x[j].group(2 * l), wide);
        }
    }
    for j in 0..M {
        for p in 0..P {
            ints[p][j] = d.dot(ints[p][j], weights[p].1, x[j].group(2 * l + 1), wide);
        }
    }
    ints
}

/// `sum + ints * (scale * x.scale)`.
#[inline(always)]
fn add<D: DotBytes>(
    d: D,
    sum: Floats<D>,
    ints: Ints<D>,
    scale: Floats<D>,
    x: &QuantisedBlock,
) -> Floats<D> {
    let s = d.simd();
    s.fma(s.to_float(ints), s.mul(scale, s.splat(x.scale)), sum)
}

/// Fetches what lies `AHEAD` lines behind `lines`.
#[inline(always)]
fn fetch<S: Simd>(s: S, lines: &[Line]) {
    for l in 0..lines.len() {
        s.prefetch(lines.as_ptr().wrapping_add(AHEAD + l).cast());
    }
}
