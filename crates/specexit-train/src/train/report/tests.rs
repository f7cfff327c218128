//! The page: whole, safe, and of the same numbers as the JSON.

use std::path::Path;

use serde_json::json;

use super::folder::of_finished;
use super::verdict::Known;
use super::*;
use crate::page::short;
use crate::train::evaluate::{DraftQuality, SignalQuality};
use crate::train::metrics::{HeldOutMetrics, StepMetrics};

/// What every page must be.
fn check(page: &str) {
    assert_eq!(specexit_testkit::markup_problem(page), None);
    for id in
        ["verdict", "draft-layer", "confidence", "progress", "remaining", "training", "options"]
    {
        assert!(page.contains(&format!("<section id=\"{id}\">")), "{id}");
    }
}

fn steps(count: u64) -> Vec<StepMetrics> {
    let step = |step: u64| {
        let x = 1.0 / step as f64;
        StepMetrics {
            step,
            token_loss: Some(3.0 + 9.0 * x),
            loss_per_depth: vec![1.0 + x, 1.5 + x],
            signal_losses: Some([0.05 + x, 0.02 + x, 0.3 + x]),
            lambda: Some([10.0, 1.0, 0.1]),
            lr: 1e-3,
            probe_lr: 2e-3,
            grad_norm: 4.0 * x,
            probe_grad_norm: 2.0 * x,
            ..StepMetrics::default()
        }
    };
    (1..=count).map(step).collect()
}

/// Predictions that follow the labels with an error, or that are all the same.
fn quality(constant: bool) -> Quality {
    let signals = ["confidence", "progress", "remaining"].map(|name| {
        let remaining = name == "remaining";
        let readings: Vec<Reading> = (0..300)
            .map(|i| {
                let progress = if constant { 0.5 } else { f64::from(i % 100) / 100.0 };
                let truth = if remaining { 100.0 * (1.0 - progress) } else { progress };
                let predicted = if constant { truth } else { 0.9 * truth + 0.03 };
                Reading { predicted, truth, progress, question: (i % 7) as u32 }
            })
            .collect();
        let scale = if remaining { Scale::Log1p } else { Scale::Linear };
        SignalQuality {
            signal: name.to_owned(),
            loss: 0.0123,
            loss_of_mean: if constant { 0.0 } else { 0.0834 },
            mse: 0.0123,
            mae: 0.0777,
            mse_of_mean: 0.0834,
            correlation: 0.91,
            rank_correlation: 0.92,
            labels: 300,
            plots: Some(SignalPlots::of(&readings, scale)),
        }
    });
    let draft = DraftQuality {
        token_loss: 3.21,
        loss_per_depth: vec![1.1, 1.4, 1.9],
        agreement_per_depth: vec![0.8, 0.7, 0.65],
        acceptance_per_depth: vec![0.8, 0.75, 0.72],
        tau_per_chain: vec![1.8, 2.33, 2.71],
        vocabulary_coverage: 0.987,
        positions: 4321,
    };
    Quality { draft, signals: signals.to_vec() }
}

fn report(held_out: Option<Quality>, count: u64) -> TrainReport {
    let measured: Vec<HeldOutMetrics> = held_out
        .iter()
        .flat_map(|q| {
            (1..=count).map(|step| HeldOutMetrics { step, epoch: 0, held_out: q.clone() })
        })
        .collect();
    let mut report = TrainReport {
        format: FORMAT.to_owned(),
        version: VERSION,
        program: "9.9.9".to_owned(),
        model: ModelId { name: "Toy".into(), hash: "aa11".into(), tokenizer_hash: "bb22".into() },
        options: json!({"lr": 0.0015, "heads": null, "init": "target"}),
        data: DataReport {
            labels_hash: "cc33".to_owned(),
            train_sequences: 77,
            train_labels: 54_321,
            held_out_sequences: if held_out.is_some() { 40 } else { 0 },
            label_options: json!({"confidence": "C1"}),
            ..DataReport::default()
        },
        run: RunReport { steps: count, best_draft_step: Some(count), ..RunReport::default() },
        curves: Curves::of(&steps(count), &measured),
        held_out,
        ..TrainReport::default()
    };
    report.verdict = Verdict::of(&Known {
        data: Some(&report.data),
        run: Some(&report.run),
        held_out: report.held_out.as_ref(),
        curves: &report.curves,
    });
    report
}

