//! Exits by chance: the baseline that signals have to beat.

use serde::{Deserialize, Serialize};

/// Ends a thought at each boundary with the same probability.
///
/// The outcome is a function of the seed and of the boundary's place among the generated tokens, so
/// that it does not depend on how the rounds fell.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomExit {
    /// Probability at each boundary.
    pub rate: f32,
    /// Seed; different questions need different ones.
    pub seed: u64,
}

impl RandomExit {
    /// Whether to exit at the boundary after `generated` tokens.
    #[must_use]
    pub fn exits(&self, generated: usize) -> bool {
        // SplitMix64 (Steele, Lea, Flood 2014): one step from seed and place.
        let place = (generated as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed.wrapping_add(place);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((z >> 11) as f64 / (1_u64 << 53) as f64) < f64::from(self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_come_at_their_rate() {
        for rate in [0.0, 0.1, 0.7, 1.0] {
            let hits = (0..10_000_u64)
                .filter(|&i| RandomExit { rate, seed: i / 100 }.exits((i % 100) as usize))
                .count();
            assert!((hits as f32 - 10_000.0 * rate).abs() < 200.0, "{rate}: {hits}");
        }
    }
}
