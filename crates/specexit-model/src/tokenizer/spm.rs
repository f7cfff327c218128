//! Merges from the scores of a SentencePiece vocabulary.

use super::gguf::{Vocabulary, kind};
use crate::error::Result;

/// The merges that make BPE choose what SentencePiece chooses: every way to put a token together from
/// two others, the highest score first.
///
/// Equal scores are ordered as Hugging Face's converter does, longer left parts first. Control,
/// unknown and byte tokens never come out of a merge: they are not text.
pub(super) fn merges(vocabulary: &Vocabulary) -> Result<Vec<(String, String)>> {
    const KEY: &str = "tokenizer.ggml.scores";
    let metadata = vocabulary.metadata;
    let scores = metadata.need(metadata.floats(KEY)?, KEY)?;
    if scores.len() != vocabulary.tokens.len() {
        return Err(metadata.bad(
            KEY,
            format!("has {} entries for {} tokens", scores.len(), vocabulary.tokens.len()),
        ));
    }
    let is_text = |id: u32| {
        let kind = vocabulary.kind(id as usize);
        kind == kind::NORMAL || kind == kind::USER_DEFINED
    };
    let ids = vocabulary.ids();
    let id_of = |piece: &str| ids.get(piece).copied().filter(|id| is_text(*id));

    let mut merges = Vec::new();
    for ((token, id), &score) in vocabulary.tokens.iter().zip(0_u32..).zip(scores) {
        if !is_text(id) {
            continue;
        }
        let mut ways: Vec<(u32, u32, usize)> = token
            .char_indices()
            .skip(1)
            .filter_map(|(at, _)| Some((id_of(&token[..at])?, id_of(&token[at..])?, at)))
            .collect();
        ways.sort_unstable();
        let len = token.chars().count();
        merges.extend(ways.into_iter().map(|(_, _, at)| {
            let (left, right) = token.split_at(at);
            let left_len = left.chars().count();
            (Rank { score, lengths: (left_len, len - left_len) }, left, right)
        }));
    }
    // Stable, so that pieces alike in all of this keep the order of the vocabulary.
    merges.sort_by(|(a, ..), (b, ..)| {
        b.score.total_cmp(&a.score).then_with(|| b.lengths.cmp(&a.lengths))
    });
    Ok(merges.into_iter().map(|(_, left, right)| (left.to_owned(), right.to_owned())).collect())
}

/// What decides the order of two merges.
struct Rank {
    score: f32,
    /// Characters of the left and the right part.
    lengths: (usize, usize),
}
