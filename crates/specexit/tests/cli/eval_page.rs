//! The page of `eval`: in a browser, and made again from the files.

use std::collections::BTreeMap;

use serde_json::Value;
use specexit_eval::Evaluation;
use specexit_testkit::{markup_problem, plotted_points, table_rows};

use crate::browser::opened;
use crate::fixture::Fixture;
use crate::run::{failure, stdout};

const METHODS: &str = "plain,eagle3,specexit,deer:0.995,nothinking";

/// Reasons by which a method, not the target, ends a thought.
const EARLY: [&str; 7] = ["signals", "hopeless", "stalled", "loop", "random", "probe", "budget"];

/// Lines of a file after its header.
fn lines(f: &Fixture, file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(f.path(file)).unwrap();
    text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Counts what a page, or a browser's document of it, shows of one task against the files.
fn count(page: &str, f: &Fixture, out: &str, evaluation: &Evaluation, shown: usize) {
    for (task, numbers) in &evaluation.tasks {
        let start = page.find(&format!("data-task=\"{task}\"")).unwrap();
        let section = page[start..].split("</section>").next().unwrap();
        assert_eq!(table_rows(section, "answers"), numbers.len());
        assert_eq!(table_rows(section, "costs"), numbers.len());
        let curves = &evaluation.provenance.frontier[task];
        let points = curves.iter().flat_map(|curve| &curve.points).count();
        assert_eq!(table_rows(section, "frontier"), points);
        assert!(points > 100);
        assert_eq!(table_rows(section, "drift"), evaluation.provenance.drift[task].len());
        for curve in curves {
            let lost = curve.points.iter().filter(|p| p.costs.lost_correct.of > 0).count();
            assert_eq!(plotted_points(section, &curve.method), [curve.points.len(), lost]);
        }
        for (method, numbers) in numbers {
            let lost = numbers.lost_correct.is_some_and(|lost| lost.of > 0);
            let expected = if lost { &[1, 1][..] } else { &[1] };
            assert_eq!(plotted_points(section, &format!("run {method}")), expected, "{method}");
        }
        // Exits against cuts: one point for each question that has such a cut.
        let recordings = lines(f, &format!("{out}/{task}/recordings.jsonl"));
        let right = |r: &Value| -> Vec<bool> {
            let closed = r["closed"].as_array().unwrap().iter();
            closed.map(|cut| cut["correct"].as_bool().unwrap()).collect()
        };
        let first = recordings.iter().filter(|r| right(r).contains(&true)).count();
        let lasting = recordings.iter().filter(|r| right(r).last() == Some(&true)).count();
        for (method, numbers) in numbers {
            let early = numbers.exits.keys().any(|reason| EARLY.contains(&reason.as_str()));
            let sum = |word: &str| plotted_points(section, &format!("{method} {word}"));
            let (right, wrong) = (sum("right"), sum("wrong"));
            let both: Vec<usize> = right.iter().zip(&wrong).map(|(a, b)| a + b).collect();
            let expected = [first, lasting].into_iter().filter(|n| early && *n > 0);
            assert_eq!(both, expected.collect::<Vec<_>>(), "{task} {method}");
        }
        // Single thoughts: all tokens, and every early exit in its place.
        let thoughts: Vec<&str> = section.split("<details class=\"thought\"").skip(1).collect();
        assert_eq!(thoughts.len(), shown.min(recordings.len()));
        let answers = lines(f, &format!("{out}/{task}/answers.jsonl"));
        for (thought, recording) in thoughts.iter().zip(&recordings) {
            let id = recording["question"].as_str().unwrap();
            assert!(thought.starts_with(&format!(" data-question=\"{id}\"")), "{id}");
            let tokens = recording["token_ids"].as_array().unwrap().len();
            let shaded = thought.matches("<i class=\"p").count();
            assert_eq!(thought.matches("<i>").count() + shaded, tokens);
            assert!(shaded > tokens / 2, "{shaded} of {tokens}");
            assert_eq!(table_rows(thought, "exits"), numbers.len());
            let of_question = answers.iter().filter(|a| a["question"] == id);
            let early =
                |a: &&Value| a["exit"]["reason"].as_str().is_some_and(|r| EARLY.contains(&r));
            let exits = of_question.filter(early);
            let mut count = 0;
            for answer in exits {
                let (method, at) = (&answer["method"], &answer["exit"]["token_index"]);
                let mark = format!("data-method={method} data-at=\"{at}\"");
                assert!(thought.contains(&mark), "{id}: {mark}");
                count += 1;
            }
            assert_eq!(thought.matches("<mark").count(), count);
        }
    }
}

#[test]
fn a_browser_shows_all_numbers_of_the_json() {
    let f = Fixture::new();
    let out = f.text("ev");
    let args = ["eval", "--model", "reference", "--task", "algebra,words", "--limit", "4"];
    let more = ["--methods", METHODS, "--max-new-tokens", "700", "--seed", "4", "--out", &out];
    let text = stdout(&[&args[..], &more].concat());
    assert_eq!(text.lines().last().unwrap(), format!("report: {out}/report.html"));
    let saved = std::fs::read_to_string(f.path("ev/eval.json")).unwrap();
    let evaluation: Evaluation = serde_json::from_str(&saved).unwrap();
    let page = std::fs::read_to_string(f.path("ev/report.html")).unwrap();
    assert_eq!(markup_problem(&page), None);
    count(&page, &f, "ev", &evaluation, 40);
    if let Some(document) = opened(&f.path("ev/report.html")) {
        count(&document, &f, "ev", &evaluation, 40);
    }

    // The words are those of the answers, token by token.
    let answers = lines(&f, "ev/words/answers.jsonl");
    let texts: BTreeMap<String, String> = lines(&f, "ev/words/texts.jsonl")
        .iter()
        .map(|text| {
            let pieces = text["pieces"].as_array().unwrap().iter();
            let whole: String = pieces.map(|piece| piece.as_str().unwrap()).collect();
            assert!(text["asked"].as_str().unwrap().len() > 20 && text["gold"].is_string());
            (text["question"].as_str().unwrap().to_owned(), whole)
        })
        .collect();
    assert_eq!(texts.len(), 4);
    for answer in answers.iter().filter(|a| a["method"] == "plain") {
        let text = answer["text"].as_str().unwrap();
        assert!(texts[answer["question"].as_str().unwrap()].starts_with(text), "{text}");
    }

    // Again, from the folder alone: the same page, or one of fewer thoughts elsewhere.
    std::fs::remove_file(f.path("ev/report.html")).unwrap();
    let said = stdout(&["report", &out]);
    assert_eq!(said, format!("2 tasks, 5 methods, 8 thoughts; report: {out}/report.html\n"));
    assert_eq!(std::fs::read_to_string(f.path("ev/report.html")).unwrap(), page);
    let short = f.text("short.html");
    stdout(&["report", &out, "--thoughts", "1", "--out", &short]);
    let page = std::fs::read_to_string(short).unwrap();
    count(&page, &f, "ev", &evaluation, 1);
}

#[test]
fn without_a_frontier_the_page_tells_of_the_runs() {
    let f = Fixture::new();
    let out = f.text("ev");
    let args = ["eval", "--model", "reference", "--task", "words", "--limit", "2", "--no-frontier"];
    stdout(&[&args[..], &["--max-new-tokens", "500", "--out", &out]].concat());
    let page = std::fs::read_to_string(f.path("ev/report.html")).unwrap();
    assert_eq!(markup_problem(&page), None);
    assert!(page.contains("No question was recorded") && page.contains("class=\"asked\""));
    assert_eq!(plotted_points(&page, "run specexit").len(), 2);
    assert_eq!((table_rows(&page, "answers"), table_rows(&page, "frontier")), (3, 0));
    assert_eq!(page.matches("<details class=\"thought\"").count(), 2);
}

#[test]
fn a_folder_of_neither_sort_is_named() {
    let f = Fixture::new();
    let (_, sentence) = failure(&["report", &f.model(), "--thoughts", "3"]);
    assert!(sentence.starts_with("--thoughts does not apply: "), "{sentence}");
    let (_, sentence) = failure(&["report", &f.model()]);
    assert!(sentence.starts_with("cannot read "), "{sentence}");
}
