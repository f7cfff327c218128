//! `calibrate`: a setting for the risk that a user accepts.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::json;
use specexit_eval::calibrate::{
    CALIBRATION_FILE, Calibration, Demand, Promise, calibrate as choose, check_splits, outcomes,
    spreads,
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
    let found = choose(&table, &args.base, &args.demands, args.hopeless_risk)?;

    let full = table.recordings().map(|r| r.thinking_tokens as f64);
    let mut calibration = Calibration::new(named(&model), head, today(), tasks_hash(&tasks));
    calibration.arithmetic = model.target.kernels().arithmetic();
    calibration.questions = tasks.len();
    calibration.right = table.recordings().filter(|r| r.correct).count();
    calibration.full_thinking_tokens = full.sum::<f64>() / tasks.len() as f64;
    if let Some(demand) = args.demands.first() {
        (calibration.delta, calibration.horizon) = (demand.delta, demand.horizon);
    }
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
    let others = outcomes.questions() - (outcomes.questions() as f64 * HALF) as usize;
    let demands = args.demands.iter();
    let both = demands.flat_map(|&d| [d, Demand { horizon: Some(others), ..d }]);
    let of = |demand| check_splits(&outcomes, demand, splits, HALF, 0);
    let kept = both.map(of).collect::<Result<Vec<_>, _>>()?;
    let delta = args.demands.first().map_or(0.0, |demand| demand.delta);
    if args.json {
        return print_json(&json!({"delta": delta, "splits": kept}));
    }
    let mut text = String::new();
    for k in &kept {
        let (about, broken) = match k.horizon {
            None => (String::new(), k.broken),
            Some(next) => (format!(" of the other {next}"), k.others_lost_more),
        };
        let _ = writeln!(
            text,
            "risk {} %{about}: broken in {} of {} splits ({:.1} %, allowed {} %); on average the other half \
             loses {:.2} % and {:.1} % of its thinking is left; no early exit in {} splits",
            100.0 * k.risk,
            broken.count,
            broken.of,
            100.0 * broken.rate,
            100.0 * delta,
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
    let about = c.horizon.map_or(String::new(), |next| format!(" of the next {next} questions"));
    for Promise { risk, policy, lost, of, bound, thinking_share, hopeless, .. } in &c.promises {
        let (risk, share) = (100.0 * risk, 100.0 * thinking_share);
        let _ = match policy {
            Some(policy) => writeln!(
                text,
                "risk {risk} %{about}: {share:.1} % of the thinking is left with thresholds {} and smoothing {}; \
                 {lost} of {of} answers lost, at most {:.2} % with confidence {} %",
                policy.thresholds,
                policy.smoothing,
                100.0 * bound,
                100.0 * (1.0 - c.delta)
            ),
            None => writeln!(
                text,
                "risk {risk} %{about}: no early exit could be shown to be that safe; thoughts are not cut"
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
