//! Products with bf16 weights on AMX: sixteen rows times sixteen outputs by one instruction for every 32
//! columns.
//!
//! The panels of [`PlainRows`] are tiles as they stand: sixteen blocks below one another are the weights of
//! sixteen outputs at sixteen pairs of columns. `tdpbf16ps` sums the first products of the pairs and the
//! second ones apart, pair by pair, and then adds both to the tile's sums (Intel, Architecture Instruction
//! Set Extensions, TDPBF16PS), each with one rounding and numbers below the least normal one as 0. So a
//! row's sums do not depend on how many rows there are.

use std::arch::asm;
use std::ops::Range;

use half::bf16;

use super::output::Target;
use super::pack::round_into;
use crate::matrix::{Block, PANEL, PlainRows};
use crate::simd::{Avx512, LANES, Lanes, Simd};

/// Rows of a tile.
pub(super) const TILE: usize = 16;

/// Columns of a tile of activations, and their pairs.
pub(super) const STEP: usize = 2 * PAIRS;
const PAIRS: usize = 16;

/// Bytes of weights that stay in the level-2 cache while further rows pass.
const GROUP: usize = 512 << 10;

/// The columns `32 s ..` of a row, padded with zeros.
pub(super) type TileRow = [bf16; STEP];

/// Rows of `x` `[_, cols]`, the first of which begins a tile, rounded to bf16 and sixteen at a time: for
/// every 32 columns those of the sixteen rows (or of as many as there are) after one another. `packed`
/// `[rows * cols.div_ceil(32)]`.
#[inline(always)]
pub(super) fn pack_tiles<S: Simd>(_: S, packed: &mut [TileRow], x: &[f32], cols: usize) {
    let steps = cols.div_ceil(STEP);
    let tiles = packed.chunks_mut(TILE * steps).zip(x.chunks(TILE * cols));
    for (packed, x) in tiles {
        let rows = x.len() / cols;
        for (row, x) in x.chunks_exact(cols).enumerate() {
            for (step, x) in x.chunks(STEP).enumerate() {
                let (to, padding) = packed[step * rows + row].split_at_mut(x.len());
                round_into(to, x);
                padding.fill(bf16::ZERO);
            }
        }
    }
}

/// Panels `range` of `w` times the `m` rows of `x`, as [`pack_tiles`] packs them.
///
/// # Safety
///
/// The CPU must have AMX with bf16, and the process its kernel's permission to use it.
#[inline(always)]
pub(super) unsafe fn tile_panels(
    s: Avx512,
    x: &[TileRow],
    m: usize,
    w: &PlainRows,
    range: Range<usize>,
    target: Target<'_>,
) {
    const TWO: usize = 2 * TILE;
    let steps = w.pairs().div_ceil(PAIRS);
    assert_eq!(x.len(), m * steps);
    let group = if m <= TWO { range.len() } else { GROUP / w.panel_bytes() }.max(1);
    let mut sums = Sums([[0.0; LANES]; 4 * TILE]);
    for start in range.clone().step_by(group) {
        for row in (0..m).step_by(TWO) {
            let first = TILE.min(m - row);
            let second = TILE.min(m - row - first);
            let x = &x[row * steps..(row + first + second) * steps];
            // SAFETY: the caller promises AMX.
            unsafe { configure(first, second) };
            for panel in start..range.end.min(start + group) {
                // SAFETY: the tiles were configured for this many rows, as which `x` was cut.
                unsafe { multiply(x, w.panel(panel), first, second, &mut sums) };
                for i in 0..first + second {
                    for half in 0..2 {
                        let products = s.load(&sums.0[(i / TILE * 2 + half) * TILE + i % TILE]);
                        let column = panel * PANEL + half * LANES;
                        // SAFETY: each thread has its own range of panels.
                        unsafe { target.put(s, row + i, column, products) };
                    }
                }
            }
        }
    }
    // SAFETY: the caller promises AMX. Without this every switch to another thread would save the tiles.
    unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
}

