//! What the exit rules need to know about a tokenizer.

use std::{fmt, sync::Arc};

use crate::{
    TokenId,
    boundary::{BoundaryRules, BoundaryTable},
};

/// The text of every token, and its boundary class under one set of rules.
#[derive(Clone, PartialEq, Eq)]
pub struct Vocabulary {
    token_bytes: Arc<Vec<Vec<u8>>>,
    table: BoundaryTable,
}

impl Vocabulary {
    /// `token_bytes[id]` is the text of token `id` as it appears in the output: with its leading
    /// space, and for a special token such as `</think>` its written form. Share the bytes between
    /// vocabularies that differ only in their rules.
    #[must_use]
    pub fn new(token_bytes: Arc<Vec<Vec<u8>>>, rules: &BoundaryRules) -> Self {
        let table = BoundaryTable::new(rules, &token_bytes);
        Self { token_bytes, table }
    }

    /// The text of a token; empty for one that does not exist.
    #[must_use]
    pub fn bytes(&self, token: TokenId) -> &[u8] {
        self.token_bytes.get(token as usize).map_or(&[], Vec::as_slice)
    }

    /// The text of all tokens.
    #[must_use]
    pub fn token_bytes(&self) -> &Arc<Vec<Vec<u8>>> {
        &self.token_bytes
    }

    /// The boundary classes.
    #[must_use]
    pub fn table(&self) -> &BoundaryTable {
        &self.table
    }
}

impl fmt::Debug for Vocabulary {
    /// Without the hundred thousand tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vocabulary").field("tokens", &self.token_bytes.len()).finish()
    }
}
