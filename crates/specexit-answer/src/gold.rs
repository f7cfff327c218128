//! Reference answers as the common data sets write them.

use crate::{
    answer::{Answer, AnswerKind},
    compare::equal,
    expression,
    extract::extract,
    option_letter,
};

/// Reads a reference answer: a GSM8K solution that ends in `#### 72`, a MATH answer
/// (`\frac{1}{2}`) or solution (`… \boxed{…} …`), a number (`27.0`), an option letter.
#[must_use]
pub fn gold_answer(gold: &str, kind: AnswerKind) -> Option<Answer> {
    if gold.contains("####") || gold.contains("\\boxed") {
        return extract(gold, kind);
    }
    if gold.trim().is_empty() {
        return None;
    }
    if matches!(kind, AnswerKind::Auto | AnswerKind::Option)
        && let Some(letter) = option_letter::alone(gold)
        && gold.bytes().any(|b| b.is_ascii_uppercase())
    {
        return Some(Answer::new(AnswerKind::Option, letter.encode_utf8(&mut [0; 4])));
    }
    let mut answer = Answer::new(AnswerKind::Boxed, gold);
    if expression::is_constant(&answer.normalised) {
        answer.kind = AnswerKind::Number;
    }
    Some(answer)
}

/// Whether the final answer of a text equals the reference; `None` when the text holds no answer
/// of the kind, or the reference is empty.
///
/// With [`AnswerKind::Auto`] an option letter as reference makes the text be read for options.
#[must_use]
pub fn matches_gold(text: &str, gold: &str, kind: AnswerKind) -> Option<bool> {
    let gold = gold_answer(gold, kind)?;
    let kind = match (kind, gold.kind) {
        (AnswerKind::Auto, AnswerKind::Option) => AnswerKind::Option,
        (kind, _) => kind,
    };
    Some(equal(&extract(text, kind)?, &gold))
}
