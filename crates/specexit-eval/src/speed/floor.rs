//! The shortest time in which a forward could be done: weights read once, products at full rate.

use specexit_model::{ModelConfig, Target};

use super::{MachineSpeed, Shape};

/// What bounds the forwards of one target on one machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Floor {
    /// Bytes of weights that every forward reads.
    weight_bytes: f64,
    /// Bytes that can be read in a second.
    bytes_s: f64,
    /// Operations of the layers' products for one row.
    layer_flops: f64,
    /// Operations of the output projection for one row.
    logits_flops: f64,
    /// Operations that can be done in a second.
    flops_s: f64,
}

impl Floor {
    /// The floor of `target` on a machine that was measured.
    #[must_use]
    pub fn new(target: &Target, machine: &MachineSpeed) -> Self {
        let (layer_flops, logits_flops) = flops(&target.config);
        Self {
            weight_bytes: target.weight_bytes() as f64,
            bytes_s: 1e9 * machine.weights_gb_s,
            layer_flops,
            logits_flops,
            flops_s: 1e9 * machine.peak_gflops,
        }
    }

    /// The same floor for all shapes.
    #[cfg(test)]
    pub(super) fn for_tests(seconds: f64) -> Self {
        let (layer_flops, logits_flops, flops_s) = (0.0, 0.0, 1.0);
        Self { weight_bytes: seconds, bytes_s: 1.0, layer_flops, logits_flops, flops_s }
    }

    /// The floor of a forward in seconds: reading the weights or doing the products, whichever takes longer.
    /// Attention is left out of it; at the contexts measured here it is a small part.
    #[must_use]
    pub fn seconds(&self, shape: Shape) -> f64 {
        let flops =
            shape.rows() as f64 * self.layer_flops + shape.logits_rows() as f64 * self.logits_flops;
        (self.weight_bytes / self.bytes_s).max(flops / self.flops_s)
    }
}

/// Operations of the products for one row, a multiplication and an addition per weight: those of all layers, and
/// that of the output projection.
fn flops(config: &ModelConfig) -> (f64, f64) {
    let hidden = config.hidden_size as f64;
    let q = (config.num_attention_heads * config.head_dim) as f64;
    let kv = (config.num_key_value_heads * config.head_dim) as f64;
    let layer = hidden * (2.0 * q + 2.0 * kv + 3.0 * config.intermediate_size as f64);
    let logits = hidden * config.vocab_size as f64;
    (2.0 * layer * config.num_hidden_layers as f64, 2.0 * logits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_rows_are_bounded_by_memory_and_many_by_products() {
        let floor = Floor {
            weight_bytes: 1e9,
            bytes_s: 1e10,
            layer_flops: 1e9,
            logits_flops: 1e8,
            flops_s: 1e11,
        };
        assert_eq!(floor.seconds(Shape::Decode), 0.1);
        assert_eq!(floor.seconds(Shape::Verify(8)), 0.1);
        assert_eq!(floor.seconds(Shape::Batch(20)), 0.22);
        // A prompt has the logits of one row only.
        assert_eq!(floor.seconds(Shape::Prefill(20)), 0.201);
    }
}
