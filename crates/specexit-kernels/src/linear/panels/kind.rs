//! The block formats at compile time.

use crate::blocks::{BlockFormat, Layout, Line, SubScales};
use crate::simd::ByteSimd;

/// A block format.
pub(super) trait Kind {
    const LAYOUT: Layout;

    /// Whether the halves of a block have their own scales.
    const HALVES: bool = matches!(Self::LAYOUT.sub_scales, SubScales::Signed);

    /// Which of `QuantisedBlock::starts` the sums of a half start with.
    const STARTS: [usize; 2] = match Self::LAYOUT.zero {
        8 => [1, 1],
        16 => [2, 2],
        128 => [3, 3],
        32 => [4, 5],
        _ => [0, 0],
    };
}

macro_rules! kinds {
    ($($kind:ident)*) => {
        $(
            #[allow(non_camel_case_types, reason = "these are the formats' names")]
            pub(super) struct $kind;

            impl Kind for $kind {
                const LAYOUT: Layout = BlockFormat::$kind.layout();
            }
        )*
    };
}

kinds! { Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4_K Q5_K Q6_K }

/// `$call` with `$kind` naming the type of `$format`.
macro_rules! by_format {
    ($format:expr, $kind:ident => $call:expr) => {
        by_format!(@ $format, $kind => $call; Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4_K Q5_K Q6_K)
    };
    (@ $format:expr, $kind:ident => $call:expr; $($name:ident)*) => {
        match $format {
            $($crate::blocks::BlockFormat::$name => {
                type $kind = $crate::linear::panels::kind::$name;
                $call
            })*
        }
    };
}
pub(super) use by_format;

/// The scales that stand for a whole chunk: `(scale, offset)` of formats with sub-scales.
#[inline(always)]
pub(super) fn chunk_scales<S: ByteSimd, K: Kind>(s: S, chunk: &[Line]) -> (S::F, S::F) {
    let zero = s.splat(0.0);
    match K::LAYOUT.sub_scales {
        SubScales::None => (zero, zero),
        SubScales::Unsigned => (half(s, &chunk[0], 0), half(s, &chunk[0], 1)),
        SubScales::Signed => (half(s, &chunk[0], 0), zero),
    }
}

/// The scale and the offset of block `b` of a chunk; with `HALVES` the scales of its halves.
#[inline(always)]
pub(super) fn block_scales<S: ByteSimd, K: Kind>(
    s: S,
    chunk: &[Line],
    (scale, offset): (S::F, S::F),
    b: usize,
) -> (S::F, S::F) {
    let sixteen =
        |part: usize| -> &[u8; 16] { &chunk[1 + b / 2].as_chunks::<16>().0[b % 2 * 2 + part] };
    match K::LAYOUT.sub_scales {
        SubScales::None if K::LAYOUT.offset => (half(s, &chunk[b], 0), half(s, &chunk[b], 1)),
        SubScales::None => (half(s, &chunk[0], b), s.splat(0.0)),
        SubScales::Unsigned => {
            let (scales, offsets) = (s.unsigned(sixteen(0)), s.unsigned(sixteen(1)));
            (s.mul(scale, scales), s.mul(offset, offsets))
        }
        SubScales::Signed => {
            let (first, second) = (s.signed(sixteen(0)), s.signed(sixteen(1)));
            (s.mul(scale, first), s.mul(scale, second))
        }
    }
}

/// Sixteen of the 32 f16 of a line.
#[inline(always)]
fn half<S: ByteSimd>(s: S, line: &Line, half: usize) -> S::F {
    s.halves(&line.as_chunks::<32>().0[half])
}

/// The codes of groups `2 l` and `2 l + 1` of a block.
#[inline(always)]
pub(super) fn codes<S: ByteSimd, K: Kind>(s: S, block: &[Line], l: usize) -> (S::B, S::B) {
    if K::LAYOUT.bits == 8 {
        return (s.bytes(&block[2 * l]), s.bytes(&block[2 * l + 1]));
    }
    let line = s.bytes(&block[l]);
    let (low, high) = (s.low_nibbles(line), s.high_nibbles(line));
    match K::LAYOUT.bits {
        5 => {
            let plane = s.bytes(&block[4]);
            let at = 2 * l as u32;
            (s.raise(low, plane, 1, at), s.raise(high, plane, 1, at + 1))
        }
        6 => {
            let plane = s.bytes(&block[4 + l / 2]);
            let at = 4 * (l as u32 % 2);
            (s.raise(low, plane, 2, at), s.raise(high, plane, 2, at + 2))
        }
        _ => (low, high),
    }
}
