//! Pages of small folders written by hand.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use specexit_engine::{Exit, ExitReason, Finish, Signals};
use specexit_testkit::{markup_problem, plotted_points, table_rows};

use super::cuts::Sufficient;
use super::*;
use crate::calibrate::Shift;
use crate::comparison::Named;
use crate::evaluation::{Evaluation, Numbers, Provenance};
use crate::frontier::{Curve, CurvePoint};
use crate::machine::Machine;
use crate::record::Record;
use crate::replay::{Costs, Recording};
use crate::statistics::{Difference, Proportion};
use crate::summary::summarise;

/// Names that must not become markup.
const ODD: &str = "<b>\"'&";
const METHODS: [&str; 2] = ["plain", "specexit:<i>"];
const TASK: &str = "a&b";

fn record(question: &str, method: &str, reason: ExitReason, at: usize, correct: bool) -> Record {
    Record {
        question: question.to_owned(),
        repeat: 0,
        group: None,
        method: method.to_owned(),
        correct,
        thinking_tokens: at,
        total_tokens: at + 2,
        probe_tokens: 0,
        wall_s: 0.5,
        first_answer_s: Some(0.25),
        tau: 1.0,
        rounds: 4,
        drafted: 0,
        accepted: 0,
        exit: Some(Exit { reason, token_index: at, signals: Signals::MISSING }),
        finish: Finish::Stop,
        answer: Some(ODD.to_owned()),
        text: format!("{ODD} of {question}"),
    }
}

/// Six tokens, boundaries after the second and the fourth; right from the first or from the second on.
fn recording(question: &str, first_right: bool) -> Value {
    let closed = |at: usize, correct: bool| {
        json!({"at": at, "token_ids": [1], "written": 1, "thinking_tokens": at, "finish": "stop",
               "answer": "7", "correct": correct, "confidence": 0.75, "entropy": 0.1})
    };
    json!({"question": question, "prompt_ids": [1], "phase": "thinking", "token_ids": [1, 2, 3, 4, 5, 6],
           "finish": "stop", "thinking_tokens": 5, "answer": "7", "correct": true,
           "closed": [closed(2, first_right), closed(4, true)]})
}

fn write(path: &Path, lines: &[Value]) {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn header(format: &str, version: u32) -> Value {
    json!({"format": format, "version": version})
}

/// Two questions, two methods and a curve of three points, one of which lost answers that nobody has.
fn evaluation(records: &[Record]) -> Evaluation {
    let numbers: BTreeMap<String, Numbers> =
        summarise(&METHODS, records).iter().map(|s| (s.method.clone(), s.into())).collect();
    let point = |tokens: f64, lost: usize, of: usize| CurvePoint {
        setting: format!("<{tokens}>"),
        costs: Costs {
            accuracy: Proportion::new(2 - lost, 2),
            accuracy_change: Difference::paired(0, lost, 2),
            lost_correct: Proportion::new(lost, of),
            gained_correct: Proportion::new(0, 0),
            early: 0.5,
            thinking_tokens: tokens,
            total_tokens: tokens + 2.0,
            probe_tokens: 1.0,
        },
    };
    let points = vec![point(5.0, 0, 0), point(4.0, 0, 2), point(2.0, 1, 2)];
    let curves = vec![Curve { method: "specexit".to_owned(), points }];
    let shift = |signal: &str, index: f64| Shift { signal: signal.to_owned(), index };
    let named = |name: &str| Named { name: name.to_owned(), hash: "abc".to_owned() };
    Evaluation {
        provenance: Provenance {
            program: "9.9.9".to_owned(),
            date: "2026-01-01".to_owned(),
            machine: Machine {
                cpu: "a cpu".to_owned(),
                cpus: 2,
                threads: 2,
                isa: "scalar".to_owned(),
                precision: "bf16".to_owned(),
            },
            model: named(ODD),
            head: Some(named("a head")),
            methods: METHODS.map(str::to_owned).to_vec(),
            drift: [(TASK.to_owned(), vec![shift("progress", 0.31), shift("remaining", 0.05)])]
                .into(),
            frontier: [(TASK.to_owned(), curves)].into(),
        },
        tasks: [(TASK.to_owned(), numbers)].into(),
    }
}

/// A whole folder.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let task = folder.path().join(TASK);
    let records = [
        record("q1", METHODS[0], ExitReason::Natural, 5, true),
        record("q1", METHODS[1], ExitReason::Signals, 2, false),
        record(ODD, METHODS[0], ExitReason::Natural, 5, true),
        record(ODD, METHODS[1], ExitReason::Signals, 4, true),
    ];
    let numbers = serde_json::to_string_pretty(&evaluation(&records)).unwrap();
    std::fs::write(folder.path().join(NUMBERS_FILE), numbers).unwrap();
    let mut answers = vec![header(crate::RECORDS_FORMAT, 1)];
    answers.extend(records.iter().map(|r| serde_json::to_value(r).unwrap()));
    write(&task.join(ANSWERS_FILE), &answers);
    let recordings = [recording("q1", false), recording(ODD, true)];
    write(
        &task.join(RECORDINGS_FILE),
        &[&[header("specexit-recordings", 2)], &recordings[..]].concat(),
    );
    let said = json!([null, [0.9, 0.0, 9.0], null, [0.95, 1.0, 0.0], null, null]);
    let signals = ["q1", ODD].map(|q| json!({"question": q, "signals": said}));
    write(&task.join(SIGNALS_FILE), &[&[header("specexit-signals", 1)], &signals[..]].concat());
    let texts = ["q1", ODD].map(|q| {
        json!({"question": q, "asked": ODD, "gold": "7",
               "pieces": ["<script>", "\n\n", "", "é\n\n", "</think>", "7"]})
    });
    write(&task.join(TEXTS_FILE), &[&[header("specexit-texts", 1)], &texts[..]].concat());
    folder
}

