//! One record of a question file in any of the known layouts.

use serde_json::{Map, Value};
use specexit_answer::{AnswerKind, extract};
use specexit_code::Task;
use specexit_model::hash::sha256_hex;

use super::{Grading, Question};

type Record = Map<String, Value>;
type Parsed<T> = Result<T, String>;

/// As many options as have a letter that answers are read for.
const MOST_OPTIONS: usize = 10;
const ASK_FOR_LETTER: &str = "Answer with the letter of the right option.";
const ASK_FOR_CODE: &str =
    "Complete the Python function below. Give the whole function in one code block.";

pub(super) fn parse(record: &Record) -> Parsed<Question> {
    // The first release of ARC has the text and the options inside of `question`.
    let inner = get(record, "question").and_then(Value::as_object);
    let text = inner
        .and_then(|inner| text_of(inner, &["stem"]))
        .or_else(|| text_of(record, &["question", "problem", "prompt", "question_stem"]))
        .ok_or_else(|| {
            let keys: Vec<&str> = record.keys().map(String::as_str).collect();
            format!("no text under question, problem or prompt; the keys are [{}]", keys.join(", "))
        })?;
    let id = own_id(record).unwrap_or_else(|| sha256_hex(text.as_bytes())[..16].to_owned());
    let group = text_of(record, &["family", "subject", "category"]).map(str::to_owned);
    let options = match inner.and_then(|inner| get(inner, "choices")) {
        Some(choices) => Some(options(choices)?),
        None => ["choices", "options"]
            .into_iter()
            .find_map(|key| get(record, key).filter(|value| !value.is_null()))
            .map(options)
            .transpose()?,
    };
    if let Some(options) = options {
        let question = with_options(text, &options);
        let gold = right_option(record, &options)?;
        return Ok(Question {
            id,
            question,
            gold,
            group,
            grading: Grading::Answer(AnswerKind::Option),
        });
    }
    if let (Some(test), Some(entry_point)) =
        (text_of(record, &["test"]), text_of(record, &["entry_point"]))
    {
        let question = format!("{ASK_FOR_CODE}\n\n```python\n{}\n```", text.trim_end());
        let task = Task {
            prompt: text.to_owned(),
            entry_point: entry_point.to_owned(),
            test: test.to_owned(),
        };
        return Ok(Question { id, question, gold: None, group, grading: Grading::Tests(task) });
    }
    let kind = match get(record, "answer_kind") {
        None | Some(Value::Null) => AnswerKind::Auto,
        Some(Value::String(kind)) => kind.parse().map_err(|e| format!("answer_kind: {e}"))?,
        Some(other) => return Err(format!("answer_kind must be a word, not {other}")),
    };
    let gold = get(record, "answer").and_then(gold).or_else(|| {
        // MATH as first published has solutions only.
        let solution = text_of(record, &["solution"]).filter(|text| text.contains("\\boxed"))?;
        extract(solution, AnswerKind::Boxed).map(|answer| answer.text)
    });
    Ok(Question { id, question: text.to_owned(), gold, group, grading: Grading::Answer(kind) })
}

/// A field by its name; AIME's files write `Problem`, `Answer` and `ID`.
fn get<'a>(record: &'a Record, key: &str) -> Option<&'a Value> {
    record.get(key).or_else(|| {
        record.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
    })
}

fn text_of<'a>(record: &'a Record, keys: &[&str]) -> Option<&'a str> {
    let text = |key| get(record, key).and_then(Value::as_str).filter(|t| !t.trim().is_empty());
    keys.iter().copied().find_map(text)
}

/// The id that the file gives.
pub(super) fn own_id(record: &Record) -> Option<String> {
    let id = |key| match get(record, key)? {
        Value::String(id) if !id.is_empty() => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    };
    ["id", "unique_id", "task_id", "question_id"].into_iter().find_map(id)
}

fn gold(answer: &Value) -> Option<String> {
    match answer {
        Value::String(text) => {
            let last = text.rsplit_once("####").map_or(text.as_str(), |(_, last)| last);
            Some(last.trim().to_owned()).filter(|t| !t.is_empty())
        }
        // AMC writes whole numbers as 27.0.
        Value::Number(number) => match number.as_f64() {
            Some(x) if x.fract() == 0.0 && x.abs() < 1e15 => Some(format!("{x:.0}")),
            _ => Some(number.to_string()),
        },
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

/// An option with the label that the file gives it, if it does.
struct Choice {
    label: Option<String>,
    text: String,
}

/// Options as `{"text": […], "label": […]}`, `[{"text": …, "label": …}]` or `[…]`.
fn options(choices: &Value) -> Parsed<Vec<Choice>> {
    let word = |value: &Value| match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let options: Option<Vec<Choice>> = match choices {
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::Object(item) => {
                    let label = get(item, "label").and_then(word);
                    Some(Choice { label, text: word(get(item, "text")?)? })
                }
                item => Some(Choice { label: None, text: word(item)? }),
            })
            .collect(),
        Value::Object(columns) => {
            let column = |key| get(columns, key).and_then(Value::as_array);
            let (texts, labels) = (column("text"), column("label"));
            texts.filter(|texts| labels.is_none_or(|labels| labels.len() == texts.len())).and_then(
                |texts| {
                    let label = |at: usize| labels.and_then(|labels| word(&labels[at]));
                    let choice = |(at, text)| Some(Choice { label: label(at), text: word(text)? });
                    texts.iter().enumerate().map(choice).collect()
                },
            )
        }
        _ => None,
    };
    let options = options.ok_or(
        "the options must be a list of texts, a list of {text, label}, or {text: […], label: […]}",
    )?;
    if (2..=MOST_OPTIONS).contains(&options.len()) {
        Ok(options)
    } else {
        Err(format!("{} options; 2 to {MOST_OPTIONS} can be told apart by letters", options.len()))
    }
}

/// The letter of an option. A file's own labels are not used, because some are digits.
fn letter(at: usize) -> char {
    char::from(b'A' + at as u8)
}

fn with_options(question: &str, options: &[Choice]) -> String {
    let lines: Vec<String> = options
        .iter()
        .enumerate()
        .map(|(at, option)| format!("{}. {}", letter(at), option.text))
        .collect();
    format!("{}\n\n{}\n\n{ASK_FOR_LETTER}", question.trim_end(), lines.join("\n"))
}

/// The letter of the right option: `answerKey` or `answer` is its label, its letter, or (as a number
/// where the options have no labels) its place from 0.
fn right_option(record: &Record, options: &[Choice]) -> Parsed<Option<String>> {
    let key = ["answerKey", "answer"]
        .into_iter()
        .find_map(|key| get(record, key).filter(|value| !value.is_null()));
    let Some(key) = key else { return Ok(None) };
    let labelled = options.iter().any(|option| option.label.is_some());
    let at = match key {
        Value::Number(place) if !labelled => place.as_u64().and_then(|at| usize::try_from(at).ok()),
        key => {
            let key = key.as_str().map_or_else(|| key.to_string(), |key| key.trim().to_owned());
            if key.is_empty() {
                return Ok(None);
            }
            let of_label = |option: &Choice| option.label.as_deref() == Some(key.as_str());
            let of_letter = |at: &usize| key.len() == 1 && key.starts_with(letter(*at));
            options
                .iter()
                .position(of_label)
                .or_else(|| (0..options.len()).find(of_letter).filter(|_| !labelled))
        }
    };
    at.filter(|at| *at < options.len())
        .map(|at| Some(letter(at).to_string()))
        .ok_or_else(|| format!("the right option {key} is none of the {} options", options.len()))
}
