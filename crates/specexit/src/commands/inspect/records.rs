//! What is in a JSONL file: traces, labels, a comparison, or questions.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::{Value, json};
use specexit_answer::{AnswerKind, matches_gold};
use specexit_eval::{mean, median, quantile, read_records, summarise};
use specexit_train::{LabelFile, LabelRecord, Trace, TraceFile, read_questions};

pub(super) fn describe(path: &Path) -> anyhow::Result<Value> {
    match format_of(path)?.as_deref() {
        Some("specexit-traces") => traces(path),
        Some("specexit-labels") => labels(path),
        Some(specexit_eval::RECORDS_FORMAT) => comparison(path),
        Some(other) => anyhow::bail!("{} holds {other}, which inspect cannot read", path.display()),
        None => questions(path),
    }
}

/// The `format` of the first line, if it has one.
fn format_of(path: &Path) -> anyhow::Result<Option<String>> {
    let unreadable = |e| anyhow::anyhow!("cannot read {}: {e}", path.display());
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut first = String::new();
    BufReader::new(file).read_line(&mut first).map_err(unreadable)?;
    let header: Value = serde_json::from_str(&first).unwrap_or_default();
    Ok(header.get("format").and_then(Value::as_str).map(str::to_owned))
}

fn traces(path: &Path) -> anyhow::Result<Value> {
    let file = TraceFile::open(path)?;
    let header = serde_json::to_value(&file.header)?;
    let traces = file.collect::<Result<Vec<Trace>, _>>()?;
    let questions: std::collections::BTreeSet<&str> =
        traces.iter().map(|t| t.id.as_str()).collect();
    let graded = traces.iter().filter_map(|t| {
        Some(matches_gold(&t.answer, t.gold.as_deref()?, AnswerKind::Auto) == Some(true))
    });
    let graded: Vec<bool> = graded.collect();
    Ok(json!({
        "kind": "traces",
        "traces": traces.len(),
        "questions": questions.len(),
        "closed": traces.iter().filter(|t| t.close.is_some()).count(),
        "forced_close": traces.iter().filter(|t| t.forced_close).count(),
        "waits": traces.iter().map(|t| t.waits.len()).sum::<usize>(),
        "with_known_answer": graded.len(),
        "right": graded.iter().filter(|right| **right).count(),
        "prompt_tokens": spread(traces.iter().map(|t| t.prompt_ids.len())),
        "thinking_tokens": spread(traces.iter().map(|t| t.thought_ids().len())),
        "total_tokens": spread(traces.iter().map(|t| t.token_ids.len())),
        "header": header,
    }))
}

fn labels(path: &Path) -> anyhow::Result<Value> {
    let file = LabelFile::open(path)?;
    let header = serde_json::to_value(&file.header)?;
    let records = file.collect::<Result<Vec<LabelRecord>, _>>()?;
    let mut dropped: BTreeMap<String, usize> = BTreeMap::new();
    for reason in records.iter().filter_map(|r| r.dropped) {
        let reason = serde_json::to_value(reason)?;
        *dropped.entry(reason.as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    let used: Vec<&LabelRecord> = records.iter().filter(|r| r.dropped.is_none()).collect();
    let shares: Vec<f64> = used.iter().map(|r| r.kept as f64 / r.full.max(1) as f64).collect();
    Ok(json!({
        "kind": "labels",
        "records": records.len(),
        "labelled": used.len(),
        "dropped": (!dropped.is_empty()).then_some(dropped),
        "sufficient_cut_found": used.iter().filter(|r| r.sufficient).count(),
        "answers_right": used.iter().filter(|r| r.correct == Some(true)).count(),
        "labelled_tokens": used.iter().map(|r| r.kept).sum::<usize>(),
        "cuts_tried": spread(used.iter().map(|r| r.cuts.len())),
        "thinking_tokens": spread(used.iter().map(|r| r.full)),
        "kept_tokens": spread(used.iter().map(|r| r.kept)),
        "mean_kept_share": (!shares.is_empty()).then(|| mean(&shares)),
        "header": header,
    }))
}

fn comparison(path: &Path) -> anyhow::Result<Value> {
    let (header, records) = read_records(path)?;
    let mut methods: Vec<&str> = Vec::new();
    for record in &records {
        if !methods.contains(&record.method.as_str()) {
            methods.push(&record.method);
        }
    }
    let summaries = summarise(&methods, &records);
    let summaries: serde_json::Map<String, Value> = methods
        .iter()
        .zip(&summaries)
        .map(|(method, summary)| Ok(((*method).to_owned(), serde_json::to_value(summary)?)))
        .collect::<serde_json::Result<_>>()?;
    Ok(json!({
        "kind": "comparison",
        "answers": records.len(),
        "methods": summaries,
        "header": header,
    }))
}

fn questions(path: &Path) -> anyhow::Result<Value> {
    let questions = read_questions(path)?;
    Ok(json!({
        "kind": "questions",
        "questions": questions.len(),
        "with_answer": questions.iter().filter(|q| q.gold.is_some()).count(),
        "characters": spread(questions.iter().map(|q| q.question.chars().count())),
    }))
}

/// A few statistics of a set of counts; absent where there are none.
fn spread(counts: impl Iterator<Item = usize>) -> Option<Value> {
    let counts: Vec<f64> = counts.map(|count| count as f64).collect();
    (!counts.is_empty()).then(|| {
        json!({
            "sum": counts.iter().sum::<f64>(),
            "mean": mean(&counts),
            "median": median(&counts),
            "p95": quantile(&counts, 0.95),
            "max": quantile(&counts, 1.0),
        })
    })
}
