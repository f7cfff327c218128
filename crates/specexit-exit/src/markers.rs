//! The texts around a thinking span, and finding them in a stream of bytes.

use serde::{Deserialize, Serialize};

use crate::{TokenId, error::SettingError};

/// The markers of a thinking span, as text and as tokens.
///
/// They are *recognised* by their text in the bytes of the committed tokens, so it does not matter
/// whether the target writes one special token or several ordinary ones, nor whether a token
/// carries more text after the marker's end. The token ids are only used to *write* a marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Markers {
    /// Text that opens a span, usually `<think>`.
    pub open: Vec<u8>,
    /// Text that closes it, usually `</think>`: the end-of-thinking marker.
    pub close: Vec<u8>,
    /// The tokens that write the closing marker, one for most models.
    pub close_ids: Vec<TokenId>,
    /// The tokens that write the opening marker.
    pub open_ids: Vec<TokenId>,
}

impl Markers {
    /// `<think>` and `</think>` with the tokens the tokenizer encodes them to.
    #[must_use]
    pub fn think(open_ids: Vec<TokenId>, close_ids: Vec<TokenId>) -> Self {
        Self { open: b"<think>".to_vec(), close: b"</think>".to_vec(), close_ids, open_ids }
    }

    /// Says what is wrong, if anything is.
    pub fn validate(&self) -> Result<(), SettingError> {
        if self.open.is_empty() {
            return Err(SettingError::EmptyMarker("start-of-thinking"));
        }
        if self.close.is_empty() {
            return Err(SettingError::EmptyMarker("end-of-thinking"));
        }
        if self.close_ids.is_empty() {
            let text = String::from_utf8_lossy(&self.close).into_owned();
            return Err(SettingError::NoCloseTokens(text));
        }
        Ok(())
    }
}

/// One step of searching `marker` in a stream: `matched` bytes of it end the stream so far; the
/// answer is how many do after `byte`. `marker.len()` means found; start again from 0 then.
///
/// Markers are a dozen bytes, so the borders are compared directly instead of kept in a table.
#[must_use]
pub(crate) fn advance(marker: &[u8], matched: usize, byte: u8) -> usize {
    (1..=matched + 1)
        .rev()
        .find(|&k| {
            marker.get(k - 1) == Some(&byte) && marker[..k - 1] == marker[matched + 1 - k..matched]
        })
        .unwrap_or(0)
}
