//! The reduced draft vocabulary.

use std::collections::{BTreeSet, HashMap};

use specexit_exit::TokenId;

use super::examples::Example;

/// Tokens that the draft can name, as target ids in ascending order.
///
/// The `size` most frequent tokens of what the target generated in the training sequences; where
/// there are fewer, tokens of the prompts follow, by frequency. `always` is included in any case.
/// Tokens that occur nowhere are left out: they would cost a row each and teach nothing.
pub(crate) fn draft_vocabulary(
    examples: &[&Example],
    size: usize,
    always: &[TokenId],
) -> Vec<TokenId> {
    let mut counts: HashMap<TokenId, (u64, u64)> = HashMap::new();
    for example in examples {
        let (prompt, generated) = example.tokens.split_at(example.prompt);
        prompt.iter().for_each(|t| counts.entry(*t).or_default().1 += 1);
        generated.iter().for_each(|t| counts.entry(*t).or_default().0 += 1);
    }
    let mut ranked: Vec<(TokenId, (u64, u64))> = counts.into_iter().collect();
    ranked.sort_unstable_by(|(a, x), (b, y)| y.cmp(x).then(a.cmp(b)));
    let mut chosen: BTreeSet<TokenId> = always.iter().copied().collect();
    for (token, _) in ranked {
        if chosen.len() >= size {
            break;
        }
        chosen.insert(token);
    }
    chosen.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_tokens_come_first_and_order_is_ascending() {
        let example = Example {
            question: String::new(),
            tokens: vec![50, 50, 50, 7, 9, 7, 3],
            prompt: 3,
            labels: Vec::new(),
        };
        assert_eq!(draft_vocabulary(&[&example], 3, &[99]), [3, 7, 99]);
        assert_eq!(draft_vocabulary(&[&example], 100, &[99]), [3, 7, 9, 50, 99]);
    }
}
