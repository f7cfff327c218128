//! Keys and values computed once and shared by requests whose prompts begin alike.

use specexit_exit::TokenId;
use specexit_model::KvCache;

/// A token sequence with the target's cache over it and, where a head has read along, the head's.
#[derive(Clone, Debug)]
pub struct Prefix {
    /// As many as `cache` holds positions.
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) cache: KvCache,
    /// Entry t is for the pair of state t and token t + 1.
    pub(crate) draft: Option<KvCache>,
}

impl Prefix {
    /// How many tokens of `prompt` need not be read anew: at most all but the last, since a forward needs one
    /// row to give logits.
    ///
    /// With `drafts` the head's cache must hold as many pairs, and each pair's token be a shared one. The last
    /// shared token is then read anew, for the state that the next pair needs.
    pub(crate) fn shared(&self, prompt: &[TokenId], drafts: bool) -> usize {
        let common = self.common(prompt);
        if drafts {
            common.saturating_sub(1).min(self.pairs())
        } else {
            common.min(prompt.len().saturating_sub(1))
        }
    }

    /// Copies of both caches over the first `count` tokens; the head's only where `drafts`.
    pub(crate) fn fork(&self, count: usize, drafts: bool) -> (KvCache, Option<KvCache>) {
        let draft = self.draft.as_ref().filter(|_| drafts);
        (self.cache.fork(count), draft.map(|draft| draft.fork(count)))
    }

    /// A copy of the target's cache over what [`Prefix::shared`] says without drafts.
    pub(crate) fn shared_with(&self, prompt: &[TokenId]) -> KvCache {
        self.cache.fork(self.shared(prompt, false))
    }

    /// Whether whatever could start from `other` could start from here, and save no less.
    pub(crate) fn covers(&self, other: &Prefix) -> bool {
        self.reaches(&other.tokens, other.pairs())
    }

    /// Whether it begins with `tokens`, and holds at least `pairs` pairs of the head.
    pub(crate) fn reaches(&self, tokens: &[TokenId], pairs: usize) -> bool {
        self.common(tokens) == tokens.len() && self.pairs() >= pairs
    }

    /// The tokens.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Bytes of keys and values held.
    pub fn bytes(&self) -> usize {
        self.cache.bytes() + self.draft.as_ref().map_or(0, KvCache::bytes)
    }

    fn common(&self, tokens: &[TokenId]) -> usize {
        self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count()
    }

    /// Pairs that the head's cache holds.
    fn pairs(&self) -> usize {
        self.draft.as_ref().map_or(0, KvCache::len)
    }
}
