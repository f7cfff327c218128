//! In which numbers keys and values are kept, and what room they take.

use std::fmt;
use std::str::FromStr;

use super::Line;
use crate::isa::Precision;
use crate::simd::LANES;

/// In which numbers a cache keeps keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheNumbers {
    /// As they are.
    F32,
    /// Rounded to the nearest bf16, ties to even.
    Bf16,
    /// In 8 bits: a head's keys, and its values, at one position are integers between -127 and 127 times the
    /// scale `max |x| / 127`, rounded to the nearest with ties to even. A NaN or infinity among them makes
    /// all of them NaN.
    ///
    /// Under [`Precision::Bf16`] a CPU with AVX-512 BF16 rounds queries, and weights times the scales of
    /// values, to 16 bits and adds the products exactly. Keys or values with no number of at least 1e-30
    /// count as 0, and so may values below 2e-28 there.
    Int8,
}

impl CacheNumbers {
    /// All of them, and their names.
    const ALL: [(CacheNumbers, &'static str); 3] =
        [(CacheNumbers::F32, "f32"), (CacheNumbers::Bf16, "bf16"), (CacheNumbers::Int8, "int8")];

    /// Numbers that are multiplied together: of neighbouring columns of keys, or positions of values.
    pub(in crate::attention) fn group(self) -> usize {
        match self {
            CacheNumbers::F32 => 1,
            CacheNumbers::Bf16 | CacheNumbers::Int8 => 2,
        }
    }

    /// Bytes of such a group for each of sixteen positions, or columns.
    fn block_bytes(self) -> usize {
        let number = match self {
            CacheNumbers::F32 => size_of::<f32>(),
            CacheNumbers::Bf16 => size_of::<u16>(),
            CacheNumbers::Int8 => size_of::<i8>(),
        };
        self.group() * LANES * number
    }

    /// Lines of so many blocks that follow one another.
    pub(super) fn lines(self, blocks: usize) -> usize {
        (blocks * self.block_bytes()).div_ceil(size_of::<Line>())
    }

    /// Lines of a head's scales in a panel: those of its keys at sixteen positions, and of its values.
    pub(super) fn scale_lines(self) -> usize {
        match self {
            CacheNumbers::F32 | CacheNumbers::Bf16 => 0,
            CacheNumbers::Int8 => 2,
        }
    }
}

impl From<Precision> for CacheNumbers {
    /// The numbers that linear layers multiply with.
    fn from(precision: Precision) -> CacheNumbers {
        match precision {
            Precision::F32 => CacheNumbers::F32,
            Precision::Bf16 => CacheNumbers::Bf16,
        }
    }
}

impl fmt::Display for CacheNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = CacheNumbers::ALL.into_iter().find_map(|(n, name)| (n == *self).then_some(name));
        f.pad(name.expect("all numbers have a name"))
    }
}

/// The name of no [`CacheNumbers`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseCacheNumbersError(String);

impl fmt::Display for ParseCacheNumbersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = CacheNumbers::ALL.map(|(_, name)| name).join(", ");
        write!(f, "unknown numbers of a cache {:?} (one of {names})", self.0)
    }
}

impl std::error::Error for ParseCacheNumbersError {}

impl FromStr for CacheNumbers {
    type Err = ParseCacheNumbersError;

    fn from_str(name: &str) -> Result<CacheNumbers, ParseCacheNumbersError> {
        let known =
            CacheNumbers::ALL.into_iter().find_map(|(n, known)| (known == name).then_some(n));
        known.ok_or_else(|| ParseCacheNumbersError(name.to_owned()))
    }
}