fn page(folder: &Path, thoughts: usize) -> (EvalPage, String) {
    let out = folder.join(EVAL_PAGE_FILE);
    let summary = write_eval_page(folder, &out, EvalPageOptions { thoughts }).unwrap();
    (summary, std::fs::read_to_string(out).unwrap())
}

#[test]
fn the_page_has_all_numbers_and_nothing_from_texts_becomes_markup() {
    let folder = folder();
    let (summary, page) = page(folder.path(), 40);
    assert_eq!(summary, EvalPage { tasks: 1, methods: 2, thoughts: 2 });
    assert_eq!(markup_problem(&page), None);
    for odd in ["<b>\"", "<i>\"", "<script>", "</think>", "specexit:<i>", "<5>"] {
        assert!(!page.contains(odd), "{odd}");
    }
    assert!(page.contains("data-task=\"a&#38;b\"") && page.contains("a head"));
    let rows = ["answers", "costs", "frontier", "exits-first", "exits-lasting", "exits", "drift"];
    assert_eq!(rows.map(|kind| table_rows(&page, kind)), [2, 2, 3, 1, 1, 4, 2]);
    assert!(page.contains("0.31 (shifted)") && page.contains(">0.05<"));
    // The point without right answers to lose is in the first plot alone, as is `plain`.
    assert_eq!(plotted_points(&page, "specexit"), [3, 2]);
    assert_eq!(plotted_points(&page, "run plain"), [1]);
    assert_eq!(plotted_points(&page, "run specexit:&lt;i&gt;"), [1, 1]);
    // By either sense one answer is right, at its cut, and one wrong, before it.
    assert_eq!(plotted_points(&page, "specexit:&lt;i&gt; right"), [1, 1]);
    assert_eq!(plotted_points(&page, "specexit:&lt;i&gt; wrong"), [1, 1]);
    // Three signals of the head, and the trial answers.
    assert_eq!(page.matches(": reliability</h3>").count(), 4);
}

#[test]
fn a_thought_is_shaded_by_paragraph_and_exits_stand_in_their_places() {
    let folder = folder();
    let (_, page) = page(folder.path(), 1);
    assert_eq!(page.matches("<details class=\"thought\"").count(), 1);
    assert!(page.contains("The first 1 of 2 questions."));
    let text = page.split_once("<div class=\"text\">").unwrap().1.split_once("</div>").unwrap().0;
    let expected = "<i class=\"p0\">&lt;script&gt;</i><i class=\"p0\">\n\n</i><span class=\"marks\">\
        <b class=\"cut wrong\" title=\"closed after 2 tokens: 7, wrong\">✗</b>\
        <mark class=\"exit wrong\" data-method=\"specexit:&lt;i&gt;\" data-at=\"2\">B specexit:&lt;i&gt; ✗</mark>\
        </span><i class=\"p9\"></i><i class=\"p9\">é\n\n</i><span class=\"marks\">\
        <b class=\"cut right\" title=\"closed after 4 tokens: 7, right\">✓</b>\
        <b class=\"cut sufficient\">earliest sufficient cut</b>\
        <b class=\"cut sufficient\">right from here on</b></span>\
        <i>&lt;/think&gt;</i><i>7</i>";
    assert_eq!(text, expected);
}

