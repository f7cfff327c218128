//! The CPU kernels of specexit: rows times weights in bf16 or in GGML's block formats, attention over
//! a cache, norms, rope and SiLU·mul over preallocated `f32` slices, and the spin pool they run on.
//!
//! Speculative decoding pays only if verifying `m` rows costs little more than decoding one, so the
//! linear layers read every weight once for all rows of a call. Two promises hold for every
//! operation of [`Kernels`]:
//!
//! - **Row invariance.** For one [`Isa`] and one [`Precision`], a row's result has the same bits
//!   whether it is computed alone or among others, wherever it stands in the batch, and with any
//!   number of threads: every output element has exactly one order of accumulation.
//! - **No allocation in steady state.** Scratch is kept and reused between calls.
//!
//! This is the only crate of the workspace with `unsafe` code. Its API is safe: lengths are
//! asserted, and an instruction set can only be used where the CPU was seen to have it.
//!
//! ```
//! use specexit_kernels::{Kernels, Matrix, Precision};
//!
//! let kernels = Kernels::new(2, Precision::F32);
//! let weights = Matrix::from_f32(2, 3, &[1.0, 0.0, 0.0, 0.0, 2.0, 0.0]);
//! let mut y = [0.0; 2];
//! kernels.linear(&mut y, &[3.0, 4.0, 5.0], &weights, None);
//! assert_eq!(y, [3.0, 8.0]);
//! ```
//!
//! # Checking the unsafe code
//!
//! ```text
//! MIRIFLAGS=-Zmiri-deterministic-floats cargo +nightly miri test -p specexit-kernels
//! ```
//!
//! runs the scalar kernels, the pool, the buffers and the matrices under Miri (sizes are reduced and
//! the SIMD paths left out there by `cfg!(miri)`). Without the flag Miri rounds `ln` differently from
//! call to call, and tests compare bits.
// The one crate that may: SIMD intrinsics, huge-page memory and disjoint writes of several threads
// into one slice cannot be expressed without it.
#![allow(unsafe_code)]
// Tiles index several small arrays by the same counter, which iterators would only obscure.
#![allow(clippy::needless_range_loop)]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

#[macro_use]
mod isa;

mod append;
mod arena;
mod attention;
mod blocks;
mod disjoint;
mod dot;
mod elementwise;
mod kernels;
mod linear;
mod mapped;
mod matrix;
mod matvec;
mod measure;
mod norm;
mod pool;
mod rope;
mod simd;
mod small_product;
mod softmax;
mod train;

pub use append::{NewRows, Positioning};
pub use arena::Floats;
pub use attention::{
    AttentionSequence, AttentionShape, CacheNumbers, KeysValues, ParseCacheNumbersError,
};
pub use blocks::BlockFormat;
pub use half::bf16;
pub use isa::{Isa, ParseIsaError, Precision};
pub use kernels::{DEFAULT_ARITHMETIC, Kernels};
pub use mapped::MappedFile;
pub use matrix::{BlocksError, Matrix};
pub use measure::{ProductProbe, ReadProbe};
pub use pool::Pool;
pub use rope::RopeTable;
pub use small_product::{View, small_product};
pub use softmax::{argmax, softmax};
pub use train::{
    AdamW, Bf16Rows, CausalShape, ChainSequence, HeadNorms, PairPanels, RowLosses, SoftTargets,
};
