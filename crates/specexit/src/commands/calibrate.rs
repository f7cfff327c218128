//! `calibrate`: a setting for the risk that a user accepts.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::json;
use specexit_eval::calibrate::{
    CALIBRATION_FILE, Calibration, Promise, calibrate as choose, check_splits, outcomes, spreads,
};
use specexit_eval::replay::{Point, Table};
use specexit_eval::{named, tasks_hash, today};
use specexit_exit::Hopeless;

use super::compare::{named_head, tasks};
use super::recorded::recorded;
use crate::high::{self, engine};
use crate::output::{print, print_json};

/// Share of the questions that promises are made on when they are checked on the others.
const HALF: f64 = 0.5;

pub(crate) fn calibrate(args: high::Calibrate) -> anyhow::Result<()> {
    let model = args.model.load()?;
    let mut engine = engine(&model, Some(&args.head), args.record.batch)?;
    let tasks = tasks(&model, &engine, &args.style, &args.judging, &args.questions)?;
    let head = named_head(&args.head)?;

    let table = recorded(&mut engine, &model, &head, &tasks, &args.record, &args.out)?;
    if let Some(splits) = args.splits {
        return check(&args, &table, splits);
    }
    let found = choose(&table, &args.base, &args.risks, args.hopeless_risk, args.delta)?;

    let full = table.recordings().map(|r| r.thinking_tokens as f64);
    let mut calibration = Calibration::new(named(&model), head, today(), tasks_hash(&tasks));
    calibration.questions = tasks.len();
    calibration.right = table.recordings().filter(|r| r.correct).count();
    calibration.full_thinking_tokens = full.sum::<f64>() / tasks.len() as f64;
    calibration.delta = args.delta;
    calibration.promises = found.promises;
    calibration.spreads = spreads(&table.signals_at_cuts());
    calibration.save(&args.out.join(CALIBRATION_FILE))?;
    if let Some(folder) = args.head.saved_in() {
        calibration.save(&folder.join(CALIBRATION_FILE))?;
    }
    if args.json {
        return print_json(&Printed { calibration, points: found.points });
    }
    Ok(print(&describe(&calibration))?)
}

/// The document of `--json`.
#[derive(Serialize)]
struct Printed {
    calibration: Calibration,
    points: Vec<Point>,
}

/// Calibrates on random halves and tells how the others did.
fn check(args: &high::Calibrate, table: &Table, splits: usize) -> anyhow::Result<()> {
    let (_, outcomes) = outcomes(table, &args.base)?;
    let of = |&risk| check_splits(&outcomes, risk, args.delta, splits, HALF, 0);
    let kept = args.risks.iter().map(of).collect::<Result<Vec<_>, _>>()?;
    if args.json {
        return print_json(&json!({"delta": args.delta, "splits": kept}));
    }
    let mut text = String::new();
    for k in &kept {
        let _ = writeln!(
            text,
            "risk {} %: broken in {} of {} splits ({:.1} %, allowed {} %), the other half lost more in \
             {:.1} %; on average it loses {:.2} % and {:.1} % of the thinking is left; no early exit in {} \
             splits",
            100.0 * k.risk,
            k.broken.count,
            k.broken.of,
            100.0 * k.broken.rate,
            100.0 * args.delta,
            100.0 * k.others_lost_more.rate,
            100.0 * k.lost,
            100.0 * k.thinking_share,
            k.none
        );
    }
    Ok(print(&text)?)
}

/// The promises as sentences.
fn describe(calibration: &Calibration) -> String {
    let c = calibration;
    let mut text = format!(
        "{} questions, {} answered right after {:.1} thinking tokens on average\n",
        c.questions, c.right, c.full_thinking_tokens
    );
    for Promise { risk, policy, lost, of, bound, thinking_share, hopeless, .. } in &c.promises {
        let (risk, share) = (100.0 * risk, 100.0 * thinking_share);
        let _ = match policy {
            Some(policy) => writeln!(
                text,
                "risk {risk} %: {share:.1} % of the thinking is left with thresholds {} and smoothing {}; \
                 {lost} of {of} answers lost, at most {:.2} % with confidence {} %",
                policy.thresholds,
                policy.smoothing,
                100.0 * bound,
                100.0 * (1.0 - c.delta)
            ),
            None => writeln!(
                text,
                "risk {risk} %: no early exit could be shown to be that safe; thoughts are not cut"
            ),
        };
        let Some(given_up) = hopeless else { continue };
        let rule = policy.as_ref().and_then(|policy| policy.hopeless);
        let _ = match rule {
            Some(Hopeless { after, progress }) => writeln!(
                text,
                "  given up after {after} thinking tokens below progress {progress}: {} of {} answers lost, \
                 at most {:.2} %",
                given_up.lost,
                given_up.of,
                100.0 * given_up.bound
            ),
            None => writeln!(text, "  no rule for giving up could be shown to be that safe"),
        };
    }
    text
}
