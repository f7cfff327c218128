//! What `calibrate` is to do.

use std::path::PathBuf;

use specexit_engine::Request;
use specexit_eval::calibrate::Demand;
use specexit_eval::replay::RecordOptions;
use specexit_exit::{Policy, Profile};
use specexit_train::Question;

use super::compare::graded;
use super::{HeadChoice, Judging, ModelChoice, PromptStyle};
use crate::failure::usage;
use crate::low;

/// One calibration.
pub(crate) struct Calibrate {
    pub(crate) model: ModelChoice,
    pub(crate) head: HeadChoice,
    pub(crate) questions: Vec<Question>,
    pub(crate) style: PromptStyle,
    pub(crate) judging: Judging,
    pub(crate) record: RecordOptions,
    /// Boundaries, and all else that is not chosen.
    pub(crate) base: Policy,
    /// From the smallest risk to the largest.
    pub(crate) demands: Vec<Demand>,
    /// Of giving thoughts up, where that is wanted.
    pub(crate) hopeless_risk: Option<f64>,
    /// Random halves to check promises on, instead of making them.
    pub(crate) splits: Option<usize>,
    pub(crate) out: PathBuf,
    pub(crate) json: bool,
}

impl Calibrate {
    pub(crate) fn new(args: low::Calibrate) -> anyhow::Result<Self> {
        let model = ModelChoice::new(&args.model)?;
        let Some(head) = HeadChoice::new(&args.head, &model)? else {
            return usage("a setting is calibrated for a head; name one with --head");
        };
        if !head.has_probe {
            return usage(format!(
                "the head in {} has no signal probe, so there is nothing to calibrate; train the signals",
                head.path().display()
            ));
        }
        let mut risks = args.risk;
        risks.sort_by(f64::total_cmp);
        risks.dedup();
        let given = risks.iter().map(|risk| ("--risk", *risk));
        let given = given.chain(args.hopeless_risk.map(|risk| ("--hopeless-risk", risk)));
        for (flag, value) in given.chain([("--delta", args.delta)]) {
            if !(value > 0.0 && value < 1.0) {
                return usage(format!("{flag} is {value}; it must be above 0 and below 1"));
            }
        }
        if args.batch == 0 || args.max_new_tokens == 0 {
            return usage("--batch and --max-new-tokens must be at least 1");
        }
        if args.splits == Some(0) || args.horizon == Some(0) {
            return usage("--splits and --horizon must be at least 1");
        }
        let demand = |risk| Demand { risk, delta: args.delta, horizon: args.horizon };
        let questions = graded(&args.questions, args.offset, args.limit)?;
        let all = risks.iter().copied().chain(args.hopeless_risk);
        if let Some(least) = all.min_by(f64::total_cmp) {
            let halves = if args.splits.is_some() { 2 } else { 1 };
            let needed = halves * demand(least).questions_needed(1.0);
            if questions.len() < needed {
                anyhow::bail!(
                    "{} questions can never promise a risk of {least} with confidence {}: at least \
                     {needed} are needed, more where some are answered wrong",
                    questions.len(),
                    1.0 - args.delta
                );
            }
        }
        let demands = risks.into_iter().map(demand).collect();
        let base = head.policy.clone().unwrap_or_else(|| Profile::Default.policy());
        let request = Request {
            policy: Some(base.clone()),
            closing_text: args.closing_text,
            ..Request::new(Vec::new(), args.max_new_tokens)
        };
        Ok(Self {
            model,
            head,
            questions,
            style: PromptStyle::chat(args.prompting),
            judging: Judging::new(args.judging),
            record: RecordOptions { request, batch: args.batch },
            base,
            demands,
            hopeless_risk: args.hopeless_risk,
            splits: args.splits,
            out: args.out,
            json: args.json,
        })
    }
}