#[test]
fn without_recordings_the_page_shows_what_was_run() {
    let folder = folder();
    let task = folder.path().join(TASK);
    for file in [RECORDINGS_FILE, SIGNALS_FILE, TEXTS_FILE] {
        std::fs::remove_file(task.join(file)).unwrap();
        let (summary, page) = page(folder.path(), 9);
        assert_eq!((summary.thoughts, markup_problem(&page)), (2, None), "without {file}");
        assert!(page.contains("were not recorded") && page.contains("&gt;&quot;&#39;&amp; of q1"));
        assert_eq!(table_rows(&page, "exits-first"), 0);
    }
    std::fs::remove_file(task.join(ANSWERS_FILE)).unwrap();
    let (summary, page) = page(folder.path(), 9);
    assert_eq!((summary.thoughts, markup_problem(&page)), (0, None));
    assert_eq!(table_rows(&page, "answers"), 2);
}

#[test]
fn a_broken_file_is_named_with_its_line() {
    let problem = |file: &str, change: &dyn Fn(String) -> String| {
        let folder = folder();
        let path = folder.path().join(file);
        let text = change(std::fs::read_to_string(&path).unwrap());
        std::fs::write(&path, text).unwrap();
        let out = folder.path().join(EVAL_PAGE_FILE);
        let error = write_eval_page(folder.path(), &out, EvalPageOptions::default()).unwrap_err();
        assert!(!out.exists());
        error.to_string()
    };
    for file in [ANSWERS_FILE, RECORDINGS_FILE, SIGNALS_FILE, TEXTS_FILE] {
        let error = problem(&format!("{TASK}/{file}"), &|text| text + "{\"question\": 5}\n");
        let line = if file == ANSWERS_FILE { 6 } else { 4 };
        assert!(error.contains(&format!("{file}:{line}: broken record")), "{error}");
        let error = problem(&format!("{TASK}/{file}"), &|text| text.replace("specexit-", "other-"));
        assert!(error.contains(file), "{error}");
    }
    let error = problem(NUMBERS_FILE, &|text| text.replacen("\"program\"", "\"programme\"", 1));
    assert!(error.contains("eval.json:") && error.contains("missing field"), "{error}");
    let error = problem(NUMBERS_FILE, &|text| text.replace("\"a&b\": {", "\"../b\": {"));
    assert!(error.contains("a task called `../b`"), "{error}");
    let signals = format!("{TASK}/{SIGNALS_FILE}");
    let error = problem(&signals, &|text| text.replacen("null,", "", 1));
    assert!(error.contains("tells of 5 tokens of question q1, whose recording has 6"), "{error}");
    let recordings = format!("{TASK}/{RECORDINGS_FILE}");
    let error = problem(&recordings, &|text| text.replacen("\"at\":4", "\"at\":7", 1));
    assert!(error.contains("tells of 7 tokens"), "{error}");
}

#[test]
fn cuts_suffice_first_or_for_good() {
    let of = |right: &[bool]| {
        let mut recording: Recording = serde_json::from_value(recording("q", true)).unwrap();
        let closed = recording.closed[0].clone();
        recording.closed = right
            .iter()
            .enumerate()
            .map(|(i, &correct)| crate::replay::Closed { at: i, correct, ..closed.clone() })
            .collect();
        [Sufficient::First, Sufficient::Lasting].map(|s| s.of(&recording).map(|cut| cut.at))
    };
    assert_eq!(of(&[false, true, false, true, true]), [Some(1), Some(3)]);
    assert_eq!(of(&[true, true]), [Some(0), Some(0)]);
    assert_eq!(of(&[true, false]), [Some(0), None]);
    assert_eq!(of(&[]), [None, None]);
}
