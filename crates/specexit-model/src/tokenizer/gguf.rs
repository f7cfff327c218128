//! A tokenizer rebuilt from GGUF metadata.
//!
//! GGUF stores the vocabulary, the type of each token, and either merges (byte-level BPE) or scores
//! (SentencePiece); the rest of what `tokenizer.json` says follows from the family's name.

use std::collections::HashMap;

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as DecoderSequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{NFC, Prepend, Replace, Sequence as NormalizerSequence};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper};

use super::{pre, spm};
use crate::error::{ModelError, Result, shown};
use crate::weights::GgufMetadata;

/// Token types of `tokenizer.ggml.token_type`.
pub(super) mod kind {
    pub(crate) const NORMAL: i64 = 1;
    pub(crate) const UNKNOWN: i64 = 2;
    pub(crate) const CONTROL: i64 = 3;
    pub(crate) const USER_DEFINED: i64 = 4;
    pub(crate) const UNUSED: i64 = 5;
}

/// The character that stands for a space in SentencePiece vocabularies.
const SPACE: &str = "▁";

/// Builds the tokenizer that the metadata describes.
pub(super) fn build(metadata: &GgufMetadata) -> Result<tokenizers::Tokenizer> {
    const KEY: &str = "tokenizer.ggml.model";
    match metadata.need(metadata.text(KEY)?, KEY)? {
        "gpt2" => byte_level(&Vocabulary::read(metadata)?),
        "llama" => sentence_piece(&Vocabulary::read(metadata)?),
        other => Err(metadata.unsupported(
            format!("the tokenizer model `{}`", shown(other)),
            "supported are gpt2 (byte-level BPE) and llama (SentencePiece)",
        )),
    }
}

/// The vocabulary part of the metadata.
pub(super) struct Vocabulary<'a> {
    pub(super) metadata: &'a GgufMetadata,
    /// Index = id.
    pub(super) tokens: &'a [String],
    /// One per token, see [`kind`]; empty where the file has none.
    types: &'a [i64],
}

impl<'a> Vocabulary<'a> {
    fn read(metadata: &'a GgufMetadata) -> Result<Self> {
        const TOKENS: &str = "tokenizer.ggml.tokens";
        const TYPES: &str = "tokenizer.ggml.token_type";
        let tokens = metadata.need(metadata.texts(TOKENS)?, TOKENS)?;
        if tokens.is_empty() || u32::try_from(tokens.len()).is_err() {
            return Err(metadata.bad(TOKENS, format!("has {} tokens", tokens.len())));
        }
        let types = metadata.integers(TYPES)?.unwrap_or_default();
        if !types.is_empty() && types.len() != tokens.len() {
            return Err(metadata
                .bad(TYPES, format!("has {} entries for {} tokens", types.len(), tokens.len())));
        }
        Ok(Self { metadata, tokens, types })
    }

    pub(super) fn kind(&self, id: usize) -> i64 {
        self.types.get(id).copied().unwrap_or(kind::NORMAL)
    }

    /// Token → id. Unused tokens (padding of the embedding) are left out: `tokenizer.json` has none.
    pub(super) fn ids(&self) -> HashMap<String, u32> {
        self.tokens
            .iter()
            .zip(0_u32..)
            .filter(|(_, id)| self.kind(*id as usize) != kind::UNUSED)
            .map(|(token, id)| (token.clone(), id))
            .collect()
    }

    /// The token that a metadata key names by id, where the key is present.
    fn named(&self, key: &str) -> Result<Option<(String, u32)>> {
        let Some(id) = self.metadata.id(key)? else { return Ok(None) };
        match self.tokens.get(id as usize) {
            Some(token) => Ok(Some((token.clone(), id))),
            None => Err(self.metadata.bad(
                key,
                format!("is {id}, outside the vocabulary of {} tokens", self.tokens.len()),
            )),
        }
    }

    /// Tokens to be recognised in a text before anything else: control tokens as special ones,
    /// user-defined tokens as ordinary text.
    fn added(&self) -> Vec<AddedToken> {
        (0..self.tokens.len())
            .filter_map(|id| {
                let special = match self.kind(id) {
                    kind::CONTROL | kind::UNKNOWN => true,
                    kind::USER_DEFINED => false,
                    _ => return None,
                };
                // Matched as written: a normaliser that prepends a space would spoil the match.
                Some(AddedToken::from(self.tokens[id].clone(), special).normalized(false))
            })
            .collect()
    }

