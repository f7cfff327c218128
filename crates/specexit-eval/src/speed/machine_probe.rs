//! What the machine itself can do, with the threads and the instruction set of the kernels.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use specexit_kernels::{Kernels, ProductProbe, ReadProbe};
use specexit_model::{StepProbe, Target};

use crate::error::Result;
use crate::statistics::median;

/// The block that memory is measured with: several times what a last-level cache holds.
const BLOCK: usize = 256 << 20;

/// A product whose operands, 1.5 MiB, stay in caches: rows, and inputs and outputs of the weight.
const PRODUCT: (usize, usize) = (256, 512);

/// Passes over each block, products, and steps in one repetition.
const READS: usize = 16;
const PRODUCTS: usize = 40;
const STEPS: usize = 40;

/// What the machine gives.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MachineSpeed {
    /// Billions of bytes that all threads together read per second from memory, at best.
    pub bandwidth_gb_s: f64,
    /// The same over a block as large as the weights, which a cache may hold: what bounds decoding.
    pub weights_gb_s: f64,
    /// Billions of floating-point operations per second in a product of many rows within caches, at best.
    pub peak_gflops: f64,
    /// Milliseconds of a decode step of 24 layers with next to no weights: what a step costs beside reading
    /// them. The median.
    pub step_overhead_ms: f64,
}

/// Measures repetition by repetition: the machine is to be seen at the same times as the target.
pub struct MachineProbe {
    kernels: Arc<Kernels>,
    memory: ReadProbe,
    /// As large as the weights; `None` where these are as large as `memory` or larger.
    weights: Option<ReadProbe>,
    product: ProductProbe,
    step: StepProbe,
    /// Bytes per second, at best.
    memory_rate: f64,
    weights_rate: f64,
    /// Seconds, at best.
    product_s: f64,
    step_s: Vec<f64>,
}

impl MachineProbe {
    /// Blocks and a tiny model on `target`'s kernels.
    ///
    /// # Errors
    /// As [`StepProbe::new`].
    pub fn new(target: &Target) -> Result<Self> {
        let kernels = Arc::clone(target.kernels());
        let weight_bytes = target.weight_bytes();
        let (rows, width) = PRODUCT;
        Ok(Self {
            memory: ReadProbe::new(BLOCK),
            weights: (weight_bytes < BLOCK).then(|| ReadProbe::new(weight_bytes)),
            product: ProductProbe::new(rows, width, width, 1),
            step: StepProbe::new(Arc::clone(&kernels))?,
            kernels,
            memory_rate: 0.0,
            weights_rate: 0.0,
            product_s: f64::INFINITY,
            step_s: Vec::new(),
        })
    }

    /// One repetition, some 0.1 s.
    ///
    /// # Errors
    /// As [`StepProbe::step`].
    pub fn repeat(&mut self) -> Result<()> {
        for _ in 0..READS {
            self.memory_rate = self.memory_rate.max(self.memory.pass(&self.kernels));
        }
        if let Some(weights) = &mut self.weights {
            // The first pass brings them into the caches that hold them.
            for _ in 0..=READS {
                self.weights_rate = self.weights_rate.max(weights.pass(&self.kernels));
            }
        }
        for _ in 0..PRODUCTS {
            self.product_s = self.product_s.min(self.product.pass(&self.kernels, PRODUCT.0));
        }
        for _ in 0..STEPS {
            let start = Instant::now();
            self.step.step()?;
            self.step_s.push(start.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// The best passes so far, and the median step.
    #[must_use]
    pub fn result(&self) -> MachineSpeed {
        let of_weights = if self.weights.is_some() { self.weights_rate } else { self.memory_rate };
        MachineSpeed {
            bandwidth_gb_s: self.memory_rate / 1e9,
            weights_gb_s: of_weights / 1e9,
            peak_gflops: self.product.flops(PRODUCT.0) / self.product_s / 1e9,
            step_overhead_ms: 1e3 * median(&self.step_s),
        }
    }
}
