//! What `label` is to do.

use specexit_train::{LabelOptions, LabelRules};

use super::Decoding;
use crate::failure::usage;
use crate::low;

/// Traces to label.
pub(crate) struct Label {
    pub(crate) decoding: Decoding,
    pub(crate) options: LabelOptions,
    pub(crate) json: bool,
}

impl Label {
    pub(crate) fn new(args: low::Label) -> anyhow::Result<Self> {
        let (cuts, labels) = (args.cuts, args.labels);
        for (flag, value) in [
            ("--stride", cuts.stride),
            ("--max-cuts", cuts.max_cuts.unwrap_or(1)),
            ("--max-answer-tokens", cuts.max_answer_tokens),
        ] {
            if value == 0 {
                return usage(format!("{flag} is 0; at least one is needed"));
            }
        }
        let rules = LabelRules {
            boundaries: cuts.boundaries.policy().boundaries,
            stride: cuts.stride,
            max_cuts: cuts.max_cuts,
            all_cuts: cuts.all_cuts,
            stable_k: cuts.stable_k,
            max_answer_tokens: cuts.max_answer_tokens,
            close_text: cuts.close_text,
            answer_kind: args.answer_kind,
            only_correct: args.only_correct,
            confidence: labels.confidence_kind.unwrap_or_default(),
            confidence_skip_first: labels.confidence_skip_first,
            progress_norm: labels.progress_norm.unwrap_or_default(),
        };
        let decoding = Decoding::new(&args.model, args.endpoint, args.batch, 0)?;
        let options = LabelOptions {
            traces: args.traces,
            out: args.out,
            limit: args.limit,
            batch: decoding.batch,
            rules,
        };
        Ok(Self { decoding, options, json: args.json })
    }
}
