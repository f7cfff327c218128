//! How probable the target finds tokens that somebody else chose (teacher forcing).

use std::sync::Arc;

use specexit_exit::TokenId;
use specexit_model::{KvCache, LogitRows, PREFILL_CHUNK, Target, TargetRows, Workspace};

use crate::error::{EngineError, Result};
use crate::logprobs::log_probability;
use crate::prefix::Prefix;

/// Rows of one text whose logits are held at a time: each is as wide as the vocabulary.
const LOGITS_AT_ONCE: usize = 32;

/// A text whose last tokens are to be scored.
#[derive(Clone, Debug)]
pub struct Scored {
    /// The whole text.
    pub tokens: Vec<TokenId>,
    /// Index of the first token to score; at least one token precedes it.
    pub from: usize,
    /// Computed keys and values that the text may begin with.
    pub prefix: Option<Arc<Prefix>>,
}

/// A text on its way through the target.
struct Reading<'a> {
    scored: &'a Scored,
    cache: KvCache,
    logprobs: Vec<f32>,
}

impl Reading<'_> {
    /// The next rows: what precedes the first prediction needed without logits, then with.
    fn next(&self) -> Option<(std::ops::Range<usize>, LogitRows)> {
        let at = self.cache.len();
        // The last token predicts nothing that is asked for.
        let (first, end) = (self.scored.from - 1, self.scored.tokens.len() - 1);
        match at {
            _ if at < first => Some((at..first.min(at + PREFILL_CHUNK), LogitRows::None)),
            _ if at < end => Some((at..end.min(at + LOGITS_AT_ONCE), LogitRows::All)),
            _ => None,
        }
    }
}

/// Natural logarithms of the probabilities (temperature 1, whole vocabulary) of `tokens[from..]` of
/// each text, given all tokens before them.
pub(crate) fn score(
    target: &Target,
    scored: &[Scored],
    workspace: &mut Workspace,
) -> Result<Vec<Vec<f32>>> {
    let mut readings =
        scored.iter().map(|scored| begin(target, scored)).collect::<Result<Vec<Reading<'_>>>>()?;
    loop {
        let parts: Vec<_> = readings.iter().map(Reading::next).collect();
        let mut batch: Vec<TargetRows<'_>> = Vec::with_capacity(parts.len());
        for (reading, part) in readings.iter_mut().zip(&parts) {
            if let Some((rows, logits)) = part {
                let tokens = &reading.scored.tokens[rows.clone()];
                batch.push(TargetRows { tokens, cache: &mut reading.cache, logits: *logits });
            }
        }
        if batch.is_empty() {
            return Ok(readings.into_iter().map(|reading| reading.logprobs).collect());
        }
        target.forward(&mut batch, workspace)?;
        let mut row = 0;
        for (reading, part) in readings.iter_mut().zip(parts) {
            let Some((rows, LogitRows::All)) = part else { continue };
            for position in rows {
                let token = reading.scored.tokens[position + 1];
                reading.logprobs.push(log_probability(workspace.logits(row), token));
                row += 1;
            }
        }
    }
}

fn begin<'a>(target: &Target, scored: &'a Scored) -> Result<Reading<'a>> {
    let tokens = &scored.tokens;
    if scored.from == 0 || scored.from >= tokens.len() {
        let what = format!(
            "tokens from {} on of {} cannot be scored; something must precede them, and at least one \
             be there",
            scored.from,
            tokens.len()
        );
        return Err(EngineError::BadRequest { what });
    }
    let vocab = target.config.vocab_size;
    if let Some(&id) = tokens.iter().find(|&&id| id as usize >= vocab) {
        return Err(specexit_model::ModelError::TokenOutOfRange { id, vocab }.into());
    }
    // What precedes the first scored token must be read anew, for its logits.
    let cache = match &scored.prefix {
        Some(prefix) => prefix.shared_with(&tokens[..scored.from]),
        None => target.new_cache(),
    };
    Ok(Reading { scored, cache, logprobs: Vec::with_capacity(tokens.len() - scored.from) })
}
