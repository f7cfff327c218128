//! Keys and values computed once and shared by requests whose prompts begin alike.

use specexit_exit::TokenId;
use specexit_model::KvCache;

/// A token sequence and the target's cache over it.
#[derive(Clone, Debug)]
pub struct Prefix {
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) cache: KvCache,
}

impl Prefix {
    /// A copy of the cache over the longest common beginning with `prompt`, at most all but its last
    /// token, since a forward needs one row to give logits.
    pub(crate) fn shared_with(&self, prompt: &[TokenId]) -> KvCache {
        let common = self.tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        self.cache.fork(common.min(prompt.len().saturating_sub(1)))
    }

    /// The tokens.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Bytes of keys and values held.
    pub fn bytes(&self) -> usize {
        self.cache.bytes()
    }
}
