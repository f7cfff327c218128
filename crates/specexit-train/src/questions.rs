//! Question files in the layouts of public data sets.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::{Map, Value};
use specexit_model::hash::sha256_hex;

use crate::error::{Result, TrainError};

/// A question to put to the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Identity inside its file: the file's own id, or the beginning of the text's SHA-256.
    pub id: String,
    /// The question as asked.
    pub question: String,
    /// The known answer, where the file has one.
    pub gold: Option<String>,
    /// What kind of question it is, where the file says: `family`, `subject` or `category`.
    pub group: Option<String>,
}

/// Reads a JSONL file of questions: `question`, `problem` or `prompt` with an optional `answer` and
/// an optional id (`id`, `unique_id`, `task_id`), as GSM8K, MATH, AMC, HumanEval and our own files
/// have them. In GSM8K's answers only what follows `####` counts.
///
/// # Errors
/// The first line that is not such a record, or an id that occurs twice, with file and line.
pub fn read_questions(path: &Path) -> Result<Vec<Question>> {
    let file = std::fs::File::open(path).map_err(TrainError::io("read", path))?;
    let mut questions = Vec::new();
    let mut ids = HashSet::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let broken =
            |problem: String| TrainError::Line { path: path.to_owned(), line: index + 1, problem };
        let line = line.map_err(|e| match e.kind() {
            std::io::ErrorKind::InvalidData => broken("not UTF-8; convert the file".to_owned()),
            _ => TrainError::io("read", path)(e),
        })?;
        if line.trim().is_empty() {
            continue;
        }
        let record: Map<String, Value> = serde_json::from_str(&line).map_err(|e| {
            broken(format!("not a JSON object ({e}); one question a line is expected"))
        })?;
        let mut question = parse(&record).map_err(broken)?;
        if !ids.insert(question.id.clone()) {
            if own_id(&record).is_some() {
                return Err(broken(format!("the id {} occurs twice", question.id)));
            }
            // The same text again: number the repetitions.
            let repeated = (2..).map(|n| format!("{}-{n}", question.id));
            question.id =
                repeated.into_iter().find(|id| ids.insert(id.clone())).unwrap_or_default();
        }
        questions.push(question);
    }
    if questions.is_empty() {
        return Err(TrainError::NoData(format!("{} holds no question", path.display())));
    }
    Ok(questions)
}

fn parse(record: &Map<String, Value>) -> std::result::Result<Question, String> {
    let text = |key: &str| record.get(key).and_then(Value::as_str).filter(|t| !t.trim().is_empty());
    let question =
        ["question", "problem", "prompt"].into_iter().find_map(text).ok_or_else(|| {
            let keys: Vec<&str> = record.keys().map(String::as_str).collect();
            format!("no text under question, problem or prompt; the keys are [{}]", keys.join(", "))
        })?;
    let id = own_id(record).unwrap_or_else(|| sha256_hex(question.as_bytes())[..16].to_owned());
    let group = ["family", "subject", "category"].into_iter().find_map(text);
    Ok(Question {
        id,
        question: question.to_owned(),
        gold: record.get("answer").and_then(gold),
        group: group.map(str::to_owned),
    })
}

fn own_id(record: &Map<String, Value>) -> Option<String> {
    ["id", "unique_id", "task_id"].into_iter().find_map(|key| match record.get(key)? {
        Value::String(id) if !id.is_empty() => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Question>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("questions.jsonl");
        std::fs::write(&path, text).unwrap();
        read_questions(&path)
    }

    #[test]
    fn public_layouts_are_understood() {
        let questions = read(concat!(
            "{\"question\": \"How many?\", \"answer\": \"6*12=<<6*12=72>>72\\n#### 1,072\"}\n",
            "\n",
            "{\"problem\": \"Find x.\", \"answer\": \"\\\\frac12\", \"unique_id\": \"test/3.json\"}\n",
            "{\"id\": 0, \"problem\": \"p\", \"question\": \"q\", \"answer\": 27.0}\n",
            "{\"task_id\": \"HumanEval/0\", \"prompt\": \"def f():\"}\n",
            "{\"question\": \"How many?\"}\n",
        ))
        .unwrap();
        let brief: Vec<(&str, Option<&str>)> =
            questions.iter().map(|q| (q.question.as_str(), q.gold.as_deref())).collect();
        assert_eq!(
            brief,
            [
                ("How many?", Some("1,072")),
                ("Find x.", Some("\\frac12")),
                ("q", Some("27")),
                ("def f():", None),
                ("How many?", None)
            ]
        );
        assert_eq!(questions[1].id, "test/3.json");
        assert_eq!(questions[2].id, "0");
        assert_eq!(questions[4].id, format!("{}-2", questions[0].id));
    }

    #[test]
    fn broken_lines_are_named() {
        let error = |text: &str| read(text).err().unwrap().to_string();
        assert!(
            error("{\"question\": \"a\"}\n{\"question\":\n").contains("questions.jsonl:2: not a")
        );
        assert!(
            error("{\"q\": \"a\"}\n").contains(":1: no text under question, problem or prompt")
        );
        let twice = "{\"id\": 1, \"question\": \"a\"}\n{\"id\": \"1\", \"question\": \"b\"}\n";
        assert!(error(twice).contains(":2: the id 1 occurs twice"));
        assert!(error("\n").contains("holds no question"));
    }
}
