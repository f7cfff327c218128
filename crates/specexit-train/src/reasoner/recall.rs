//! Exercises in looking things up.
//!
//! A thought looks values up by name: the value after the last ` x=`, the letter after a suspect's
//! name. In thoughts such tokens are few among many easier ones, and a small model may go through
//! tens of millions of tokens without learning to. Random words of which pieces come again teach it
//! directly: each repeated word is foretold by the place where it stood before, and by nothing else.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::pretrain::Sample;
use crate::random::below;

/// Most random words of a list, at the beginning and at the end.
const LIST: [f64; 2] = [10.0, 40.0];
/// Words of a piece that comes again: fewest and most.
const PIECE: [usize; 2] = [2, 6];
/// Repeated words for each random one.
const REPEATS: usize = 3;

/// Random words from `vocabulary`, then pieces of them; `hardness` from 0 to 1. The random part carries
/// no loss.
pub(super) fn exercise(vocabulary: &[u32], hardness: f64, seed: u64) -> Sample {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut within = |low: usize, high: usize| low + below(&mut random, high + 1 - low);
    let most = LIST[0] + hardness * (LIST[1] - LIST[0]);
    let count = within(3, most as usize).min(vocabulary.len());
    // The first places of a shuffle.
    let mut words = vocabulary.to_vec();
    for place in 0..count {
        let other = within(place, words.len() - 1);
        words.swap(place, other);
    }
    words.truncate(count);
    let mut tokens = words.clone();
    while tokens.len() < (1 + REPEATS) * count {
        let length = within(PIECE[0], PIECE[1]).min(count);
        let from = within(0, count - length);
        tokens.extend(&words[from..from + length]);
    }
    Sample { tokens, loss_from: count }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exercises() -> Vec<Sample> {
        let vocabulary: Vec<u32> = (5..300).collect();
        (0..60).map(|seed| exercise(&vocabulary, seed as f64 / 60.0, seed)).collect()
    }

    #[test]
    fn what_carries_loss_stood_before() {
        for Sample { tokens, loss_from } in exercises() {
            let (words, pieces) = tokens.split_at(loss_from);
            assert!((3..=40).contains(&words.len()) && pieces.len() >= REPEATS * words.len());
            let place = |word| words.iter().position(|w| w == word).unwrap();
            let foretold = pieces.windows(2).filter(|p| place(&p[0]) + 1 == place(&p[1]));
            assert!(2 * foretold.count() > pieces.len(), "{tokens:?}");
        }
    }

    #[test]
    fn exercises_are_a_function_of_their_seed() {
        assert_eq!(exercises(), exercises());
        let different: std::collections::BTreeSet<Vec<u32>> =
            exercises().into_iter().map(|sample| sample.tokens).collect();
        assert_eq!(different.len(), 60);
    }
}