#[test]
fn the_page_is_whole_and_says_what_the_json_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(REPORT_FILE);
    let written = report(Some(quality(false)), 50);
    written.save(&path).unwrap();
    let report = TrainReport::open(&path).unwrap();
    // Reading may change a last digit, which no reader of the page sees.
    assert_eq!(of_finished(&report, None).unwrap(), of_finished(&written, None).unwrap());
    let summary = write_page(folder.path(), &folder.path().join(PAGE_FILE)).unwrap();
    assert_eq!(summary, PageSummary { finished: true, steps: 50 });
    let page = std::fs::read_to_string(folder.path().join(PAGE_FILE)).unwrap();
    check(&page);
    assert_eq!(page, of_finished(&report, None).unwrap());

    for text in ["Toy", "aa11", "bb22", "cc33", "specexit 9.9.9", "54321 labelled tokens", "0.0015"]
    {
        assert!(page.contains(text), "{text}");
    }
    let quality = report.held_out.unwrap();
    let cell = |text: String| assert!(page.contains(&format!("<td>{text}</td>")), "{text}");
    cell(short(quality.draft.token_loss));
    quality.draft.tau_per_chain.iter().for_each(|tau| cell(format!("{tau:.2}")));
    quality.draft.acceptance_per_depth.iter().for_each(|a| cell(format!("{:.1} %", 100.0 * a)));
    for signal in &quality.signals {
        let plots = signal.plots.as_ref().unwrap();
        for number in [signal.loss, signal.mae, signal.rank_correlation, plots.ece] {
            cell(short(number));
        }
        for bin in &plots.reliability {
            cell(bin.labels.to_string());
            cell(short(bin.predicted));
            cell(short(bin.truth));
        }
        // One rectangle per cell of the heat map that holds a token.
        let name = &signal.signal;
        let figure = page.split(&format!("aria-label=\"{name}: predicted against true\"")).nth(1);
        let figure = figure.unwrap().split("</svg>").next().unwrap();
        let filled = plots.density.iter().flatten().filter(|n| **n > 0).count();
        assert_eq!(figure.matches("<rect").count(), filled, "{name}");
    }
    for sentence in &report.verdict.sentences {
        // The page writes an apostrophe as a reference.
        let page = page.replace("&#39;", "'");
        assert!(page.contains(sentence), "{sentence}");
    }
}

#[test]
fn names_from_files_are_text_and_nothing_else() {
    let evil = "<script>alert(\"1\")</script>&'";
    let mut report = report(Some(quality(false)), 5);
    report.model.name = evil.to_owned();
    report.model.hash = evil.to_owned();
    report.data.labels_hash = evil.to_owned();
    report.program = evil.to_owned();
    report.options = json!({ evil: evil, "list": [evil] });
    report.data.label_options = json!({ "close_text": "</table>" });
    report.verdict.warnings = vec![evil.to_owned()];
    report.verdict.sentences = vec![evil.to_owned()];
    report.curves.train[0].name = evil.to_owned();
    if let Some(quality) = &mut report.held_out {
        quality.signals[1].signal = evil.to_owned();
    }
    let page = of_finished(&report, None).unwrap();
    check(&page);
    assert!(page.contains("script"), "the name is shown");
}