/// The sums of a tile of rows at the lower and at the upper outputs of a panel, and those of a second one.
#[repr(align(64))]
struct Sums([Lanes; 4 * TILE]);

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_per_row: [u16; 16],
    rows: [u8; 16],
}

/// Shapes all tiles: 0 and 1 the sums of `first` rows, 2 and 3 those of `second`, 4 and 5 their
/// activations, 6 and 7 the weights.
///
/// # Safety
///
/// As for [`tile_panels`].
#[inline(always)]
unsafe fn configure(first: usize, second: usize) {
    let mut config = Config {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        bytes_per_row: [0; 16],
        rows: [0; 16],
    };
    for (tile, rows) in
        [first, first, second, second, first, second, TILE, TILE].into_iter().enumerate()
    {
        config.rows[tile] = rows as u8;
        // A tile without rows may not have columns either.
        config.bytes_per_row[tile] = if rows == 0 { 0 } else { 64 };
    }
    // SAFETY: `config` is of palette 1 with at most 16 rows of 64 bytes. No code but this file's uses
    // tiles, so the shapes last until they are changed or released here.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) &raw const config, options(readonly, nostack, preserves_flags));
    }
}

/// The sums of `first` and `second` rows, at most sixteen each, with one panel.
///
/// # Safety
///
/// As for [`tile_panels`], after `configure(first, second)`.
#[inline(always)]
unsafe fn multiply(
    x: &[TileRow],
    panel: &[[Block; 2]],
    first: usize,
    second: usize,
    sums: &mut Sums,
) {
    let steps = panel.len().div_ceil(PAIRS);
    let whole = panel.len() / PAIRS;
    assert_eq!(x.len(), (first + second) * steps);
    // The pairs behind the last whole step, followed by zeros rather than by another panel's weights.
    let padded;
    let rest = if whole < steps {
        let mut pairs = [[[bf16::ZERO; 2 * LANES]; 2]; PAIRS];
        pairs[..panel.len() - whole * PAIRS].copy_from_slice(&panel[whole * PAIRS..]);
        padded = pairs;
        padded.as_ptr()
    } else {
        panel.as_ptr()
    };
    macro_rules! products {
        ($init:literal, $step:literal, $store:literal, $($operand:tt)*) => {
            asm!(
                $init,
                "test {whole}, {whole}",
                "jz 3f",
                "2:",
                $step,
                "add {w}, 2048",
                "dec {whole}",
                "jnz 2b",
                "3:",
                "test {more}, {more}",
                "jz 4f",
                "mov {w}, {rest}",
                $step,
                "4:",
                $store,
                w = inout(reg) panel.as_ptr() => _,
                rest = in(reg) rest,
                x1 = inout(reg) x.as_ptr() => _,
                x1_step = in(reg) first * size_of::<TileRow>(),
                $($operand)*
                whole = inout(reg) whole => _,
                more = in(reg) steps - whole,
                sums = in(reg) sums.0.as_mut_ptr(),
                row = in(reg) size_of::<TileRow>(),
                pair = in(reg) size_of::<[Block; 2]>(),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            )
        };
    }
    if second == 0 {
        // So few rows wait for memory: a step's weights are fetched two steps ahead.
        // SAFETY: `x` has `first` rows of 64 bytes for each step, the panel sixteen pairs of two blocks for
        // each whole step and `rest`, if it is read, those of one more, `sums` room for four tiles.
        unsafe {
            products!(
                "tilezero tmm0
                 tilezero tmm1",
                "tileloadd tmm4, [{x1} + {row} * 1]
                 tileloadd tmm6, [{w} + {pair} * 1]
                 tileloadd tmm7, [{w} + {pair} * 1 + 64]
                 lea {ahead}, [{w} + 4096]
                 .rept 32
                 prefetcht0 [{ahead}]
                 add {ahead}, 64
                 .endr
                 tdpbf16ps tmm0, tmm4, tmm6
                 tdpbf16ps tmm1, tmm4, tmm7
                 add {x1}, {x1_step}",
                "tilestored [{sums} + {row} * 1], tmm0
                 tilestored [{sums} + {row} * 1 + 1024], tmm1",
                ahead = out(reg) _,
            );
        }
    } else {
        // SAFETY: as above, and the second tile has `second` rows behind the first one's.
        unsafe {
            products!(
                "tilezero tmm0
                 tilezero tmm1
                 tilezero tmm2
                 tilezero tmm3",
                "tileloadd tmm4, [{x1} + {row} * 1]
                 tileloadd tmm6, [{w} + {pair} * 1]
                 tileloadd tmm7, [{w} + {pair} * 1 + 64]
                 tdpbf16ps tmm0, tmm4, tmm6
                 tdpbf16ps tmm1, tmm4, tmm7
                 tileloadd tmm5, [{x2} + {row} * 1]
                 tdpbf16ps tmm2, tmm5, tmm6
                 tdpbf16ps tmm3, tmm5, tmm7
                 add {x1}, {x1_step}
                 add {x2}, {x2_step}",
                "tilestored [{sums} + {row} * 1], tmm0
                 tilestored [{sums} + {row} * 1 + 1024], tmm1
                 tilestored [{sums} + {row} * 1 + 2048], tmm2
                 tilestored [{sums} + {row} * 1 + 3072], tmm3",
                x2 = inout(reg) x[first * steps..].as_ptr() => _,
                x2_step = in(reg) second * size_of::<TileRow>(),
            );
        }
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::super::output::Output;
    use super::*;
    use crate::disjoint::Disjoint;
    use crate::isa::{CheckedIsa, Isa};
    use crate::linear::form;

    /// What `tdpbf16ps` is defined to do, number by number.
    fn twin(x: &[f32], w: impl Fn(usize) -> f32) -> f32 {
        let flushed = |x: f32| if x.is_subnormal() { 0.0 * x } else { x };
        let step = |sum: f32, x: f32, w: f32| flushed(flushed(x).mul_add(flushed(w), sum));
        let mut sum = 0.0;
        for start in (0..x.len()).step_by(STEP) {
            let columns = start..x.len().min(start + STEP);
            let part = |first: usize| {
                let columns = columns.clone().skip(first).step_by(2);
                columns.fold(0.0, |sum, i| step(sum, bf16::from_f32(x[i]).to_f32(), w(i)))
            };
            sum = flushed(sum + flushed(part(0) + part(1)));
        }
        sum
    }

    #[test]
    fn tiles_have_the_bits_of_their_definition() {
        if !Isa::available().contains(&Isa::Amx) {
            return;
        }
        let isa = CheckedIsa::new(Isa::Amx);
        let mut state = 1_u32;
        let mut number = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Of very different sizes, so that the order of sums matters; some vanish.
            let size = [1.0, 1e-3, 1e3, 1e-20][(state >> 28) as usize % 4];
            ((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * size
        };
        for (m, n, k) in [(1, 40, 32), (16, 32, 70), (17, 33, 31), (40, 65, 200), (3, 1, 1)] {
            let x: Vec<f32> = (0..m * k).map(|_| number()).collect();
            let mut w = PlainRows::zeros(n, k);
            let weights: Vec<f32> = (0..n * k).map(|_| number()).collect();
            for row in 0..n {
                w.round_row(row, &weights[row * k..][..k]);
            }
            let mut packed = vec![[bf16::ZERO; STEP]; m * k.div_ceil(STEP)];
            pack_tiles(crate::simd::Scalar, &mut packed, &x, k);
            let mut y = vec![f32::NAN; m * n];
            let output = Output::Set;
            let target =
                Target { y: &Disjoint::new(&mut y), output, stride: n, first: 0, columns: n };
            form::tiles(isa, &packed, m, &w, 0..w.panels(), target);
            for (i, y) in y.iter().enumerate() {
                let (row, column) = (i / n, i % n);
                let weight = |c: usize| bf16::from_f32(weights[column * k + c]).to_f32();
                let expected = twin(&x[row * k..][..k], weight);
                assert_eq!(y.to_bits(), expected.to_bits(), "{m} {n} {k}: {i} {y} {expected}");
            }
        }
    }
}
