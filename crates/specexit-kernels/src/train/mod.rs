//! What training needs beside inference: products whose operands change every step, and the
//! backward of each operation.
//!
//! Factors of products are bf16 and sums f32, as in inference. A row of activations is rounded once,
//! by the operation that makes it ([`Bf16Rows`]); the other factor is packed into [`PairPanels`].
//! Every sum has one order, whatever the number of threads.

mod attention;
mod chain;
mod f32_product;
mod few;
mod head;
mod operands;
mod product;
mod rows;
mod soft_loss;
mod update;

pub use attention::CausalShape;
pub use chain::ChainSequence;
pub use head::HeadNorms;
pub use operands::{Bf16Rows, PairPanels};
pub use soft_loss::{RowLosses, SoftTargets};
pub use update::AdamW;

/// Rows that one task of an operation row by row takes: a fixed number, so that partial sums are
/// the same with any number of threads.
const ROWS_PER_TASK: usize = if cfg!(miri) { 2 } else { 64 };
