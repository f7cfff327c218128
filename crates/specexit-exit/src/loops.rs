//! Loops: a thought that only repeats itself is ended.

use serde::{Deserialize, Serialize};

use crate::{TokenId, error::SettingError};

/// Ends a thought whose last tokens are equal runs of one short cycle, wherever that is: a loop may have no
/// boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loops {
    /// Tokens of the longest cycle that is looked for; the work per token grows with it.
    pub cycle: usize,
    /// Equal runs that make a loop.
    pub repeats: usize,
}

impl Loops {
    /// The longest cycle that can be looked for, in tokens.
    pub const MAX_CYCLE: usize = 4096;

    /// Says what is wrong with the numbers, if anything is.
    pub fn validate(&self) -> Result<(), SettingError> {
        if !(1..=Self::MAX_CYCLE).contains(&self.cycle) {
            return Err(SettingError::Cycle { most: Self::MAX_CYCLE, given: self.cycle });
        }
        if self.repeats < 2 {
            return Err(SettingError::Repeats(self.repeats));
        }
        Ok(())
    }
}

/// Looks for loops in the tokens of one thought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoopWatch {
    loops: Loops,
    /// The last tokens: at least `cycle` of them (or all), fewer than twice as many.
    recent: Vec<TokenId>,
    /// For each period from 1 on: how many of the last tokens equal the one a period before them.
    equal: Vec<usize>,
    found: bool,
}

impl LoopWatch {
    pub(crate) fn new(loops: Loops) -> Self {
        Self { loops, recent: Vec::new(), equal: vec![0; loops.cycle], found: false }
    }

    /// Takes the next thinking token.
    pub(crate) fn push(&mut self, token: TokenId) {
        let Loops { cycle, repeats } = self.loops;
        self.found = false;
        for (i, (equal, &before)) in self.equal.iter_mut().zip(self.recent.iter().rev()).enumerate()
        {
            *equal = if before == token { *equal + 1 } else { 0 };
            // The first run of a cycle has nothing before it to be equal to.
            self.found |= *equal >= (i + 1).saturating_mul(repeats - 1);
        }
        self.recent.push(token);
        if self.recent.len() >= 2 * cycle {
            self.recent.drain(..cycle);
        }
    }

    /// Whether the tokens so far end in a loop.
    pub(crate) fn found(&self) -> bool {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition itself.
    fn ends_in_a_loop(tokens: &[TokenId], Loops { cycle, repeats }: Loops) -> bool {
        (1..=cycle).any(|period| {
            let Some(from) = tokens.len().checked_sub(period * repeats) else { return false };
            let runs: Vec<&[TokenId]> = tokens[from..].chunks(period).collect();
            runs.iter().all(|run| *run == runs[0])
        })
    }

    proptest! {
        #[test]
        fn loops_are_found_as_by_their_definition(
            pieces in prop::collection::vec(
                (prop::collection::vec(0_u32..3, 1..7), 1_usize..6), 1..12),
            cycle in 1_usize..9,
            repeats in 2_usize..5,
        ) {
            let loops = Loops { cycle, repeats };
            let mut watch = LoopWatch::new(loops);
            let tokens: Vec<TokenId> =
                pieces.iter().flat_map(|(piece, times)| piece.repeat(*times)).collect();
            for end in 0..tokens.len() {
                watch.push(tokens[end]);
                prop_assert_eq!(watch.found(), ends_in_a_loop(&tokens[..=end], loops));
            }
        }
    }

    #[test]
    fn long_loops_are_found_at_the_first_token_possible() {
        let loops = Loops { cycle: 256, repeats: 4 };
        let mut watch = LoopWatch::new(loops);
        let before = 0..300;
        let cycle = 1000..1256;
        let tokens: Vec<TokenId> = before.chain((0..5).flat_map(|_| cycle.clone())).collect();
        let found = tokens.iter().position(|&token| {
            watch.push(token);
            watch.found()
        });
        assert_eq!(found, Some(300 + 4 * 256 - 1));
    }

    #[test]
    fn numbers_without_sense_are_refused() {
        assert!(Loops { cycle: 1, repeats: 2 }.validate().is_ok());
        for (loops, part) in [
            (Loops { cycle: 0, repeats: 3 }, "got 0"),
            (Loops { cycle: 4097, repeats: 3 }, "at most 4096"),
            (Loops { cycle: 8, repeats: 1 }, "at least 2"),
        ] {
            let error = loops.validate().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