#[test]
fn little_makes_a_page_too() {
    let mut pages = vec![
        of_finished(&report(None, 50), None).unwrap(),
        of_finished(&report(Some(quality(false)), 1), None).unwrap(),
        of_finished(&report(Some(quality(true)), 3), None).unwrap(),
        of_finished(&TrainReport::default(), Some(std::time::Duration::from_secs(7))).unwrap(),
    ];
    // Numbers that a file may hold though no run writes them.
    let mut odd = report(Some(quality(false)), 4);
    odd.curves.train[0].mean = vec![-1e300, 1e300, 0.0];
    odd.curves.train[1].smooth = Vec::new();
    if let Some(quality) = &mut odd.held_out {
        quality.signals.truncate(2);
        quality.signals[0].plots = Some(SignalPlots { top: -1.0, ..SignalPlots::default() });
        quality.signals[1].plots = Some(SignalPlots {
            top: 1e308,
            scale: Scale::Log1p,
            density: vec![vec![], vec![u64::MAX, 0]],
            ..SignalPlots::default()
        });
        quality.draft.tau_per_chain = Vec::new();
        quality.draft.agreement_per_depth = vec![0.1; 500];
    }
    pages.push(of_finished(&odd, None).unwrap());
    for page in &pages {
        check(page);
    }
    assert!(pages[0].contains("Nothing was measured on held-out questions"));
    assert!(pages[2].contains("is the same for all held-out tokens"));
    assert!(pages[3].contains("<dt>Time</dt><dd>7 s to the last checkpoint"));
}

/// Writes what a run that was killed leaves.
fn killed(folder: &Path, lines: &[String], torn: &str) {
    let run = json!({
        "format": "specexit-run", "program": "1.2.3", "labels_hash": "<b>",
        "model": {"hash": "dd44"}, "options": {"lr": 0.5},
    });
    std::fs::write(folder.join("run.json"), run.to_string()).unwrap();
    let header = json!({"format": "specexit-metrics", "version": 1, "run": "r"}).to_string();
    let whole: String = [header].iter().chain(lines).map(|l| format!("{l}\n")).collect();
    std::fs::write(folder.join("metrics.jsonl"), whole + torn).unwrap();
}

#[test]
fn a_killed_run_is_told_by_its_steps_so_far() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("elsewhere.html");
    let mut lines: Vec<String> =
        steps(12).iter().map(|s| serde_json::to_string(s).unwrap()).collect();
    let mut measured = quality(false);
    measured.signals.iter_mut().for_each(|s| s.plots = None);
    let measured = HeldOutMetrics { step: 12, epoch: 0, held_out: measured };
    lines.push(serde_json::to_string(&measured).unwrap());
    killed(folder.path(), &lines, "{\"step\":13,\"epo");
    let summary = write_page(folder.path(), &out).unwrap();
    assert_eq!(summary, PageSummary { finished: false, steps: 12 });
    let page = std::fs::read_to_string(&out).unwrap();
    check(&page);
    for text in
        ["tells of its first 12 steps", "after step 12", "dd44", "Token loss", "2.71", "0.5"]
    {
        assert!(page.contains(text), "{text}");
    }
    assert!(!page.contains("predicted against true"));

    // Killed in its first step, and before its metrics were begun.
    killed(folder.path(), &[], "{\"st");
    assert_eq!(write_page(folder.path(), &out).unwrap().steps, 0);
    check(&std::fs::read_to_string(&out).unwrap());
    std::fs::remove_file(folder.path().join("metrics.jsonl")).unwrap();
    assert_eq!(write_page(folder.path(), &out).unwrap().steps, 0);
    std::fs::remove_file(folder.path().join("run.json")).unwrap();
    let error = write_page(folder.path(), &out).unwrap_err().to_string();
    assert!(error.starts_with("cannot read "), "{error}");
}

#[test]
fn a_report_of_another_version_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(REPORT_FILE);
    std::fs::write(&path, r#"{"format": "specexit-train-report", "version": 1}"#).unwrap();
    let error = write_page(folder.path(), &folder.path().join(PAGE_FILE)).unwrap_err().to_string();
    assert!(
        error.contains("it is version 1 of \"specexit-train-report\", this program"),
        "{error}"
    );
    assert!(error.contains("repeated, makes it anew"), "{error}");
    assert!(!folder.path().join(PAGE_FILE).exists());
}
