//! Question files in the layouts of public data sets.

mod layout;

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::{Map, Value};
use specexit_answer::AnswerKind;
use specexit_code::Task;

use crate::error::{Result, TrainError};

/// A question to put to the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Identity inside its file: the file's own id, or the beginning of the text's SHA-256.
    pub id: String,
    /// The question as asked; options and the request for a letter or for code are part of it.
    pub question: String,
    /// The known answer, where the file has one; none where answers are judged by tests.
    pub gold: Option<String>,
    /// What kind of question it is, where the file says: `family`, `subject` or `category`.
    pub group: Option<String>,
    /// How answers are judged.
    pub grading: Grading,
}

/// How answers to a question are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grading {
    /// By comparison with the known answer, looked for as this kind.
    Answer(AnswerKind),
    /// By running tests on the code in them.
    Tests(Task),
}

/// Reads a JSONL file of questions; the case of a field's name does not matter.
///
/// | layout | text | known answer |
/// |---|---|---|
/// | GSM8K | `question` | `answer`, of which only what follows `####` counts |
/// | MATH, AMC, AIME | `problem` or `question` | `answer`; else the box in `solution` |
/// | ARC and other multiple choice | `question` or `question.stem`, with `choices` or `options` | `answerKey` or `answer` |
/// | HumanEval | `prompt` | `test` and `entry_point`: [`Grading::Tests`] |
/// | own | any of these | `answer`, with an optional `answer_kind` |
///
/// The id is `id`, `unique_id`, `task_id` or `question_id`, if there is one. `docs/tasks.md` says
/// more.
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
        let mut question = layout::parse(&record).map_err(broken)?;
        if !ids.insert(question.id.clone()) {
            if layout::own_id(&record).is_some() {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

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

    fn only(record: Value) -> Question {
        read(&record.to_string()).unwrap().remove(0)
    }

    #[test]
    fn options_are_written_into_the_question() {
        let columns = json!({
            "id": "Mercury_7175875", "question": "Which is a gas?",
            "choices": {"text": ["iron", "neon", "salt"], "label": ["A", "B", "C"]},
            "answerKey": "B",
        });
        let stem = json!({
            "id": "Mercury_7175875", "answerKey": "2",
            "question": {"stem": "Which is a gas?", "choices": [
                {"text": "iron", "label": "1"}, {"text": "neon", "label": "2"},
                {"text": "salt", "label": "3"},
            ]},
        });
        let place = json!({
            "question": "Which is a gas?", "choices": ["iron", "neon", "salt"], "answer": 1,
        });
        let letter = json!({
            "question": "Which is a gas?", "options": ["iron", "neon", "salt"], "answer": "B",
        });
        for record in [columns, stem, place, letter] {
            let question = only(record);
            assert_eq!(
                question.question,
                "Which is a gas?\n\nA. iron\nB. neon\nC. salt\n\n\
                 Answer with the letter of the right option."
            );
            assert_eq!(question.gold.as_deref(), Some("B"));
            assert_eq!(question.grading, Grading::Answer(AnswerKind::Option));
        }
        // Digits are labels, not places, where the file labels by digits.
        let swapped = json!({
            "question": "Which?", "answerKey": 1,
            "choices": {"text": ["a", "b"], "label": ["2", "1"]},
        });
        assert_eq!(only(swapped).gold.as_deref(), Some("B"));
        let open = json!({"question": "Which?", "choices": ["a", "b"]});
        assert_eq!(only(open).gold, None);
    }

    #[test]
    fn layouts_of_aime_and_math() {
        let capital =
            json!({"ID": "2024-II-4", "Problem": "Find n.", "Answer": 33, "Solution": ""});
        let question = only(capital);
        assert_eq!((question.id.as_str(), question.question.as_str()), ("2024-II-4", "Find n."));
        assert_eq!(question.gold.as_deref(), Some("33"));
        assert_eq!(question.grading, Grading::Answer(AnswerKind::Auto));
        let small = json!({"id": 60, "problem": "Find n.", "answer": "025", "year": "2024"});
        let question = only(small);
        assert_eq!((question.id.as_str(), question.gold.as_deref()), ("60", Some("025")));
        let solved = json!({"problem": "Find x.", "solution": "So $x = \\boxed{\\frac{1}{2}}$."});
        assert_eq!(only(solved).gold.as_deref(), Some("\\frac{1}{2}"));
    }

    #[test]
    fn tests_take_the_place_of_an_answer() {
        let record = json!({
            "task_id": "HumanEval/0", "prompt": "def f(x):\n    \"\"\"Twice x.\"\"\"\n",
            "entry_point": "f", "canonical_solution": "    return 2 * x\n",
            "test": "def check(candidate):\n    assert candidate(2) == 4\n",
        });
        let question = only(record);
        assert_eq!(
            question.question,
            "Complete the Python function below. Give the whole function in one code block.\n\n\
             ```python\ndef f(x):\n    \"\"\"Twice x.\"\"\"\n```"
        );
        assert_eq!((question.id.as_str(), question.gold), ("HumanEval/0", None));
        let Grading::Tests(task) = question.grading else { panic!("not by tests") };
        assert_eq!(task.entry_point, "f");
        let program = specexit_code::program(&task, "    return 2 * x").unwrap();
        assert!(program.contains("Twice x.") && program.ends_with("check(f)\n"), "{program}");
    }

    #[test]
    fn own_files_may_say_the_kind_of_answer() {
        let record = json!({"question": "How many?", "answer": 5, "answer_kind": "number"});
        assert_eq!(only(record).grading, Grading::Answer(AnswerKind::Number));
    }

    #[test]
    fn broken_options_and_kinds_are_named() {
        let error = |record: Value| read(&record.to_string()).unwrap_err().to_string();
        for (record, part) in [
            (json!({"question": "a", "choices": "b"}), "must be a list"),
            (json!({"question": "a", "choices": {"text": ["b", "c"], "label": ["A"]}}), "must be"),
            (json!({"question": "a", "choices": [["b"], ["c"]]}), "must be a list"),
            (json!({"question": "a", "choices": ["b"]}), "1 options; 2 to 10"),
            (json!({"question": "a", "choices": vec!["b"; 11]}), "11 options"),
            (json!({"question": "a", "choices": ["b", "c"], "answer": 2}), "none of the 2 options"),
            (json!({"question": "a", "choices": ["b", "c"], "answer": "D"}), "\"D\" is none"),
            (json!({"question": "a", "choices": ["b", "c"], "answer": -1}), "none of the 2"),
            (json!({"question": "a", "answer_kind": "guess"}), "unknown kind of answer `guess`"),
            (json!({"question": "a", "answer_kind": 3}), "must be a word"),
        ] {
            let error = error(record);
            assert!(error.contains("questions.jsonl:1: ") && error.contains(part), "{error}");
        }
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
