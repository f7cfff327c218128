//! The bytes that each token adds to a text.

use std::collections::HashMap;

use tokenizers::{Decoder as _, DecoderWrapper};

/// The bytes of every id below `vocab_size`; unknown ids have none.
pub(super) fn table(tokenizer: &tokenizers::Tokenizer, vocab_size: usize) -> Vec<Vec<u8>> {
    let speller = Speller::of(tokenizer.get_decoder());
    (0..vocab_size)
        .map(|id| {
            let token = u32::try_from(id).ok().and_then(|id| tokenizer.id_to_token(id));
            token.map(|token| speller.bytes(token)).unwrap_or_default()
        })
        .collect()
}

/// How a vocabulary spells bytes.
enum Speller {
    /// Every byte is one printable character (GPT-2, Llama 3, Qwen).
    ByteLevel(HashMap<char, u8>),
    /// Text with a stand-in for the space, and `<0x0A>` for bytes (SentencePiece).
    Pieces {
        /// Whether `<0xNN>` is a byte.
        byte_fallback: bool,
        /// Decoders that replace characters, in their order.
        replace: Vec<DecoderWrapper>,
    },
}

impl Speller {
    fn of(decoder: Option<&DecoderWrapper>) -> Self {
        let mut steps = Vec::new();
        flatten(decoder, &mut steps);
        if steps.iter().any(|step| matches!(step, DecoderWrapper::ByteLevel(_))) {
            return Self::ByteLevel(byte_characters());
        }
        Self::Pieces {
            byte_fallback: steps.iter().any(|step| matches!(step, DecoderWrapper::ByteFallback(_))),
            replace: steps
                .into_iter()
                .filter(|step| {
                    matches!(step, DecoderWrapper::Replace(_) | DecoderWrapper::Metaspace(_))
                })
                .cloned()
                .collect(),
        }
    }

    fn bytes(&self, token: String) -> Vec<u8> {
        match self {
            // A token with a character that spells no byte is literal text: an added token.
            Self::ByteLevel(bytes) => token
                .chars()
                .map(|c| bytes.get(&c).copied())
                .collect::<Option<Vec<u8>>>()
                .unwrap_or_else(|| token.into_bytes()),
            Self::Pieces { byte_fallback, replace } => match byte_token(&token) {
                Some(byte) if *byte_fallback => vec![byte],
                _ => replace.iter().fold(token, replaced).into_bytes(),
            },
        }
    }
}

/// The token after one replacing decoder, as a later token of a text: Metaspace drops a leading
/// space from the first.
fn replaced(token: String, decoder: &DecoderWrapper) -> String {
    match decoder.decode_chain(vec![String::new(), token.clone()]) {
        Ok(mut tokens) => tokens.pop().unwrap_or(token),
        Err(_) => token,
    }
}

/// All decoders, those inside sequences included.
fn flatten<'a>(decoder: Option<&'a DecoderWrapper>, steps: &mut Vec<&'a DecoderWrapper>) {
    match decoder {
        None => {}
        Some(DecoderWrapper::Sequence(sequence)) => {
            sequence.get_decoders().iter().for_each(|inner| flatten(Some(inner), steps));
        }
        Some(step) => steps.push(step),
    }
}

/// `<0x0A>` → 10.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    // Checked one by one, because the parser would take a sign for a digit.
    let two_digits = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if two_digits { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// GPT-2's spelling of bytes: printable Latin-1 characters stand for themselves, the other bytes
/// for U+0100 and on, in order.
fn byte_characters() -> HashMap<char, u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut next = 0x100_u32;
    (0..=u8::MAX)
        .filter_map(|byte| {
            let code = if printable(byte) {
                u32::from(byte)
            } else {
                next += 1;
                next - 1
            };
            Some((char::from_u32(code)?, byte))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_spelling() {
        let bytes = byte_characters();
        assert_eq!(bytes.len(), 256);
        assert_eq!(bytes[&'Ġ'], b' ');
        assert_eq!(bytes[&'Ċ'], b'\n');
        assert_eq!(bytes[&'é'], 0xE9);
    }

    #[test]
    fn byte_tokens_are_recognised() {
        assert_eq!(byte_token("<0x0A>"), Some(10));
        assert_eq!(byte_token("<0xFF>"), Some(255));
        for text in ["<0x>", "<0x1>", "<0xGG>", "<0x000>", "0x0A", "<0x+1>"] {
            assert_eq!(byte_token(text), None, "{text}");
        }
    }
}