    /// Adds what both kinds share: added tokens, and start and end tokens around a text.
    fn finish(
        &self,
        mut tokenizer: tokenizers::Tokenizer,
        add_bos: bool,
    ) -> Result<tokenizers::Tokenizer> {
        tokenizer.add_tokens(self.added()).map_err(|error| self.failed(&error))?;
        let flag = |key: &str, default: bool| Ok(self.metadata.flag(key)?.unwrap_or(default));
        let ends = |wanted: bool, key: &str| if wanted { self.named(key) } else { Ok(None) };
        let bos =
            ends(flag("tokenizer.ggml.add_bos_token", add_bos)?, "tokenizer.ggml.bos_token_id")?;
        let eos =
            ends(flag("tokenizer.ggml.add_eos_token", false)?, "tokenizer.ggml.eos_token_id")?;
        if bos.is_none() && eos.is_none() {
            return Ok(tokenizer);
        }
        let text = Some(("$A".to_owned(), 0));
        let parts: Vec<String> =
            [&bos, &text, &eos].into_iter().flatten().map(|(token, _)| token.clone()).collect();
        let processor = TemplateProcessing::builder()
            .try_single(parts)
            .map_err(|error| self.failed(&error))?
            .special_tokens(bos.into_iter().chain(eos).collect::<Vec<_>>())
            .build()
            .map_err(|error| self.failed(&error))?;
        tokenizer.with_post_processor(Some(processor));
        Ok(tokenizer)
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> ModelError {
        ModelError::Tokenizer {
            path: Some(self.metadata.path().to_owned()),
            problem: format!("the metadata does not make a tokenizer ({})", shown(error)),
        }
    }
}

/// Byte-level BPE: GPT-2's scheme, as Llama 3, Qwen and SmolLM2 use it.
fn byte_level(vocabulary: &Vocabulary) -> Result<tokenizers::Tokenizer> {
    const PRE: &str = "tokenizer.ggml.pre";
    let metadata = vocabulary.metadata;
    let name = metadata.text(PRE)?.unwrap_or("default");
    let family = pre::family(name).ok_or_else(|| {
        metadata.unsupported(
            format!("the pre-tokenizer `{}` (`{PRE}`)", shown(name)),
            "supported are those of Llama 3, Qwen2 and 3, SmolLM, DeepSeek, StarCoder and GPT-2",
        )
    })?;
    let ids = vocabulary.ids();
    let merges = merges(metadata, &ids)?;
    let bpe = BPE::builder()
        .vocab_and_merges(ids.into_iter().collect::<Vocab>(), merges)
        .ignore_merges(family.ignore_merges)
        .build()
        .map_err(|error| vocabulary.failed(&error))?;

    let mut tokenizer = tokenizers::Tokenizer::new(bpe);
    if family.nfc {
        tokenizer
            .with_normalizer(Some(NormalizerWrapper::NFC(NFC)))
            .map_err(|error| vocabulary.failed(&error))?;
    }
    let pre_tokenizer = family.pre_tokenizer().map_err(|error| vocabulary.failed(&error))?;
    tokenizer.with_pre_tokenizer(Some(pre_tokenizer));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, false)));
    vocabulary.finish(tokenizer, family.add_bos)
}

/// The merges, each of known tokens into a known token (the library relies on the latter unchecked).
fn merges(metadata: &GgufMetadata, ids: &HashMap<String, u32>) -> Result<Vec<(String, String)>> {
    const KEY: &str = "tokenizer.ggml.merges";
    metadata
        .need(metadata.texts(KEY)?, KEY)?
        .iter()
        .map(|merge| {
            // The first part may itself start with a space in vocabularies that are not byte-level.
            let cut = merge.char_indices().skip(1).find(|(_, c)| *c == ' ').map(|(at, _)| at);
            let (left, right) =
                cut.map(|at| (&merge[..at], &merge[at + 1..])).ok_or_else(|| {
                    metadata.bad(KEY, format!("has the entry `{}`, not a pair", shown(merge)))
                })?;
            if ids.contains_key(&format!("{left}{right}")) {
                Ok((left.to_owned(), right.to_owned()))
            } else {
                Err(metadata.bad(
                    KEY,
                    format!(
                        "has the entry `{}`, whose result is not in the vocabulary",
                        shown(merge)
                    ),
                ))
            }
        })
        .collect()
}

/// SentencePiece BPE as Llama 2 uses it.
fn sentence_piece(vocabulary: &Vocabulary) -> Result<tokenizers::Tokenizer> {
    let metadata = vocabulary.metadata;
    let merges = spm::merges(vocabulary)?;
    let mut builder = BPE::builder()
        .vocab_and_merges(vocabulary.ids().into_iter().collect::<Vocab>(), merges)
        .fuse_unk(true)
        .byte_fallback(true);
    if let Some((unknown, _)) = vocabulary.named("tokenizer.ggml.unknown_token_id")? {
        builder = builder.unk_token(unknown);
    }
    let bpe = builder.build().map_err(|error| vocabulary.failed(&error))?;

    let prefix = metadata.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let replace =
        |from: &str, to: &str| Replace::new(from, to).map_err(|error| vocabulary.failed(&error));
    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    let mut decoders: Vec<DecoderWrapper> = Vec::new();
    if prefix {
        // At the start of the text and after every special token, as llama.cpp does it.
        normalizers.push(Prepend::new(SPACE.to_owned()).into());
    }
    normalizers.push(replace(" ", SPACE)?.into());
    decoders.push(replace(SPACE, " ")?.into());
    decoders.push(ByteFallback::new().into());
    decoders.push(Fuse::new().into());
    if prefix {
        decoders.push(Strip::new(' ', 1, 0).into());
    }

    let mut tokenizer = tokenizers::Tokenizer::new(bpe);
    tokenizer
        .with_normalizer(Some(NormalizerSequence::new(normalizers)))
        .map_err(|error| vocabulary.failed(&error))?;
    tokenizer.with_decoder(Some(DecoderSequence::new(decoders)));
    vocabulary.finish(tokenizer, true)
}
