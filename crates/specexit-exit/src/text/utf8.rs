//! Bytes to characters, where a character may come in pieces.

/// A decoder that holds back the beginning of a character until the rest is there. What can never become
/// a character reads as U+FFFD.
#[derive(Clone, Debug, Default)]
pub struct Utf8 {
    open: Vec<u8>,
}

impl Utf8 {
    /// The characters that are whole with these bytes.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.open.extend_from_slice(bytes);
        let mut text = String::new();
        let mut held = 0;
        let mut chunks = self.open.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let broken = chunk.invalid();
            if chunks.peek().is_none() && may_go_on(broken) {
                held = broken.len();
            } else if !broken.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.open.drain(..self.open.len() - held);
        text
    }

    /// What is still held: the beginning of a character whose rest never came.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.open)).into_owned()
    }
}

/// Whether more bytes could make these a character.
fn may_go_on(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn characters_wait_for_their_last_byte() {
        let mut utf8 = Utf8::default();
        assert_eq!(utf8.push(&[b'a', 0xf0, 0x9f]), "a");
        assert_eq!(utf8.push(&[0x98]), "");
        assert_eq!(utf8.push(&[0x80, 0xc3]), "😀");
        assert_eq!(utf8.push(b"x"), "\u{fffd}x");
        assert_eq!(utf8.push(&[0xe2, 0x82]), "");
        assert_eq!(utf8.finish(), "\u{fffd}");
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(bytes in prop::collection::vec(any::<u8>(), 0..60), cut in 0..60_usize) {
            let cut = cut.min(bytes.len());
            let mut utf8 = Utf8::default();
            let text = [utf8.push(&bytes[..cut]), utf8.push(&bytes[cut..]), utf8.finish()].concat();
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}
