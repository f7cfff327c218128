//! Seeded choices.

use std::ops::RangeInclusive;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A source of choices; the same seed gives the same choices on any machine.
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    /// Choices of a seed and a number within it.
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(number);
        Self(rng)
    }

    /// A number below `count`; 0 when `count` is 0.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        // The product's upper half: biased by less than count / 2^64.
        ((u128::from(self.0.next_u64()) * count as u128) >> 64) as usize
    }

    /// A number of a range.
    pub(crate) fn within(&mut self, range: RangeInclusive<i64>) -> i64 {
        let width = (range.end() - range.start() + 1).max(1);
        range.start() + self.below(width as usize) as i64
    }

    /// True with probability `p`.
    pub(crate) fn chance(&mut self, p: f64) -> bool {
        ((self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64) < p
    }

    /// One of a few things.
    pub(crate) fn pick<T: Copy, const N: usize>(&mut self, of: [T; N]) -> T {
        of[self.below(N)]
    }

    /// The numbers below `count` in some order.
    pub(crate) fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for i in (1..count).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_cover_their_range_and_repeat_with_their_seed() {
        let mut dice = Dice::new(3, 1);
        let mut seen = [false; 6];
        (0..200).for_each(|_| seen[dice.within(2..=7) as usize - 2] = true);
        assert_eq!(seen, [true; 6]);
        let hits = (0..10_000).filter(|_| dice.chance(0.25)).count();
        assert!((2300..2700).contains(&hits), "{hits}");
        let mut order = dice.order(9);
        order.sort_unstable();
        assert_eq!(order, (0..9).collect::<Vec<_>>());
        let take = |mut d: Dice| (0..8).map(|_| d.below(1000)).collect::<Vec<_>>();
        assert_eq!(take(Dice::new(1, 2)), take(Dice::new(1, 2)));
        assert_ne!(take(Dice::new(1, 2)), take(Dice::new(1, 3)));
        assert_eq!(Dice::new(1, 1).below(0), 0);
    }
}
