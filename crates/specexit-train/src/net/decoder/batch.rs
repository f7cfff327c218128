//! Texts laid out for the decoder.

use std::ops::Range;

/// Texts whose rows go through the linear layers together. The last token of a text is only a
/// target, so a text of n tokens has n - 1 rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct TextBatch {
    /// The token of each row.
    pub(crate) tokens: Vec<u32>,
    /// The rows of each text.
    pub(crate) texts: Vec<Range<usize>>,
    /// Rows whose next token carries loss, ascending.
    pub(crate) loss_rows: Vec<u32>,
    /// The next token of each of these rows.
    pub(crate) targets: Vec<u32>,
}

impl TextBatch {
    /// Appends a text; tokens before `loss_from` carry no loss.
    pub(crate) fn push(&mut self, tokens: &[u32], loss_from: usize) {
        let Some(inputs) = tokens.len().checked_sub(1) else { return };
        let start = self.tokens.len();
        self.tokens.extend_from_slice(&tokens[..inputs]);
        self.texts.push(start..start + inputs);
        for (row, &target) in tokens.iter().enumerate().skip(loss_from.max(1)) {
            self.loss_rows.push((start + row - 1) as u32);
            self.targets.push(target);
        }
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Cuts texts into batches of at most `rows` rows, in order; a longer text is a batch of its own.
    pub(crate) fn group<'a>(
        texts: impl IntoIterator<Item = (&'a [u32], usize)>,
        rows: usize,
    ) -> Vec<Self> {
        let mut batches: Vec<Self> = Vec::new();
        for (tokens, loss_from) in texts {
            match batches.last_mut() {
                Some(batch) if batch.rows() + tokens.len() <= rows + 1 => {
                    batch.push(tokens, loss_from);
                }
                _ => {
                    let mut batch = Self::default();
                    batch.push(tokens, loss_from);
                    batches.push(batch);
                }
            }
        }
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_before_each_target_predicts_it() {
        let mut batch = TextBatch::default();
        batch.push(&[1, 2, 3, 4], 2);
        batch.push(&[5, 6], 0);
        assert_eq!(batch.tokens, [1, 2, 3, 5]);
        assert_eq!(batch.texts, [0..3, 3..4]);
        assert_eq!(batch.loss_rows, [1, 2, 3]);
        assert_eq!(batch.targets, [3, 4, 6]);
    }

    #[test]
    fn groups_keep_their_limit() {
        let texts = [&[1u32; 5][..], &[1; 4], &[1; 9], &[1; 2]];
        let rows: Vec<usize> = TextBatch::group(texts.into_iter().map(|t| (t, 0)), 7)
            .iter()
            .map(TextBatch::rows)
            .collect();
        assert_eq!(rows, [7, 8, 1]);
    }
}
