//! Which instruction set runs, and how one generic kernel is compiled for each.

use std::fmt;
use std::str::FromStr;

/// Instruction set used by the kernels, ordered by preference.
///
/// Results on `Avx2` and `Avx512` have the same bits; `Scalar` differs in the last bits where the
/// others fuse multiplication and addition, `Avx512Bf16` and `Amx` in what [`Precision::Bf16`] multiplies
/// in bf16 (products with quantised weights have the bits of the other two) and in attention to keys and
/// values in 8 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Portable code; the twin the others are tested against.
    Scalar,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with dot products of bf16 pairs (`vdpbf16ps`, AVX-512 BF16) and of integers (`vpdpbusd`,
    /// `vpdpwssd`, AVX-512 VNNI): every CPU with the first has the second.
    Avx512Bf16,
    /// The same with products of whole tiles of bf16 (`tdpbf16ps`, AMX).
    Amx,
}

/// What linear layers multiply with. Weights are taken as the [`Matrix`](crate::Matrix) stores them
/// and sums are f32 in both cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Activations rounded once per call: to bf16 (nearest, ties to even) for bf16 weights, to 8-bit
    /// integers for quantised ones. There each 32 columns of a row have the scale
    /// `max |x| / 127`, rounding is to the nearest with ties to even, and products within a block
    /// are summed exactly. A NaN or infinity makes all outputs of its row NaN; blocks without a
    /// value of at least 1e-30 count as 0.
    Bf16,
    /// Activations as they are; weights are widened in registers. With quantised weights this is
    /// exact in the weights and several times slower.
    F32,
}

impl Isa {
    /// All instruction sets, the least preferred first.
    const ALL: [Isa; 5] = [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];

    /// The best instruction set of this CPU.
    pub fn detect() -> Isa {
        Isa::ALL.into_iter().rfind(|isa| isa.is_available()).expect("scalar code runs everywhere")
    }

    /// All instruction sets of this CPU, the best last.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// Whether this CPU has all that `dispatch!` enables for this instruction set.
    fn is_available(self) -> bool {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        match self {
            Isa::Scalar => true,
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            Isa::Avx512 => {
                Isa::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            Isa::Avx512Bf16 => {
                Isa::Avx512.is_available()
                    && is_x86_feature_detected!("avx512bf16")
                    && is_x86_feature_detected!("avx512vnni")
            }
            Isa::Amx => Isa::Avx512Bf16.is_available() && tiles_permitted(),
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        return self == Isa::Scalar;
    }

    fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512-bf16",
            Isa::Amx => "amx",
        }
    }
}

/// Whether the CPU multiplies tiles of bf16 and the kernel lets this process do so: their registers take
/// 8 KiB, which Linux saves only for those who asked.
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
fn tiles_permitted() -> bool {
    use std::arch::x86_64::__cpuid_count;
    use std::sync::OnceLock;

    // CPUID leaf 7, EDX: AMX-BF16 and AMX-TILE.
    const FEATURES: u32 = 1 << 22 | 1 << 24;
    // `ARCH_REQ_XCOMP_PERM` of asm/prctl.h for the state component of tiles.
    const REQUEST: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;

    static PERMITTED: OnceLock<bool> = OnceLock::new();
    *PERMITTED.get_or_init(|| {
        if __cpuid_count(7, 0).edx & FEATURES != FEATURES {
            return false;
        }
        // SAFETY: the call takes two numbers and changes nothing but what is saved of this process. Where
        // CPU or kernel cannot keep tiles it fails.
        unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 }
    })
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux"), not(miri)))]
fn tiles_permitted() -> bool {
    false
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The name of no [`Isa`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseIsaError(String);

impl fmt::Display for ParseIsaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Isa::ALL.map(Isa::name).join(", ");
        write!(f, "unknown instruction set {:?} (one of {names})", self.0)
    }
}

impl std::error::Error for ParseIsaError {}

impl FromStr for Isa {
    type Err = ParseIsaError;

    fn from_str(name: &str) -> Result<Isa, ParseIsaError> {
        let known = Isa::ALL.into_iter().find(|isa| isa.name() == name);
        known.ok_or_else(|| ParseIsaError(name.to_owned()))
    }
}

/// An instruction set that this CPU was seen to have: the proof on which `dispatch!` rests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckedIsa(Isa);

impl CheckedIsa {
    /// # Panics
    ///
    /// If this CPU does not have `isa`.
    pub(crate) fn new(isa: Isa) -> CheckedIsa {
        assert!(isa.is_available(), "this CPU has no {isa}");
        CheckedIsa(isa)
    }

    pub(crate) fn get(self) -> Isa {
        self.0
    }

    /// Whether the CPU has `vdpbf16ps`, `vpdpbusd` and `vpdpwssd`, and they are to be used.
    pub(crate) fn has_pair_products(self) -> bool {
        self.0 >= Isa::Avx512Bf16
    }
}

/// Calls `kernel(simd, args..)` compiled for the instruction set: `kernel` is an `#[inline(always)]`
/// function generic over its first argument, a [`Simd`](crate::simd::Simd), and is inlined into a
/// function that has the instruction set's features enabled. (`Avx512Bf16` and `Amx` differ from `Avx512`
/// in products only, see `linear`.)
macro_rules! dispatch {
    ($isa:expr, $kernel:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?) => {{
        let isa: $crate::isa::CheckedIsa = $isa;
        match isa.get() {
            $crate::isa::Isa::Scalar => $kernel($crate::simd::Scalar, $($arg),*),
            #[cfg(target_arch = "x86_64")]
            $crate::isa::Isa::Avx2 => {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    // SAFETY: this function's own features are those of `Avx2`.
                    $kernel(unsafe { $crate::simd::Avx2::new() }, $($arg),*)
                }
                // SAFETY: a `CheckedIsa` of `Avx2` says that the CPU has these features.
                unsafe { avx2($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            $crate::isa::Isa::Avx512
            | $crate::isa::Isa::Avx512Bf16
            | $crate::isa::Isa::Amx => {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    // SAFETY: this function's own features are those of `Avx512`.
                    $kernel(unsafe { $crate::simd::Avx512::new() }, $($arg),*)
                }
                // SAFETY: a `CheckedIsa` of any of them says that the CPU has these features.
                unsafe { avx512($($arg),*) }
            }
            #[cfg(not(target_arch = "x86_64"))]
            other => unreachable!("{other} was checked on a CPU without it"),
        }
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse(), Ok(isa));
        }
        let error = "sse2".parse::<Isa>().expect_err("no such instruction set");
        assert!(error.to_string().contains("\"sse2\""), "{error}");
    }

    #[test]
    fn detects_the_best_of_the_available() {
        let available = Isa::available();
        assert_eq!(available.first(), Some(&Isa::Scalar));
        assert_eq!(available.last(), Some(&Isa::detect()));
        assert!(available.is_sorted());
    }
}
