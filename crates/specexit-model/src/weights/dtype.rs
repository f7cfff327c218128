//! Number types of stored tensors.

use candle_core::quantized::GgmlDType;
use safetensors::Dtype as SafeDtype;
use specexit_kernels::BlockFormat;

/// How a tensor's numbers are stored: plain numbers, or one of GGML's quantised blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    /// One byte, 0 or 1: safetensors' BOOL, and U8 where a file stores flags that way.
    Flag,
    /// A block of 32 or 256 numbers.
    Block(GgmlDType),
}

impl Dtype {
    /// The type of a safetensors tensor, if specexit reads it.
    pub(super) fn from_safetensors(dtype: SafeDtype) -> Option<Self> {
        Some(match dtype {
            SafeDtype::F64 => Self::F64,
            SafeDtype::F32 => Self::F32,
            SafeDtype::F16 => Self::F16,
            SafeDtype::BF16 => Self::BF16,
            SafeDtype::I64 => Self::I64,
            SafeDtype::I32 => Self::I32,
            SafeDtype::BOOL | SafeDtype::U8 => Self::Flag,
            _ => return None,
        })
    }

    /// The type of a GGUF tensor by its number in the format, or its name if specexit does not read it.
    pub(super) fn from_gguf(number: u32) -> Result<Self, String> {
        Ok(match number {
            0 => Self::F32,
            1 => Self::F16,
            30 => Self::BF16,
            26 => Self::I32,
            27 => Self::I64,
            28 => Self::F64,
            2 => Self::Block(GgmlDType::Q4_0),
            3 => Self::Block(GgmlDType::Q4_1),
            6 => Self::Block(GgmlDType::Q5_0),
            7 => Self::Block(GgmlDType::Q5_1),
            8 => Self::Block(GgmlDType::Q8_0),
            10 => Self::Block(GgmlDType::Q2K),
            11 => Self::Block(GgmlDType::Q3K),
            12 => Self::Block(GgmlDType::Q4K),
            13 => Self::Block(GgmlDType::Q5K),
            14 => Self::Block(GgmlDType::Q6K),
            other => {
                let name = match other {
                    9 => "Q8_1",
                    15 => "Q8_K",
                    16 => "IQ2_XXS",
                    17 => "IQ2_XS",
                    18 => "IQ3_XXS",
                    19 => "IQ1_S",
                    20 => "IQ4_NL",
                    21 => "IQ3_S",
                    22 => "IQ2_S",
                    23 => "IQ4_XS",
                    29 => "IQ1_M",
                    34 => "TQ1_0",
                    35 => "TQ2_0",
                    39 => "MXFP4",
                    40 => "NVFP4",
                    _ => return Err(format!("number {other}")),
                };
                return Err(name.to_owned());
            }
        })
    }

    /// Numbers per stored unit: 1, or the block length.
    pub(super) fn block_len(self) -> usize {
        match self {
            Self::Block(block) => block.block_size(),
            _ => 1,
        }
    }

    /// Bytes per stored unit.
    pub(super) fn block_bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Flag => 1,
            Self::Block(block) => block.type_size(),
        }
    }

    /// The format in which the kernels multiply with such weights; `None` where matrices become bf16.
    pub(super) fn block_format(self) -> Option<BlockFormat> {
        let Self::Block(block) = self else { return None };
        Some(match block {
            GgmlDType::Q4_0 => BlockFormat::Q4_0,
            GgmlDType::Q4_1 => BlockFormat::Q4_1,
            GgmlDType::Q5_0 => BlockFormat::Q5_0,
            GgmlDType::Q5_1 => BlockFormat::Q5_1,
            GgmlDType::Q8_0 => BlockFormat::Q8_0,
            GgmlDType::Q4K => BlockFormat::Q4_K,
            GgmlDType::Q5K => BlockFormat::Q5_K,
            GgmlDType::Q6K => BlockFormat::Q6_K,
            _ => return None,
        })
    }

    /// Whether the numbers are weights rather than integers or flags.
    pub(super) fn is_float(self) -> bool {
        !matches!(self, Self::I64 | Self::I32 | Self::Flag)
    }

    /// The type's name as its format writes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::Flag => "BOOL",
            Self::Block(block) => match block {
                GgmlDType::Q4_0 => "Q4_0",
                GgmlDType::Q4_1 => "Q4_1",
                GgmlDType::Q5_0 => "Q5_0",
                GgmlDType::Q5_1 => "Q5_1",
                GgmlDType::Q8_0 => "Q8_0",
                GgmlDType::Q2K => "Q2_K",
                GgmlDType::Q3K => "Q3_K",
                GgmlDType::Q4K => "Q4_K",
                GgmlDType::Q5K => "Q5_K",
                GgmlDType::Q6K => "Q6_K",
                // Never constructed by `from_gguf`.
                GgmlDType::F32
                | GgmlDType::F16
                | GgmlDType::BF16
                | GgmlDType::Q8_1
                | GgmlDType::Q8K => "another type",
            },
        }
    }

    /// Bytes of a tensor of that shape, where the shape is possible: rows hold whole blocks and
    /// nothing overflows.
    pub(super) fn bytes(self, shape: &[usize]) -> Option<usize> {
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(self.block_len()) {
            return None;
        }
        let count = shape.iter().try_fold(1_usize, |count, &size| count.checked_mul(size))?;
        (count / self.block_len()).checked_mul(self.block_bytes())
    }
}
